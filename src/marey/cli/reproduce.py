"""`marey reproduce`: a paper's tables, ours beside its numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def reproduce(
    name: Annotated[str, typer.Argument(help="Study: direcformer, gat, sevitar, hmdb-study, action-transformer.")],
    out: Annotated[Path, typer.Option(help="Folder for the results; a second run goes on where the first stopped.")],
    scale: Annotated[str, typer.Option(help="mini (this computer, minutes) or full (the paper's setting).")] = "mini",
    data: Annotated[str | None, typer.Option(help="Data set to use in place of what the study makes itself.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per cell, counted from 0.")] = 3,
    cells: Annotated[str | None, typer.Option(help="Only these cells: names or patterns, comma-separated.")] = None,
    budget_minutes: Annotated[float | None, typer.Option(min=0, help="Start no cell beyond this.")] = None,
    device: Annotated[str, typer.Option(help="Torch device, such as cpu or cuda.")] = "cpu",
    cache: Annotated[Path | None, typer.Option(help="Folder for shared renders and features [OUT/cache].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the estimated cost, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as one JSON document.")] = False,
) -> None:
    """Run a paper's tables and print ours (mean ± spread over seeds) beside the paper's numbers."""
    from marey.errors import UserError, unknown_name
    from marey.papers.run import SCALES, ReproduceOptions, get_study, run_cells, text_table

    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    study = get_study(name)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file, expected a folder; name a folder")
    options = ReproduceOptions(scale=scale, data=data, seeds=seeds, device=device, cache=cache or out / "cache")
    given = {"--scale": scale, "--data": data, "--seeds": seeds, "--cells": cells, "--budget-minutes": budget_minutes,
             "--device": None if device == "cpu" else device}
    flags = [f'{flag} "{value}"' if " " in str(value) or "*" in str(value) else f"{flag} {value}"
             for flag, value in given.items() if value is not None]
    rows = run_cells(study.cells(options), out, budget_minutes=budget_minutes, scale=scale, dry_run=dry_run,
                     only=[part.strip() for part in cells.split(",")] if cells else None,
                     command=" ".join(["marey reproduce", name, *flags, f"--out {out}"]),
                     reading=getattr(study, "reading", None))
    if hasattr(study, "page") and not dry_run and any(row.seeds_run for row in rows):
        print(f"wrote {study.page(out, rows, options.cache)}", file=sys.stderr)
    if as_json:
        print(json.dumps({"study": name, "scale": scale, "rows": [row.to_dict() for row in rows]}))
    else:
        print(text_table(rows))
        if hasattr(study, "reading"):
            print(f"\n{study.reading(rows)}")
    if any(row.errors for row in rows):
        print("marey: some cells failed; see the notes of the table", file=sys.stderr)
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(reproduce)
