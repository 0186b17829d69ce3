"""The term "teacher": distillation from a larger model (future work of the HMDB_simp study)."""

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
    """`distillation_loss` of the student's logits against a teacher's on the same clips.

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
        """Return the mean over the batch; the teacher sees the ordered clips only."""
        clip = batch["clip"][: len(batch["label"])]
        with torch.no_grad():
            teacher_logits = self.teacher.eval()(self.translate(clip))["logits"]  # (B, K)
        return distillation_loss(outputs["logits"], teacher_logits, self.temperature)

    def translate(self, clip: Tensor) -> Tensor:
        """Return a clip (B, T, 3, S, S) of the student as the teacher's preprocessing makes it."""
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
            f"than the {len(class_names)} of the data; fine-tune the teacher on the same data first"
        )
    mine, theirs = preprocess.sampling.num_frames, teacher.preprocess.sampling.num_frames
    if mine != theirs:
        raise UserError(
            f"the teacher takes {theirs} frames, the student {mine}; "
            "set data.preprocess.sampling.num_frames"
        )
    return TeacherTerm(teacher.model, preprocess, teacher.preprocess, config.temperature)
