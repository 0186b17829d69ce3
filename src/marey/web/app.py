"""The server: `POST /api/predict`, OpenAPI at `/docs`, the page at `/`; nothing it serves calls out.

FastAPI carries both (the paper used Streamlit, whose pages are rerun from the top at every click and which has no HTTP
API of its own). A content security policy forbids the browser any address but ours: Gradio's page names fonts and
scripts of other hosts, which are left out.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from marey.errors import UserError, VideoError, import_extra
from marey.video.decode import open_video
from marey.web.models import ModelShelf
from marey.web.uploads import TooLargeError, stored

if TYPE_CHECKING:
    from fastapi import FastAPI

CONTENT_POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
                  "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
                  "font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
                  "frame-ancestors 'self'; form-action 'self'; base-uri 'self'")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the server takes before it says no."""

    max_megabytes: float = 200.0
    """Largest upload, in 10^6 bytes."""
    max_seconds: float = 600.0
    """Longest video, in seconds."""
    concurrent: int = 2
    """API requests answered at once; one more is told to come back."""

    @property
    def max_bytes(self) -> int:
        """Largest upload, in bytes."""
        return int(self.max_megabytes * 1e6)


def create_app(shelf: ModelShelf, limits: Limits | None = None, *, page: bool = True) -> FastAPI:
    """Build the server.

    Args:
        shelf: the models it offers; the first is the default.
        limits: what it takes.
        page: also mount the page at `/`.

    Raises:
        UserError: if the extra "web" is not installed.
    """
    fastapi_offline = import_extra("fastapi_offline", "web", "the server")
    import_extra("multipart", "web", "taking uploads")

    limits = limits or Limits()
    app: FastAPI = fastapi_offline.FastAPIOffline(
        title="Marey", docs_url="/docs", redoc_url=None,
        description="Recognise human actions in video, and know how far to trust the answer.")
    _guard(app)
    _add_api(app, shelf, limits)
    if page:
        from marey.web.page import mount_page

        app = mount_page(app, shelf, limits)
    return app


def _guard(app: FastAPI) -> None:
    from fastapi import Request, Response

    @app.middleware("http")
    async def forbid_other_hosts(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["Content-Security-Policy"] = CONTENT_POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _add_api(app: FastAPI, shelf: ModelShelf, limits: Limits) -> None:
    from fastapi import File, Form, HTTPException, Request, UploadFile

    places = asyncio.Semaphore(limits.concurrent)
    errors: dict[int | str, dict[str, Any]] = {
        400: {"description": "unknown model, or an empty file"},
        413: {"description": f"larger than {limits.max_megabytes:g} MB or longer than {limits.max_seconds:g} s"},
        415: {"description": "not a video that can be read"},
        503: {"description": "all places are taken, or the model cannot be loaded; try again"},
    }

    @app.get("/api/models")
    def models() -> dict[str, Any]:
        """The models this server offers, the default first."""
        return {"models": list(shelf.offered)}

    @app.post("/api/predict", responses=errors)
    async def predict(request: Request, video: Annotated[UploadFile, File(description="A video file.")],
                      model: Annotated[str, Form(description="One of /api/models.")] = shelf.offered[0],
                      top: Annotated[int, Form(ge=1, le=100, description="Answers.")] = 5) -> dict[str, Any]:
        """Recognise the action in an uploaded video; the answer has the form of `marey predict --json`."""
        if model not in shelf.offered:
            raise HTTPException(400, f"model '{model}' is not offered (this server has: {', '.join(shelf.offered)})")
        if int(request.headers.get("content-length", 0)) > limits.max_bytes + 100_000:
            raise HTTPException(413, _too_large(limits))
        if places.locked():
            raise HTTPException(503, "all places are taken; try again in a few seconds", {"Retry-After": "5"})
        async with places:
            try:
                async with stored(video, limits.max_bytes) as path:
                    if path.stat().st_size == 0:
                        raise HTTPException(400, f"{video.filename}: the file is empty; choose a video")
                    return await asyncio.to_thread(_answer, shelf, model, str(path), video.filename or "video", top,
                                                   limits)
            except TooLargeError:
                raise HTTPException(413, _too_large(limits)) from None


def _too_large(limits: Limits) -> str:
    return f"the file is larger than {limits.max_megabytes:g} MB; cut the video or make it smaller"


def _answer(shelf: ModelShelf, model: str, path: str, name: str, top: int, limits: Limits) -> dict[str, Any]:
    """Answer a stored upload under the visitor's name for it, so that no path of the server is told."""
    from fastapi import HTTPException

    try:
        predictor, notice = shelf.get(model)
    except (UserError, OSError) as error:
        raise HTTPException(503, f"the model cannot be loaded: {error}") from error
    try:
        check_length(path, limits)
        prediction = predictor(path)
    except TooLongError as error:
        raise HTTPException(413, f"{name}: {error}") from error
    except VideoError as error:
        raise HTTPException(415, str(error).replace(path, name)) from error
    document: dict[str, Any] = {"model": predictor.name, "results": [prediction.to_dict(top) | {"video": name}]}
    return document | ({"notice": notice} if notice else {})


class TooLongError(UserError):
    """The video lasts longer than the server takes."""


def check_length(path: str, limits: Limits) -> float:
    """Return the duration of a video in seconds.

    Raises:
        TooLongError: if it is longer than the limit.
        VideoError: if it cannot be read.
    """
    with open_video(path) as reader:
        duration = reader.duration_seconds
    if duration > limits.max_seconds:
        raise TooLongError(f"lasts {duration:.0f} s, this server takes up to {limits.max_seconds:g} s; cut the video")
    return duration
