"""Knowledge distillation: a student learns the softened predictions of a teacher.

Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from marey.errors import UserError


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 2.0
) -> Tensor:
    r"""Return how far the student's softened predictions are from the teacher's, averaged over the
    batch.

    Hinton et al., section 2:  T^2 KL(softmax(teacher / T) || softmax(student / T)); the factor T^2
    keeps the size of the gradient when T changes. The source writes a cross-entropy, which differs
    by the teacher's entropy, a constant.

    Args:
        student_logits, teacher_logits: (B, K).
        temperature: T, above 0.

    Raises:
        UserError: if the numbers of classes differ, or the temperature is not above 0.
    """
    if student_logits.shape != teacher_logits.shape:
        raise UserError(
            f"the student has {student_logits.shape[-1]} classes, the teacher "
            f"{teacher_logits.shape[-1]}; fine-tune the teacher on the same data first"
        )
    if not temperature > 0:
        raise UserError(f"distillation temperature must be above 0, got {temperature}")
    # F.kl_div takes (log q, log p) and returns KL(p || q).
    teacher = (teacher_logits / temperature).log_softmax(-1)
    student = (student_logits / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
