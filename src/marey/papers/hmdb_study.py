"""`marey reproduce hmdb-study`: Tables 1 to 5 of Kaur's fine-tuning study, on any folder of videos.

Full scale is the study: the public TimeSformer and ViViT, fine-tuned on the user's HMDB51 (`--data`, drawn as
HMDB_simp).

Mini scale keeps the study's questions and settings and changes what a laptop cannot do: `marey-mini` (8 frames of 128
pixels, motion capture rendered) stands in for the Kinetics checkpoints, its ImageNet stem stays frozen and runs once
per clip, and the data is the folder given. The rows on K600 and SSv2 checkpoints are replaced by a poorer start that
is at hand: ImageNet's stem alone. ViViT and TimeSformer are compared from random weights, small, side by side.

`page` draws the confusion matrix and the galleries of Figs. 3, 6 and 7 from the first cell's run.
"""

from __future__ import annotations

import functools
import html
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marey.datasets import DatasetIndex, open_dataset
from marey.datasets.index import write_manifest
from marey.errors import UserError
from marey.files import write_json, write_text
from marey.papers.run import Cell, ReproduceOptions, Row
from marey.recipes.hmdb_study import timesformer_hmdb_simp, vivit_hmdb_simp
from marey.training.config import ModelConfig, OptimConfig, TrainConfig
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

SEED = 42
BASE = "Table 1: batch 8, SGD 0.0035"
"""The study's best configuration; every other table changes one thing in it."""
GRID: dict[str, tuple[int, str, float, float, float]] = {
    BASE: (8, "sgd", 0.0035, 93.6, 99.2),
    "Table 1: batch 8, SGD 0.0045": (8, "sgd", 0.0045, 92.0, 98.4),
    "Table 1: batch 8, SGD 0.0007": (8, "sgd", 0.0007, 90.4, 97.6),
    "Table 1: batch 4, SGD 0.0035": (4, "sgd", 0.0035, 93.6, 98.4),
    "Table 1: batch 8, Adam 0.0035": (8, "adam", 0.0035, 17.6, 47.2),
    "Table 1: batch 4, Adam 0.0001": (4, "adam", 0.0001, 89.6, 96.8),
}
"""Cell -> batch size, optimiser, learning rate, top-1 and top-5 of Table 1."""
SAMPLERS = {
    "Table 3: equidistant": (ClipSampling(kind="equidistant", num_frames=8), 92.8, 99.2),
    "Table 3: random": (ClipSampling(kind="random", num_frames=8), 91.2, 100.0),
}
UNIFORM = ClipSampling(kind="uniform", num_frames=8, stride_frames=32, short="extend")
PRETRAINED = {
    "Table 2: K-400": ("hf:facebook/timesformer-base-finetuned-k400", 93.6, 99.2),
    "Table 2: K-600": ("hf:facebook/timesformer-base-finetuned-k600", 93.6, 98.4),
    "Table 2: SSv2": ("hf:facebook/timesformer-base-finetuned-ssv2", 84.8, 96.8),
}
EPOCHS = 8


def cells(options: ReproduceOptions) -> list[Cell]:
    """List the cells: each line of the tables times the seeds, the study's best configuration first.

    Raises:
        UserError: if no data is given.
    """
    if options.data is None:
        raise UserError("hmdb-study needs --data: a folder of class folders (mini), or HMDB51 (full)")
    lines = full_lines() if options.scale == "full" else mini_lines()
    seconds = 3600.0 if options.scale == "full" else 25.0
    found = []
    for name, config, top1, top5, note in lines:
        paper = None if top1 is None or top5 is None else {"top1": top1, "top5": top5}
        for seed in range(options.seeds):
            run = functools.partial(run_line, name, config, seed, options)
            found.append(Cell(name, seed, run, seconds, paper, priority=0 if name == BASE else 1,
                              table=name.partition(":")[0], note=note,
                              settings={"data": Path(options.data).name, "epochs": EPOCHS}))
    return found


Line = tuple[str, TrainConfig, float | None, float | None, str]


