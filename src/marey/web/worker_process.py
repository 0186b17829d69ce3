"""A process that works on one request at a time, and is ended when a request takes too long, too
much memory, or is no longer wanted.

Messages are lines of JSON: what a process says that has read a stranger's file is never unpickled.
The server itself imports neither torch nor FFmpeg.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import psutil

from marey.web.limits import Limits

WORKER = Path(__file__).with_name("worker.py")
"""What the process runs."""

LOOK_SECONDS = 0.05
"""Between two looks at the memory and the clock of a process."""

GRACE_SECONDS = 1.0
"""From the wish to stop, which a process follows between two steps, to its end by force; a new one
takes several seconds to load the models again."""

KEEP_SHARE = 0.4
"""A process that holds more than this share of its memory limit after an answer is replaced."""

MAX_LINE = 64_000_000
"""Longest message, in bytes."""


class Stopped(Exception):  # noqa: N818 - not always an error: a request may be cancelled
    """The work ended without an answer.

    Args:
        status: of HTTP.
        message: one line for the visitor.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class WorkerProcess:
    """A process of the server.

    Args:
        limits: of the server.
        threads: threads it computes with.
        nice: how far it steps back behind other programs, 0 to 19.
    """

    program = WORKER

    def __init__(self, limits: Limits, *, threads: int = 1, nice: int = 0) -> None:
        self.limits, self.threads, self.nice = limits, threads, nice
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()

    @property
    def pid(self) -> int | None:
        """Number of the process; None while there is none."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process unless it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        self.end()
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(self.program), str(self.threads), str(self.nice)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._messages = queue.Queue()
        threading.Thread(
            target=_read, args=(self._process.stdout, self._messages), daemon=True
        ).start()

    def end(self) -> None:
        """End the process by force."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def memory_bytes(self) -> int:
        """Return the memory the process holds."""
        try:
            return 0 if self.pid is None else psutil.Process(self.pid).memory_info().rss
        except psutil.Error:
            return 0

    def run(
        self,
        request: dict[str, Any],
        *,
        seconds: float,
        stop: threading.Event,
        tell: Callable[[dict[str, Any]], None],
    ) -> dict[str, Any]:
        """Work on one request.

        Args:
            seconds: longest time; the start of the process does not count.
            stop: set from elsewhere when the answer is no longer wanted.
            tell: is called with what comes before the answer: {"progress": ...} or {"part": ...}.

        Raises:
            Stopped: if there is no answer: the request is at fault, too large, too slow, or
                cancelled.
        """
        self.start()
        try:
            self._send(request)
            message = self._wait(seconds, stop, tell)
        except Stopped:
            self.end()
            raise
        if self.memory_bytes() > KEEP_SHARE * self.limits.memory_megabytes * 1e6:
            self.end()
        if "error" in message:
            raise Stopped(message["status"], message["error"])
        return message["result"]

    def _send(self, message: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise _ended() from None

    def _wait(
        self, seconds: float, stop: threading.Event, tell: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Pass messages on until the last one, and end what goes beyond the limits."""
        started: float | None = None
        asked_to_stop: float | None = None
        while True:
            try:
                message = self._messages.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                pass
            else:
                if message is None:
                    raise _ended()
                if "result" in message or "error" in message:
                    return message
                if "started" in message:
                    started = time.monotonic()
                else:
                    tell(message)
            now = time.monotonic()
            if stop.is_set() and asked_to_stop is None:
                asked_to_stop = now
                self._send("stop")
            if asked_to_stop is not None and now - asked_to_stop > GRACE_SECONDS:
                raise Stopped(499, "cancelled")
            if started is not None and now - started > seconds:
                raise Stopped(
                    503,
                    f"the work took longer than {seconds:g} s, the most this server allows; cut "
                    "the video or make it smaller",
                )
            if self.memory_bytes() > self.limits.memory_megabytes * 1e6:
                raise Stopped(
                    413,
                    f"the video needs more than {self.limits.memory_megabytes:g} MB of memory, the "
                    "most this server allows; shrink or cut it",
                )


def _ended() -> Stopped:
    return Stopped(
        500, "the process that read the video ended unexpectedly; the file may be damaged"
    )


def _read(stream: IO[bytes] | None, messages: queue.Queue[dict[str, Any] | None]) -> None:
    """Pass the lines of a process on; None when it has ended or sent something else."""
    assert stream is not None
    try:
        while line := stream.readline(MAX_LINE):
            message = json.loads(line)
            if not isinstance(message, dict):
                break
            messages.put(message)
    except (ValueError, OSError):
        pass
    messages.put(None)
