"""What a visitor did not upload stays closed, whatever the server is sent: no path and no address
in a request is ever opened."""

from __future__ import annotations

import http.server
import io
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi_offline", reason="the extra 'web' is not installed")

from marey.errors import UserError

GRADIO_ADDRESSES = (
    "/gradio_api/call/predict",
    "/gradio_api/run/predict",
    "/gradio_api/queue/join",
    "/gradio_api/upload",
    "/gradio_api/deep_link",
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/proxy=http://127.0.0.1/",
    "/file=/etc/passwd",
    "/file/etc/passwd",
    "/config?deep_link=x",
    "/run/predict",
)
"""Addresses of the page's first version, by which files of the server could be read."""


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """The address of another server, and the list of requests it has got."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/clip.mp4", asked
    server.shutdown()


@pytest.mark.parametrize("address", GRADIO_ADDRESSES)
def test_addresses_that_once_gave_files_are_gone(client, address: str, tmp_path: Path) -> None:
    body = {
        "data": [
            {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, "tiny", "none", 3,
        ]
    }  # fmt: skip
    for answer in (client.get(address), client.post(address, json=body)):
        assert answer.status_code in (404, 405)
        assert "root:" not in answer.text


@pytest.mark.parametrize("address", ["/api/predict", "/api/jobs/answer", "/api/jobs/preview"])
def test_a_path_in_a_request_is_not_opened(
    client, day_and_night: Path, elsewhere, address: str
) -> None:
    url, asked = elsewhere
    for given in (str(day_and_night), f"file:{day_and_night}", url):
        attempts = [
            client.post(address, data={"video": given}),
            client.post(address, json={"video": given}),
            client.post(address, json={"video": {"path": given, "url": given}}),
            client.post(address, params={"video": given}),
        ]
        for answer in attempts:
            assert answer.status_code == 422
            assert "bright" not in answer.text
        named = client.post(address, files={"video": (given, b"junk")})
        assert "bright" not in named.text
        model = client.post(address, files={"video": ("v", b"x")}, data={"model": given})
        assert model.status_code == 400
    assert asked == []


def test_a_playlist_opens_no_file_and_no_address(
    client, day_and_night: Path, elsewhere, tmp_path: Path
) -> None:
    url, asked = elsewhere
    playlists = {
        "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:8\n#EXTINF:8,\n{}\n#EXT-X-ENDLIST\n",
        "a.ffconcat": "ffconcat version 1.0\nfile '{}'\n",
        "a.sdp": "v=0\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n{}\n",
        "a.mpd": '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>{}</BaseURL>'
        "</Period></MPD>",
    }
    for name, text in playlists.items():
        for given in (str(day_and_night), f"file://{day_and_night}", url):
            content = text.replace("{}", given).encode()
            answer = client.post("/api/predict", files={"video": (name, content)})
            assert answer.status_code == 415, (name, given, answer.text)
            assert str(day_and_night) not in answer.text
    assert asked == []


@pytest.mark.parametrize(
    "address",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/examples/../../app.py",
        "/examples/..%2f..%2fapp.py",
        "/static-offline-docs/..%2f__init__.py",
    ],
)
def test_static_files_end_at_their_folder(client, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 404
    assert "import" not in answer.text


def test_every_address_of_the_server_is_listed(client) -> None:
    """A new address is a new door: it is added here by somebody who has thought about it."""

    def listed(routes) -> set[str]:
        return {getattr(route, "path", "") for route in routes}

    assert listed(client.app.routes) == {
        "/",
        "/api/jobs/teach",
        "/api/jobs/{job_id}",
        "/api/jobs/{job_id}/files/{name}",
        "/api/jobs/{job_id}/leave",
        "/api/jobs/{task}",
        "/api/models",
        "/api/page",
        "/api/predict",
        "/api/predict/batch",
        "/docs",
        "/docs/oauth2-redirect",
        "/examples",
        "/openapi.json",
        "/reports/{number}",
        "/static",
        "/static-offline-docs",
    }


def test_reports_given_at_the_start_are_opened_without_scripts_and_no_other_file(
    make_client, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "mine")
    (tmp_path / "mine" / "report.html").write_text("<p>beside the model</p>")
    given = tmp_path / "r.html"
    given.write_text("<title>Trust &amp; more</title><script>alert(1)</script>")
    client = make_client(f"mine={tmp_path / 'mine'}", reports=[given])
    assert client.get("/api/page").json()["reports"] == [
        {"url": "/reports/0", "title": "Report of mine", "model": "mine"},
        {"url": "/reports/1", "title": "Trust & more", "model": None},
    ]
    shown = client.get("/reports/1")
    assert shown.text == given.read_text()
    assert shown.headers["content-type"].startswith("text/html")
    policy = shown.headers["content-security-policy"]
    assert "sandbox" in policy
    assert "script-src" not in policy
    assert "default-src 'none'" in policy
    for address in ("/reports/2", "/reports/-1", "/reports/x", "/reports/..%2fr.html"):
        assert client.get(address).status_code in (404, 422)
    assert str(tmp_path) not in client.get("/api/page").text


def test_a_report_that_is_none_is_named_at_the_start(make_client, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.html: cannot be read"):
        make_client(reports=[tmp_path / "gone.html"])
    with pytest.raises(UserError, match="is no HTML page"):
        make_client(reports=["/etc/passwd"])


def test_pictures_of_a_server_with_blur_show_nobody(
    make_client, follow, walkers: Path, tmp_path: Path
) -> None:
    from PIL import Image, ImageChops

    pictures = []
    for blur in (None, "persons"):
        client = make_client(blur=blur)
        state = follow(client, "answer", walkers.read_bytes())
        name = state["merged"]["frames"][0]["file"]
        picture = client.get(f"/api/jobs/{state['id']}/files/{name}").content
        pictures.append(Image.open(io.BytesIO(picture)).convert("L"))
    changed = ImageChops.difference(*pictures).point(lambda value: 255 * (value > 40))
    assert changed.getbbox() is not None
    with pytest.raises(UserError, match="kind of blur"):
        make_client(blur="hats")
