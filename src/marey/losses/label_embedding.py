"""Distance between predicted label embeddings and those of the labels (SeViTAR, section 3.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from marey.errors import unknown_name

KINDS = ("mse", "cosine")


def label_embedding_loss(predicted: Tensor, vectors: Tensor, kind: str = "mse") -> Tensor:
    r"""Compare the predicted embedding ŝ with the label's embedding s, averaged over the batch.

    SeViTAR, section 3.2, trains the semantic MLP by the mean squared error. On unit vectors of E
    values that mean is at most 4 / E and its gradient vanishes beside cross-entropy, so we scale it
    by E, which makes it the squared distance:

        mse:     ||ŝ - s||^2        in [0, 4] for a unit ŝ
        cosine:  1 - <ŝ, s> / (||ŝ|| ||s||)        in [0, 2]

    Args:
        predicted: ŝ, (B, E).
        vectors: s, (B, E), unit length.

    Raises:
        UserError: if the kind is unknown.
    """
    if kind not in KINDS:
        raise unknown_name("label loss", kind, KINDS)
    # ||ŝ - s||^2 is E times the mean squared error.
    if kind == "mse":
        return (predicted - vectors).square().sum(-1).mean()
    return (1 - F.cosine_similarity(predicted, vectors, dim=-1)).mean()
