"""The page in a real browser: upload, answer, bad file, two visitors, no request to another
host."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the extra 'web' is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium here: Debian's package 'chromium' brings one"
    ),
]


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path) -> Iterator[str]:
    import uvicorn

    from marey.web.app import create_app
    from marey.web.limits import Limits
    from marey.web.models import ModelShelf

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


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as library:
        browser = library.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
            ],
        )
        yield browser
        browser.close()


def visit(browser: object, server: str, video: Path, width: int = 1100) -> object:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.hosts = set()
    page.on(
        "request",
        lambda request: (
            page.hosts.add(request.url.split("/")[2]) if request.url.startswith("http") else None
        ),
    )
    page.goto(server)
    page.wait_for_selector("#recognise", timeout=60_000)
    page.set_input_files("#video input[type=file]", str(video))
    page.wait_for_selector("#video video", timeout=60_000)
    return page


def test_an_upload_is_answered_and_no_other_host_is_asked(
    browser: object, server: str, day_and_night: Path
) -> None:
    page = visit(browser, server, day_and_night)
    page.click("#recognise")
    page.wait_for_selector("#trust .trust", timeout=60_000)
    assert "Calibrated probability" in page.inner_text("#trust")
    assert "bright" in page.inner_text("#answer")
    assert page.locator("#frames img").count() >= 4
    assert page.hosts == {server.split("/")[2]}
    page.close()


def test_a_phone_wide_screen_needs_no_sideways_scrolling(
    browser: object, server: str, day_and_night: Path
) -> None:
    page = visit(browser, server, day_and_night, width=380)
    assert page.evaluate("document.documentElement.scrollWidth") <= 382
    page.close()


def test_the_button_works_by_keyboard_and_two_visitors_are_both_answered(
    browser: object, server: str, day_and_night: Path
) -> None:
    pages = [visit(browser, server, day_and_night) for _ in range(2)]
    for page in pages:
        page.focus("#recognise")
        page.keyboard.press("Enter")
    for page in pages:
        page.wait_for_selector("#trust .trust", timeout=60_000)
        page.close()


def test_a_bad_file_is_a_sentence_on_the_page_and_the_server_lives_on(
    browser: object, server: str, tmp_path: Path, day_and_night: Path
) -> None:
    bad = tmp_path / "evil <img src=x> #1.mp4"
    bad.write_bytes(b"no video at all")
    page = browser.new_page()
    page.goto(server)
    page.wait_for_selector("#recognise", timeout=60_000)
    page.set_input_files("#video input[type=file]", str(bad))
    page.wait_for_timeout(1500)
    page.click("#recognise")
    page.wait_for_selector("[data-testid=toast-body]", timeout=60_000)
    assert page.locator("[data-testid=toast-body] img[src=x]").count() == 0
    page.close()
    again = visit(browser, server, day_and_night)
    again.click("#recognise")
    again.wait_for_selector("#trust .trust", timeout=60_000)
    again.close()


def test_the_endpoint_takes_the_video_alone(server: str, day_and_night: Path) -> None:
    from gradio_client import Client, handle_file

    answer = Client(server, verbose=False).predict(
        handle_file(str(day_and_night)), api_name="/predict"
    )
    assert {entry["label"] for entry in answer[0]["confidences"]} == {"bright", "dark"}
