"""The HTTP API: a video in, the JSON of `marey predict --json` out, or a status that says why
not."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, HTTPException, Request, UploadFile

from marey.web.jobs import DONE, Job, JobQueue, QueueFullError
from marey.web.limits import Limits
from marey.web.offers import Offers, Report
from marey.web.schemas import Answer, Models, Problem
from marey.web.storage import new_folder
from marey.web.uploads import shown_name, store_upload

LOOK_SECONDS = 0.02
"""Between two looks at a job that is waited for."""
BUSY = "the server is busy; try again in a few seconds"


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the addresses of the server work with."""

    offers: Offers
    limits: Limits
    queue: JobQueue
    lessons: JobQueue
    """Of teaching, which takes minutes; None of its work delays an answer."""
    root: Path
    """Folder of the server's files."""
    views: int
    device: str
    blur: str | None = None
    """What is made unrecognisable in pictures: "faces", "persons", or nothing."""
    reports: tuple[Report, ...] = ()
    """Pages about the models."""

    def source(self, model: str) -> str:
        """Return what a model is loaded from.

        Raises:
            HTTPException: 400, if it is not offered; nothing else is ever loaded, so that a request
                cannot make the server fetch.
        """
        if model not in self.offers.sources:
            raise HTTPException(
                400,
                f"model '{shown_name(model)}' is not offered (this server has: "
                f"{', '.join(self.offers.names)})",
            )
        return self.offers.sources[model]

    async def submit(
        self,
        task: str,
        uploads: Sequence[UploadFile],
        *,
        model: str | None = None,
        watched: bool = False,
        **options: Any,
    ) -> Job:
        """Store an upload and put the work on it into the queue.

        Raises:
            HTTPException: 400 (empty file, unknown model), 503 (too many wait).
        """
        model = self.offers.names[0] if model is None else model
        source = self.source(model)
        queue = self.lessons if task == "teach" else self.queue
        folder = new_folder(self.root)
        try:
            name = shown_name(uploads[0].filename)
            path = await asyncio.to_thread(store_upload, uploads[0], folder)
            if path.stat().st_size == 0:
                raise HTTPException(400, f"{name}: the file is empty; choose a video")
            request = self.request(task, path, name, model, source, folder, options)
            seconds = self.limits.teach_seconds if task == "teach" else self.limits.job_seconds
            return queue.submit(request, folder, seconds=seconds, watched=watched)
        except QueueFullError:
            shutil.rmtree(folder, ignore_errors=True)
            raise HTTPException(503, BUSY, {"Retry-After": "5"}) from None
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def request(
        self,
        task: str,
        path: Path,
        name: str,
        model: str,
        source: str,
        folder: Path,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        """Return what a worker process is given."""
        return {
            "task": task,
            "upload": str(path),
            "name": name,
            "model": source,
            "model_name": model,
            "views": self.views,
            "device": self.device,
            "blur": self.blur,
            "folder": str(folder),
            "options": options,
            "limits": self.limits.to_dict(),
            # longest first: paths that hold others
            "shown": {str(path): name, str(folder): "", source: model},
        }

    async def wait(self, job: Job, request: Request) -> None:
        """Wait for a job; it is dropped at once if the one who asked has left."""
        try:
            while not job.finished.is_set():
                await asyncio.sleep(LOOK_SECONDS)
                if await request.is_disconnected():
                    self.queue.forget(job)
                    raise HTTPException(499, "cancelled")
        except asyncio.CancelledError:
            self.queue.forget(job)
            raise


def add_api(app: FastAPI, service: Service) -> None:
    """Add the API's addresses to the server."""
    limits, offers = service.limits, service.offers
    errors = problems(limits)
    first = offers.names[0]

    @app.get("/api/models", response_model=Models)
    def models() -> dict[str, Any]:
        """The models this server offers, the default first, and what each knows."""
        return {
            "models": offers.names,
            "offered": [{"name": name, "classes": offers.classes(name)} for name in offers.names],
        }

    @app.post("/api/predict", responses=errors, response_model=None)
    async def predict(
        request: Request,
        video: Annotated[UploadFile, File(description="A video file, once.")],
        model: Annotated[str, Form(description="One of /api/models.")] = first,
        top: Annotated[int, Form(ge=1, le=100, description="Answers.")] = 5,
    ) -> Any:
        """Recognise the action in an uploaded video; the answer has the form of `marey predict
        --json`.

        Models that find persons answer in the form of `marey detect --json`.
        """
        if len((await request.form()).getlist("video")) > 1:
            raise HTTPException(
                422, "'video' is given more than once; send several to /api/predict/batch"
            )
        job = await service.submit("answer", [video], model=model, top=top)
        await service.wait(job, request)
        if job.state != DONE:
            raise HTTPException(job.status, _named(job), _headers(job.status))
        return job.result

    @app.post("/api/predict/batch", responses=errors, response_model=None)
    async def predict_batch(
        request: Request,
        videos: Annotated[
            list[UploadFile], File(description="Video files, the field once for each.")
        ],
        model: Annotated[str, Form(description="One of /api/models.")] = first,
        top: Annotated[int, Form(ge=1, le=100, description="Answers.")] = 5,
    ) -> Any:
        """Recognise the action in each of several videos, in their order.

        A video that cannot be answered has an "error" and stops no other.
        """
        if len(videos) > limits.max_batch:
            raise HTTPException(
                422, f"{len(videos)} videos, this server takes up to {limits.max_batch} at once"
            )
        service.source(model)
        gate = asyncio.Semaphore(limits.concurrent)

        async def one(video: UploadFile) -> dict[str, Any]:
            async with gate:
                try:
                    job = await service.submit("answer", [video], model=model, top=top)
                except HTTPException as error:
                    return _unanswered(shown_name(video.filename), str(error.detail))
                await service.wait(job, request)
                if job.state == DONE and job.result is not None:
                    return job.result["results"][0]
                return _unanswered(job.request["name"], _named(job))

        results = await asyncio.gather(*map(one, videos))
        return {"model": model, "results": results}


def problems(limits: Limits) -> dict[int | str, dict[str, Any]]:
    """Return the statuses of the API, for its description."""
    said = {
        400: "unknown model, or an empty file",
        401: "the server asks for a token, and this is not it",
        403: "sent by a page of another site",
        408: "the upload stopped, or is too slow",
        413: f"larger than {limits.max_megabytes:g} MB, longer than {limits.max_seconds:g} s, more "
        f"than {limits.max_frames} frames, frames of more than {limits.max_pixels} pixels, or "
        f"more than {limits.memory_megabytes:g} MB of memory to work on it",
        415: "not a video that can be read",
        422: "a field is missing, given twice or out of its range",
        500: "the server failed; its log says why",
        503: "too many wait, the work took too long, or the model cannot be loaded",
    }
    described: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": text} for status, text in said.items()
    }
    return {200: {"model": Answer}, **described}


def _unanswered(name: str, error: str) -> dict[str, Any]:
    return {"video": name, "predictions": [], "frame_seconds": [], "trust": {}, "error": error}


def _named(job: Job) -> str:
    """Return the error of a job, with the name of the visitor's file once."""
    name = job.request["name"]
    return job.error if name in job.error else f"{name}: {job.error}"


def _headers(status: int) -> dict[str, str] | None:
    return {"Retry-After": "5"} if status == 503 else None
