"""`marey reproduce hmdb-study`: Tables 1 to 5 of Kaur's fine-tuning study, on any folder of videos.

Full scale is the study: the public TimeSformer and ViViT, fine-tuned on the user's HMDB51
(`--data`, drawn as HMDB_simp).

Mini scale keeps the study's questions and settings and changes what a laptop cannot do:
`marey-mini` (8 frames, motion capture rendered) stands for the Kinetics checkpoints, its ImageNet
stem stays frozen and runs once per clip, and the data is the folder given. The rows on K600 and
SSv2 checkpoints are replaced by a poorer start that is at hand: ImageNet's stem alone. ViViT and
TimeSformer are compared from random weights, small, side by side.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from marey.datasets import open_dataset
from marey.datasets.index import Sample
from marey.datasets.manifest import write_manifest
from marey.datasets.split import hold_out, labelled
from marey.errors import UserError
from marey.evaluation.classification import EvaluateOptions
from marey.evaluation.evaluate import evaluate
from marey.files import write_json, write_text
from marey.papers.cells import Cell, ReproduceOptions, Row
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


def optimiser(batch_size: int, name: str, lr: float) -> dict[str, Any]:
    """Return the settings of a line of Table 1."""
    return {"train.batch_size": batch_size, "optim.name": name, "optim.lr": lr}


def sampler(kind: str) -> dict[str, Any]:
    """Return the settings of a line of Table 3: eight frames, a short video repeats its last."""
    sampling = {"kind": kind, "stride_frames": 32, "short": "repeat_last"}
    return {f"data.preprocess.sampling.{key}": value for key, value in sampling.items()}


TABLE_1: tuple[Row, ...] = (
    Row(name=BASE, set=optimiser(8, "sgd", 0.0035), paper={"top1": 93.6, "top5": 99.2}),
    Row(
        name="Table 1: batch 8, SGD 0.0045",
        set=optimiser(8, "sgd", 0.0045),
        paper={"top1": 92.0, "top5": 98.4},
    ),
    Row(
        name="Table 1: batch 8, SGD 0.0007",
        set=optimiser(8, "sgd", 0.0007),
        paper={"top1": 90.4, "top5": 97.6},
    ),
    Row(
        name="Table 1: batch 4, SGD 0.0035",
        set=optimiser(4, "sgd", 0.0035),
        paper={"top1": 93.6, "top5": 98.4},
    ),
    Row(
        name="Table 1: batch 8, Adam 0.0035",
        set=optimiser(8, "adam", 0.0035),
        paper={"top1": 17.6, "top5": 47.2},
    ),
    Row(
        name="Table 1: batch 4, Adam 0.0001",
        set=optimiser(4, "adam", 0.0001),
        paper={"top1": 89.6, "top5": 96.8},
    ),
)

TABLE_2: tuple[Row, ...] = (
    Row(
        name="Table 2: K-400",
        set={"model.init_from": "hf:facebook/timesformer-base-finetuned-k400"},
        paper={"top1": 93.6, "top5": 99.2},
    ),
    Row(
        name="Table 2: K-600",
        set={"model.init_from": "hf:facebook/timesformer-base-finetuned-k600"},
        paper={"top1": 93.6, "top5": 98.4},
    ),
    Row(
        name="Table 2: SSv2",
        set={"model.init_from": "hf:facebook/timesformer-base-finetuned-ssv2"},
        paper={"top1": 84.8, "top5": 96.8},
    ),
)

TABLE_3: tuple[Row, ...] = (
    Row(
        name="Table 3: equidistant",
        set=sampler("equidistant"),
        paper={"top1": 92.8, "top5": 99.2},
    ),
    Row(name="Table 3: random", set=sampler("random"), paper={"top1": 91.2, "top5": 100.0}),
)

TABLE_4: tuple[Row, ...] = (
    Row(name="Table 4: ViViT", recipe=vivit_hmdb_simp, paper={"top1": 88.8, "top5": 99.2}),
)

TABLE_5: tuple[Row, ...] = (
    Row(
        name="Table 5: extended after sampling",
        set={"data.preprocess.sampling.short": "extend_after"},
        paper={"top1": 85.83, "top5": 97.64},
    ),
)

FULL_ROWS = (*TABLE_1, *TABLE_2, *TABLE_3, *TABLE_4, *TABLE_5)


# ---- mini scale ---------------------------------------------------------------------------------


def mini_base() -> TrainConfig:
    """Return the study's settings on `marey-mini` with its stem frozen and run once per clip."""
    base = timesformer_hmdb_simp()
    sampling = ClipSampling(kind="uniform", num_frames=8, stride_frames=32, short="extend")
    return replace(
        base,
        recipe="hmdb_study mini",
        model=ModelConfig(init_from="marey-mini", freeze=("patch_embed",)),
        data=replace(
            base.data,
            preprocess=replace(mini_preprocess(), sampling=sampling),
            feature_cache=FeatureCacheConfig(variants=1),
        ),
        train=replace(base.train, epochs=EPOCHS, patience=None, calibrate=False),
    )


