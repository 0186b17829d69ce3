"""The queue: order, places, cancelling, and what is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from marey.web.jobs import CANCELLED, DONE, QUEUED, RUNNING, Job, JobQueue, QueueFullError
from marey.web.limits import Limits
from marey.web.worker_process import Stopped, WorkerProcess


class Slow(WorkerProcess):
    """Works until it is let go, or stopped."""

    go = threading.Event()

    def start(self) -> None:
        pass

    def run(
        self,
        request: dict[str, Any],
        *,
        seconds: float,
        stop: threading.Event,
        tell: Callable[[dict[str, Any]], None],
    ) -> dict[str, Any]:
        tell({"part": {"begun": request["number"]}})
        tell({"progress": {"stage": "working"}})
        while not self.go.wait(0.01):
            if stop.is_set():
                raise Stopped(499, "cancelled")
        return {"number": request["number"]}


@pytest.fixture
def patience_seconds() -> float:
    """How long a page that does not ask counts as there: no test but its own meets the end."""
    return 600.0


@pytest.fixture
def queue(patience_seconds: float) -> Iterator[JobQueue]:
    Slow.go.clear()
    limits = Limits(
        concurrent=1,
        max_waiting=2,
        absent_seconds=patience_seconds,
        keep_seconds=patience_seconds,
    )
    queue = JobQueue(limits, worker=Slow)
    yield queue
    queue.close()


@pytest.fixture
def submit(queue: JobQueue, tmp_path: Path) -> Callable[..., Job]:
    numbers = iter(range(100))

    def add(*, watched: bool = False) -> Job:
        number = next(numbers)
        folder = tmp_path / str(number)
        folder.mkdir()
        upload = folder / "upload.mp4"
        upload.write_bytes(b"x")
        (folder / "frame.jpg").write_bytes(b"x")
        request = {"number": number, "upload": str(upload)}
        return queue.submit(request, folder, seconds=9, watched=watched)

    return add


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_jobs_are_done_in_order_and_places_are_known(queue: JobQueue, submit) -> None:
    first = submit(watched=True)
    until(lambda: first.parts == [{"begun": 0}])
    second, third = submit(watched=True), submit(watched=True)
    assert [queue.position(job) for job in (first, second, third)] == [0, 1, 2]
    with pytest.raises(QueueFullError):
        submit()
    assert queue.is_full
    Slow.go.set()
    until(lambda: third.finished.is_set())
    assert [job.result for job in (first, second, third)] == [{"number": n} for n in range(3)]
    assert not (first.folder / "upload.mp4").exists(), "the upload goes when the answer is out"
    assert (first.folder / "frame.jpg").exists()


def test_an_unwatched_job_leaves_nothing(queue: JobQueue, submit) -> None:
    job = submit()
    Slow.go.set()
    assert job.finished.wait(60)
    assert not job.folder.exists()
    assert queue.get(job.id) is None


def test_a_cancelled_job_frees_its_place_before_its_work_is_done(queue: JobQueue, submit) -> None:
    running = submit(watched=True)
    until(lambda: running.state == RUNNING)
    waiting, last = submit(watched=True), submit(watched=True)
    queue.forget(waiting)
    assert waiting.state == CANCELLED
    assert queue.position(last) == 1
    queue.forget(running)
    until(lambda: last.state == RUNNING)
    until(lambda: not running.folder.exists())
    assert not waiting.folder.exists()


@pytest.mark.parametrize("patience_seconds", [2.0])
def test_work_for_a_page_that_has_left_is_stopped_and_its_files_go(queue: JobQueue, submit) -> None:
    left = submit(watched=True)
    until(lambda: left.state == CANCELLED)  # nobody has asked for 2 s
    until(lambda: not left.folder.exists())
    Slow.go.set()
    done = submit(watched=True)
    until(lambda: done.state == DONE)
    assert done.folder.exists()
    until(lambda: not done.folder.exists())  # nor for 2 s after its end


def test_closing_ends_everything(queue: JobQueue, submit) -> None:
    running, waiting = submit(watched=True), submit(watched=True)
    until(lambda: running.state == RUNNING)
    assert waiting.state == QUEUED
    queue.close()
    until(lambda: not running.folder.exists() and not waiting.folder.exists())
    with pytest.raises(QueueFullError):
        submit()
