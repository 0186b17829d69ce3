"""The optional token."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi_offline", reason="the extra 'web' is not installed")

from marey.errors import UserError

TOKEN = "correct horse battery"


def test_without_the_token_nothing_is_reached(make_client) -> None:
    client = make_client(token=TOKEN)
    for address in ("/api/models", "/docs", "/openapi.json", "/api/page", "/static/app.js"):
        answer = client.get(address)
        assert answer.status_code == 401, address
        assert list(answer.json()) == ["detail"]
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.post("/api/predict", files={"video": ("v", b"x")}).status_code == 401
    page = client.get("/")
    assert page.status_code == 401
    assert 'action="/login"' in page.text


def test_the_header_lets_programs_in(make_client) -> None:
    client = make_client(token=TOKEN)
    good = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/api/models", headers=good).status_code == 200
    for wrong in (f"Bearer {TOKEN}x", "Bearer ", TOKEN, "Basic abc", "Bearer \u00e9".encode()):
        assert client.get("/api/models", headers={"Authorization": wrong}).status_code == 401


def test_the_form_lets_browsers_in_by_a_cookie_that_is_not_the_token(make_client) -> None:
    client = make_client(token=TOKEN)
    assert "That is not the token" in client.post("/login", data={"token": "wrong"}).text
    assert client.get("/api/models").status_code == 401
    answer = client.post("/login", data={"token": TOKEN}, follow_redirects=False)
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert client.get("/").status_code == 200
    assert client.get("/api/models").status_code == 200


def test_a_short_token_is_refused(make_client) -> None:
    with pytest.raises(UserError, match="use 12 or more"):
        make_client(token="secret")