def full_lines() -> list[Line]:
    """Return the study's lines as it ran them."""
    base = timesformer_hmdb_simp()
    preprocess = base.data.preprocess
    assert preprocess is not None
    lines: list[Line] = [(name, with_optimiser(base, *setting[:3]), setting[3], setting[4], "")
                         for name, setting in GRID.items()]
    lines += [(name, replace(base, model=ModelConfig(init_from=source)), top1, top5, "")
              for name, (source, top1, top5) in PRETRAINED.items()]
    lines += [(name, with_sampling(base, preprocess, sampling), top1, top5, "")
              for name, (sampling, top1, top5) in SAMPLERS.items()]
    lines.append(("Table 4: ViViT", vivit_hmdb_simp(), 88.8, 99.2, ""))
    lines.append(("Table 5: extended after sampling",
                  with_sampling(base, preprocess, replace(UNIFORM, short="extend_after")), 85.83, 97.64, ""))
    return lines


def mini_lines() -> list[Line]:
    """Return the lines a laptop can run, with the study's numbers where a line asks the same question."""
    from marey.recipes.mini import mini_preprocess

    preprocess = replace(mini_preprocess(), sampling=UNIFORM)
    base = with_sampling(mini_base(), preprocess, UNIFORM)
    lines: list[Line] = [(name, with_optimiser(base, *setting[:3]), setting[3], setting[4],
                          "pre-trained: marey-mini" if name == BASE else "") for name, setting in GRID.items()]
    alone = replace(base, model=ModelConfig(name="timesformer", arguments=stem_only_arguments(),
                                            freeze=("patch_embed.trunk",)))
    lines.append(("Table 2: ImageNet stem, transformer from scratch", alone, None, None, "stands for a poorer start"))
    lines += [(name, with_sampling(base, preprocess, sampling), top1, top5, "")
              for name, (sampling, top1, top5) in SAMPLERS.items()]
    lines += [(f"Table 4: {name}, small, random weights", scratch(name, preprocess), None, None,
               "the study's have K400 weights: 93.6 and 88.8") for name in ("TimeSformer", "ViViT")]
    lines.append(("Table 5: extended after sampling",
                  with_sampling(base, preprocess, replace(UNIFORM, short="extend_after")), 85.83, 97.64, ""))
    return lines


def mini_base() -> TrainConfig:
    """Return the study's settings on `marey-mini` with its stem frozen and run once per clip."""
    base = timesformer_hmdb_simp()
    return replace(base, recipe="hmdb_study mini", model=ModelConfig(init_from="marey-mini", freeze=("patch_embed",)),
                   objective=replace(base.objective, kind="frozen_stem",
                                     arguments={"inner": "classification", "variants": 1}),
                   train=replace(base.train, epochs=EPOCHS, patience=None, calibrate=False))


def with_optimiser(config: TrainConfig, batch_size: int, name: str, lr: float) -> TrainConfig:
    """Return a configuration with a line of Table 1."""
    optim: OptimConfig = replace(config.optim, name=name, lr=lr)  # type: ignore[arg-type]
    return replace(config, optim=optim, train=replace(config.train, batch_size=batch_size))


def with_sampling(config: TrainConfig, preprocess: Preprocess, sampling: ClipSampling) -> TrainConfig:
    """Return a configuration with another sampler."""
    return replace(config, data=replace(config.data, preprocess=replace(preprocess, sampling=sampling)))


def stem_only_arguments() -> dict[str, Any]:
    """Return a TimeSformer about as large as `marey-mini` on the ImageNet stem, for a start without motion capture."""
    return {"patch_size": 32, "embed_dim": 128, "depth": 2, "num_heads": 4, "mlp_ratio": 3.0,
            "stem": "efficientnet_lite0", "stem_stage": 6, "freeze_stem_norm": True}


