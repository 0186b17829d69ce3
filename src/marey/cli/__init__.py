"""The `marey` command: thin shells that parse, call one function of the package, and print.

Each command module defines functions and imports its work inside them, so `marey --help` needs no
torch. Standard output carries the answer (one JSON document with `--json`); everything else goes to
standard error.
"""

from __future__ import annotations

import sys

import typer

from marey.cli import (
    about,
    convert,
    data,
    detect,
    explain,
    features,
    order,
    pose,
    predict,
    reproduce,
    robustness,
    serve,
    teach,
    train,
    trust,
    watch,
)
from marey.errors import UserError

COMMAND_MODULES = (
    predict,
    watch,
    teach,
    train,
    data,
    order,
    detect,
    pose,
    robustness,
    trust,
    explain,
    features,
    reproduce,
    convert,
    serve,
    about,
)
"""In the order of the help; each defines `register(app)`, which adds its commands to the app."""


def build_app() -> typer.Typer:
    """Assemble the commands of every module into one app."""
    app = typer.Typer(
        name="marey",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Recognise human actions in video, and know how far to trust the answer.",
    )
    for module in COMMAND_MODULES:
        module.register(app)
    return app


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 2."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit status: 0, 1 (some files failed), 2 (a mistake), 130
    (interrupted)."""
    try:
        return build_app()(args=arguments, prog_name="marey", standalone_mode=False) or 0
    except UserError as error:
        return _complain(str(error), 2)
    except (
        FileNotFoundError,
        NotADirectoryError,
        IsADirectoryError,
        PermissionError,
        FileExistsError,
    ) as error:
        return _complain(f"{error.filename}: {error.strerror}", 2)
    except BrokenPipeError:
        return 1
    except OSError as error:
        return _complain(
            f"{error.filename or 'writing'}: {error.strerror or error}; free some space or choose "
            "another --out",
            1,
        )
    except KeyboardInterrupt:
        return _complain("interrupted; long commands go on where they stopped when run again", 130)
    except Exception as error:
        if not hasattr(
            error, "format_message"
        ):  # Typer's own usage errors know how to say themselves in a line
            raise
        return _complain(error.format_message().replace("\n", " "), 2)


def _complain(message: str, status: int) -> int:
    if message:  # `marey` alone has already printed its help
        print(f"marey: {message}", file=sys.stderr)
    return status
