"""`marey reproduce`: a paper's tables, ours beside its numbers."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from marey.cli.options import Device, Json


def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            help="Study: direcformer, gat, sevitar, sevitar-decided, "
            "sevitar-unseen, hmdb-study, action-transformer."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder for the results; a second run goes on where the first stopped."),
    ],
    scale: Annotated[
        str, typer.Option(help="mini (this computer, minutes) or full (the paper's setting).")
    ] = "mini",
    data: Annotated[
        str | None, typer.Option(help="Data set to use in place of what the study makes itself.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Full scale: start from these weights: a hub id (hf:ID), a folder, or vit, the "
            "public ViT-B/16 of ImageNet."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Full scale: change a setting in every cell: train.epochs=15"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per cell, counted from 0.")] = 3,
    cells: Annotated[
        str | None, typer.Option(help="Only these cells: names or patterns, comma-separated.")
    ] = None,
    budget_minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Start no cell beyond this; 0: only draw what is stored."),
    ] = None,
    device: Device = "auto",
    cache: Annotated[
        Path | None, typer.Option(help="Folder for shared renders and features [OUT/cache].")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its cost, and stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a paper's tables and print ours (mean ± standard deviation over seeds) beside the paper's
    numbers."""
    from marey.papers.cells import ReproduceOptions
    from marey.papers.run import reproduce as run
    from marey.papers.tables import stored_reading, text_table

    options = ReproduceOptions(
        scale=scale,
        data=data,
        seeds=seeds,
        device=device,
        cache=cache or out / "cache",
        init=init,
        set=tuple(settings or ()),
    )
    given = {
        "--scale": scale,
        "--data": data,
        "--init": init,
        "--seeds": seeds,
        "--cells": cells,
        "--budget-minutes": budget_minutes,
        "--device": None if device == "cpu" else device,
    }
    flags = [
        f"{flag} {shlex.quote(str(value))}" for flag, value in given.items() if value is not None
    ]
    flags += [f"--set {shlex.quote(setting)}" for setting in settings or ()]
    results = run(
        name,
        options,
        out,
        only=[part.strip() for part in cells.split(",")] if cells else None,
        budget_minutes=budget_minutes,
        command=" ".join(["marey reproduce", name, *flags, f"--out {out}"]),
        dry_run=dry_run,
    )

    if as_json:
        rows = [result.to_dict() for result in results]
        print(json.dumps({"study": name, "scale": scale, "rows": rows}))
    else:
        print("\n\n".join(part for part in (text_table(results), stored_reading(out)) if part))
    if any(result.errors for result in results):
        print("marey: some cells failed; see the notes of the table", file=sys.stderr)
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(reproduce)
