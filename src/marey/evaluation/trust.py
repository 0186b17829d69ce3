"""Trust from stored answers: what a checkpoint's calibration is fitted from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from marey.errors import UserError
from marey.inference.answers import Answers
from marey.metrics.trust import Refit, fit_trust


def fit_trust_of_answers(
    answers: Answers,
    *,
    far: tuple[Tensor, Tensor] | None = None,
    refit: Refit | None = None,
    blocks: Sequence[int] = (),
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fit temperature, unknown test and prediction sets from out-of-fold answers.

    Args:
        answers: every video answered by a model that never saw its group.
        far: logits (M, K) and embeddings (M, D) of other footage, by the model taught with all
            videos; chooses the score that finds it.
        refit: fits a head on embeddings, as the model's own was.
        blocks: widths of the parts of the embedding.

    Returns:
        The checkpoint's calibration (JSON types) and its tensors, see `fit_trust`.

    Raises:
        UserError: if the answers have no embedding, or a label is no class of the model.
    """
    numbers = {name: number for number, name in enumerate(answers.class_names)}
    absent = sorted({str(label) for label in answers.labels} - set(numbers))
    if absent:
        raise UserError(f"labels that are no class of {answers.model}: {', '.join(absent)}")
    logits, embedding = _of(answers)
    return fit_trust(
        logits,
        embedding,
        torch.tensor([numbers[str(label)] for label in answers.labels], dtype=torch.int64),
        answers.groups,
        far=far,
        refit=refit,
        blocks=blocks,
    )


def _of(answers: Answers) -> tuple[Tensor, Tensor]:
    """Return logits (N, K) and deciding embeddings (N, D), means over views."""
    deciding = answers.outputs.get("deciding_embedding", answers.embedding)
    if deciding is None:
        raise UserError(
            f"{answers.model} returns no embedding, which trust is fitted on; use a model that does"
        )
    return answers.logits.mean(1), deciding.mean(1)
