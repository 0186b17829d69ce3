"""`marey reproduce hmdb-study`: Tables 1 to 5 of Kaur's fine-tuning study, on any folder of videos.

Full scale is the study: the public TimeSformer and ViViT, fine-tuned on the user's HMDB51
(`--data`, drawn as HMDB_simp).

Mini scale keeps the study's questions and settings and changes what a laptop cannot do:
`marey-mini-rgb` (8 frames, motion capture rendered) stands for the Kinetics checkpoints, its
ImageNet stem stays frozen and runs once per clip, and the data is the folder given. The rows on
K600 and SSv2 checkpoints are replaced by a poorer start that is at hand: ImageNet's stem alone.
ViViT and TimeSformer are compared from random weights, small, side by side.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from marey.datasets import open_dataset
from marey.datasets.manifest import write_manifest
from marey.datasets.split import hold_out, labelled
from marey.errors import UserError
from marey.evaluation.classification import EvaluateOptions
from marey.evaluation.evaluate import evaluate
from marey.files import write_json, write_text
from marey.papers.cells import Cell, ReproduceOptions, Row, cells_of, read_tables, rows_of
from marey.papers.hmdb_page import render_page
from marey.papers.tables import Result, stored_reading
from marey.recipes.hmdb_study import timesformer_hmdb_simp, vivit_hmdb_simp
from marey.recipes.mini import mini_preprocess
from marey.training.config import ModelConfig, OptimConfig, TrainConfig
from marey.training.data_config import FeatureCacheConfig
from marey.training.loop import train
from marey.training.tasks import build_task
from marey.video.sampling import ClipSampling

SEED = 42
EPOCHS = 8
BASE = "Table 1: batch 8, SGD 0.0035"
"""The study's best configuration; every other line changes one thing in it."""


TABLES = read_tables("hmdb_study")
FULL_ROWS = rows_of(TABLES, "full", Row) + rows_of(TABLES, "both", Row)
MINI_ROWS = rows_of(TABLES, "mini", Row) + rows_of(TABLES, "both", Row)
"""The lines a laptop can run, with the study's numbers where a line asks the same question."""


# ---- mini scale ---------------------------------------------------------------------------------


def mini_base() -> TrainConfig:
    """Return the study's settings on `marey-mini-rgb`, its stem frozen and run once per clip."""
    base = timesformer_hmdb_simp()
    sampling = ClipSampling(kind="uniform", num_frames=8, stride_frames=32, short="extend")
    return replace(
        base,
        recipe="hmdb_study mini",
        model=ModelConfig(init_from="marey-mini-rgb", freeze=("patch_embed",)),
        data=replace(
            base.data,
            preprocess=replace(mini_preprocess(), sampling=sampling),
            feature_cache=FeatureCacheConfig(variants=1),
        ),
        train=replace(base.train, epochs=EPOCHS, patience=None, calibrate=False),
    )


def imagenet_stem() -> TrainConfig:
    """Return the mini settings from ImageNet's stem alone, for a start without motion capture."""
    return replace(mini_base(), model=ModelConfig(**TABLES["models"]["ImageNet stem"]))


def scratch(name: str) -> TrainConfig:
    """Return the training of a small model from random weights, on 64 pixels, at AdamW's own
    rate."""
    base = mini_base()
    assert base.data.preprocess is not None
    preprocess = replace(base.data.preprocess, short_side=64, image_size=64)
    return replace(
        base,
        model=ModelConfig(**TABLES["models"][name]),
        data=replace(base.data, preprocess=preprocess, feature_cache=None),
        optim=OptimConfig(name="adamw", lr=1e-3, schedule="cosine", clip_norm=1.0),
    )


BASES: dict[str, Callable[[], TrainConfig]] = {
    "ViViT": vivit_hmdb_simp,
    "ImageNet stem": imagenet_stem,
    "small TimeSformer": functools.partial(scratch, "small TimeSformer"),
    "small ViViT": functools.partial(scratch, "small ViViT"),
}
"""Where a row of hmdb_study.toml starts from, if not from the study's own settings."""


# ---- cells --------------------------------------------------------------------------------------


def check_data(options: ReproduceOptions) -> None:
    """Raise a `UserError` if no data is given."""
    if options.data is None:
        raise UserError(
            "hmdb-study needs --data: a folder of class folders (mini), or HMDB51 (full)"
        )


