"""Size, pace and origin of requests, checked while their bytes arrive."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

pytest.importorskip("fastapi_offline", reason="the extra 'web' is not installed")

from marey.web.guard import DRAIN_BYTES, Guard, is_foreign
from marey.web.limits import Limits

LIMITS = Limits(idle_seconds=0.5, min_bytes_per_second=1e5, max_uploads=1)
ALLOWED = 1_000_000


class Visit:
    """One request to a guarded application that reads the whole body."""

    def __init__(self, limits: Limits = LIMITS, *, full: bool = False, **headers: str) -> None:
        self.read = 0
        self.sent: list[dict[str, Any]] = []
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/predict",
            "headers": [
                (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
            ],
        }
        self.given = 0
        self.guard = Guard(self.application, limits, lambda path: ALLOWED, lambda: full)

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            self.read += len(message["body"])
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    def run(self, chunk: bytes, chunks: int, pause: float = 0.0, send_pause: float = 0.0) -> int:
        async def receive() -> dict[str, Any]:
            await asyncio.sleep(pause)
            self.given += len(chunk)
            chunks_left = self.given < chunks * len(chunk)
            return {"type": "http.request", "body": chunk, "more_body": chunks_left}

        async def send(message: dict[str, Any]) -> None:
            await asyncio.sleep(send_pause)
            self.sent.append(message)

        asyncio.run(self.guard(self.scope, receive, send))
        return self.sent[0]["status"]

    @property
    def detail(self) -> str:
        return json.loads(self.sent[1]["body"])["detail"]


def test_a_body_without_a_length_is_stopped_where_it_goes_beyond_the_limit() -> None:
    visit = Visit()
    assert visit.run(b"x" * 100_000, 10_000) == 413
    assert "larger than 1 MB" in visit.detail
    assert visit.read <= ALLOWED
    assert visit.given <= ALLOWED + DRAIN_BYTES + 200_000  # the rest of 1 GB is never read


def test_a_stated_length_beyond_the_limit_reaches_no_application() -> None:
    visit = Visit(content_length=str(ALLOWED + 1))
    assert visit.run(b"x" * 100_000, 11) == 413
    assert visit.read == 0


def test_a_body_within_the_limit_is_passed_on() -> None:
    visit = Visit(content_length="500000")
    assert visit.run(b"x" * 100_000, 5) == 200
    assert visit.read == 500_000
    names = {name for name, _ in visit.sent[0]["headers"]}
    assert {b"content-security-policy", b"x-frame-options", b"cache-control"} <= names


def test_a_visitor_who_stops_sending_gets_408() -> None:
    visit = Visit()
    began = time.monotonic()
    assert visit.run(b"x" * 1000, 100, pause=30) == 408
    assert time.monotonic() - began < 5
    assert "no byte came" in visit.detail


def test_a_visitor_who_sends_drop_by_drop_gets_408() -> None:
    visit = Visit()
    assert visit.run(b"x", 1000, pause=0.05) == 408
    assert "slower than 100 kB/s" in visit.detail
    assert visit.given < 100


def test_a_visitor_who_does_not_read_is_dropped() -> None:
    with pytest.raises(ConnectionResetError):
        Visit().run(b"x", 1, send_pause=30)


def test_nothing_is_received_for_a_full_queue() -> None:
    visit = Visit(full=True)
    assert visit.run(b"x" * 1000, 10) == 503
    assert visit.read == 0
    assert (b"retry-after", b"5") in visit.sent[0]["headers"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example", "host": "127.0.0.1:7860"}, 403),
        ({"origin": "null", "host": "127.0.0.1:7860"}, 403),
        ({"origin": "http://127.0.0.1:8000", "host": "127.0.0.1:7860"}, 403),
        ({"sec_fetch_site": "cross-site", "host": "127.0.0.1:7860"}, 403),
        ({"sec_fetch_site": "same-site", "host": "127.0.0.1:7860"}, 403),
        ({"origin": "http://127.0.0.1:7860", "host": "127.0.0.1:7860"}, 200),
        ({"sec_fetch_site": "same-origin", "host": "127.0.0.1:7860"}, 200),
        ({"host": "127.0.0.1:7860"}, 200),
    ],
)
def test_pages_of_other_sites_cannot_use_the_server(headers: dict[str, str], status: int) -> None:
    visit = Visit(**headers)
    assert visit.run(b"x", 1) == status
    assert is_foreign(dict(visit.scope["headers"])) == (status == 403)
