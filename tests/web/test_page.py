"""The page in a real browser: every state at every width, by keyboard, with axe-core, and without a
request to another host.

Set MAREY_SCREENSHOTS to a folder to keep a picture of each state. `assets/axe.min.js` is axe-core
4.11.0 (npm, Mozilla Public License 2.0).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi_offline", reason="the extra 'web' is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AXE = Path(__file__).parent / "assets" / "axe.min.js"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium here: Debian's package 'chromium' brings one"
    ),
]

WIDTHS = (360, 768, 1280, 1600)
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path, inline_worker: Any) -> Iterator[str]:
    """A server with one small model, whose work is done in this process."""
    yield from served([f"tiny={tiny_checkpoint}"], inline_worker)


def served(models: list[str], worker: Any, **options: Any) -> Iterator[str]:
    import uvicorn

    from marey.web.app import create_app
    from marey.web.limits import Limits
    from marey.web.protocol import timed_protocol

    listening = socket.create_server(("127.0.0.1", 0))  # kept, so that nobody else gets the port
    port = listening.getsockname()[1]
    app = create_app(
        models, Limits(max_seconds=60, concurrent=1), views=1, worker=worker, **options
    )
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="error", http=timed_protocol(10)
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not running.started:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/"
    running.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as library:
        browser = library.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
            ],
        )
        yield browser
        browser.close()


class Visit:
    """One visitor: a page, and what it has asked for and complained of."""

    def __init__(
        self, browser: Any, server: str, *, width: int = 1280, scheme: str = "light"
    ) -> None:
        self.server, self.width, self.scheme = server, width, scheme
        self.context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.hosts: set[str] = set()
        self.errors: list[str] = []
        self.page.on("request", self._asked)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(server)
        self.page.wait_for_selector("html[data-ready]", state="attached")

    def _asked(self, request: Any) -> None:
        if request.url.startswith("http"):
            self.hosts.add(request.url.split("/")[2])

    def choose(self, video: Path) -> None:
        self.page.set_input_files("#file", str(video))

    def recognise(self, video: Path) -> None:
        self.choose(video)
        self.page.click("#go")
        self.page.wait_for_selector("#changes-block:not([hidden])")

    def check(self, name: str) -> None:
        """No sideways scrolling, no error, no other host, no violation that axe-core knows."""
        folder = os.environ.get("MAREY_SCREENSHOTS")
        if folder:
            path = Path(folder) / f"{name}-{self.width}-{self.scheme}.png"
            self.page.screenshot(path=str(path), full_page=True)
        wide = self.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= self.width, f"{name} is {wide} pixels wide"
        assert self.errors == []
        assert self.hosts == {self.server.split("/")[2]}
        self.page.evaluate(f"{AXE.read_text()};0")
        found = self.page.evaluate(
            "async () => (await axe.run(document)).violations.map("
            "rule => [rule.id, rule.nodes.map(node => node.html.slice(0, 200))])"
        )
        assert found == [], json.dumps(found, indent=1)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()


FAKE_ANSWERS = {
    "sure": {
        "verdict": {
            "kind": "sure",
            "headline": "Cartwheel, 94 %",
            "advice": "The probability was measured on videos the model had not seen; it holds for "
            "videos like those.",
        },
        "predictions": [{"label": "cartwheel", "probability": 0.94}],
        "why": ["100 % of the moments of the video, by weight, agree on the first answer."],
        "warnings": [],
        "decided": {
            "label": "cartwheel",
            "unknown": False,
            "probability": 0.94,
            "track": 1,
            "parts": [
                {"name": "left wrist", "fall": 0.31},
                {"name": "head", "fall": 0.12},
                {"name": "right hip", "fall": -0.02},
            ],
            "moments": [
                {"start_seconds": n / 2, "end_seconds": (n + 1) / 2, "fall": 0.1 * n - 0.1}
                for n in range(12)
            ],
            "confirmed": True,
            "frames": [],
        },
    },
    "unknown": {
        "verdict": {
            "kind": "unknown",
            "headline": "Unknown: not one of my 15 actions",
            "advice": "The nearest is crawl, but do not rely on it; teach me this action with a "
            "few videos, or choose a model that knows it.",
        },
        "predictions": [{"label": "crawl", "probability": 0.41}],
        "why": ["Unknown: no known action is likely enough."],
        "warnings": [],
    },
    "unsure": {
        "verdict": {
            "kind": "unsure",
            "headline": "Unsure: push or punch",
            "advice": "At nine videos in ten the right one is among these; look at the frames to "
            "decide between them.",
        },
        "predictions": [
            {"label": "push", "probability": 0.52},
            {"label": "punch", "probability": 0.4},
        ],
        "why": ["67% of the 3 views of the video agree on the first answer."],
        "warnings": ["The file is damaged (ends early); only the 2.4 s that can be read were "
                     "looked at."],
    },
    "nobody": {
        "verdict": {
            "kind": "nobody",
            "headline": "Nobody found",
            "advice": "No person was seen for long enough to say what they do; try a clip in which "
            "somebody is larger or longer in the picture.",
        },
        "predictions": [],
        "why": [],
        "warnings": [],
    },
}  # fmt: skip
"""Answers that the small model of the tests cannot give, in the server's own words."""