def scratch(name: str, arguments: dict[str, Any]) -> TrainConfig:
    """Return the training of a small model from random weights, on 64 pixels, at AdamW's own
    rate."""
    base = mini_base()
    assert base.data.preprocess is not None
    preprocess = replace(base.data.preprocess, short_side=64, image_size=64)
    return replace(
        base,
        model=ModelConfig(name=name, arguments=arguments),
        data=replace(base.data, preprocess=preprocess, feature_cache=None),
        optim=OptimConfig(name="adamw", lr=1e-3, schedule="cosine", clip_norm=1.0),
    )


SMALL_TIMESFORMER: dict[str, Any] = {
    "patch_size": 16,
    "embed_dim": 96,
    "depth": 3,
    "num_heads": 4,
    "mlp_ratio": 2.0,
}
SMALL_VIVIT: dict[str, Any] = {
    "library": "transformers",
    "config": {
        "model_type": "vivit",
        "hidden_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 192,
        "tubelet_size": [2, 16, 16],
    },
}
STEM_ONLY: dict[str, Any] = {
    "patch_size": 32,
    "embed_dim": 128,
    "depth": 2,
    "num_heads": 4,
    "mlp_ratio": 3.0,
    "stem": "efficientnet_lite0",
    "stem_stage": 6,
    "freeze_stem_norm": True,
}
"""A TimeSformer about as large as `marey-mini` on the ImageNet stem, for a start without motion
capture."""
SMALL_NOTE = "the study's have K400 weights: 93.6 and 88.8"

MINI_ROWS: tuple[Row, ...] = (
    replace(TABLE_1[0], note="pre-trained: marey-mini"),
    *TABLE_1[1:],
    Row(
        name="Table 2: ImageNet stem, transformer from scratch",
        set={
            "model.init_from": None,
            "model.name": "timesformer",
            "model.arguments": STEM_ONLY,
            "model.freeze": ["patch_embed.trunk"],
        },
        note="stands for a poorer start",
    ),
    *TABLE_3,
    Row(
        name="Table 4: TimeSformer, small, random weights",
        recipe=functools.partial(scratch, "timesformer", SMALL_TIMESFORMER),
        note=SMALL_NOTE,
    ),
    Row(
        name="Table 4: ViViT, small, random weights",
        recipe=functools.partial(scratch, "external", SMALL_VIVIT),
        note=SMALL_NOTE,
    ),
    *TABLE_5,
)
"""The lines a laptop can run, with the study's numbers where a line asks the same question."""


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
    found = []
    for row in FULL_ROWS if is_full else MINI_ROWS:
        config = row.configure((row.recipe or base)())
        for seed in range(options.seeds):
            found.append(
                Cell(
                    row.name,
                    seed,
                    functools.partial(run_line, row.name, config, seed, options),
                    3600.0 if is_full else 25.0,
                    row.paper,
                    priority=0 if row.name == BASE else 1,
                    table=row.name.partition(":")[0],
                    note=row.note,
                    settings={"data": Path(str(options.data)).name, "epochs": EPOCHS},
                )
            )
    return found


def run_line(
    name: str, config: TrainConfig, seed: int, options: ReproduceOptions
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
        rows = [
            {"video": video, "label": label, "probabilities": probs.tolist()}
            for video, label, probs in zip(
                answers.videos, answers.labels, answers.probs, strict=True
            )
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

    def placed(sample: Sample) -> Sample:
        return replace(sample, path=sample.path.resolve())

    used = [placed(sample) for sample in index.samples if sample.split in ("train", "test")]
    cache.mkdir(parents=True, exist_ok=True)
    write_manifest(replace(index, samples=tuple(used)), manifest)
    return manifest


def page(out: Path, results: Sequence[Result], cache: Path) -> Path:
    """Write the study's page from the first cell's run: tables, confusion matrix, videos (Figs. 3,
    6, 7)."""
    answers = json.loads((run_folder(cache, BASE, 0) / "answers.json").read_text(encoding="utf-8"))
    manifest = open_dataset(cache / "manifest.csv")
    paths = {manifest.relative_path(sample): sample.path for sample in manifest.samples}
    write_text(out / "index.html", render_page(results, stored_reading(out), answers, paths))
    return out / "index.html"