def scratch(name: str, preprocess: Preprocess) -> TrainConfig:
    """Return a small TimeSformer or ViViT from random weights, on 64 pixels, at AdamW's own rate."""
    base = mini_base()
    small = replace(preprocess, short_side=64, image_size=64)
    if name == "ViViT":
        arguments: dict[str, Any] = {"library": "transformers", "config": {
            "model_type": "vivit", "hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
            "intermediate_size": 192, "tubelet_size": [2, 16, 16]}}
    else:
        arguments = {"patch_size": 16, "embed_dim": 96, "depth": 3, "num_heads": 4, "mlp_ratio": 2.0}
    model = ModelConfig(name="external" if name == "ViViT" else "timesformer", arguments=arguments)
    return replace(base, model=model, data=replace(base.data, preprocess=small),
                   optim=OptimConfig(name="adamw", lr=1e-3, schedule="cosine", clip_norm=1.0),
                   objective=replace(base.objective, kind="classification", arguments={}))


def run_line(name: str, config: TrainConfig, seed: int, options: ReproduceOptions) -> dict[str, Any]:
    """Train one line and score it on the test videos, in percent; the run stays in the cache with its logs.

    Returns:
        "top1", "top5" and the number of test videos.
    """
    from marey.evaluation.classification import EvaluateOptions
    from marey.evaluation.evaluate import evaluate
    from marey.training.loop import train
    from marey.training.tasks import build_task

    manifest = split_manifest(str(options.data), options.cache, options.scale)
    config = replace(config, data=replace(config.data, path=str(manifest), val_fraction=0.0),
                     train=replace(config.train, seed=seed, device="cpu" if options.device == "cpu" else "auto"))
    arguments = dict(config.objective.arguments)
    if config.objective.kind == "frozen_stem":
        arguments["cache"] = str(options.cache / "stem")
        config = replace(config, objective=replace(config.objective, arguments=arguments))
    task = build_task(config)
    if config.objective.kind == "classification":
        task = replace(task, train_data=Remembered(task.train_data))
    out = run_folder(options.cache, name, seed)
    shutil.rmtree(out, ignore_errors=True)                              # what an interrupted cell left
    train(config, out, task=task, quiet=True)
    report, answers = evaluate(out / "last", str(manifest), EvaluateOptions(split="test", device=options.device))
    if answers is not None:
        rows = [{"video": video, "label": label, "probabilities": probs.tolist()}
                for video, label, probs in zip(answers.videos, answers.labels, answers.probs, strict=True)]
        write_json(out / "answers.json", {"class_names": answers.class_names, "rows": rows}, indent=None)
    return {"top1": 100 * report["top1"], "top5": 100 * report["top5"], "run": out.name,
            "test_videos": str(report["num_videos"])}


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
    """Write the splits the cells share: the data's own, HMDB_simp's, or half of each class's groups as test.

    The study holds out 10%, 125 videos; a small folder has too few for that, so half of it tests.
    """
    from marey.datasets.split import hold_out, labelled

    manifest = cache / "manifest.csv"
    if manifest.is_file():
        return manifest
    index = open_dataset(data, dataset="hmdb_simp" if scale == "full" else None)
    if not {"train", "test"} <= set(index.splits):
        train, test = hold_out(labelled(index), 0.5, SEED)
        if test is None:
            raise UserError(f"{data}: cannot hold out test videos; give every class at least two groups")
        index = replace(index, samples=(*_with_split(train, "train"), *_with_split(test, "test")))
    index = replace(index, samples=tuple(replace(s, path=s.path.resolve()) for s in index.samples
                                         if s.split in ("train", "test")))
    cache.mkdir(parents=True, exist_ok=True)
    write_manifest(index, manifest)
    return manifest


def _with_split(index: DatasetIndex, split: str) -> list[Any]:
    return [replace(sample, split=split) for sample in index.samples]


