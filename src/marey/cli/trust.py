"""`marey trust`: how far a model's answers can be trusted, measured on videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marey.cli.options import Dataset, Device, Json, LabelledVideos, Limit, MeasuredSplit, Profile
from marey.cli.output import say
from marey.cli.robustness import parse_kinds, parse_severities


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(trust)


def trust(
    model: Annotated[
        str,
        typer.Argument(help="A run, a checkpoint folder, a bundled name, hf:ID, torchvision:NAME."),
    ],
    data: LabelledVideos,
    out: Annotated[Path, typer.Option(help="Folder of the page, the JSON and the card's table.")],
    near: Annotated[
        str | None, typer.Option(help="Videos of other actions, filmed like the known ones.")
    ] = None,
    far: Annotated[str | None, typer.Option(help="Other footage.")] = None,
    corruptions: Annotated[
        str, typer.Option(help="Names or categories, comma-separated; 'none' leaves them out.")
    ] = "gaussian_noise,motion_blur,jpeg_compression",
    severities: Annotated[str, typer.Option(help="List from 1 (mild) to 5.")] = "1,3,5",
    profile: Profile = "rose",
    dataset: Dataset = None,
    split: MeasuredSplit = None,
    limit: Limit = None,
    views: Annotated[int, typer.Option(min=1, help="Temporal views averaged per video.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the corruptions.")] = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure how far a model's answers can be trusted: known videos that it was not trained on,
    other actions, other footage, corrupted copies; beside maximum probability, energy and nearest
    neighbours.

    Videos of --data whose label is no class of the model count as --near.
    """
    import shlex
    import sys

    from marey import __version__
    from marey.cli.output import bars, print_json
    from marey.corruptions import corruption
    from marey.datasets.open import open_dataset
    from marey.evaluation.evaluate import checkpoint_of
    from marey.evaluation.robustness_summary import choose_videos
    from marey.evaluation.trust_measure import trust_report
    from marey.evaluation.trust_page import summary, write_trust
    from marey.files import finite
    from marey.inference.kept_results import KeptResults
    from marey.inference.predictor import Predictor, videos_in

    kinds, levels = parse_kinds(corruptions, profile), parse_severities(severities)
    predictor = Predictor.load(str(checkpoint_of(model)), views=views, device=device)
    kept = KeptResults(model, 2, what="trust", views=views)
    index = open_dataset(data, dataset=dataset)
    if index.note:
        say(index.note)
    with bars() as tick:
        report = trust_report(
            predictor,
            choose_videos(index, split, limit),
            near=None if near is None else videos_in([near])[:limit],
            far=None if far is None else videos_in([far])[:limit],
            changes=[corruption(kind, level, profile) for kind in kinds for level in levels],
            seed=seed,
            tick=tick,
            kept=kept,
        )
    report |= {
        "model": model,
        "data": data,
        "near_data": near,
        "far_data": far,
        "views": views,
        "profile": profile,
        "version": __version__,
        "command": shlex.join(["marey", *sys.argv[1:]]),
    }
    written = write_trust(report, out)
    kept.remove()
    for line in summary(report):
        say(line)
    unreadable = report["known"]["unreadable"]
    for entry in unreadable:
        say(f"not readable: {entry['error']}")
    if json:
        print_json(finite(report))
    say("wrote " + ", ".join(str(path) for path in written))
    if unreadable:
        raise typer.Exit(1)
