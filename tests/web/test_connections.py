"""Connections that never finish their headers are closed; visitors who leave free their place."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi_offline", reason="the extra 'web' is not installed")
import uvicorn
from fastapi import HTTPException

from marey.cli.serve import exposure
from marey.web.protocol import timed_protocol

HEAD_SECONDS = 0.5


@pytest.fixture(scope="module")
def port():
    """A server that answers "ok", with a time limit on headers."""

    async def application(scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        await asyncio.sleep(2 * HEAD_SECONDS if scope["path"] == "/slow" else 0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(
        application, log_level="error", lifespan="off", http=timed_protocol(HEAD_SECONDS)
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(10)


def closed_after(connection: socket.socket) -> float:
    began = time.monotonic()
    connection.settimeout(10)
    while connection.recv(1000):
        continue
    return time.monotonic() - began


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_headers_that_do_not_end_close_the_connection(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(sent)
        assert closed_after(connection) < 5


def test_the_headers_of_a_second_request_have_the_same_limit(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in connection.recv(1000)
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert closed_after(connection) < 5


def test_work_may_take_longer_than_the_headers(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(20)
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in connection.recv(1000)


def test_a_visitor_who_leaves_before_the_answer_frees_the_place(client, tmp_path: Path) -> None:
    service = client.app.state.service

    async def gone() -> bool:
        return True

    async def visit() -> None:
        job = SimpleNamespace(finished=threading.Event())
        forgotten = []
        service.queue.forget = forgotten.append
        with pytest.raises(HTTPException) as error:
            await service.wait(job, SimpleNamespace(is_disconnected=gone))
        assert error.value.status_code == 499
        assert forgotten == [job]

    asyncio.run(visit())


def test_listening_on_a_network_is_said_in_plain_words() -> None:
    assert exposure("127.0.0.1", 7860, None) == []
    open_to_all = " ".join(exposure("0.0.0.0", 7860, None))
    assert "every network this machine is in" in open_to_all
    assert "there is no token" in open_to_all
    assert "not encrypted" in open_to_all
    assert "only those who have the token" in " ".join(exposure("192.168.1.7", 7860, "secret"))
