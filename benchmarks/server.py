"""`marey serve` under load: memory over many requests, many visitors at once, slow connections, and
the time from a click to an answer.

    python -m benchmarks.server --out results/server.json

The server is a process of its own, as `marey serve` starts it; nothing is simulated.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch

from marey.files import read_json, write_json
from marey.video.decode import open_video
from marey.video.encode import write_video

EXAMPLE = Path(__file__).parents[1] / "src" / "marey" / "web" / "examples" / "cartwheel.mp4"
SETTLE = 20
"""Requests before memory is first read: networks, caches and pools are filled by then."""
HEAD_SECONDS = 10.0
"""Time limit of the server on headers."""
ALONE = ("--concurrent", "1")
"""One worker process, whose memory tells whether anything grows; the other steps take the server as
it is without options."""
CLIP_FRAMES = 250
"""10 s at 25 frames a second."""


class Server:
    """`marey serve` on a port of its own, with a folder of its own for temporary files."""

    def __init__(self, model: str, folder: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        command = [sys.executable, "-m", "marey", "serve", "--model", model]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), *options],
            env={**os.environ, "TMPDIR": str(folder)},
        )
        self.url = f"http://127.0.0.1:{self.port}"
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{self.url}/api/models", timeout=5)
                return
            except httpx.HTTPError:
                time.sleep(0.2)
        raise RuntimeError("the server did not start")

    def memory_bytes(self) -> int:
        """Memory of the server and its workers."""
        own = psutil.Process(self.process.pid)
        return sum(process.memory_info().rss for process in [own, *own.children(recursive=True)])

    def processor_seconds(self) -> float:
        """Processor time of the server and its workers."""
        own = psutil.Process(self.process.pid)
        times = [process.cpu_times() for process in [own, *own.children(recursive=True)]]
        return sum(each.user + each.system for each in times)

    def files(self) -> list[str]:
        """Files of visitors on the disk."""
        return [str(path) for path in self.folder.rglob("*") if "/job-" in str(path)]

    def predict(self, video: bytes, timeout: float = 300) -> int:
        """Post a video and return the status."""
        files = {"video": ("clip.mp4", video)}
        return httpx.post(f"{self.url}/api/predict", files=files, timeout=timeout).status_code

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def requests_in_a_row(server: Server, video: bytes, count: int) -> dict[str, Any]:
    """Memory of the server over many requests."""
    statuses: Counter[int] = Counter()
    memory, seconds = [], []
    for number in range(SETTLE + count):
        began = time.monotonic()
        statuses[server.predict(video)] += 1
        if number >= SETTLE:
            seconds.append(time.monotonic() - began)
            memory.append(server.memory_bytes() / 1e6)
    tenth = max(1, count // 10)
    return {
        "requests": count,
        "after_settling": SETTLE,
        "statuses": dict(statuses),
        "first_megabytes": round(statistics.median(memory[:tenth]), 1),
        "last_megabytes": round(statistics.median(memory[-tenth:]), 1),
        "highest_megabytes": round(max(memory), 1),
        "growth_megabytes": round(
            statistics.median(memory[-tenth:]) - statistics.median(memory[:tenth]), 1
        ),
        "median_seconds": round(statistics.median(seconds), 3),
        "files_left": len(server.files()),
    }


def clients_at_once(server: Server, video: bytes, count: int) -> dict[str, Any]:
    """Many visitors who press the button in one moment."""
    start = threading.Barrier(count)

    def visit(number: int) -> tuple[int, float]:
        start.wait()
        began = time.monotonic()
        return server.predict(video), time.monotonic() - began

    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(visit, range(count)))
    seconds = sorted(each for _, each in found)
    return {
        "clients": count,
        "statuses": dict(Counter(status for status, _ in found)),
        "median_seconds": round(statistics.median(seconds), 2),
        "slowest_seconds": round(seconds[-1], 2),
        "files_left": len(server.files()),
    }


def slow_connections(server: Server, video: bytes, count: int) -> dict[str, Any]:
    """Connections that send headers, or a body, byte by byte, while others are answered."""
    head = b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    body = head + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 90000\r\n\r\n"
    opened = time.monotonic()
    sockets = []
    for number in range(count):
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(head if number % 2 else body)
        sockets.append(connection)
    answered = server.predict(video)

    closed: dict[int, float] = {}
    said: Counter[str] = Counter()
    while len(closed) < count and time.monotonic() - opened < 90:
        for number, connection in enumerate(sockets):
            if number in closed:
                continue
            connection.setblocking(False)
            try:
                connection.send(b"x")
                answer = connection.recv(1000)
            except BlockingIOError:
                continue
            except OSError:
                answer = b""
            closed[number] = time.monotonic() - opened
            said[answer[9:12].decode() or "closed"] += 1
        time.sleep(1)
    for connection in sockets:
        connection.close()
    return {
        "connections": count,
        "closed": len(closed),
        "answers": dict(said),
        "slowest_to_close_seconds": round(max(closed.values(), default=float("nan")), 1),
        "others_answered_meanwhile": answered,
    }


def departed_clients(server: Server, video: bytes, count: int) -> dict[str, Any]:
    """Visitors who leave before their answer; then one who stays."""
    for _ in range(count):
        try:
            server.predict(video, timeout=0.3)
        except httpx.HTTPError:
            continue
    began = time.monotonic()
    status = server.predict(video)
    return {
        "left": count,
        "status_of_the_next": status,
        "seconds_of_the_next": round(time.monotonic() - began, 2),
        "files_left": len(server.files()),
    }


def ten_second_clip(folder: Path) -> Path:
    """The rendered example, played to and fro for 10 s at 25 frames a second, 640 x 480."""
    with open_video(EXAMPLE) as reader:
        frames = reader.frames_at(range(reader.num_frames)).frames
    frames = torch.nn.functional.interpolate(frames.float(), size=(480, 640)).byte()
    there_and_back = torch.cat([frames, frames.flip(0)])
    times = -(-CLIP_FRAMES // len(there_and_back))
    path = folder / "ten_seconds.mp4"
    write_video(path, there_and_back.repeat(times, 1, 1, 1)[:CLIP_FRAMES], fps=25)
    return path


def click_to_verdict(server: Server, video: bytes, count: int = 5) -> dict[str, Any]:
    """Time until the page has its verdict, and until it has everything."""
    first, whole, processor, until_verdict = [], [], [], []
    for _ in range(count + 1):
        visitor = httpx.Client(timeout=300)  # one connection, as a browser has
        began, used = time.monotonic(), server.processor_seconds()
        state = visitor.post(
            f"{server.url}/api/jobs/answer", files={"video": ("clip.mp4", video)}
        ).json()
        verdict, parts = None, 0
        while state["state"] in ("queued", "running"):
            address = f"{server.url}/api/jobs/{state['id']}?from_part={parts}"
            state = visitor.get(address).json()
            parts = state["next_part"]
            if parts and verdict is None:
                verdict = time.monotonic() - began
                until_verdict.append(server.processor_seconds() - used)
        whole.append(time.monotonic() - began)
        first.append(verdict or whole[-1])
        processor.append(server.processor_seconds() - used)
        visitor.delete(f"{server.url}/api/jobs/{state['id']}")
        visitor.close()
    return {
        "clip": "10 s, 25 frames a second, 640 x 480",
        "repeats": count,
        "verdict_median_seconds": round(statistics.median(first[1:]), 2),
        "verdict_processor_median_seconds": round(statistics.median(until_verdict[1:]), 2),
        "everything_median_seconds": round(statistics.median(whole[1:]), 2),
        "processor_median_seconds": round(statistics.median(processor[1:]), 2),
    }


def first_paint(server: Server, count: int = 5) -> dict[str, Any]:
    """Time from the request for the page to its first contentful paint in Chromium, each time in a
    new visitor's empty cache; nothing where Playwright or Chromium is missing."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        chromium = None
    if chromium is None:
        return {}
    painted, ready = [], []
    with sync_playwright() as library:
        browser = library.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        for _ in range(count + 1):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            page = context.new_page()
            page.goto(server.url)
            page.wait_for_selector("html[data-ready]", state="attached")
            painted.append(
                page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            )
            ready.append(page.evaluate("performance.now()"))
            context.close()
        browser.close()
    return {
        "repeats": count,
        "first_contentful_paint_median_seconds": round(statistics.median(painted[1:]) / 1000, 3),
        "ready_median_seconds": round(statistics.median(ready[1:]) / 1000, 3),
    }


