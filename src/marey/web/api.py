"""`POST /api/predict`: an uploaded video in, the JSON of `marey predict --json` out, or a status
that says why not."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, HTTPException, Request, UploadFile

from marey.errors import UserError, VideoError
from marey.web.limits import BeyondLimitsError, Limits, check_limits
from marey.web.models import FALLBACK, ModelShelf
from marey.web.uploads import TooLargeError, stored


def add_api(app: FastAPI, shelf: ModelShelf, limits: Limits) -> None:
    """Add the API's addresses to the server."""
    slots = asyncio.Semaphore(limits.concurrent)
    errors: dict[int | str, dict[str, Any]] = {
        400: {"description": "unknown model, or an empty file"},
        413: {
            "description": f"larger than {limits.max_megabytes:g} MB, longer than "
            f"{limits.max_seconds:g} s or with "
            f"frames of more than {limits.max_pixels} pixels"
        },
        415: {"description": "not a video that can be read"},
        503: {"description": "the server is busy, or the model cannot be loaded; try again"},
    }

    @app.get("/api/models")
    def models() -> dict[str, Any]:
        """The models this server offers, the default first."""
        return {"models": list(shelf.offered)}

    @app.post("/api/predict", responses=errors)
    async def predict(
        request: Request,
        video: Annotated[UploadFile, File(description="A video file.")],
        model: Annotated[str, Form(description="One of /api/models.")] = shelf.offered[0],
        top: Annotated[int, Form(ge=1, le=100, description="Answers.")] = 5,
    ) -> dict[str, Any]:
        """Recognise the action in an uploaded video; the answer has the form of `marey predict
        --json`.

        Models that find persons answer in the form of `marey detect --json`.
        """
        if model not in shelf.offered:
            raise HTTPException(
                400, f"model '{model}' is not offered (this server has: {', '.join(shelf.offered)})"
            )
        if int(request.headers.get("content-length", 0)) > limits.max_bytes + 100_000:
            raise HTTPException(413, _too_large(limits))
        if slots.locked():
            raise HTTPException(
                503, "the server is busy; try again in a few seconds", {"Retry-After": "5"}
            )
        async with slots:
            try:
                async with stored(video, limits.max_bytes) as path:
                    if path.stat().st_size == 0:
                        raise HTTPException(
                            400, f"{video.filename}: the file is empty; choose a video"
                        )
                    return await asyncio.to_thread(
                        _answer, shelf, model, str(path), video.filename or "video", top, limits
                    )
            except TooLargeError:
                raise HTTPException(413, _too_large(limits)) from None


def _too_large(limits: Limits) -> str:
    return f"the file is larger than {limits.max_megabytes:g} MB; cut the video or make it smaller"


def _answer(
    shelf: ModelShelf, model: str, path: str, name: str, top: int, limits: Limits
) -> dict[str, Any]:
    """Answer a stored upload under the visitor's name for it, so that no path of the server
    leaks."""
    try:
        predictor, notice = shelf.get(model)
    except (UserError, OSError) as error:
        raise HTTPException(503, f"the model cannot be loaded: {error}") from error
    try:
        check_limits(path, limits)
        answer = predictor(path)
    except BeyondLimitsError as error:
        raise HTTPException(413, f"{name}: {error}") from error
    except VideoError as error:
        raise HTTPException(415, str(error).replace(path, name)) from error
    document: dict[str, Any] = {
        "model": model if not notice else FALLBACK,
        "results": [answer.to_dict(top) | {"video": name}],
    }
    return document | ({"notice": notice} if notice else {})
