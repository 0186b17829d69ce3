"""The `marey` command: thin shells that parse, call one function of the package, and print.

Each command module defines functions and imports its work inside them, so `marey --help` needs no torch.
Standard output carries the answer (one JSON document with `--json`); everything else goes to standard error.
"""

from __future__ import annotations

import importlib
import sys

import typer

COMMAND_MODULES = ("predict", "train", "data", "order", "detect", "robustness", "explain", "features", "reproduce",
                   "convert", "serve", "about")
"""Each module of this package defines `register(app)`, which adds its commands to the app."""


def build_app() -> typer.Typer:
    """Assemble the commands of every module into one app."""
    app = typer.Typer(name="marey", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                      help="Recognise human actions in video, and know how far to trust the answer.")
    for name in COMMAND_MODULES:
        importlib.import_module(f"marey.cli.{name}").register(app)
    return app


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 2."""
    from marey.errors import UserError

    try:
        build_app()()
    except UserError as error:
        print(f"marey: {error}", file=sys.stderr)
        sys.exit(2)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError, FileExistsError) as error:
        print(f"marey: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"marey: {error.filename or 'input or output'}: {error.strerror or error}; "
              "free some space or choose another --out", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("marey: interrupted; long commands go on where they stopped when run again", file=sys.stderr)
        sys.exit(130)
