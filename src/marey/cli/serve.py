"""`marey serve`: the web page and the HTTP API."""

from __future__ import annotations

from typing import Annotated

import typer

from marey.cli.options import Device
from marey.cli.output import say


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(serve)


def serve(
    model: Annotated[
        list[str] | None, typer.Option(help="Model to offer; give it several times for a choice.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets the whole network in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    max_megabytes: Annotated[float, typer.Option(help="Largest upload, in MB.")] = 200.0,
    max_seconds: Annotated[float, typer.Option(help="Longest video, in seconds.")] = 600.0,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Largest frame, width times height.")
    ] = 4096 * 2304,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name by which visitors reach this server (behind a proxy, say); several times "
            "for several."
        ),
    ] = None,
    concurrent: Annotated[int, typer.Option(min=1, help="Requests answered at once.")] = 2,
    device: Device = "cpu",
) -> None:
    """Serve the web page and the HTTP API (POST /api/predict, documented at /docs)."""
    import signal
    import sys

    from marey.errors import import_extra

    uvicorn = import_extra("uvicorn", "web", "marey serve")
    import_extra("fastapi", "web", "marey serve")

    from marey.web.app import create_app
    from marey.web.hosts import hosts_of
    from marey.web.limits import Limits
    from marey.web.models import ModelShelf

    limits = Limits(
        max_megabytes=max_megabytes,
        max_seconds=max_seconds,
        max_pixels=max_pixels,
        concurrent=concurrent,
    )
    server = create_app(
        ModelShelf(model or ["marey-mini"], device=device),
        limits,
        allowed_hosts=[*hosts_of(host), *(allowed_host or [])],
    )
    if host not in ("127.0.0.1", "localhost", "::1"):
        say(f"marey: listening on {host}: everyone who can reach this machine can use the page")
    say(f"marey: page http://{host}:{port}/  API http://{host}:{port}/docs  (Ctrl-C stops)")
    signal.signal(
        signal.SIGTERM, lambda number, frame: sys.exit(0)
    )  # the page deletes its folder at exit
    uvicorn.run(server, host=host, port=port, log_level="warning")
