"""`marey serve`: the web page and the HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marey.cli.options import Blur, Device
from marey.cli.output import say


def _found(model: list[str] | None) -> list[str] | None:
    """Refuse a name that leads nowhere before torch, which takes seconds, is asked for a device."""
    from marey.web.offers import check_sources, parse_offers

    check_sources(parse_offers(model or ()))
    return model


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(serve)


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            callback=_found,
            help="Model to offer, as SOURCE or NAME=SOURCE; give it several times for a choice.",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; 0.0.0.0 lets everyone in who reaches it."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="MAREY_TOKEN",
            help="Ask every visitor for this token; better given in MAREY_TOKEN, because other "
            "users of the machine can read a command line.",
        ),
    ] = None,
    max_megabytes: Annotated[float, typer.Option(help="Largest upload, in MB.")] = 200.0,
    max_seconds: Annotated[float, typer.Option(help="Longest video, in seconds.")] = 600.0,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Largest frame, width times height.")
    ] = 4096 * 2304,
    max_frames: Annotated[int, typer.Option(min=1, help="Most frames of a video.")] = 40_000,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait.")] = 32,
    time_limit: Annotated[
        float, typer.Option(help="Longest work on one request, in seconds.")
    ] = 120.0,
    memory_limit: Annotated[
        float, typer.Option(help="Most memory of the process that reads a video, in MB.")
    ] = 4000.0,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name by which visitors reach this server (behind a proxy, say); several times "
            "for several."
        ),
    ] = None,
    concurrent: Annotated[int, typer.Option(min=1, help="Requests worked on at once.")] = 2,
    teach: Annotated[
        bool, typer.Option("--teach/--no-teach", help="Let visitors teach models by upload.")
    ] = True,
    report: Annotated[
        list[Path] | None,
        typer.Option(
            help="HTML page about the models that visitors may open (of marey trust, robustness, "
            "evaluate, teach); several times for several. report.html in a model's folder is one "
            "already."
        ),
    ] = None,
    blur: Blur = None,
    device: Device = "auto",
) -> None:
    """Serve the web page and the HTTP API (POST /api/predict, documented at /docs)."""
    import signal
    import sys

    from marey.errors import import_extra

    uvicorn = import_extra("uvicorn", "web", "marey serve")
    import_extra("fastapi", "web", "marey serve")

    from marey.web.app import create_app, get_to_know
    from marey.web.hosts import hosts_of
    from marey.web.limits import Limits
    from marey.web.protocol import timed_protocol

    limits = Limits(
        max_megabytes=max_megabytes,
        max_seconds=max_seconds,
        max_pixels=max_pixels,
        max_frames=max_frames,
        max_waiting=max_waiting,
        job_seconds=time_limit,
        memory_megabytes=memory_limit,
        concurrent=concurrent,
    )
    server = create_app(
        model or ["marey-mini"],
        limits,
        teaching=teach,
        token=token,
        allowed_hosts=[*hosts_of(host), *(allowed_host or [])],
        reports=report or [],
        blur=blur,
        device=device,
    )
    signal.signal(
        signal.SIGTERM, lambda number, frame: sys.exit(0)
    )  # the server deletes its files at exit
    get_to_know(server.state.service)
    for line in exposure(host, port, token):
        say(f"marey: {line}")
    say(f"marey: page http://{host}:{port}/  API http://{host}:{port}/docs  (Ctrl-C stops)")
    uvicorn.run(
        server,
        host=host,
        port=port,
        log_level="warning",
        http=timed_protocol(limits.head_seconds),
        ws="none",
        limit_concurrency=256,
        timeout_graceful_shutdown=2,
        server_header=False,
    )


def exposure(host: str, port: int, token: str | None) -> list[str]:
    """Return what it means to listen on an address, one line each; nothing for this machine
    alone."""
    if host in ("127.0.0.1", "localhost", "::1"):
        return []
    everywhere = host in ("0.0.0.0", "::", "")
    where = "every network this machine is in" if everywhere else f"the network of {host}"
    entry = (
        "only those who have the token are let in"
        if token
        else "there is no token: anyone there can upload videos, see the models and use this "
        "machine's time; set MAREY_TOKEN to ask for one"
    )
    return [
        f"listening on {host}:{port}: reachable from {where}; {entry}",
        "the connection is not encrypted: videos, answers and the token can be read on the way; "
        "put a proxy with TLS before it (docs/deployment.md)",
    ]
