"""The term "teacher": a larger model's answers beside the labels (the HMDB_simp study's future
work)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.losses.distillation import distillation_loss
from marey.training.objective_config import TeacherConfig
from marey.training.task import Batch, Outputs
from marey.transforms.preprocess import Preprocess


class TeacherTerm(nn.Module):
    """`distillation_loss` of the student's logits against those of a teacher that sees the same
    clips.

    Args:
        teacher: in evaluation mode; never trained, and not a part of the checkpoint.
        preprocess, teacher_preprocess: clips are taken from the student's normalisation and size to
            the teacher's.
        temperature: see `distillation_loss`.
    """

    def __init__(
        self,
        teacher: nn.Module,
        preprocess: Preprocess,
        teacher_preprocess: Preprocess,
        temperature: float,
    ) -> None:
        super().__init__()
        self.preprocess, self.teacher_preprocess = preprocess, teacher_preprocess
        self.teacher, self.temperature = teacher.eval().requires_grad_(False), temperature

    def forward(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch; clips permuted behind the ordered ones are not shown to
        the teacher."""
        clip = batch["clip"][: len(batch["label"])]
        with torch.no_grad():
            wanted = self.teacher.eval()(self.translate(clip))["logits"]
        return distillation_loss(outputs["logits"], wanted, self.temperature)

    def translate(self, clip: Tensor) -> Tensor:
        """Return a clip (B, T, 3, S, S) of the student in the teacher's size, mean, standard
        deviation and order."""
        size = self.teacher_preprocess.image_size
        pixels: Any = self.preprocess.denormalise(clip)
        if pixels.shape[-1] != size:
            flat = F.interpolate(
                pixels.flatten(0, 1), size=(size, size), mode="bilinear", antialias=True
            )
            pixels = flat.view(*pixels.shape[:3], size, size)
        return self.teacher_preprocess.normalise(pixels)


def build_teacher_term(
    config: TeacherConfig, class_names: tuple[str, ...], preprocess: Preprocess
) -> TeacherTerm:
    """Load the teacher and see that it fits the student.

    Raises:
        UserError: if no teacher is named, or its classes or clip length are not the student's.
    """
    if config.checkpoint is None:
        raise UserError("distillation needs a teacher: --set objective.teacher.checkpoint=RUN/best")
    teacher = load_checkpoint(config.checkpoint)
    if teacher.preprocess is None or tuple(teacher.class_names or ()) != class_names:
        raise UserError(
            f"teacher {config.checkpoint} knows {len(teacher.class_names or ())} classes, other "
            "than the "
            f"{len(class_names)} of the data; fine-tune the teacher on the same data first"
        )
    mine, theirs = preprocess.sampling.num_frames, teacher.preprocess.sampling.num_frames
    if mine != theirs:
        raise UserError(
            f"the teacher takes {theirs} frames, the student {mine}; "
            "set data.preprocess.sampling.num_frames"
        )
    return TeacherTerm(teacher.model, preprocess, teacher.preprocess, config.temperature)
