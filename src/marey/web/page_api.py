"""The addresses of the page: work that is watched, stopped and left, and pictures of its answer.

The id of a job cannot be guessed, and is all that is needed to see it.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, HTTPException, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse, JSONResponse

from marey.web.api import BUSY, LOOK_SECONDS, Service, problems
from marey.web.jobs import DONE, Job, QueueFullError
from marey.web.lesson_paths import place_videos
from marey.web.schemas import JobState
from marey.web.storage import new_folder
from marey.web.uploads import UPLOAD

TASKS = ("answer", "changed", "order", "people", "preview")
POLL_SECONDS = 2.0
"""A question about a job is answered when there is news, at the latest after so long."""
PROGRESS_SECONDS = 0.2
"""Mere progress, which comes with every frame, is told no more often; parts of the answer at
once."""
FILE = re.compile(r"[a-z0-9_-]+\.(jpg|mp4|zip|html)")
EXAMPLES = Path(__file__).with_name("examples")


def add_page_api(app: FastAPI, service: Service, *, teaching: bool) -> None:
    """Add the page's addresses to the server."""
    limits = service.limits
    errors: dict[int | str, dict[str, Any]] = {
        status: text for status, text in problems(limits).items() if status != 200
    }
    first = service.offers.names[0]

    @app.get("/api/page", include_in_schema=False)
    def about() -> dict[str, Any]:
        """What the page needs to know of the server."""
        return {
            "limits": {
                "megabytes": limits.max_megabytes,
                "seconds": limits.max_seconds,
                "teach_megabytes": limits.teach_megabytes,
                "teach_files": limits.teach_files,
            },
            "models": [
                {"name": name, "classes": service.offers.classes(name)}
                for name in service.offers.names
            ],
            "examples": sorted(path.stem for path in EXAMPLES.glob("*.mp4")),
            "teaching": teaching,
            "reports": [
                {"url": f"/reports/{number}", "title": report.title, "model": report.model}
                for number, report in enumerate(service.reports)
            ],
        }

    @app.get("/reports/{number}", include_in_schema=False)
    def report(number: int) -> Response:
        """A page about a model, shown without any script."""
        if not 0 <= number < len(service.reports) or not service.reports[number].path.is_file():
            raise HTTPException(404, "there is no such report")
        return FileResponse(service.reports[number].path, media_type="text/html")

    if teaching:

        @app.post("/api/jobs/teach", status_code=202, responses=errors, response_model=JobState)
        async def teach(
            request: Request,
            videos: Annotated[
                list[UploadFile],
                File(description="One zip, or files named CLASS/FILE; a manifest.csv may be one."),
            ],
        ) -> Any:
            """Learn from labelled videos; the model is among the files of the answer."""
            return await submit_lesson(service, videos)

    @app.post("/api/jobs/{task}", status_code=202, responses=errors, response_model=JobState)
    async def start(
        task: str,
        video: Annotated[UploadFile, File(description="A video file.")],
        model: Annotated[str, Form(description="One of /api/models.")] = first,
        severity: Annotated[int, Form(ge=1, le=5, description="Of the changes.")] = 3,
        seed: Annotated[int, Form(ge=0, le=2**31, description="Of the shuffle.")] = 0,
    ) -> Any:
        """Put work into the queue: an answer with pictures, the answer under changes, the order
        game, the people, or a preview."""
        if task not in TASKS:
            raise HTTPException(404, f"no such work; there are {', '.join(TASKS)}")
        job = await service.submit(
            task, [video], model=model, watched=True, page=True, severity=severity, seed=seed
        )
        return state_of(service, job, 0)

    @app.get("/api/jobs/{job_id}", responses=errors, response_model=JobState)
    async def look(
        request: Request, job_id: str, from_part: Annotated[int, Query(ge=0)] = 0
    ) -> Any:
        """How far a job is, as soon as there is news."""
        job = find(service, job_id)
        before = (job.state, dict(job.progress), service.queue.position(job))
        began = time.monotonic()
        while not job.finished.is_set() and len(job.parts) <= from_part:
            waited = time.monotonic() - began
            now = (job.state, dict(job.progress), service.queue.position(job))
            if waited > POLL_SECONDS or (now != before and waited > PROGRESS_SECONDS):
                break
            await asyncio.sleep(LOOK_SECONDS)
        job.touch()
        return state_of(service, job, from_part)

    @app.delete("/api/jobs/{job_id}", status_code=204, responses=errors)
    def cancel(
        job_id: str,
        keep: Annotated[bool, Query(description="Keep the pictures that are there.")] = False,
    ) -> Response:
        """Stop a job and delete its files; those of the parts that are ready stay, if asked for,
        until the page is left."""
        forget(service, job_id, keep=keep)
        return Response(status_code=204)

    @app.post("/api/jobs/{job_id}/leave", status_code=204, include_in_schema=False)
    def leave(job_id: str) -> Response:
        """The same, as a page can still send it when it is closed."""
        forget(service, job_id)
        return Response(status_code=204)

    @app.get("/api/jobs/{job_id}/files/{name}", responses=errors, response_class=FileResponse)
    def file(job_id: str, name: str) -> Response:
        """A picture, the preview, or the taught model of an answer."""
        job = find(service, job_id)
        job.touch()
        path = job.folder / name
        if not FILE.fullmatch(name) or name.startswith(UPLOAD) or not path.is_file():
            raise HTTPException(404, "no such file in this answer")
        download = name if name.endswith(".zip") else None
        return FileResponse(path, filename=download)


def state_of(service: Service, job: Job, from_part: int) -> JSONResponse:
    """Return how far a job is."""
    parts = job.parts[from_part:]
    queue = service.lessons if job.request["task"] == "teach" else service.queue
    document = {
        "id": job.id,
        "state": job.state,
        "position": queue.position(job),
        "progress": job.progress,
        "parts": parts,
        "next_part": from_part + len(parts),
        "result": job.result if job.state == DONE else None,
        "error": job.error or None,
        "status": job.status,
    }
    return JSONResponse(document, 200 if job.finished.is_set() else 202)


def find(service: Service, job_id: str) -> Job:
    """Return a job.

    Raises:
        HTTPException: 404, if there is none, or no more.
    """
    job = service.queue.get(job_id) or service.lessons.get(job_id)
    if job is None:
        raise HTTPException(404, "this answer is gone; ask again")
    return job


def forget(service: Service, job_id: str, *, keep: bool = False) -> None:
    """Stop a job and delete its files, or keep them until they are left or too old; one that is
    gone is no mistake."""
    for queue in (service.queue, service.lessons):
        job = queue.get(job_id)
        if job is not None and keep:
            queue.cancel(job)
        elif job is not None:
            queue.forget(job)


async def submit_lesson(service: Service, videos: list[UploadFile]) -> JSONResponse:
    """Store labelled videos and put the teaching into its queue."""
    if len(videos) > service.limits.teach_files:
        raise HTTPException(
            422,
            f"{len(videos)} files, this server takes up to {service.limits.teach_files}; leave "
            "some out or send fewer at a time",
        )
    folder = new_folder(service.root)
    try:
        root = folder / UPLOAD
        name = await asyncio.to_thread(place_videos, videos, root)
        model = service.offers.names[0]
        request = service.request(
            "teach", root, name, model, service.offers.sources[model], folder, {}
        )
        job = service.lessons.submit(
            request, folder, seconds=service.limits.teach_seconds, watched=True
        )
    except QueueFullError:
        shutil.rmtree(folder, ignore_errors=True)
        raise HTTPException(503, BUSY, {"Retry-After": "60"}) from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return state_of(service, job, 0)
