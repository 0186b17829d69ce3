"""`marey reproduce sevitar`: Tables 1 and 2 and Fig. 1 of Doshi and Yilmaz (SeViTAR), and actions never trained on.

Mini scale: small models on rendered motion capture and, with `--data`, on a folder of videos split in train and test
(the numbers in `results/` have UT-Interaction there). The transformers share one frozen ImageNet stem, the stand-in
for the paper's pretrained backbone; I3D trains from scratch on pixels, having no such start here, and is behind for
that reason too. Full scale: the paper's recipes on the user's data set and its perturbed copy.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from marey.errors import UserError
from marey.files import atomic
from marey.labels.embed import embed_labels
from marey.losses.label_embedding import LabelEmbeddingLoss
from marey.metrics.robustness import absolute_robustness, relative_robustness
from marey.order.permutations import make_permutation_set
from marey.papers.direcformer import contrast
from marey.papers.run import Cell, ReproduceOptions, Row, show
from marey.papers.sevitar_mini import (
    FRAMES,
    STEM_ARGUMENTS,
    STEM_PIXELS,
    MiniSet,
    Part,
    conv_preprocess,
    image_stem,
    open_mini_set,
    stem_preprocess,
)
from marey.training.config import DataConfig, ModelConfig, ObjectiveConfig, OptimConfig, RunConfig, TrainConfig
from marey.training.task import Objective, Task
from marey.training.tasks.clips import ClassificationEvaluator, ClassificationObjective
from marey.training.terms.label_embedding import LabelEmbeddingObjective
from marey.training.terms.order import OrderArguments, OrderObjective

STEPS = {"mocap": 300, "videos": 150}
"""Optimiser steps of a mini cell."""
BATCH_SIZE = 16
"""Clips of one step."""
CONV_STEPS = {"mocap": 150, "videos": 60}
"""Steps of I3D, which sees pixels and costs more per step."""
MINI_PART = 5
"""The "mini" set of Table 2 is every fifth perturbed test clip."""
PREPARE_SECONDS = 900.0
"""What rendering, decoding, perturbing and the stem cost once, on one core."""

TABLE_1: dict[str, dict[str, float]] = {
    "SlowFast": {"Kinetics-400P": 55.48}, "I3D": {"UCF-101P": 76.9},
    "TimeSformer": {"UCF-101P": 88.5, "HMDB-51P": 70.48, "Kinetics-400P": 54.26},
    "Team Simplexisigil": {"UCF-101P": 59.46, "HMDB-51P": 44.50},
    "SeViTAR": {"UCF-101P": 89.35, "HMDB-51P": 78.92, "Kinetics-400P": 65.22},
}
"""Table 1, percent."""
TABLE_2: dict[str, dict[str, float]] = {
    "Team Simplexisigil": {"UCF-101PMini": 51.57, "HMDB-51PMini": 43.40},
    "SeViTAR": {"UCF-101PMini": 90.54, "HMDB-51PMini": 80.98},
}
"""Table 2, percent."""
QUOTED = ("SlowFast", "Team Simplexisigil")
"""Lines that are only quoted: nothing is run for them."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the mini table."""

    model: str
    arguments: dict[str, Any]
    weights: dict[str, float]
    staged: bool = False
    """The paper's order: backbone, semantic MLP, classifier."""
    random_labels: bool = False
    """Random unit vectors in place of what the names mean."""
    note: str = "not in the paper"
    priority: int = 1


_BASE: dict[str, Any] = {**STEM_ARGUMENTS, "image_size": STEM_PIXELS, "num_frames": FRAMES}
_LABEL: dict[str, Any] = {**_BASE, "label_hidden": [64], "class_hidden": [64]}
_DIRECTED = {"time_attention": "cosine", "space_attention": "cosine"}
_BOTH = {"class": 1.0, "label": 1.0}

LINES: dict[str, Line] = {
    "TimeSformer": Line(model="timesformer", arguments=_BASE, weights={"class": 1.0}, note="", priority=0),
    "SeViTAR": Line(model="sevitar", arguments=_LABEL, weights=_BOTH, note="trained jointly", priority=0),
    "SeViTAR staged": Line(model="sevitar", arguments=_LABEL, weights=_BOTH, staged=True,
                           note="not in the paper as a line: its three stages, within the same number of steps"),
    "SeViTAR directed": Line(model="sevitar", arguments={**_LABEL, **_DIRECTED}, weights=_BOTH,
                             note="not in the paper: directed attention"),
    "SeViTAR random vectors": Line(model="sevitar", arguments=_LABEL, weights=_BOTH, random_labels=True,
                                   note="control: a random vector per class in place of its meaning"),
    "DirecFormer": Line(model="direcformer", arguments={**_BASE, **_DIRECTED},
                        weights={"class": 1.0, "order": 1.0, "guided": 1.0}),
    "I3D": Line(model="i3d", arguments={"width": 0.25, "dropout": 0.2}, weights={"class": 1.0},
                note="a quarter of the width, from scratch on pixels: no pretrained start"),
}
"""Name -> what is trained."""
MAIN = ("TimeSformer", "SeViTAR")
"""The paper's main contrast."""
SECONDS = {"DirecFormer": 60.0, "I3D": 360.0}


