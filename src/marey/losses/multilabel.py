"""Binary cross-entropy for videos with several labels."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from marey.errors import UserError


def multilabel_loss(
    logits: Tensor, targets: Tensor, over_classes: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Return the binary cross-entropy of sigmoid outputs, averaged over videos.

    Sahu et al., section 4.1 ("binary cross-entropy loss"). Whether classes are averaged or summed
    is not stated: the mean fits the paper's weights beta beside it; the sum is what the YouTube-8M
    starter code minimises.

    Args:
        logits: float (B, K).
        targets: float (B, K), 0 or 1.
        over_classes: "mean" or "sum".

    Raises:
        UserError: if the shapes differ.
    """
    if logits.shape != targets.shape:
        raise UserError(
            f"logits are {tuple(logits.shape)} but targets {tuple(targets.shape)}; "
            "build the model with num_classes as the label space has"
        )
    # Eq. 2 of the paper, one term per class.
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none")
    return (losses.sum(1) if over_classes == "sum" else losses.mean(1)).mean()
