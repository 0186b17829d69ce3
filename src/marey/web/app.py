"""The server: `POST /api/predict`, its description at `/docs`, the page at `/`; no page of it makes
requests to other hosts.

FastAPI carries it; the page is plain HTML, CSS and JavaScript. Videos are read in processes of
their own (`marey.web.worker_process`): this one imports neither torch nor FFmpeg.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from marey.errors import UserError, import_extra, unknown_name
from marey.web.access import TokenCheck
from marey.web.api import Service, add_api
from marey.web.guard import OVERHEAD_BYTES, SMALL_BYTES, Guard
from marey.web.hosts import LOOPBACK, HostCheck, checked_hosts
from marey.web.jobs import FAILED, JobQueue
from marey.web.limits import Limits
from marey.web.offers import find_reports, parse_offers
from marey.web.page_api import EXAMPLES, add_page_api
from marey.web.storage import make_root, new_folder
from marey.web.worker_process import WorkerProcess

STATIC = Path(__file__).with_name("static")
BLUR_KINDS = ("faces", "persons")
"""As in `persons.blur`, which loads torch."""
TEACH_NICE = 10
"""Teaching steps back behind answers."""


def create_app(
    models: Sequence[str] = ("marey-mini",),
    limits: Limits | None = None,
    *,
    page: bool = True,
    teaching: bool = True,
    token: str | None = None,
    allowed_hosts: Sequence[str] = (),
    reports: Sequence[str | Path] = (),
    blur: str | None = None,
    views: int = 3,
    device: str = "cpu",
    worker: type[WorkerProcess] = WorkerProcess,
) -> FastAPI:
    """Build the server.

    Args:
        models: what it offers, each SOURCE or NAME=SOURCE; the first is the default.
        limits: on uploads, videos and work.
        page: also serve the page at `/`.
        teaching: let visitors teach models by upload.
        token: who does not send it gets status 401; None lets everyone in.
        allowed_hosts: names and addresses that requests may come by besides this machine's loopback
            ones.
        reports: HTML pages about the models that visitors may open; `report.html` in the folder of
            a model is one without being named.
        blur: "faces" or "persons" are made unrecognisable in every picture the server makes; None:
            nothing is.
        views: temporal views per video.
        device: where models run.
        worker: what works on a request.

    Raises:
        UserError: if the extra "web" is not installed, a host, a name or a kind of blur is none,
            the token is too short, or a report cannot be read.
    """
    fastapi_offline = import_extra("fastapi_offline", "web", "the server")
    import_extra("multipart", "web", "taking uploads")

    limits = limits or Limits()
    if blur is not None and blur not in BLUR_KINDS:
        raise unknown_name("kind of blur", blur, BLUR_KINDS)
    offers = parse_offers(models)
    pages = tuple(find_reports(offers, reports))
    hosts = [*LOOPBACK, *checked_hosts(allowed_hosts)]
    root = make_root()
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    service = Service(
        offers=offers,
        limits=limits,
        queue=JobQueue(limits, worker=worker),
        lessons=JobQueue(limits, workers=1, nice=TEACH_NICE, keep=False, worker=worker),
        root=root,
        views=views,
        device=device,
        reports=pages,
        blur=blur,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=get_to_know, args=(service,), daemon=True).start()
        yield
        close(service)

    atexit.register(close, service)
    app: FastAPI = fastapi_offline.FastAPIOffline(
        title="Marey",
        docs_url="/docs",
        redoc_url=None,
        lifespan=lifespan,
        description="Recognise human actions in video, and know how far to trust the answer.",
    )
    app.state.service = service
    add_errors(app)
    add_api(app, service)
    add_page_api(app, service, teaching=teaching)
    if page:
        add_page(app)

    def allowed_bytes(path: str) -> int:
        if path == "/api/jobs/teach":
            return limits.teach_bytes + OVERHEAD_BYTES
        if path == "/api/predict/batch":
            return limits.max_batch * limits.max_bytes + OVERHEAD_BYTES
        if path == "/api/predict" or path.startswith("/api/jobs/"):
            return limits.max_bytes + OVERHEAD_BYTES
        return SMALL_BYTES

    # the last one added is the first a request meets
    if token is not None:
        TokenCheck(app, token)  # a token that is too short is refused now, not at the first request
        app.add_middleware(TokenCheck, token=token)
    app.add_middleware(
        Guard, limits=limits, allowed_bytes=allowed_bytes, is_full=lambda: service.queue.is_full
    )
    app.add_middleware(HostCheck, allowed_hosts=hosts)
    return app


def add_page(app: FastAPI) -> None:
    """Add the page and its files."""

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.mount("/examples", StaticFiles(directory=EXAMPLES), name="examples")


def add_errors(app: FastAPI) -> None:
    """Give every error one shape: {"detail": one line}."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        said = []
        for entry in error.errors()[:3]:
            where = ".".join(str(part) for part in entry["loc"][1:]) or "request"
            what = "send a file, not text" if "UploadFile" in entry["msg"] else entry["msg"]
            said.append(f"{where}: {what}")
        return JSONResponse({"detail": " ".join("; ".join(said).split())}, 422)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        detail = str(error.detail)
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            detail = f"{request.method} does nothing here; use {allowed}"
        elif error.status_code == 404 and detail == "Not Found":
            detail = "there is nothing at this address; /docs lists what there is"
        return JSONResponse({"detail": detail}, error.status_code, error.headers)

    @app.exception_handler(UserError)
    async def mistaken(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 400)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "the server failed; its log says why"}, 500)


def get_to_know(service: Service) -> None:
    """Load each model once, so that the first visitor need not wait and the page can say what each
    knows; the first that cannot be loaded is an error.

    Raises:
        UserError: if a model cannot be loaded.
    """
    for name in service.offers.names:
        if name in service.offers.about:
            continue
        folder = new_folder(service.root)
        request = service.request(
            "model", folder, name, name, service.offers.sources[name], folder, {}
        )
        request.pop("upload")
        job = service.queue.submit(
            request, folder, seconds=service.limits.teach_seconds, watched=False
        )
        job.finished.wait()
        if job.state == FAILED:
            raise UserError(f"--model {service.offers.sources[name]}: {job.error}")
        service.offers.about[name] = job.result or {}


def close(service: Service) -> None:
    """End all work and delete all files."""
    service.queue.close()
    service.lessons.close()
    shutil.rmtree(service.root, ignore_errors=True)