def cells(options: ReproduceOptions) -> list[Cell]:
    """List the cells at a scale; the videos of `--data` get theirs only where it is given.

    Raises:
        UserError: if the full scale is asked for without data.
    """
    if options.scale == "full":
        return full_cells(options)
    from marey.papers.unseen import fold_cells

    found = table_cells("mocap", options)
    if options.data is not None:
        found += [*table_cells(set_name(options), options), control_cell(options)]
    return [*found, *quoted_cells(), *fold_cells(options), figure_cell(options)]


# ---- Tables 1 and 2, mini -------------------------------------------------------------------------------------------

def set_name(options: ReproduceOptions) -> str:
    """Return the name of the user's set: its folder's."""
    return Path(str(options.data)).resolve().name


def table_cells(name: str, options: ReproduceOptions) -> list[Cell]:
    """List every line on one set, all seeds; the paper's UCF-101P stands beside mocap, its HMDB-51P beside videos."""
    paper_set = "UCF-101P" if name == "mocap" else "HMDB-51P"
    found = []
    for label, line in LINES.items():
        paper = {}
        if paper_set in TABLE_1.get(label, {}):
            paper = {"perturbed": TABLE_1[label][paper_set]}
            if name == "mocap" and label in TABLE_2:
                paper["perturbed_mini"] = TABLE_2[label][f"{paper_set}Mini"]
        note = "; ".join(text for text in (f"the paper's is {paper_set}" if paper else "", line.note) if text)
        steps = (CONV_STEPS if line.model == "i3d" else STEPS)[kind_of(name)]
        settings = {"steps": steps, "batch_size": BATCH_SIZE, "set": name}
        for seed in range(options.seeds):
            first = (label, seed) == (MAIN[0], 0) and not (options.cache / f"sevitar-{name}.safetensors").is_file()
            estimate = SECONDS.get(label, 35.0) * steps / 300 + (PREPARE_SECONDS if first else 0.0)
            found.append(Cell(f"{name}: {label}", seed, functools.partial(run_line, name, label, seed, options),
                              estimate, paper or None, priority=line.priority, note=note,
                              table=f"Tables 1, 2 (mini): {name}", settings=settings))
    return found


def kind_of(name: str) -> str:
    """Return which of the two sizes of run a set gets."""
    return "mocap" if name == "mocap" else "videos"


def run_line(name: str, label: str, seed: int, options: ReproduceOptions) -> dict[str, Any]:
    """Train one line on the clean training clips and measure it on clean and on perturbed test clips, in percent."""
    clips = open_mini_set(name, options.cache, options.data)
    line = LINES[label]
    model = train_line(line, clips, seed, run_folder(name, label, seed, options), options)
    return measure(model, clips, line.model == "i3d") | {"label_training": "staged" if line.staged else "joint"
                                                         if "label" in line.weights else None}


def run_folder(name: str, label: str, seed: int, options: ReproduceOptions) -> Path:
    """Return where the run of a cell lies."""
    return options.cache / "runs" / f"sevitar-{name}-{label.replace(' ', '_')}-seed{seed}"


def train_line(line: Line, clips: MiniSet, seed: int, out: Path, options: ReproduceOptions,
               steps: int | None = None) -> nn.Module:
    """Train a line; returns the model in evaluation mode."""
    from marey.checkpoints.load import load_checkpoint
    from marey.training.loop import train

    config, conv = line_config(line, clips.name, seed, options.device, steps), line.model == "i3d"
    objective, model_arguments, tensors = line_objective(line, config, clips, options.cache)
    K = len(clips.class_names)
    build = None if conv else functools.partial(build_on_stem, line.model)
    task = Task(train_data=PartClips(clips.train, conv), val_data=None, objective=objective,
                make_evaluator=lambda: ClassificationEvaluator(clips.class_names), class_names=clips.class_names,
                preprocess=conv_preprocess() if conv else stem_preprocess(), tensors=tensors, build_model=build,
                model_arguments={"num_classes": K, **model_arguments}, extra={"task": config.objective.kind})
    shutil.rmtree(out, ignore_errors=True)                             # what an interrupted cell left
    train(config, out, task=task, quiet=True)
    return load_checkpoint(out / "last").model.eval()


