"""What every request passes before the API: size and pace while its bytes arrive, its origin, and
the headers of every answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from marey.web.limits import Limits

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""What the page may load and do: nothing but ours, no script or style inside its text."""

DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; worker-src 'self' blob:; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
"""The description of the API starts its viewer by a script inside the text."""

FILE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
"""Files of an answer, and reports of models: pages that other programs wrote, shown without
scripts and as of no site."""

OVERHEAD_BYTES = 1_000_000
"""What the form around an upload may take."""
SMALL_BYTES = 64_000
"""Largest request that uploads nothing."""
DRAIN_BYTES, DRAIN_SECONDS = 32_000_000, 2.0
"""What of a refused upload is still read, and thrown away, so that its sender can read why."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

Allowed = Callable[[str], int]
"""Path of an address -> most bytes a request to it may have."""


class Guard:
    """Refuse requests that are too large, too slow or sent by another site; add the headers.

    Args:
        app: the application behind it.
        limits: of the server.
        allowed_bytes: the size of a request by its path.
        is_full: whether nothing more can be worked on; then nothing is received.
    """

    def __init__(
        self, app: Any, limits: Limits, allowed_bytes: Allowed, is_full: Callable[[], bool]
    ) -> None:
        self.app, self.limits = app, limits
        self.allowed_bytes, self.is_full = allowed_bytes, is_full
        self.uploads = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, watched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        watched = WatchedRequest(
            scope, receive, send, self.limits, self.allowed_bytes(scope["path"])
        )
        headers = dict(scope["headers"])
        if scope["method"] not in SAFE_METHODS and is_foreign(headers):
            await watched.refuse(403, "this request comes from a page of another site")
            return
        if length_of(headers) > watched.allowed:
            await watched.refuse(413, watched.too_large())
            return
        uploads = scope["method"] == "POST" and watched.allowed > SMALL_BYTES
        if uploads and (self.uploads >= self.limits.max_uploads or self.is_full()):
            await watched.refuse(503, "the server is busy; try again in a few seconds")
            return
        self.uploads += uploads
        try:
            await self.app(scope, watched.receive, watched.send)
        finally:
            self.uploads -= uploads


class WatchedRequest:
    """The two ends of one request; the receiving one counts bytes and seconds."""

    def __init__(self, scope: Any, receive: Any, send: Any, limits: Limits, allowed: int) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.limits, self.allowed = limits, allowed
        self.bytes = 0
        self.begun = time.monotonic()
        self.complete = False
        self.answered = False
        self.refused = False

    async def receive(self) -> Any:
        """Return the next message; a refused request is answered here and then looks departed."""
        if self.refused:
            return {"type": "http.disconnect"}
        if self.complete:  # from now on only its departure can come, whenever that is
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self.limits.idle_seconds)
        except TimeoutError:
            await self.refuse(408, f"no byte came for {self.limits.idle_seconds:g} s")
            return {"type": "http.disconnect"}
        if message["type"] != "http.request":
            return message
        self.bytes += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        if self.bytes > self.allowed:
            await self.refuse(413, self.too_large())
            return {"type": "http.disconnect"}
        seconds = time.monotonic() - self.begun
        slowest = self.limits.min_bytes_per_second
        if (
            not self.complete
            and seconds > self.limits.idle_seconds
            and self.bytes / seconds < slowest
        ):
            await self.refuse(
                408, f"the upload is slower than {slowest / 1000:g} kB/s; use a better line"
            )
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Any) -> None:
        """Pass a part of the answer on; nothing after a refusal."""
        if self.refused:
            return
        if message["type"] == "http.response.start":
            self.answered = True
            message = {**message, "headers": [*message["headers"], *self.headers(message)]}
        try:
            await asyncio.wait_for(self._send(message), self.limits.idle_seconds)
        except TimeoutError:
            self.refused = True
            raise ConnectionResetError("the visitor reads too slowly") from None

    async def refuse(self, status: int, detail: str) -> None:
        """Answer with an error, in the shape of the API's."""
        if self.refused or self.answered:
            self.refused = True
            return
        await self._drain()
        body = json.dumps({"detail": detail}).encode()
        start = {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
                *([(b"retry-after", b"5")] if status == 503 else []),
            ],
        }
        await self.send(start)
        await self.send({"type": "http.response.body", "body": body})
        self.refused = True

    async def _drain(self) -> None:
        deadline, drained = time.monotonic() + DRAIN_SECONDS, 0
        while not self.complete and drained < DRAIN_BYTES:
            try:
                left = deadline - time.monotonic()
                message = await asyncio.wait_for(self._receive(), max(left, 0.001))
            except TimeoutError:
                return
            if message["type"] != "http.request":
                return
            drained += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)

    def too_large(self) -> str:
        """Return what is said of an upload that is too large."""
        megabytes = max(self.allowed - OVERHEAD_BYTES, 0) / 1e6 or self.allowed / 1e6
        return (
            f"the upload is larger than {megabytes:g} MB, the most this server takes; cut the "
            "video or make it smaller"
        )

    def headers(self, message: Any) -> list[tuple[bytes, bytes]]:
        """Return the headers that every answer gets besides its own."""
        path = self.scope["path"]
        own = {name.lower() for name, _ in message["headers"]}
        policy = PAGE_POLICY
        if path.startswith(("/docs", "/static-offline-docs")):
            policy = DOCS_POLICY
        elif "/files/" in path or path.startswith("/reports/"):
            policy = FILE_POLICY
        added = {
            b"content-security-policy": policy.encode(),
            b"referrer-policy": b"same-origin",
            b"x-content-type-options": b"nosniff",
            b"x-frame-options": b"DENY",
            b"cross-origin-opener-policy": b"same-origin",
            b"cross-origin-resource-policy": b"same-origin",
            b"permissions-policy": b"camera=(self), microphone=(), geolocation=()",
        }
        if not path.startswith(("/static", "/examples")):
            added[b"cache-control"] = b"no-store"
        return [(name, value) for name, value in added.items() if name not in own]


def is_foreign(headers: dict[bytes, bytes]) -> bool:
    """Return whether a browser sent a request for a page of another site.

    Programs send neither of the two headers that browsers send. A browser sends the origin "null"
    for a form of a page whose policy is "no-referrer", so that is not ours.
    """
    if headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none"):
        return True
    origin = headers.get(b"origin")
    if origin is None:
        return False
    return urlsplit(origin.decode("latin-1")).netloc != headers.get(b"host", b"").decode("latin-1")


def length_of(headers: dict[bytes, bytes]) -> int:
    """Return the length that a request says it has; 0 where it does not say, or says nonsense."""
    text = headers.get(b"content-length", b"0")
    return int(text) if text.isdigit() else 0
