"""The models of SeViTAR's mini tables: what each line trains, how it is trained and measured."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from marey.checkpoints.load import load_checkpoint
from marey.metrics.robustness import absolute_robustness, relative_robustness
from marey.papers.cells import ReproduceOptions, Row, read_tables, rows_of
from marey.papers.sevitar_mini import (
    FRAMES,
    MiniSet,
    Part,
    conv_preprocess,
    image_stem,
    label_vectors,
    stem_preprocess,
)
from marey.recipes.mini import ONE_CYCLE
from marey.training.config import ModelConfig, RunConfig, TrainConfig
from marey.training.data_config import DataConfig
from marey.training.feature_cache import build_model
from marey.training.loop import train
from marey.training.objective_config import LabelConfig, ObjectiveConfig, OrderConfig
from marey.training.stages import build_stages
from marey.training.task import Task
from marey.training.tasks.clip_evaluator import ClipsEvaluator
from marey.training.tasks.clip_terms import ClipTerms, add_order
from marey.training.tasks.clips import ClipsObjective
from marey.training.terms.classification import ClassTerm
from marey.training.terms.label_embedding import LabelTerm

STEPS = {"mocap": 300, "videos": 150}
"""Optimiser steps of a mini cell."""
BATCH_SIZE = 16
"""Clips of one step."""
CONV_STEPS = {"mocap": 150, "videos": 60}
"""Steps of I3D, which sees pixels and costs more per step."""
MINI_PART = 5
"""The "mini" set of Table 2 is every fifth perturbed test clip."""


@dataclass(frozen=True, kw_only=True)
class Line(Row):
    """One line of the mini tables; `set` holds the model's arguments."""

    model: str
    weights: dict[str, float]
    staged: bool = False
    """The paper's order: backbone, semantic MLP, classifier."""
    random_labels: bool = False
    """Random unit vectors in place of what the names mean."""


LINES = {line.name: line for line in rows_of(read_tables("sevitar"), "rows", Line)}
"""Name -> what is trained."""


def steps_of(line: Line, set_name: str) -> int:
    """Return the optimiser steps of a line on the set "mocap", or on the user's videos."""
    steps = CONV_STEPS if line.model == "i3d" else STEPS
    return steps["mocap" if set_name == "mocap" else "videos"]


# ---- training -----------------------------------------------------------------------------------


def train_line(
    line: Line, clips: MiniSet, seed: int, out: Path, options: ReproduceOptions
) -> nn.Module:
    """Train a line; returns the model in evaluation mode."""
    config = line_config(line, clips.name, seed, options.train_device)
    uses_pixels = line.model == "i3d"
    parts, num_classes = line_parts(line, config, clips, options.cache), len(clips.class_names)
    objective = ClipsObjective(
        line.weights,
        parts.terms,
        num_classes=num_classes,
        permuted_clips=parts.permuted_clips,
        stages=build_stages(config.objective),
    )
    build = None if uses_pixels else functools.partial(build_on_stem, line.model)
    task = Task(
        train_data=PartClips(clips.train, uses_pixels),
        val_data=None,
        objective=objective,
        make_evaluator=lambda: ClipsEvaluator(clips.class_names),
        class_names=clips.class_names,
        preprocess=conv_preprocess() if uses_pixels else stem_preprocess(),
        tensors=parts.tensors,
        build_model=build,
        model_arguments={"num_classes": num_classes, **parts.model_arguments},
    )
    shutil.rmtree(out, ignore_errors=True)  # what an interrupted cell left
    train(config, out, task=task, quiet=True)
    return load_checkpoint(out / "last").model.eval()


