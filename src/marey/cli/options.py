"""The arguments and options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]

Model = Annotated[
    str,
    typer.Option(
        help="Bundled or short name (marey list models), folder, hf:ID, torchvision:NAME."
    ),
]


def _usable(device: str) -> str:
    """Choose the best device for "auto"; refuse one that is not there before any work begins."""
    if device == "auto":
        from marey.models.device import best_device

        return best_device()
    if device != "cpu":
        from marey.models.device import check_device

        check_device(device)
    return device


Device = Annotated[str, typer.Option(callback=_usable, help="Torch device: auto, cpu, cuda, mps.")]

Videos = Annotated[
    list[str], typer.Argument(help="Video files, frame folders, or folders of videos.")
]
DataFolder = Annotated[
    str, typer.Argument(help="Folder of class folders, official layout, or manifest.csv.")
]
TrainingData = Annotated[
    str | None, typer.Option(help="Folder of class folders, or a manifest.csv.")
]
LabelledVideos = Annotated[str, typer.Option(help="Labelled videos (see the data contract).")]
Dataset = Annotated[str | None, typer.Option(help="Official layout by name, such as ucf101:2.")]
SplitBy = Annotated[
    str | None, typer.Option(help="Regular expression that reads the split from names.")
]
MeasuredSplit = Annotated[
    str | None, typer.Option(help="Split to measure on; default: test, else val, else all.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Videos worked on at the same time; default one per core.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Measure on at most this many videos.")]

Profile = Annotated[str, typer.Option(help="Constants: rose, imagenet-c or mini-kinetics-c.")]
RenderSeed = Annotated[int, typer.Option(help="Same seed, same bytes.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Clips of one forward pass.")]

Persons = Annotated[
    str,
    typer.Option(
        help="Who says where people are: auto, nanodet, movenet, own, hog, torchvision:NAME, "
        "FILE.csv."
    ),
]
Blur = Annotated[
    str | None, typer.Option(help="Make faces or persons unrecognisable in what is written.")
]