def fake(visit: Visit, kind: str, **end: Any) -> None:
    """Answer in the server's place; `end` changes the last state."""
    state = {"id": "fake", "position": 0, "progress": {}, "error": None, "status": 200}
    started = {**state, "state": "queued", "parts": [], "next_part": 0, "result": None}
    done = {**state, "state": "done", "parts": [FAKE_ANSWERS[kind]], "next_part": 1, "result": {}}
    done |= end
    visit.page.route("**/api/jobs/answer", lambda route: route.fulfill(status=202, json=started))
    visit.page.route("**/api/jobs/fake*", lambda route: route.fulfill(json=done))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_start_and_answer_at_every_width(
    browser: Any, server: str, day_and_night: Path, width: int, scheme: str
) -> None:
    with Visit(browser, server, width=width, scheme=scheme) as visit:
        visit.check("start")
        visit.recognise(day_and_night)
        page = visit.page
        assert page.inner_text("#headline")
        assert page.evaluate("document.activeElement.id") == "headline"
        assert page.locator("#frames img").count() == 4
        assert page.locator("#timeline button").count() == 2
        page.click("#knows-summary")
        assert page.inner_text("#knows-summary") == "tiny knows 2 actions"
        visit.check("answer")
        page.click("#maps")
        assert "Warm and bright" in page.inner_text("#looked")
        visit.check("maps")


@pytest.mark.parametrize("kind", FAKE_ANSWERS)
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light"), (1280, "dark")])
def test_the_verdict_is_the_headline(
    browser: Any, server: str, day_and_night: Path, kind: str, width: int, scheme: str
) -> None:
    with Visit(browser, server, width=width, scheme=scheme) as visit:
        fake(visit, kind)
        visit.choose(day_and_night)
        visit.page.click("#go")
        visit.page.wait_for_selector("#answer:not([hidden])")
        headline = visit.page.locator("#headline")
        assert headline.inner_text() == FAKE_ANSWERS[kind]["verdict"]["headline"]
        size = headline.evaluate("element => parseFloat(getComputedStyle(element).fontSize)")
        others = visit.page.eval_on_selector_all(
            "#answer *:not(#headline)",
            "all => Math.max(...all.map(one => parseFloat(getComputedStyle(one).fontSize)))",
        )
        assert size > 1.2 * others
        assert visit.page.locator("#warnings p").count() == len(FAKE_ANSWERS[kind]["warnings"])
        visit.check(kind)


def test_a_verdict_stays_when_what_comes_after_it_fails(
    browser: Any, server: str, day_and_night: Path
) -> None:
    with Visit(browser, server) as visit:
        page = visit.page
        fake(visit, "sure", state="failed", error="the work took longer than 120 s")
        visit.choose(day_and_night)
        page.click("#go")
        page.wait_for_selector("#problem:not([hidden])")
        assert page.inner_text("#problem") == "The work took longer than 120 s"
        assert page.inner_text("#headline") == "Cartwheel, 94 %"
        assert page.is_visible("#people")
        visit.choose(day_and_night)
        assert page.is_hidden("#problem")


def test_what_decided_is_said_in_points_and_its_moments_are_played(
    browser: Any, server: str, day_and_night: Path
) -> None:
    with Visit(browser, server) as visit:
        page = visit.page
        fake(visit, "sure")
        visit.choose(day_and_night)
        page.click("#go")
        page.wait_for_selector("#decided-block:not([hidden])")
        assert "cartwheel" in page.inner_text("#decided-title")
        assert page.inner_text("#parts").split("\n") == [
            "Left wrist",
            "31 points",
            "Head",
            "12 points",
        ]
        assert "changes the answer more than" in page.inner_text("#decided-check")
        page.focus("#moments button >> nth=5")
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.querySelector('#video').currentTime >= 2.5")


