"""The queue of the server: requests wait their turn, are worked on in processes that can be ended,
and leave nothing behind.

Threads and not coroutines carry it, so that it does not depend on an event loop: one thread per
worker process, and one that clears away what nobody asks for any more.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marey.web.limits import Limits
from marey.web.worker_process import Stopped, WorkerProcess

SWEEP_SECONDS = 1.0
"""Between two looks for what nobody asks for any more."""

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"


class QueueFullError(Exception):
    """More requests wait than the server takes."""


@dataclass(eq=False)
class Job:
    """One piece of work: a request, its folder, and what has come of it."""

    request: dict[str, Any]
    """What the worker process is given, JSON types."""
    folder: Path
    """Holds the upload while it is needed, and the pictures of the answer."""
    seconds: float
    """Longest work."""
    watched: bool
    """Whether a page asks for it; then it is stopped when the page stops asking."""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    state: str = QUEUED
    progress: dict[str, Any] = field(default_factory=dict)
    parts: list[dict[str, Any]] = field(default_factory=list)
    """Parts of the answer that are ready, in the order they came."""
    result: dict[str, Any] | None = None
    status: int = 200
    """Status of HTTP that fits the outcome."""
    error: str = ""
    finished: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)
    seen: float = field(default_factory=time.monotonic)
    """When its page last asked."""

    def touch(self) -> None:
        """Note that somebody still wants it."""
        self.seen = time.monotonic()


class JobQueue:
    """Jobs in the order they came, and the processes that work on them.

    Args:
        limits: of the server.
        workers: processes at once; None takes `limits.concurrent`.
        nice: how far the processes step back behind others, 0 to 19.
        keep: whether an idle process waits for the next job; else it ends, and its memory is free.
        worker: what works on a job.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        workers: int | None = None,
        nice: int = 0,
        keep: bool = True,
        worker: type[WorkerProcess] = WorkerProcess,
    ) -> None:
        self.limits = limits
        self.count = limits.concurrent if workers is None else workers
        self.nice, self.keep, self.worker = nice, keep, worker
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False
        self.workers: list[WorkerProcess] = []

    # ---- for the API ----

    def submit(
        self, request: dict[str, Any], folder: Path, *, seconds: float, watched: bool
    ) -> Job:
        """Add a job at the end of the queue.

        Raises:
            QueueFullError: if too many wait; the caller keeps the folder.
        """
        job = Job(request=request, folder=folder, seconds=seconds, watched=watched)
        with self._changed:
            if len(self._waiting) >= self.limits.max_waiting or self._closed:
                raise QueueFullError
            self._jobs[job.id] = job
            self._waiting.append(job)
            self._grow()
            self._changed.notify_all()
        return job

    @property
    def is_full(self) -> bool:
        """Whether one more would be refused."""
        return len(self._waiting) >= self.limits.max_waiting

    def get(self, job_id: str) -> Job | None:
        """Return a job by its id; None where there is none, or no more."""
        return self._jobs.get(job_id)

    def position(self, job: Job) -> int:
        """Return how many jobs are before a waiting one, itself included; 0 if it does not wait."""
        with self._changed:
            return self._waiting.index(job) + 1 if job in self._waiting else 0

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or end the work on it; its place is free at once."""
        job.stop.set()
        with self._changed, contextlib.suppress(ValueError):
            self._waiting.remove(job)
            self._end(job, CANCELLED, 499, "cancelled")

    def forget(self, job: Job) -> None:
        """Cancel a job and delete everything that belongs to it."""
        self.cancel(job)
        self._jobs.pop(job.id, None)
        if job.state != RUNNING:  # else its thread deletes the folder
            shutil.rmtree(job.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the first process, so that the first request need not wait for it."""
        with self._changed:
            self._grow()

    def close(self) -> None:
        """End all work and all processes, and delete all files."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for job in list(self._jobs.values()):
            self.forget(job)
        for thread in self._threads:
            thread.join(10)

    # ---- threads ----

    def _grow(self) -> None:
        """Start one more worker if all are busy; the lock is held."""
        if not self._threads:
            self._spawn(self._sweep)
        if self._idle == 0 and len(self._threads) <= self.count:
            self._spawn(self._work)

    def _spawn(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True, name=f"marey-{target.__name__[1:]}")
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        threads = max(1, (os.cpu_count() or 1) // self.count)
        worker = self.worker(self.limits, threads=threads, nice=self.nice)
        self.workers.append(worker)
        try:
            while True:
                if self.keep:
                    worker.start()
                job = self._next()
                if job is None:
                    return
                self._run(worker, job)
                if not self.keep:
                    worker.end()
        finally:
            self.workers.remove(worker)
            worker.end()

    def _next(self) -> Job | None:
        with self._changed:
            self._idle += 1
            while not self._waiting and not self._closed:
                self._changed.wait()
            self._idle -= 1
            if self._closed:
                return None
            job = self._waiting.popleft()
            job.state = RUNNING
            return job

    def _run(self, worker: WorkerProcess, job: Job) -> None:
        def tell(message: dict[str, Any]) -> None:
            if "part" in message:
                job.parts.append(message["part"])
            else:
                job.progress = message["progress"]

        try:
            result = worker.run(job.request, seconds=job.seconds, stop=job.stop, tell=tell)
        except Stopped as stopped:
            cancelled = job.stop.is_set()
            self._end(job, CANCELLED if cancelled else FAILED, stopped.status, str(stopped))
        else:
            job.result = result
            self._end(job, DONE, 200, "")
        if job.id not in self._jobs:  # forgotten meanwhile
            shutil.rmtree(job.folder, ignore_errors=True)

    def _end(self, job: Job, state: str, status: int, error: str) -> None:
        upload = job.request.get("upload")
        if upload:
            path = Path(upload)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if not job.watched:
            self._jobs.pop(job.id, None)
            shutil.rmtree(job.folder, ignore_errors=True)
        job.status, job.error, job.state = status, error, state
        job.finished.set()

    def _sweep(self) -> None:
        while True:
            with self._changed:
                self._changed.wait(SWEEP_SECONDS)
                if self._closed:
                    return
            now = time.monotonic()
            for job in list(self._jobs.values()):
                limits = self.limits
                kept = limits.keep_seconds if job.finished.is_set() else limits.absent_seconds
                if job.watched and now - job.seen > kept:
                    self.forget(job)
