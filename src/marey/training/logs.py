"""The log of a run: log.jsonl, TensorBoard files, and a progress bar with rate, time left and time
spent waiting."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich import progress as rich_progress
from rich.console import Console

from marey.errors import UserError, import_extra
from marey.files import write_text

WAITING_LIMIT = 0.10
"""Share of the time spent waiting for data above which the user is told."""


class Progress(Protocol):
    """What a progress display does: show a message, show a step, close."""

    def say(self, message: str) -> None: ...

    def step(self, step: int, total: int, text: str) -> None: ...

    def close(self) -> None: ...


class Quiet:
    """Shows nothing."""

    def say(self, message: str) -> None:
        """Drop a message."""

    def step(self, step: int, total: int, text: str) -> None:
        """Drop a step."""

    def close(self) -> None:
        """Do nothing."""


class Bar:
    """A rich progress bar on standard error; plain lines where standard error is not a terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        text = rich_progress.TextColumn
        self.bar = rich_progress.Progress(
            text("{task.description}"),
            rich_progress.BarColumn(bar_width=24),
            text("{task.fields[steps]}"),
            rich_progress.TimeElapsedColumn(),
            text("left"),
            rich_progress.TimeRemainingColumn(),
            text("{task.fields[text]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.row = self.bar.add_task("train", total=None, text="", steps="reading the videos")
        self.bar.start()

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        self.console.print(message, highlight=False, markup=False, soft_wrap=True)

    def step(self, step: int, total: int, text: str) -> None:
        """Show that `step` of `total` steps are done."""
        self.bar.update(
            self.row, completed=step, total=total, text=text, steps=f"{step}/{total} steps"
        )

    def close(self) -> None:
        """Remove the bar."""
        self.bar.stop()


class Meter:
    """Clips per second and the share of time spent waiting for data, since the start."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.waiting_seconds = 0.0
        self.outside_seconds = 0.0
        self.clips = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        start = time.perf_counter()
        yield
        self.waiting_seconds += time.perf_counter() - start

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Leave the time inside (evaluation, saving) out of the rates."""
        start = time.perf_counter()
        yield
        self.outside_seconds += time.perf_counter() - start

    @property
    def seconds(self) -> float:
        """Time spent training."""
        return max(1e-9, time.perf_counter() - self.started - self.outside_seconds)

    @property
    def clips_per_second(self) -> float:
        """Clips of all processes per second of training."""
        return self.clips / self.seconds

    @property
    def waiting_share(self) -> float:
        """Share of the training time spent waiting for data, 0..1."""
        return self.waiting_seconds / self.seconds

    def warning(self, workers: int) -> str | None:
        """Return what to tell the user when data is the bottleneck, else None."""
        if self.waiting_share <= WAITING_LIMIT or self.waiting_seconds < 5:
            return None
        spare = max(1, (os.cpu_count() or 1) - 1)
        remedy = f"set train.workers={spare}, or " if workers < spare else ""
        return (
            f"{self.waiting_share:.0%} of the time went into waiting for videos to decode; {remedy}"
            "pack the videos small with 'marey data pack'"
        )


class RunLog:
    """Appends one JSON line per event, and scalars to TensorBoard where it is installed; the main
    process only."""

    def __init__(self, folder: Path, *, tensorboard: bool, first_step: int = 0) -> None:
        self.path = folder / "log.jsonl"
        self._drop_after(first_step)
        self.stream = self.path.open("a", encoding="utf-8")
        self.board = _summary_writer(folder / "tensorboard", first_step) if tensorboard else None

    def _drop_after(self, first_step: int) -> None:
        """Remove the lines of steps that a resumed run will repeat."""
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _step_of(line) <= first_step]
            write_text(self.path, "".join(line + "\n" for line in kept))

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Write one event: `kind` is "train", "eval" or "end"."""
        self.stream.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self.stream.flush()
        if self.board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    self.board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Close the files."""
        self.stream.close()
        if self.board is not None:
            self.board.close()


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return sys.maxsize


def _summary_writer(folder: Path, first_step: int) -> Any:
    try:
        tensorboard = import_extra("torch.utils.tensorboard", "train", "TensorBoard files")
    except (UserError, ImportError):  # torch has the module, but not what it is written with
        return None
    return tensorboard.SummaryWriter(str(folder), purge_step=first_step or None)
