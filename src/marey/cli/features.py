"""`marey features`: frame and sound features of videos, in the YouTube-8M format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marey.cli.options import Dataset, Json, SplitBy


def register(app: typer.Typer) -> None:
    """Add this module's commands to the app."""
    app.command()(features)


def features(
    data: Annotated[
        Path,
        typer.Argument(help="Class folders, a manifest.csv, a folder of videos, or one video."),
    ],
    out: Annotated[
        Path, typer.Option(help="One FILE.tfrecord, or a folder for one shard a split.")
    ],
    encoder: Annotated[
        str, typer.Option(help="frames (ImageNet), a checkpoint of clips, or inception:FILE.")
    ] = "marey-mini-rgb",
    sound: Annotated[str, typer.Option(help="Sound encoder: log-mel, or vggish:FILE.")] = "log-mel",
    pca: Annotated[
        str | None, typer.Option(help="Folder with mean.npy, eigenvals.npy, eigenvecs.npy.")
    ] = None,
    sound_pca: Annotated[str | None, typer.Option(help="vggish_pca_params.npz.")] = None,
    max_seconds: Annotated[int, typer.Option(min=1, help="Later seconds are left out.")] = 300,
    dataset: Dataset = None,
    split_by: SplitBy = None,
    json: Json = False,
) -> None:
    """Turn videos into features by second: pictures and sound, 8 bits a value.

    Videos without a sound track get silence. Exit status 1: some videos could not be read (they are
    named).
    """
    from marey.cli.output import counted, print_json, progress, say
    from marey.features.extract import FeatureExtractor, write_features

    extractor = FeatureExtractor(encoder, sound, pca, sound_pca, max_seconds)
    report = write_features(
        data,
        out,
        extractor,
        dataset=dataset,
        split_by=split_by,
        progress=lambda samples: progress(samples, "features"),
    )
    for reason in report.unreadable.values():
        say(f"marey: {reason}")
    if json:
        print_json(
            {
                "files": report.files,
                "class_names": report.class_names,
                "unreadable": report.unreadable,
            }
        )
    else:
        for path, count in report.files.items():
            print(f"{path}: {counted(count, 'video')}, {counted(len(report.class_names), 'label')}")
    if report.unreadable:
        raise typer.Exit(1)