def line_config(line: Line, name: str, seed: int, device: str, steps: int | None = None) -> TrainConfig:
    """Return the configuration of a run; the paper's SGD at 0.002 needs more steps than a mini cell has."""
    conv = line.model == "i3d"
    steps = steps or (CONV_STEPS if conv else STEPS)[kind_of(name)]
    kind = {"sevitar": "label_embedding", "direcformer": "order"}.get(line.model, "classification")
    arguments = {"training": "staged" if line.staged else "joint"} if kind == "label_embedding" else {}
    return TrainConfig(
        recipe="sevitar mini", model=ModelConfig(name=line.model, arguments=line.arguments),
        data=DataConfig(preprocess=conv_preprocess() if conv else stem_preprocess()),
        optim=OptimConfig(name="adamw", lr=3e-3, weight_decay=0.05, schedule="onecycle", warmup=0.2, clip_norm=1.0),
        objective=ObjectiveConfig(kind=kind, weights=line.weights, arguments=arguments),
        train=RunConfig(max_steps=steps, batch_size=BATCH_SIZE, seed=seed, calibrate=False, tensorboard=False,
                        eval_every=steps, threads=1, device="cpu" if device == "cpu" else "auto"))


def line_objective(line: Line, config: TrainConfig, clips: MiniSet,
                   cache: Path) -> tuple[Objective, dict[str, Any], dict[str, Tensor]]:
    """Return the objective of a line, the arguments it asks of the model, and what travels in the checkpoint."""
    labels, K = clips.train.labels.tolist(), len(clips.class_names)
    if line.model == "direcformer":
        arguments = OrderArguments(num_permutations=16, rule="farthest", mask_diagonal=True)
        rows = make_permutation_set(arguments.num_permutations, FRAMES, rule=arguments.rule)
        objective: Objective = OrderObjective(config.objective.weights, rows, arguments, clips.class_names)
        return objective, {"num_orders": len(rows)}, {"permutations": rows}
    classify = ClassificationObjective(replace(config.objective, weights={"class": 1.0}), K, labels)
    if line.model != "sevitar":
        return classify, {}, {}
    vectors = label_vectors(clips.class_names, cache)
    if line.random_labels:
        vectors = nn.functional.normalize(torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0)))
    shares = (0.5, 0.25, 0.25) if line.staged else None
    objective = LabelEmbeddingObjective(config.objective.weights, classify, LabelEmbeddingLoss(vectors), shares)
    return objective, {"label_dim": vectors.shape[1]}, {"label_embeddings": vectors}


def label_vectors(names: Sequence[str], cache: Path) -> Tensor:
    """Return unit vectors (K, E) of class names by the default sentence model, stored for the next cell."""
    import hashlib

    from safetensors.torch import save_file

    path = cache / f"labels-{hashlib.sha256(repr(tuple(names)).encode()).hexdigest()[:12]}.safetensors"
    if not path.is_file():
        found = embed_labels(names)
        with atomic(path) as temporary:
            save_file({name: vector.clone() for name, vector in zip(names, found.vectors, strict=True)}, temporary)
    return embed_labels(names, path).vectors


def build_on_stem(name: str, arguments: dict[str, Any]) -> nn.Module:
    """Build a transformer around the frozen stem."""
    from marey.training.feature_cache import build_model

    return build_model(name, image_stem(), arguments)


@dataclass(frozen=True)
class PartClips:
    """Items of a part: stem features, or small pixels for a model without stem."""

    part: Part
    conv: bool

    def __len__(self) -> int:
        return len(self.part.labels)

    def __getitem__(self, key: tuple[int, int], /) -> dict[str, Any]:
        place = key[1]
        return {"clip": inputs(self.part, [place], self.conv)[0], "label": int(self.part.labels[place]),
                "sample": place}


def inputs(part: Part, places: Sequence[int], conv: bool) -> Tensor:
    """Return what a model takes, float32: features (B, T, places, C) or clips (B, T, 3, 64, 64)."""
    if not conv:
        return part.features[list(places)].float()
    return torch.stack([conv_preprocess().clip(part.pixels[place], 1)[0] for place in places])


@torch.inference_mode()
def outputs_of(model: nn.Module, part: Part, conv: bool, *names: str) -> list[Tensor]:
    """Return some outputs of a model for every clip of a part."""
    device = next(model.parameters()).device
    parts = torch.arange(len(part.labels)).split(50)
    found = [model(inputs(part, places.tolist(), conv).to(device)) for places in parts]
    return [torch.cat([outputs[name].float().cpu() for outputs in found]) for name in names]


