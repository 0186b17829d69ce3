"""The `marey` command: thin shells that parse, call one function of the package, and print.

Each command module defines functions and imports its work inside them, so `marey --help` needs no
torch. Standard output carries the answer (one JSON document with `--json`); everything else goes to
standard error.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
from contextlib import nullcontext, redirect_stdout
from typing import Annotated

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
from marey.cli.output import HarmlessText, say
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


HELP = "Recognise human actions in video, and know how far to trust the answer."
LONGEST = 1000
"""Characters of an error that are printed."""
INTERRUPTED = 130
"""Exit status after Ctrl-C."""
KEPT = {
    "evaluate": "the videos that were answered are kept",
    "robustness": "the videos that were measured are kept",
    "teach": "the features that were computed are kept",
    "crossval": "the features that were computed are kept",
    "features": "the features that were computed are kept",
    "corrupt": "the copies that were written are kept",
    "data render mocap": "the parts that were rendered are kept",
    "data render poses": "the scenes that were filmed are kept",
    "data pack": "the copies that were written are kept",
    "reproduce": "the cells that were finished are kept",
    "trust": "the answers are kept",
}
"""Command -> what it keeps of its work when it is stopped."""
ANSWERS_MANY = ("predict", "detect", "pose")
"""Commands that keep the answers where they are asked about several videos."""


def build_app() -> typer.Typer:
    """Assemble the commands of every module into one app."""
    app = typer.Typer(
        name="marey",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help=HELP,
    )
    app.callback(invoke_without_command=True, help=HELP)(_options_of_all)
    for module in COMMAND_MODULES:
        module.register(app)
    return app


def _options_of_all(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    if version:
        from marey import __version__

        print(f"marey {__version__}")
        raise typer.Exit()


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 2."""
    for stream in (sys.stdout, sys.stderr):  # names of files may be no UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit status: 0, 1 (some files failed), 2 (a mistake), 130
    (interrupted)."""
    is_help = not arguments or "--help" in arguments  # which Typer colours
    plain = nullcontext() if is_help else redirect_stdout(HarmlessText(sys.stdout))
    try:
        with plain:
            status = build_app()(args=arguments, prog_name="marey", standalone_mode=False) or 0
        if status == INTERRUPTED:  # Typer turns Ctrl-C into this status without a word
            return _complain(what_is_kept(arguments), INTERRUPTED)
        return status
    except UserError as error:
        return _complain(str(error), 2)
    except (
        FileNotFoundError,
        NotADirectoryError,
        IsADirectoryError,
        PermissionError,
        FileExistsError,
    ) as error:
        return _complain(f"{_named(error)}: {error.strerror}; {_remedy(error)}", 2)
    except BrokenPipeError:
        return 1
    except OSError as error:
        return _complain(
            f"{_named(error) or 'writing'}: {error.strerror or error}; free some space or choose "
            "another --out",
            1,
        )
    except KeyboardInterrupt:
        return _complain(what_is_kept(arguments), INTERRUPTED)
    except Exception as error:
        if not hasattr(
            error, "format_message"
        ):  # Typer's own usage errors know how to say themselves in a line
            raise
        return _complain(error.format_message().replace("\n", " "), 2)


def what_is_kept(arguments: list[str]) -> str:
    """Return the line after Ctrl-C: what of the work is kept, and the command that goes on."""
    command = arguments[0] if arguments else ""
    again = shlex.join(["marey", *arguments])
    if command == "train":
        again += "" if "--resume" in arguments else " --resume"
        return f"interrupted; the run is kept up to its last saved step; go on with: {again}"
    kept = next(
        (KEPT[words] for n in (3, 2, 1) if (words := " ".join(arguments[:n])) in KEPT), None
    )
    if command in ANSWERS_MANY and _names_many_videos(arguments[1:]):
        kept = "the videos that were answered are kept"
    if kept is None:
        return "interrupted; nothing was left half-written"
    return f"interrupted; {kept}; go on with: {again}"


def _names_many_videos(arguments: list[str]) -> bool:
    """Return whether a command line names a folder or several files."""
    return sum(1 + os.path.isdir(word) for word in arguments if os.path.exists(word)) > 1


def _named(error: OSError) -> str:
    """Return the path of an error; of a temporary file, the folder it was for."""
    name = os.fsdecode(error.filename) if error.filename is not None else ""
    return os.path.dirname(name) if ".partial" in os.path.basename(name) else name


def _remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "check that you may read it, or write there, or choose another place"
    if isinstance(error, FileNotFoundError):
        return "check the name"
    if isinstance(error, FileExistsError):
        return "choose another name, or move it away"
    return "a folder was expected where a file is, or the other way round"


def _complain(message: str, status: int) -> int:
    if message:  # `marey` alone has already printed its help
        if len(message) > LONGEST:  # a damaged file may be quoted whole
            message = f"{message[: LONGEST - 200]} ... {message[-200:]}"
        say(f"marey: {message}")
    return status