def killed(model: str, folder: Path) -> dict[str, Any]:
    """A server that is killed while it works, and what the next one finds."""
    first = Server(model, folder, "--concurrent", "1")
    clip = ten_second_clip(folder.parent).read_bytes()
    with contextlib.suppress(httpx.HTTPError):
        first.predict(clip, timeout=0.5)
    thread = threading.Thread(target=lambda: _ignore(first, clip), daemon=True)
    thread.start()
    time.sleep(1)
    workers = psutil.Process(first.process.pid).children(recursive=True)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    left = [path.name for path in folder.glob("marey-serve-*")]
    _, alive = psutil.wait_procs(workers, timeout=10)
    second = Server(model, folder, "--concurrent", "1")
    swept = [name for name in left if not (folder / name).exists()]
    second.stop()
    return {"folders_left": len(left), "swept": len(swept), "workers_alive_after_10_s": len(alive)}


def _ignore(server: Server, video: bytes) -> None:
    try:
        server.predict(video)
    except httpx.HTTPError:
        return


def main() -> None:
    """Measure everything and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/server.json"))
    parser.add_argument("--model", default="marey-mini")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument(
        "--only", nargs="+", help="Measure these steps again, and keep the others of --out."
    )
    options = parser.parse_args()
    video = EXAMPLE.read_bytes()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "server"
        folder.mkdir()
        found: dict[str, Any] = {}
        clip = ten_second_clip(folder.parent).read_bytes()
        measures: dict[str, tuple[tuple[str, ...], Callable[[Server], dict[str, Any]]]] = {
            "in_a_row": (ALONE, lambda server: requests_in_a_row(server, video, options.requests)),
            "at_once": (ALONE, lambda server: clients_at_once(server, video, options.clients)),
            "slow": (ALONE, lambda server: slow_connections(server, video, 40)),
            "departed": (ALONE, lambda server: departed_clients(server, video, 10)),
            "click": ((), lambda server: click_to_verdict(server, clip)),
            "paint": ((), first_paint),
        }
        for settings, names in groupby(options.only or measures, lambda step: measures[step][0]):
            server = Server(options.model, folder, *settings)
            try:
                for step in names:
                    found[step] = {
                        **measures[step][1](server),
                        "load_1min": round(os.getloadavg()[0], 1),
                        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
                    }
                    print(step, json.dumps(found[step]), flush=True)
            finally:
                server.stop()
            found["files_left_after_stop"] = len(list(folder.glob("marey-serve-*")))
        if not options.only:
            found["killed"] = killed(options.model, folder)
    command = re.sub(r"\s+", " ", " ".join(["python -m benchmarks.server", *sys.argv[1:]]))
    if options.only:  # the other steps stay as they were measured
        stored = read_json(options.out)
        for step in options.only:
            found[step] = {**found[step], "command": command, "date": str(datetime.date.today())}
        write_json(options.out, {**stored, **found})
        return
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_1min_before": round(load, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    write_json(
        options.out,
        {
            "command": command,
            "date": datetime.date.today().isoformat(),
            "machine": machine,
            "model": options.model,
            **found,
        },
    )


if __name__ == "__main__":
    main()
