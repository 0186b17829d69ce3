"""Output of the commands: one JSON document on stdout, everything else on stderr."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, TypeVar

from marey.files import finite

Item = TypeVar("Item")


CONTROLS = (
    *range(9),
    *range(11, 32),
    *range(127, 160),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
)
"""Characters that move the cursor, colour or reorder text in a terminal; not tab and line break."""
ESCAPED = {code: f"\\u{code:04x}" for code in CONTROLS}


def harmless(text: str) -> str:
    """Return a text whose control characters are written out, as JSON writes them.

    Names of files, classes and models come from strangers; a terminal would obey what is in them.

    >>> harmless("a\x1b[2Jb")
    'a\\\\u001b[2Jb'
    """
    return text.translate(ESCAPED)


class HarmlessText(io.TextIOBase):
    """A text stream before another one, that writes control characters out.

    Args:
        stream: where the text goes.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text, made harmless, and return its length."""
        self.stream.write(harmless(text))
        return len(text)

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def flush(self) -> None:
        """Send on what is held back."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Return no, so that nothing sends colours through it, which would be written out."""
        return False

    def fileno(self) -> int:
        """Return the number of the file below."""
        return int(self.stream.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream below."""
        return str(self.stream.encoding)

    @property
    def buffer(self) -> Any:
        """The bytes below."""
        return self.stream.buffer


def print_json(document: Any) -> None:
    """Print one JSON document on standard output; NaN and infinity become null, as JSON has
    neither."""
    json.dump(finite(document), sys.stdout, ensure_ascii=False, indent=1)
    sys.stdout.write("\n")


def say(text: str) -> None:
    """Print a line for the person at the terminal on standard error."""
    print(harmless(text), file=sys.stderr, flush=True)


def counted(number: int, noun: str) -> str:
    """Return "1 frame", "2 frames", "3 classes", "2 entries": a number with its noun."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{number} {noun[:-1]}ies"
    return f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def progress(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """Pass items on, with a progress bar on standard error where a person is watching it."""
    if not sys.stderr.isatty():
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bars() as tick:
        tick(label, 0, total)
        for done, item in enumerate(items, 1):
            yield item
            tick(label, done, total)


Tick = Callable[[str, int, int | None], None]
"""Called with (what is being done, items done, items in all)."""


@contextmanager
def bars() -> Iterator[Tick]:
    """Show one bar for each thing that is done, with its rate and remaining time, on standard error
    where a person is watching it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Any:
            return "" if not task.speed else f"{task.speed:.2g}/s"

    shown = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        Rate(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    rows: dict[str, Any] = {}

    def tick(what: str, done: int, total: int | None) -> None:
        if what not in rows:
            rows[what] = shown.add_task(what, total=total)
        shown.update(rows[what], completed=done)

    with shown:
        yield tick
