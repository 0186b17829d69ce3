"""A process is ended when it takes too long or too much memory, or is no longer wanted; the next
request gets a new one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from marey.web.limits import Limits
from marey.web.worker_process import Stopped, WorkerProcess

PROGRAM = """
import json, os, sys, time
hold = []
for line in sys.stdin:
    request = json.loads(line)
    def say(message):
        sys.stdout.write(json.dumps(message) + "\\n"); sys.stdout.flush()
    if request == "stop":
        continue
    say({"started": True})
    what = request["do"]
    if what == "sleep":
        time.sleep(60)
    if what == "fill":
        while True:
            hold.append(bytearray(os.urandom(1) * 10_000_000))
    if what == "grow":
        hold.append(b"x" * 150_000_000)
    if what == "die":
        os.abort()
    if what == "babble":
        say("no object")
    if what == "polite":
        for number in range(3):
            say({"progress": {"done": number}})
        stop = json.loads(sys.stdin.readline())
        say({"status": 499, "error": "cancelled"})
        continue
    if what == "fail":
        say({"status": 415, "error": "unreadable"})
        continue
    say({"result": {"pid": os.getpid()}})
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerProcess]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    worker = WorkerProcess(Limits(memory_megabytes=300))
    worker.program = program
    yield worker
    worker.end()


def run(
    worker: WorkerProcess,
    do: str,
    *,
    seconds: float = 30,
    stop: threading.Event | None = None,
    tell: Callable[[dict[str, Any]], None] = print,
) -> dict[str, Any]:
    return worker.run({"do": do}, seconds=seconds, stop=stop or threading.Event(), tell=tell)


def test_one_process_answers_request_after_request(worker: WorkerProcess) -> None:
    first = run(worker, "answer")
    assert run(worker, "answer") == first
    with pytest.raises(Stopped, match="unreadable") as stopped:
        run(worker, "fail")
    assert stopped.value.status == 415
    assert run(worker, "answer") == first


@pytest.mark.parametrize(
    ("do", "status", "message"),
    [
        ("sleep", 503, "longer than 0.3 s"),
        ("fill", 413, "more than 300 MB of memory"),
        ("die", 500, "ended unexpectedly"),
        ("babble", 500, "ended unexpectedly"),
    ],
)
def test_a_process_out_of_bounds_is_ended_and_the_next_request_is_answered(
    worker: WorkerProcess, do: str, status: int, message: str
) -> None:
    old = run(worker, "answer")["pid"]
    began = time.monotonic()
    with pytest.raises(Stopped, match=message) as stopped:
        run(worker, do, seconds=0.3 if do == "sleep" else 30)
    assert stopped.value.status == status
    assert time.monotonic() - began < 25  # neither 60 s of sleep nor the limit of 30
    assert not psutil.pid_exists(old)
    assert run(worker, "answer")["pid"] != old


def test_cancelled_work_ends_at_once(worker: WorkerProcess) -> None:
    old = run(worker, "answer")["pid"]
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped, match="cancelled"):
        run(worker, "sleep", stop=stop)
    assert time.monotonic() - began < 25  # of 60 s of sleep
    assert not psutil.pid_exists(old)


def test_a_process_that_stops_by_itself_when_asked_lives_on(worker: WorkerProcess) -> None:
    old = run(worker, "answer")["pid"]
    stop, told = threading.Event(), []

    def tell(message: dict[str, Any]) -> None:
        told.append(message)
        stop.set()

    with pytest.raises(Stopped, match="cancelled"):
        run(worker, "polite", stop=stop, tell=tell)
    assert told[0] == {"progress": {"done": 0}}
    assert run(worker, "answer")["pid"] == old


def test_a_process_that_keeps_too_much_memory_is_replaced(worker: WorkerProcess) -> None:
    assert run(worker, "grow")["pid"]
    assert worker.pid is None  # 150 MB are more than 40 % of 300