def line_config(
    line: Line, set_name: str, seed: int, device: Literal["cpu", "auto"]
) -> TrainConfig:
    """Return the configuration of a run; the paper's SGD at 0.002 needs more steps than a mini cell
    has."""
    steps = steps_of(line, set_name)
    order = OrderConfig(num_permutations=16, rule="farthest", mask_diagonal=True)
    label = LabelConfig(stage_shares=(0.5, 0.25, 0.25) if line.staged else None)
    preprocess = conv_preprocess() if line.model == "i3d" else stem_preprocess()
    return TrainConfig(
        recipe="sevitar mini",
        model=ModelConfig(name=line.model, arguments=dict(line.set)),
        data=DataConfig(preprocess=preprocess),
        optim=replace(ONE_CYCLE, lr=3e-3, warmup=0.2),
        objective=ObjectiveConfig(weights=line.weights, order=order, label=label),
        train=RunConfig(
            max_steps=steps,
            batch_size=BATCH_SIZE,
            seed=seed,
            calibrate=False,
            tensorboard=False,
            eval_every=steps,
            threads=1,
            device=device,
        ),
    )


def line_parts(line: Line, config: TrainConfig, clips: MiniSet, cache: Path) -> ClipTerms:
    """Return the terms of a line, the arguments they ask of the model, and what travels in the
    checkpoint."""
    parts = ClipTerms(terms={"class": ClassTerm()})
    if "order" in line.weights:
        add_order(parts, config.objective, clips.class_names, FRAMES)
    if "label" in line.weights:
        vectors = label_vectors(clips.class_names, cache)
        if line.random_labels:
            drawn = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
            vectors = nn.functional.normalize(drawn)
        parts.terms["label"] = LabelTerm(vectors)
        parts.model_arguments["label_dim"] = vectors.shape[1]
        parts.tensors["label_embeddings"] = vectors
    return parts


def build_on_stem(name: str, arguments: dict[str, Any]) -> nn.Module:
    """Build a transformer around the frozen stem."""
    return build_model(name, image_stem(), arguments)


# ---- what a model sees, and what it answers -----------------------------------------------------


@dataclass(frozen=True)
class PartClips:
    """Items of a part: stem features, or small clips for a model without stem."""

    part: Part
    uses_pixels: bool

    def __len__(self) -> int:
        return len(self.part.labels)

    def __getitem__(self, key: tuple[int, int], /) -> dict[str, Any]:
        position = key[1]
        clip = inputs(self.part, [position], self.uses_pixels)[0]
        return {"clip": clip, "label": int(self.part.labels[position]), "sample": position}


def inputs(part: Part, positions: Sequence[int], uses_pixels: bool) -> Tensor:
    """Return what a model takes, float32: features (B, T, patches, C) or clips (B, T, 3, 64,
    64)."""
    if not uses_pixels:
        return part.features[list(positions)].float()
    preprocess = conv_preprocess()
    return torch.stack([preprocess.clip(part.pixels[i], 1)[0] for i in positions])


@torch.inference_mode()
def outputs_of(model: nn.Module, part: Part, uses_pixels: bool, *names: str) -> list[Tensor]:
    """Return some outputs of a model for every clip of a part."""
    device = next(model.parameters()).device
    found = []
    for positions in torch.arange(len(part.labels)).split(50):
        found.append(model(inputs(part, positions.tolist(), uses_pixels).to(device)))
    return [torch.cat([outputs[name].float().cpu() for outputs in found]) for name in names]


def measure(model: nn.Module, clips: MiniSet, uses_pixels: bool) -> dict[str, Any]:
    """Return accuracies on clean and perturbed test clips, and the robustness between them, in
    percent."""
    is_right = {}
    for name, part in (("clean", clips.test), ("perturbed", clips.perturbed)):
        (logits,) = outputs_of(model, part, uses_pixels, "logits")
        is_right[name] = (logits.argmax(1) == part.labels).double()

    clean, perturbed = (float(is_right[name].mean()) for name in ("clean", "perturbed"))
    found = {"clean": clean, "perturbed": perturbed}
    if clips.name == "mocap":
        found["perturbed_mini"] = float(is_right["perturbed"][::MINI_PART].mean())
    found["relative_robustness"] = relative_robustness(clean, perturbed) or 0.0
    found["absolute_robustness"] = absolute_robustness(clean, perturbed)
    percent: dict[str, Any] = {key: 100 * value for key, value in found.items()}
    return percent | {"test_clips": f"{len(clips.test.labels)}"}
