"""`marey order`: the order of a video's frames; `marey reliance`: how much a model relies on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marey.cli.options import Dataset, Device, Json, LabelledVideos, Limit


def order(
    videos: Annotated[
        list[str],
        typer.Argument(metavar="VIDEO...", help="Videos, folders of frames or of videos."),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="Model with directed attention over a person's moments (marey-mini) or over "
            "frames (marey-mini-order): a name or a folder."
        ),
    ] = "marey-mini",
    shuffle: Annotated[
        int | None, typer.Option(help="Shuffle the frames with this seed first.")
    ] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="START END", help="Part of the video, in seconds."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="How the order is read: arrow (neighbours by appearance, direction by the "
            "people's poses; the default where there are people), path (the paper's: the heaviest "
            "path of the attention), sort (every pair votes) or oriented (neighbours by "
            "appearance, direction by the attention; the default for frames)."
        ),
    ] = None,
    direction: Annotated[
        str,
        typer.Option(
            help="Model of the direction: marey-arrow, or a run of 'marey train arrow_tune --data "
            "VIDEOS', which learns from your own videos without labels."
        ),
    ] = "marey-arrow",
    out: Annotated[
        Path | None, typer.Option(help="Folder for a picture per video: matrix, path, strips.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Recover the order of a video's frames, and in which direction they were played."""
    from marey.checkpoints.load import load_checkpoint
    from marey.cli.output import print_json, say
    from marey.inference.order import order_many
    from marey.inference.predictor import videos_in

    checkpoint = load_checkpoint(model)
    entries = []
    given = videos_in(videos)
    for found, entry in order_many(
        checkpoint,
        given,
        shuffle=shuffle,
        window_seconds=window,
        method=method,
        direction=direction,
        device=device,
    ):
        entries.append(entry)
        if found is None:
            say(f"marey: {entry['error']}")
            continue
        if out is not None:
            from marey.explain.order_figures import draw_order

            picture = draw_order(
                found.frames,
                found.path,
                found.weights,
                out / f"{Path(found.video).stem}-order.png",
                order=found.order if found.shuffled else None,
                accuracy=found.order_accuracy,
                title=Path(found.video).name,
            )
            say(f"wrote {picture}")
        if not as_json:
            score = (
                "truth not known: give --shuffle SEED to measure"
                if found.order_accuracy is None
                else f"OrderAcc {found.order_accuracy:.1%}"
            )
            shuffled = f"  shuffled {found.order.tolist()}" if found.shuffled else ""
            print(
                f"{found.video}:{shuffled}  recovered {found.path.tolist()}  {score} (chance "
                f"{found.chance:.1%})"
            )
            if found.direction is not None:
                sure = f"{found.direction.probability:.0%}"
                told = f"told, {sure}" if found.direction.told else f"cannot tell ({sure})"
                played = f"; the video is played {found.played}" if found.played else ""
                print(f"  direction of time: {told}{played}")
        if found.note:
            say(f"{found.video}: {found.note}")
        if found.order_accuracy is not None and found.order_accuracy <= found.chance:
            say(
                f"{found.video}: no better than chance: the order of this clip was not recovered; "
                "'marey reliance MODEL --data DATA' measures a model on many"
            )
    if as_json:
        print_json({"results": entries})
    if any(entry["error"] for entry in entries):
        raise typer.Exit(1)


def reliance(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Names, folders, hf: or torchvision:.")
    ],
    data: LabelledVideos,
    dataset: Dataset = None,
    split: Annotated[
        str | None, typer.Option(help="Split to measure on; all videos by default.")
    ] = None,
    corrector: Annotated[
        str | None, typer.Option(help="Model that puts frames back; default: itself.")
    ] = None,
    shuffles: Annotated[int, typer.Option(min=1, help="Shuffles per video.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the shuffles, the same for every model.")] = 0,
    limit: Limit = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare accuracy on ordered, shuffled, and shuffled-then-corrected clips: does a model use
    the order?"""
    from marey.checkpoints.load import load_checkpoint
    from marey.cli.output import print_json
    from marey.datasets.index import subset
    from marey.datasets.open import open_dataset
    from marey.evaluation.order import answer_reliance, describe_reliance, measure_reliance
    from marey.inference.answers import AnswerOptions

    index = open_dataset(data, dataset=dataset)
    index = index.split(split) if split is not None else index
    if limit is not None and limit < len(index):
        index = subset(index, [int(number * len(index) / limit) for number in range(limit)])
    fixer = load_checkpoint(corrector) if corrector else None
    options = AnswerOptions(shuffles=shuffles, seed=seed, device=device)
    results = []
    for name in models:
        answers = answer_reliance(load_checkpoint(name), index, options, corrector=fixer)
        found = measure_reliance(answers)
        results.append(
            {"model": name, **found, "unreadable": [entry["error"] for entry in answers.unreadable]}
        )
        if not as_json:
            print(f"{name}: {describe_reliance(found)}")
    if as_json:
        print_json({"results": results})


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(order)
    app.command()(reliance)
