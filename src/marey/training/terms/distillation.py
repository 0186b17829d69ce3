"""Distillation: classification with a teacher's answers beside the labels (the HMDB_simp study's future work)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.errors import UserError, unknown_name
from marey.losses.distillation import distillation_loss
from marey.training.config import TrainConfig
from marey.training.task import Batch, Objective, Outputs, Task, Terms
from marey.training.tasks.clips import build as build_classification
from marey.transforms.preprocess import Preprocess


@dataclass(frozen=True, kw_only=True)
class DistillationArguments:
    """What `objective.arguments` may hold for the kind "distillation"."""

    teacher: str
    """A checkpoint with the same classes: a run's folder, a bundled name, "hf:...", "torchvision:..."."""
    temperature: float = 2.0
    """Both answers are softened by it."""


def build(config: TrainConfig) -> Task:
    """Build the classification task with the term "teacher".

    Raises:
        UserError: if no teacher is named, or its classes or clip length are not the student's.
    """
    from marey.checkpoints.load import load_checkpoint

    given, known = config.objective.arguments, [field.name for field in fields(DistillationArguments)]
    for name in given:
        if name not in known:
            raise unknown_name("setting of objective.arguments", name, known)
    if "teacher" not in given:
        raise UserError("distillation needs a teacher: --set objective.arguments.teacher=RUN/best")
    arguments = DistillationArguments(**given)
    weights = {name: weight for name, weight in config.objective.weights.items() if name != "teacher"}
    task = build_classification(replace(config, objective=replace(config.objective, arguments={}, weights=weights)))
    teacher = load_checkpoint(arguments.teacher)
    if teacher.preprocess is None or list(teacher.class_names) != list(task.class_names):
        raise UserError(f"teacher {arguments.teacher} knows {len(teacher.class_names)} classes, other than the "
                        f"{len(task.class_names)} of the data; fine-tune the teacher on the same data first")
    assert task.preprocess is not None
    mine, theirs = task.preprocess.sampling.num_frames, teacher.preprocess.sampling.num_frames
    if mine != theirs:
        raise UserError(f"the teacher takes {theirs} frames, the student {mine}; "
                        "set data.preprocess.sampling.num_frames")
    objective = DistillationObjective(config.objective.weights, task.objective, teacher.model, task.preprocess,
                                      teacher.preprocess, arguments.temperature)
    return replace(task, objective=objective, extra={**task.extra, "teacher": arguments.teacher})


class DistillationObjective(Objective):
    """The terms of classification and "teacher", from one forward of the student and one of the teacher.

    Args:
        weights: factor of each term, "teacher" among them.
        base: the classification objective; it must not mix clips, which the teacher would see unmixed.
        teacher: in evaluation mode; never trained, and not a part of the checkpoint.
        preprocess, teacher_preprocess: clips are taken from the student's normalisation and size to the teacher's.
        temperature: see `distillation_loss`.
    """

    def __init__(self, weights: dict[str, float], base: Objective, teacher: nn.Module, preprocess: Preprocess,
                 teacher_preprocess: Preprocess, temperature: float) -> None:
        super().__init__(weights)
        self.base, self.temperature = base, temperature
        self.preprocess, self.teacher_preprocess = preprocess, teacher_preprocess
        self.teacher = teacher.eval().requires_grad_(False)

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Outputs, Terms]:
        """Return the student's outputs and the terms; evaluation needs no teacher."""
        outputs, terms = self.base(model, batch)
        if not model.training:
            return outputs, terms
        with torch.no_grad():
            wanted = self.teacher.eval()(self.translate(batch["clip"]))["logits"]
        return outputs, {**terms, "teacher": distillation_loss(outputs["logits"], wanted, self.temperature)}

    def translate(self, clip: Tensor) -> Tensor:
        """Return a clip (B, T, 3, S, S) of the student as the teacher takes it: its size, mean, deviation and order."""
        size = self.teacher_preprocess.image_size
        pixels: Any = self.preprocess.denormalise(clip)
        if pixels.shape[-1] != size:
            flat = F.interpolate(pixels.flatten(0, 1), size=(size, size), mode="bilinear", antialias=True)
            pixels = flat.view(*pixels.shape[:3], size, size)
        return self.teacher_preprocess.normalise(pixels)