def measure(model: nn.Module, clips: MiniSet, conv: bool) -> dict[str, Any]:
    """Return accuracies on clean and perturbed test clips, and what is left of the first in the second, in percent."""
    right = {}
    for name, part in (("clean", clips.test), ("perturbed", clips.perturbed)):
        logits, = outputs_of(model, part, conv, "logits")
        right[name] = (logits.argmax(1) == part.labels).double()
    clean, perturbed = (float(right[name].mean()) for name in ("clean", "perturbed"))
    found = {"clean": clean, "perturbed": perturbed}
    if clips.name == "mocap":
        found["perturbed_mini"] = float(right["perturbed"][::MINI_PART].mean())
    found |= {"relative_robustness": relative_robustness(clean, perturbed) or 0.0,
              "absolute_robustness": absolute_robustness(clean, perturbed)}
    return {key: 100 * value for key, value in found.items()} | {"test_clips": f"{len(clips.test.labels)}"}


def quoted_cells() -> list[Cell]:
    """Lines of the paper for which nothing is run here."""
    found = []
    for name in QUOTED:
        paper = TABLE_1.get(name, {}) | TABLE_2.get(name, {})
        found.append(Cell(f"{name} (quoted)", 0, lambda: {}, 0.0, paper, priority=2, table="Tables 1, 2: quoted",
                          note="quoted from the paper, not run"))
    return found


def control_cell(options: ReproduceOptions) -> Cell:
    """What the size and the length of a video alone tell, without looking at it."""
    return Cell(f"{set_name(options)}: size and length alone", 0, functools.partial(run_control, options), 20.0, None,
                priority=1, table=f"Tables 1, 2 (mini): {set_name(options)}",
                note="control: width, height and number of frames, nearest training video")


