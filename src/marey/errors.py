"""Errors that a user can fix, each one line: what was expected, what was given, what to do."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from types import ModuleType


class UserError(ValueError):
    """A mistake that the user can fix; the command line prints it as one line and exits with status
    2."""


class VideoError(UserError):
    """A video that cannot be read; the message starts with its path. In a batch it is counted and
    named."""


class PixelLimitError(VideoError):
    """A video whose frames have more pixels than `max_pixels`."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Build the error for a name that is not in a list, with the nearest known name as the
    remedy."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
    return UserError(f"unknown {kind} '{name}'{hint} (known: {', '.join(names)})")


@contextmanager
def killed_workers(remedy: str) -> Iterator[None]:
    """Say in one line that a worker process of the block was ended by force.

    Args:
        remedy: what the user can do.

    Raises:
        UserError: in place of `concurrent.futures.BrokenExecutor`.
    """
    try:
        yield
    except BrokenExecutor as error:
        raise UserError(
            f"a worker process was killed, most often because memory ran out; {remedy}"
        ) from error


def import_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a module that comes with an optional extra, or say which extra brings it.

    Raises:
        UserError: if the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise UserError(
            f"{purpose} needs '{module}', which is not installed; "
            f"install it with: pip install 'marey[{extra}]'"
        ) from error