def cells(options: ReproduceOptions) -> list[Cell]:
    """List the cells: each line of the tables times the seeds, the study's best configuration
    first."""
    is_full = options.scale == "full"
    base = timesformer_hmdb_simp if is_full else mini_base
    found: list[Cell] = []
    for row in sorted(FULL_ROWS if is_full else MINI_ROWS, key=lambda row: row.name[:7]):
        config = row.configure(BASES.get(row.base, base)())
        found += cells_of(
            options,
            row,
            functools.partial(run_line, row.name, config, options),
            estimate_seconds=3600.0 if is_full else 25.0,
            table=row.name.partition(":")[0],
            settings={"data": options.data_name, "epochs": EPOCHS},
        )
    return found


def run_line(
    name: str, config: TrainConfig, options: ReproduceOptions, seed: int
) -> dict[str, Any]:
    """Train one line and score it on the test videos, in percent; the run stays in the cache with
    its logs.

    Returns:
        "top1", "top5" and the number of test videos.
    """
    manifest = split_manifest(str(options.data), options.cache, options.scale)
    config = replace(
        config,
        data=replace(config.data, path=str(manifest), val_fraction=0.0),
        train=replace(config.train, seed=seed, device=options.train_device),
    )
    cache_settings = config.data.feature_cache
    if cache_settings is not None:
        in_cache = replace(cache_settings, folder=str(options.cache / "features"))
        config = replace(config, data=replace(config.data, feature_cache=in_cache))
    task = build_task(config)
    if cache_settings is None:
        task = replace(task, train_data=Remembered(task.train_data))
    out = run_folder(options.cache, name, seed)
    shutil.rmtree(out, ignore_errors=True)  # what an interrupted cell left
    train(config, out, task=task, quiet=True)

    settings = EvaluateOptions(split="test", device=options.device)
    report, answers = evaluate(out / "last", str(manifest), settings)
    if answers is not None:
        answered = zip(answers.videos, answers.labels, answers.probs.tolist(), strict=True)
        rows = [
            {"video": video, "label": label, "probabilities": probabilities}
            for video, label, probabilities in answered
        ]
        stored = {"class_names": answers.class_names, "rows": rows}
        write_json(out / "answers.json", stored, indent=None)
    return {
        "top1": 100 * report["top1"],
        "top5": 100 * report["top5"],
        "run": out.name,
        "test_videos": str(report["num_videos"]),
    }


class Remembered:
    """Items of a data set without augmentation, decoded once and kept."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.items: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int], /) -> Any:
        if key[1] not in self.items:
            self.items[key[1]] = self.data[(0, key[1])]
        return self.items[key[1]]


def run_folder(cache: Path, name: str, seed: int) -> Path:
    """Return where a line's run lies."""
    slug = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
    return cache / "runs" / f"{slug}-seed{seed}"


def split_manifest(data: str, cache: Path, scale: str) -> Path:
    """Write the splits the cells share: the data's own, HMDB_simp's, or half of each class's groups
    as test.

    The study holds out 10%, 125 videos; a small folder has too few for that, so half of it tests.
    """
    manifest = cache / "manifest.csv"
    if manifest.is_file():
        return manifest
    index = open_dataset(data, dataset="hmdb_simp" if scale == "full" else None)
    if not {"train", "test"} <= set(index.splits):
        train_half, test_half = hold_out(labelled(index), 0.5, SEED)
        if test_half is None:
            raise UserError(
                f"{data}: cannot hold out test videos; give every class at least two groups"
            )
        halves = (train_half.samples, "train"), (test_half.samples, "test")
        samples = [replace(sample, split=split) for part, split in halves for sample in part]
        index = replace(index, samples=tuple(samples))

    used = [sample for sample in index.samples if sample.split in ("train", "test")]
    placed = tuple(replace(sample, path=sample.path.resolve()) for sample in used)
    cache.mkdir(parents=True, exist_ok=True)
    write_manifest(replace(index, samples=placed), manifest)
    return manifest


def page(out: Path, results: Sequence[Result], cache: Path) -> Path:
    """Write the study's page from the first cell's run: tables, confusion matrix, videos (Figs. 3,
    6, 7)."""
    answers = json.loads((run_folder(cache, BASE, 0) / "answers.json").read_text(encoding="utf-8"))
    manifest = open_dataset(cache / "manifest.csv")
    paths = {manifest.relative_path(sample): sample.path for sample in manifest.samples}
    write_text(out / "index.html", render_page(results, stored_reading(out), answers, paths))
    return out / "index.html"