def reading(rows: Sequence[Row]) -> str:
    """Say the differences from the best configuration with their spread over seeds, and the control to read first."""
    found = {row.name: row for row in rows if row.seeds_run}
    base = found.get(BASE)
    mean = base.mean("top1") if base else None
    if base is None or mean is None:
        return "The study's best configuration has not been run yet."
    parts = [f"{BASE.partition(': ')[2]} gives {mean:.1f} top-1 here (the study: 93.6 on 125 videos, one run, +-4.3).",
             "A control that sees only size and length of the videos is not in these rows; on UT-Interaction it has "
             "55.0 (logistic regression) and 58.3 (3 nearest neighbours), and differences below its level say nothing "
             "about recognising actions."]
    for name, row in found.items():
        other = row.mean("top1")
        if name == BASE or other is None:
            continue
        spread = max(row.spread("top1") or 0.0, base.spread("top1") or 0.0)
        parts.append(f"{name.partition(': ')[2]}: {other - mean:+.1f} (spread over seeds {spread:.1f}).")
    return " ".join(parts)


def page(out: Path, rows: Sequence[Row], cache: Path) -> Path:
    """Write the study's final page: tables, confusion matrix, right and wrong videos with top-5 (Figs. 3, 6, 7)."""
    from marey.papers.run import text_table

    answers = json.loads((run_folder(cache, BASE, 0) / "answers.json").read_text())
    names, entries = answers["class_names"], answers["rows"]
    right = [entry for entry in entries if _best(entry) == entry["label"]]
    wrong = [entry for entry in entries if _best(entry) != entry["label"]]
    manifest = open_dataset(cache / "manifest.csv")
    paths = {manifest.relative_path(sample): sample.path for sample in manifest.samples}
    body = [f"<h1>Fine-tuning study</h1><pre>{html.escape(text_table(rows))}</pre><p>{html.escape(reading(rows))}</p>",
            "<h2>Confusion matrix (rows: truth)</h2>", confusion_table(entries, names)]
    for title, group in (("Right", right[:4]), ("Wrong", wrong[:4])):
        body.append(f"<h2>{title}</h2>")
        body += [_video(entry, names, paths.get(entry["video"])) for entry in group] or ["<p>None.</p>"]
    style = "body{font-family:system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em} " \
            "td,th{padding:.2em .6em;text-align:right} img{max-width:100%}"
    target = out / "index.html"
    write_text(target, f"<!doctype html><html lang='en'><meta charset='utf-8'><title>Fine-tuning study</title>"
                       f"<style>{style}</style>{''.join(body)}</html>")
    return target


def _best(entry: dict[str, Any]) -> int:
    return max(range(len(entry["probabilities"])), key=lambda k: entry["probabilities"][k])


def confusion_table(entries: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """Return the confusion matrix as an HTML table, counts shaded by their share of the row."""
    counts = torch.zeros(len(names), len(names), dtype=torch.long)
    for entry in entries:
        counts[entry["label"], _best(entry)] += 1
    shares: Tensor = counts / counts.sum(1, keepdim=True).clamp_min(1)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(f"<tr><th>{html.escape(name)}</th>" + "".join(
        f"<td style='background:rgba(46,134,193,{float(shares[row, column]):.2f})'>{int(counts[row, column])}</td>"
        for column in range(len(names))) + "</tr>" for row, name in enumerate(names))
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def _video(entry: dict[str, Any], names: Sequence[str], path: Path | None) -> str:
    """Return one video of a gallery: four frames and the top-5."""
    import base64
    import io

    from marey.video.decode import open_video
    from marey.video.draw import clock, contact_sheet

    order = sorted(range(len(names)), key=lambda k: -entry["probabilities"][k])[:5]
    answers = ", ".join(f"{html.escape(names[k])} {entry['probabilities'][k]:.0%}" for k in order)
    picture = ""
    if path is not None:
        with open_video(path) as reader:
            clip = reader.frames_at([reader.num_frames * (2 * i + 1) // 8 for i in range(4)])
        stream = io.BytesIO()
        contact_sheet(clip.frames, [clock(s) for s in clip.frame_seconds], width=200).save(stream, "JPEG", quality=80)
        picture = f"<img alt='' src='data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}'>"
    return (f"<figure>{picture}<figcaption>{html.escape(entry['video'])}: <b>{html.escape(names[entry['label']])}</b>; "
            f"answers {answers}</figcaption></figure>")