def run_control(options: ReproduceOptions) -> dict[str, Any]:
    """Return the accuracy of the nearest training video by (width, height, frames), each scaled to unit deviation."""
    from marey.papers.sevitar_mini import split_index
    from marey.video.decode import open_video

    index = split_index(str(options.data))
    rows: dict[str, list[list[float]]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    for sample in index.samples:
        if sample.split in rows:
            with open_video(sample.path) as reader:
                rows[sample.split].append([reader.width, reader.height, reader.num_frames])
            labels[sample.split].append(index.label_index(sample))
    train, test = (torch.tensor(rows[split]).float() for split in ("train", "test"))
    scale = train.std(0).clamp_min(1e-6)
    nearest = torch.cdist(test / scale, train / scale).argmin(1)
    right = torch.tensor(labels["train"])[nearest] == torch.tensor(labels["test"])
    return {"clean": 100 * float(right.double().mean())}


# ---- Fig. 1 ---------------------------------------------------------------------------------------------------------

FIGURE_CLIPS = 200
"""Test clips that are drawn."""


def figure_cell(options: ReproduceOptions) -> Cell:
    """Fig. 1 from the seed-0 runs of I3D and SeViTAR on mocap."""
    return Cell("Fig. 1", 0, functools.partial(run_figure, options), 60.0, None, priority=4, table="Fig. 1",
                note="I3D features, z, [s, z] of the test clips: silhouette and leave-one-out 5-NN accuracy")


def run_figure(options: ReproduceOptions) -> dict[str, Any]:
    """Draw the three panels into `<cache>/fig1.png`; returns silhouette and k-NN accuracy of each.

    Raises:
        UserError: if the two cells have not been run.
    """
    from marey.checkpoints.load import load_checkpoint
    from marey.papers.figures import describe_embedding, draw_embeddings

    clips = open_mini_set("mocap", options.cache)
    folders = {label: run_folder("mocap", label, 0, options) / "last" for label in ("I3D", "SeViTAR")}
    for label, folder in folders.items():
        if not folder.is_dir():
            raise UserError(f"Fig. 1 draws the features of the cell 'mocap: {label}', seed 0; run that cell first")
    conv, label_model = (load_checkpoint(folder).model for folder in folders.values())
    drawn = Part(*(values[:FIGURE_CLIPS] for values in (clips.test.features, clips.test.pixels, clips.test.labels)))
    i3d, = outputs_of(conv, drawn, True, "embedding")
    z, s = outputs_of(label_model, drawn, False, "embedding", "label_embedding")
    panels = {"I3D features": i3d, "z": z, "[ŝ, z]": torch.cat((s, z), dim=1)}
    draw_embeddings(panels, drawn.labels, clips.class_names, options.cache / "fig1.png")
    found: dict[str, Any] = {}
    for name, features in zip(("i3d", "z", "sz"), panels.values(), strict=True):
        found |= {f"{name}_{key}": value for key, value in describe_embedding(features, drawn.labels).items()}
    return found


# ---- full scale -----------------------------------------------------------------------------------------------------

FULL = {"UCF-101P": ("sevitar_ucf101", 9_537, "ucf101"), "HMDB-51P": ("sevitar_hmdb51", 3_570, "hmdb51"),
        "Kinetics-400P": ("sevitar_kinetics400", 80_000, "kinetics")}
FULL_CLIPS_PER_SECOND = 150.0
"""Assumed training speed of the full model on one data-centre GPU."""


def full_cells(options: ReproduceOptions) -> list[Cell]:
    """List Table 1 as the paper ran it; every cell trains on `options.data`, so choose one data set's cells.

    Raises:
        UserError: if there is no data.
    """
    if options.data is None:
        raise UserError("--scale full trains on the paper's data sets: give --data DIR with UCF101, HMDB51 or "
                        "Kinetics-400, and choose its cells, for example --cells 'UCF-101P*'")
    found = []
    for name, (_, videos, _) in FULL.items():
        for label in ("TimeSformer", "SeViTAR"):
            for seed in range(options.seeds):
                found.append(Cell(f"{name} {label}", seed, functools.partial(run_full, name, label, seed, options),
                                  videos * 15 / FULL_CLIPS_PER_SECOND, {"perturbed": TABLE_1[label][name]},
                                  table="Table 1", settings={"data": set_name(options)}))
    return found + quoted_cells()


def run_full(name: str, label: str, seed: int, options: ReproduceOptions) -> dict[str, Any]:
    """Train a paper recipe, and score it on the clean test videos and on DATA-P, the perturbed copy, if it is there."""
    from marey.evaluation.classification import EvaluateOptions
    from marey.evaluation.evaluate import evaluate
    from marey.recipes import get_recipe
    from marey.training.loop import train

    recipe, _, dataset = FULL[name]
    config = get_recipe(recipe)
    if label == "TimeSformer":
        config = replace(config, model=replace(config.model, name="timesformer", arguments={
            "position_embedding": "joint"}), objective=ObjectiveConfig())
    config = replace(config, data=replace(config.data, path=options.data, dataset=dataset),
                     train=replace(config.train, seed=seed, device="cpu" if options.device == "cpu" else "auto",
                                   precision="fp32" if options.device == "cpu" else "bf16"))
    out = options.cache / "runs" / f"{recipe}-{label}-seed{seed}"
    train(config, out, resume=out.exists())
    settings = EvaluateOptions(device=options.device)
    clean = evaluate(out, str(options.data), replace(settings, dataset=dataset))[0]["top1"]
    copy = Path(f"{str(options.data).rstrip('/')}-P")
    if not copy.is_dir():
        return {"clean": 100 * clean, "missing": f"{copy.name}: write it with 'marey corrupt DATA --out DATA-P "
                "--corruption random --severity 1,2,3,4,5'"}
    perturbed = evaluate(out, str(copy), settings)[0]["top1"]
    return {"clean": 100 * clean, "perturbed": 100 * perturbed,
            "relative_robustness": 100 * (relative_robustness(clean, perturbed) or 0.0),
            "absolute_robustness": 100 * absolute_robustness(clean, perturbed)}


# ---- what the numbers say -------------------------------------------------------------------------------------------

def reading(rows: Sequence[Row]) -> str:
    """Say whether the semantic head helps, on clean and on perturbed video, against the spread over seeds."""
    from marey.papers.unseen import read_folds

    named = {row.name: row for row in rows}
    sentences = []
    for prefix in dict.fromkeys(row.name.split(": ")[0] for row in rows if ": TimeSformer" in row.name):
        whole = named.get(f"{prefix}: SeViTAR")
        for other, word in (("TimeSformer", "TimeSformer"), ("SeViTAR random vectors", "random vectors for labels")):
            plain = named.get(f"{prefix}: {other}")
            if plain is None or whole is None or not plain.seeds_run or not whole.seeds_run:
                sentences.append(f"{prefix}: SeViTAR against {word} has not been run.")
                continue
            changes = "; ".join(contrast(metric, plain, whole) for metric in ("clean", "perturbed"))
            sentences.append(f"{prefix}, {word} -> SeViTAR: {changes}.")
    sentences.append("A difference says something about the head only where the backbones have converged and a head of "
                     "as many parameters without meanings was run; neither holds at mini scale.")
    return " ".join(text for text in (*sentences, read_folds(rows)) if text) or show(None)
