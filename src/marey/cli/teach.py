"""`marey teach` and `marey crossval`: the user's own actions from labelled videos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from marey.cli.options import DataFolder, Dataset, Device, Json
from marey.cli.output import bars, counted, print_json, say

Encoder = Annotated[
    str,
    typer.Option(
        help="auto; frames, hf:ID or torchvision:NAME; motion, crops, poses; sums such as "
        "frames+motion+poses."
    ),
]
Shots = Annotated[
    int | None, typer.Option(min=2, help="Use this many videos of each class, drawn at random.")
]
Group = Annotated[
    str | None,
    typer.Option(
        help="What no fold may cut, such as a person: a manifest column, a regular expression such "
        "as '(person[0-9]+)', or none; default: the manifest's groups, else those of file names."
    ),
]
Views = Annotated[int, typer.Option(min=1, help="Temporal views per video.")]
Folds = Annotated[int, typer.Option(min=2, help="Outer folds; a group is never cut.")]
Seed = Annotated[int, typer.Option(help="Seed of folds and draws.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(teach)
    app.command()(crossval)


def teach(
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="Folder of the model, its card and its page.")],
    encoder: Encoder = "auto",
    method: Annotated[
        str,
        typer.Option(help="auto, probe (a linear map), attentive, lora (extra 'lora') or full."),
    ] = "auto",
    shots: Shots = None,
    dataset: Dataset = None,
    group: Group = None,
    views: Views = 3,
    folds: Folds = 10,
    seed: Seed = 0,
    target_accuracy: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Answer only where so many are right; the rest is not answered."
        ),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Learn your own actions from labelled videos; writes a model, its card and an honest page.

    The accuracy is measured by cross-validation over groups, beside controls that see only the
    file's size and length, or one picture. Features are stored: interrupted, the same command goes
    on.
    """
    from marey.teaching.teach import teach as run

    with _progress() as tick:
        taught = run(
            data,
            out,
            encoder=encoder,
            method=method,
            shots=shots,
            dataset=dataset,
            group=group,
            views=views,
            num_folds=folds,
            seed=seed,
            target_accuracy=target_accuracy,
            device=device,
            tick=tick,
        )
    _print(taught.report, json)
    say(f"use it: marey predict VIDEO --model {out}    read first: {out / 'report.html'}")


def crossval(
    data: DataFolder,
    encoder: Encoder = "auto",
    shots: Shots = None,
    dataset: Dataset = None,
    group: Group = None,
    views: Views = 3,
    folds: Folds = 10,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure what teaching on these videos would reach: grouped folds, interval, controls."""
    from marey.teaching.page import members_of
    from marey.teaching.teach import crossval as run

    with _progress() as tick:
        found = run(
            data,
            encoder=encoder,
            shots=shots,
            dataset=dataset,
            group=group,
            views=views,
            num_folds=folds,
            seed=seed,
            device=device,
            tick=tick,
        )
    _print(found.report, json)
    for row in found.report["folds"]:
        groups = ", ".join(row["groups"][:4]) + (" ..." if len(row["groups"]) > 4 else "")
        say(
            f"  fold {row['fold']}: {row['accuracy']:.2f} of {counted(row['videos'], 'video')}, "
            f"{members_of(row)} ({groups})"
        )


def _print(report: dict[str, Any], json: bool) -> None:
    from marey.teaching.page import decided_by, headline

    if json:
        print_json(report)
    for entry in report["unreadable"]:
        say(f"not readable: {entry['error']}")
    for note in report["notes"]:
        say(f"note: {note}")
    say(headline(report))
    say(decided_by(report))
    for advice in report["record_more"]:
        say(f"record next: {advice}")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each encoder; on Ctrl-C say how many videos are stored."""
    last = ["", 0, 0]

    def keep(what: str, done: int, total: int) -> None:
        tick(what, done, total)
        last[:] = [what, done, total]

    try:
        with bars() as tick:
            yield keep
    except KeyboardInterrupt:
        say(f"{last[1]} of {last[2]} videos are stored for '{last[0]}'")
        raise