@pytest.mark.parametrize("width", [360, 1280])
def test_the_answer_under_changes_and_people(
    browser: Any, server: str, walkers: Path, width: int
) -> None:
    with Visit(browser, server, width=width) as visit:
        visit.recognise(walkers)
        page = visit.page
        page.click("#people")
        page.wait_for_selector("#people-list:not([hidden])")
        assert page.locator("#people-list button").count() == 2
        page.wait_for_function(
            "[...document.querySelector('#overlay').getContext('2d').getImageData("
            "0, 0, overlay.width, overlay.height).data].some(value => value > 0)"
        )
        page.click("#try")
        page.wait_for_function("document.querySelectorAll('#changes li').length === 13")
        page.wait_for_selector("#changes-bar[hidden]", state="attached")
        assert "The answer holds under" in page.inner_text("#changes-note")
        visit.check("changes")


def test_a_bad_file_is_said_in_place_and_the_old_answer_goes(
    browser: Any, server: str, tmp_path: Path, day_and_night: Path
) -> None:
    bad = tmp_path / "evil <img src=x> #1.mp4"
    bad.write_bytes(b"no video at all")
    with Visit(browser, server) as visit:
        page = visit.page
        visit.recognise(day_and_night)
        visit.choose(bad)
        assert page.is_hidden("#answer")
        assert page.is_hidden("#frames-block")
        page.wait_for_selector("#problem:not([hidden])")
        assert "cannot be read as a video" in page.inner_text("#problem")
        assert page.locator("img[src=x]").count() == 0
        visit.check("problem")
        visit.recognise(day_and_night)
        assert page.is_hidden("#problem")


@pytest.mark.parametrize("suffix", [".avi", ".gif"])
def test_a_file_the_browser_cannot_play_gets_a_preview(
    browser: Any, server: str, tmp_path: Path, suffix: str
) -> None:
    import torch
    from PIL import Image

    from marey.video.encode import write_video

    path = tmp_path / f"clip{suffix}"
    if suffix == ".gif":
        pictures = [Image.new("RGB", (64, 48), (9 * n, 90, 200)) for n in range(20)]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    else:
        noise = torch.randint(0, 255, (20, 3, 48, 64), dtype=torch.uint8)
        write_video(path, noise, fps=10, codec="mpeg4")
    with Visit(browser, server) as visit:
        visit.choose(path)
        visit.page.wait_for_function(
            "document.querySelector('#video').src.endsWith('preview.mp4')"
            " && document.querySelector('#video').videoWidth > 0"
        )
        assert "preview" in visit.page.inner_text("#preview-note")


def test_everything_works_by_keyboard(browser: Any, server: str, day_and_night: Path) -> None:
    with Visit(browser, server) as visit:
        page = visit.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        visit.choose(day_and_night)
        page.focus("#go")
        page.keyboard.press("Enter")
        page.wait_for_selector("#changes-block:not([hidden])")
        reached = set()
        page.evaluate("document.activeElement.blur()")
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate("document.activeElement.id || document.activeElement.tagName")
            )
        assert {"go", "model", "camera", "people", "maps", "plain", "try", "severity"} <= reached
        page.focus("#timeline button >> nth=1")
        page.keyboard.press("Enter")
        page.wait_for_function("document.querySelector('#video').currentTime > 3")


def test_a_stretch_that_is_chosen_plays_to_its_end_whatever_played_before(
    browser: Any, server: str, day_and_night: Path
) -> None:
    with Visit(browser, server) as visit:
        page = visit.page
        visit.recognise(day_and_night)
        starts, stops = (
            page.evaluate(f"[...document.querySelectorAll('#timeline small')].map({each})")
            for each in ("s => +s.textContent.slice(2, 5)", "s => +s.textContent.slice(-3)")
        )
        page.click("#timeline button >> nth=0")
        page.click("#timeline button >> nth=1")
        page.wait_for_function(
            f"document.querySelector('#video').currentTime > {starts[1] + 0.3}"
            f" && document.querySelector('#video').paused"
        )
        ended = page.evaluate("document.querySelector('#video').currentTime")
        assert ended >= stops[1] - 0.11


