"""`python -m marey` is the `marey` command, so that launchers such as `accelerate launch -m marey`
can start it."""

from marey.cli import main

if __name__ == "__main__":
    main()
