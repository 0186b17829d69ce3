"""The optional token: who does not have it reaches nothing of the server."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from marey.errors import UserError

COOKIE = "marey_access"
MIN_LENGTH = 12
"""Shortest token, in characters."""
LOGIN = Path(__file__).with_name("static") / "login.html"
MAX_FORM_BYTES = 4096
OPEN_PATHS = ("/static/page.css", "/static/theme.css")
"""What the form that asks for the token looks like."""


class TokenCheck:
    """Answer 401 to a request without the token: in `Authorization: Bearer TOKEN`, or in the cookie
    that the form at `/login` sets.

    Args:
        app: the application behind it.
        token: at least `MIN_LENGTH` characters.

    Raises:
        UserError: if the token is too short.
    """

    def __init__(self, app: Any, token: str) -> None:
        if len(token) < MIN_LENGTH or not token.isascii() or not token.isprintable():
            raise UserError(
                f"the token has {len(token)} characters; use {MIN_LENGTH} or more plain ones, for "
                f"example {secrets.token_urlsafe(24)}"
            )
        self.app, self.token = app, token
        self._cookie = hmac.new(secrets.token_bytes(32), token.encode(), hashlib.sha256).hexdigest()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or ask for the token."""
        if scope["type"] != "http" or self.knows(scope) or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
        elif scope["path"] == "/login" and scope["method"] == "POST":
            await self._login(receive, send)
        elif scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
            await _answer(send, 401, LOGIN.read_bytes(), b"text/html; charset=utf-8")
        else:
            await _answer(
                send,
                401,
                json.dumps(
                    {"detail": "this server asks for a token: send 'Authorization: Bearer TOKEN'"}
                ).encode(),
                b"application/json",
                [(b"www-authenticate", b"Bearer")],
            )

    def knows(self, scope: Any) -> bool:
        """Return whether a request has the token or the cookie; in a time that tells nothing."""
        headers = dict(scope["headers"])
        given = headers.get(b"authorization", b"").decode("latin-1")
        if given[:7].lower() == "bearer " and _same(given[7:].strip(), self.token):
            return True
        try:
            cookies = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
        except CookieError:
            return False
        return COOKIE in cookies and _same(cookies[COOKIE].value, self._cookie)

    async def _login(self, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more and len(body) <= MAX_FORM_BYTES:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        given = parse_qs(body[:MAX_FORM_BYTES].decode("latin-1")).get("token", [""])[0]
        if not _same(given, self.token):
            page = LOGIN.read_bytes().replace(b"<!--wrong-->", b"That is not the token.")
            await _answer(send, 401, page, b"text/html; charset=utf-8")
            return
        cookie = f"{COOKIE}={self._cookie}; Path=/; HttpOnly; SameSite=Strict"
        await _answer(
            send, 303, b"", b"text/plain", [(b"location", b"/"), (b"set-cookie", cookie.encode())]
        )


def _same(given: str, true: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), true.encode())


async def _answer(
    send: Any,
    status: int,
    body: bytes,
    kind: bytes,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", kind), length, *(headers or [])],
        }
    )
    await send({"type": "http.response.body", "body": body})