def test_work_can_be_cancelled_and_the_next_visitor_is_answered(
    browser: Any, tiny_checkpoint: Path, inline_worker: Any, walkers: Path, day_and_night: Path
) -> None:
    held = threading.Event()

    class Held(inline_worker):
        """Answers at once, except while `held`: then it works until it is stopped."""

        def run(self, request: dict[str, Any], *, stop: threading.Event, **options: Any) -> Any:
            if held.is_set() and "upload" in request:
                held.clear()
                assert stop.wait(60), "nobody cancelled"
            return super().run(request, stop=stop, **options)

    for server in served([f"tiny={tiny_checkpoint}"], Held):
        with Visit(browser, server) as first, Visit(browser, server) as second:
            first.choose(walkers)
            held.set()
            first.page.click("#go")
            first.page.wait_for_selector("#working:not([hidden])")
            until(lambda: not held.is_set())
            second.choose(day_and_night)
            second.page.click("#go")
            second.page.wait_for_selector("#working-text:has-text('Waiting')")
            second.check("waiting")
            first.page.click("#cancel")
            first.page.wait_for_selector("#problem:not([hidden])")
            assert first.page.inner_text("#problem").startswith("Cancelled.")
            assert "problem" not in first.page.get_attribute("#problem", "class")
            first.check("cancelled")
            second.page.wait_for_selector("#answer:not([hidden])")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_visitor_who_leaves_takes_the_files_along(
    browser: Any, server: str, day_and_night: Path, tmp_path: Path
) -> None:
    # The first visitor's browser stays open: a closing profile may drop what a page sends last.
    with Visit(browser, server) as visit, Visit(browser, server) as other:
        visit.recognise(day_and_night)
        picture = visit.page.get_attribute("#frames img", "src")
        status = "address => fetch(address, {cache: 'no-store'}).then(r => r.status)"
        assert other.page.evaluate(status, picture) == 200
        visit.page.goto("about:blank")
        until(lambda: other.page.evaluate(status, picture) == 404)


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
def test_the_order_game(browser: Any, server: str, width: int, scheme: str) -> None:
    with Visit(browser, server, width=width, scheme=scheme) as visit:
        page = visit.page
        page.click("nav a[data-view=order]")
        page.click("#order-examples button >> nth=1")
        page.wait_for_selector("#game:not([hidden])")
        first = page.inner_text("#cards button >> nth=0")
        page.focus("#cards button >> nth=0")
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        assert first.split("picture ")[1] in page.inner_text("#cards button >> nth=1")
        page.click("#check")
        assert "a random order has" in page.inner_text("#score")
        assert page.locator("#true-cards li").count() == page.locator("#cards li").count()
        visit.check("order")


def test_a_recording_is_answered(browser: Any, server: str) -> None:
    with Visit(browser, server) as visit:
        visit.page.click("#camera")
        visit.page.wait_for_function(
            "document.querySelector('#camera').textContent.startsWith('Stop')"
        )
        visit.page.wait_for_function("document.querySelector('#video').currentTime > 1")
        visit.page.click("#camera")
        visit.page.wait_for_selector("#go:not([disabled])")
        visit.page.click("#go")
        visit.page.wait_for_selector("#answer:not([hidden])")


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_teaching_from_a_folder(
    browser: Any, server: str, tmp_path: Path, width: int, scheme: str
) -> None:
    import torch

    from marey.video.encode import write_video

    generator = torch.Generator().manual_seed(0)
    for label, level in (("bright", 200), ("dark", 30)):
        for number in range(4):
            noise = torch.randint(-20, 20, (10, 3, 48, 64), generator=generator)
            path = tmp_path / "mine" / label / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, (level + noise).clamp(0, 255).byte(), fps=10)
    with Visit(browser, server, width=width, scheme=scheme) as visit:
        page = visit.page
        page.click("nav a[data-view=teach]")
        page.set_input_files("#folder", str(tmp_path / "mine"))
        assert page.inner_text("#lesson-classes").split("\n") == ["bright: 4", "dark: 4"]
        visit.check("teach")
        page.click("#learn")
        page.wait_for_selector(
            "#taught:not([hidden]), #teach-problem:not([hidden])", timeout=200_000
        )
        assert page.is_hidden("#teach-problem"), page.inner_text("#teach-problem")
        assert "of new videos are answered right" in page.inner_text("#taught-title")
        with page.expect_download() as download:
            page.click("#download")
        assert Path(download.value.path()).stat().st_size > 10_000
        visit.check("taught")


def test_the_token_is_asked_for_in_a_form(
    browser: Any, tiny_checkpoint: Path, inline_worker: Any
) -> None:
    for server in served([f"t={tiny_checkpoint}"], inline_worker, token="correct horse battery"):
        context = browser.new_context(viewport={"width": 360, "height": 700}, bypass_csp=True)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(server)
        page.fill("#token", "correct horse battery")
        page.keyboard.press("Enter")
        page.wait_for_selector("html[data-ready]", state="attached")
        assert page.is_visible("#drop")
        context.close()


def test_the_first_paint_comes_within_a_second(browser: Any, server: str) -> None:
    paints = []
    while not paints or (min(paints) >= 1000 and len(paints) < 10):  # others may hold the processor
        with Visit(browser, server) as visit:
            paints.append(
                visit.page.evaluate(
                    "performance.getEntriesByName('first-contentful-paint')[0].startTime"
                )
            )
    assert min(paints) < 1000, paints
