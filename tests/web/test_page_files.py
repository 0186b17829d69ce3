"""Files of the server that a visitor did not upload stay closed, whatever the page's API is
sent."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the extra 'web' is not installed")
from fastapi.testclient import TestClient

from marey.web.app import create_app
from marey.web.limits import Limits
from marey.web.models import ModelShelf

SESSION = "visitor1234"


@pytest.fixture(scope="module")
def client(tiny_checkpoint: Path) -> Iterator[TestClient]:
    """The built app with its page, and its queue running."""
    app = create_app(ModelShelf([str(tiny_checkpoint)], views=1), Limits(max_seconds=60))
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


def file_data(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def call(client: TestClient, video: Any, model: str) -> str:
    """Call the page's endpoint and return the event stream of its answer."""
    started = client.post(
        "/gradio_api/call/predict",
        json={"data": [video, model, "none", 3], "session_hash": SESSION},
    )
    if started.status_code != 200:
        return f"event: error\ndata: {started.text}"
    return client.get(f"/gradio_api/call/predict/{started.json()['event_id']}").text


def paths_in(value: Any) -> set[str]:
    """Every string under a key "path" in a JSON document."""
    if isinstance(value, list):
        return set().union(*map(paths_in, value)) if value else set()
    if isinstance(value, dict):
        found = {value["path"]} if isinstance(value.get("path"), str) else set()
        return found.union(*map(paths_in, value.values()))
    return set()


def test_a_video_of_the_server_is_not_answered_from(
    client: TestClient, tiny_checkpoint: Path, day_and_night: Path
) -> None:
    answer = call(client, file_data(str(day_and_night)), str(tiny_checkpoint))
    assert "event: error" in answer
    assert "was not uploaded by a user" in answer
    assert "event: complete" not in answer
    assert "bright" not in answer


def test_bytes_of_a_file_of_the_server_do_not_come_back(
    client: TestClient, day_and_night: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(day_and_night.read_bytes() + b"secret")
    call(client, file_data(str(secret)), "no such model")
    link = client.get("/gradio_api/deep_link", params={"session_hash": SESSION}).json()
    config = client.get("/config", params={"deep_link": link or "none"})
    page = client.get("/", params={"deep_link": link or "none"})
    paths = paths_in(config.json()) | {str(secret)}
    for path in sorted(paths):
        for prefix in ("/gradio_api/file=", "/file=", "/gradio_api/file/"):
            assert client.get(prefix + path).content != secret.read_bytes(), (
                f"{prefix}{path} is the server's file"
            )
    assert "secret" not in config.text
    assert "secret" not in page.text


def test_an_uploaded_video_is_answered(
    client: TestClient, tiny_checkpoint: Path, day_and_night: Path
) -> None:
    (path,) = client.post(
        "/gradio_api/upload", files={"files": ("v.mp4", day_and_night.read_bytes())}
    ).json()
    answer = call(client, file_data(path), str(tiny_checkpoint))
    assert "event: complete" in answer
    document = json.loads(answer.split("event: complete\ndata: ")[1].splitlines()[0])
    assert {entry["label"] for entry in document[0]["confidences"]} == {"bright", "dark"}


@pytest.mark.parametrize("address", ["/gradio_api/run/predict", "/gradio_api/api/predict"])
def test_no_other_address_of_the_endpoint_answers_from_it(
    client: TestClient, tiny_checkpoint: Path, day_and_night: Path, address: str
) -> None:
    answer = client.post(
        address, json={"data": [file_data(str(day_and_night)), str(tiny_checkpoint), "none", 3]}
    )
    assert answer.status_code >= 400
    assert "bright" not in answer.text


def test_an_example_of_the_page_is_answered(client: TestClient, tiny_checkpoint: Path) -> None:
    started = client.post("/gradio_api/call/load_example", json={"data": [0]})
    loaded = client.get(f"/gradio_api/call/load_example/{started.json()['event_id']}").text
    assert "event: complete" in loaded
    document = json.loads(loaded.split("event: complete\ndata: ")[1].splitlines()[0])
    (path,) = paths_in(document)
    assert "event: complete" in call(client, file_data(path), str(tiny_checkpoint))


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path) -> Iterator[str]:
    """A server on a port of its own."""
    import uvicorn

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = create_app(ModelShelf([str(tiny_checkpoint)], views=1), Limits(max_seconds=60))
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not running.started and time.monotonic() < deadline:
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/"
    running.should_exit = True
    thread.join(10)


def test_the_documented_clients_work(server: str, day_and_night: Path) -> None:
    import httpx
    from gradio_client import Client, handle_file

    with day_and_night.open("rb") as video:
        answer = httpx.post(
            f"{server}api/predict", files={"video": video}, data={"top": 3}, timeout=60
        ).json()
    assert {entry["label"] for entry in answer["results"][0]["predictions"]} == {"bright", "dark"}
    label, *_ = Client(server, verbose=False).predict(
        handle_file(str(day_and_night)), api_name="/predict"
    )
    assert {entry["label"] for entry in label["confidences"]} == {"bright", "dark"}
