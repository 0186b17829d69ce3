"""The server: `POST /api/predict`, OpenAPI at `/docs`, the page at `/`; no page of it makes
requests to other hosts.

FastAPI carries both (the paper used Streamlit, whose pages are rerun from the top at every click
and which has no HTTP API of its own). A content security policy forbids the browser any address but
ours: Gradio's page names fonts and scripts of other hosts, which are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response

from marey.errors import import_extra
from marey.web.api import add_api
from marey.web.hosts import LOOPBACK, HostCheck, checked_hosts
from marey.web.limits import Limits
from marey.web.models import ModelShelf
from marey.web.page import mount_page

CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)


def create_app(
    shelf: ModelShelf,
    limits: Limits | None = None,
    *,
    page: bool = True,
    allowed_hosts: Sequence[str] = (),
) -> FastAPI:
    """Build the server.

    Args:
        shelf: the models it offers; the first is the default.
        limits: on uploads.
        page: also mount the page at `/`.
        allowed_hosts: names and addresses that requests may come by besides this machine's loopback
            ones.

    Raises:
        UserError: if the extra "web" is not installed, or a host is none.
    """
    fastapi_offline = import_extra("fastapi_offline", "web", "the server")
    import_extra("multipart", "web", "taking uploads")

    limits = limits or Limits()
    app: FastAPI = fastapi_offline.FastAPIOffline(
        title="Marey",
        docs_url="/docs",
        redoc_url=None,
        description="Recognise human actions in video, and know how far to trust the answer.",
    )
    app.add_middleware(HostCheck, allowed_hosts=[*LOOPBACK, *checked_hosts(allowed_hosts)])
    _guard(app)
    add_api(app, shelf, limits)
    if page:
        app = mount_page(app, shelf, limits)
    return app


def _guard(app: FastAPI) -> None:
    @app.middleware("http")
    async def forbid_other_hosts(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["Content-Security-Policy"] = CONTENT_POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response
