"""A server whose work is done in the test's own process, so that tests need not wait for one."""

from __future__ import annotations

import glob
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi_offline", reason="the extra 'web' is not installed")
from fastapi.testclient import TestClient

from marey.web.app import close, create_app
from marey.web.limits import Limits
from marey.web.models import ModelShelf
from marey.web.task import CancelledError
from marey.web.worker import answer
from marey.web.worker_process import Stopped, WorkerProcess

BASE_URL = "http://127.0.0.1:7860"


class InlineWorker(WorkerProcess):
    """Works in the server's own process: what a request gets is the same, only nothing can be
    ended by force."""

    shelf = ModelShelf(views=1)

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
        def send(message: dict[str, Any]) -> None:
            if stop.is_set():
                raise CancelledError
            tell(message)

        message = answer(self.shelf, request, send)
        if "error" in message:
            raise Stopped(message["status"], message["error"])
        return message["result"]


@pytest.fixture(scope="session")
def inline_worker() -> type[InlineWorker]:
    """A worker for servers of tests that need no process."""
    return InlineWorker


@pytest.fixture
def make_client(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., TestClient]]:
    """A function that builds a server with a page and returns a client of it; its files lie in a
    folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = []

    def make(*models: str, limits: Limits | None = None, **options: Any) -> TestClient:
        app = create_app(
            models or [f"tiny={tiny_checkpoint}"],
            limits or Limits(concurrent=1),
            worker=InlineWorker,
            views=1,
            **options,
        )
        made.append(app)
        return TestClient(app, base_url=BASE_URL)

    yield make
    for app in made:
        close(app.state.service)


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    """A client of a server with one small model, "tiny"."""
    return make_client(limits=Limits(max_megabytes=1, max_seconds=20, concurrent=1))


@pytest.fixture
def leftovers() -> Callable[[], list[str]]:
    """A function that lists the files of uploads and answers that are on disk."""

    def find() -> list[str]:
        return glob.glob(f"{tempfile.gettempdir()}/marey-serve-*/job-*/*")

    return find


@pytest.fixture
def follow() -> Callable[..., dict[str, Any]]:
    """A function that starts work of the page and waits for its end; returns the last state with
    all parts."""

    def run(client: TestClient, task: str, video: bytes, name: str = "v.mp4", **form: Any) -> Any:
        started = client.post(f"/api/jobs/{task}", files={"video": (name, video)}, data=form)
        assert started.status_code == 202, started.text
        state, parts = started.json(), []
        while state["state"] in ("queued", "running"):
            address = f"/api/jobs/{state['id']}?from_part={len(parts)}"
            state = client.get(address).json()
            parts += state["parts"]
        merged: dict[str, Any] = {}
        for part in parts:
            merged.update(part)
        return state | {"parts": parts, "merged": merged}

    return run
