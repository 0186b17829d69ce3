"""The losses of the Video Action Transformer.

Girdhar et al., "Video Action Transformer Network", CVPR 2019, Sec. 3.4.

Separate logistic losses per class, smooth L1 for boxes, and the two losses of the region proposal
network.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

Outputs = dict[str, Any]


def action_loss(
    logits: Tensor,
    labels: Tensor,
    background_logits: Tensor | None = None,
    is_positive: Tensor | None = None,
) -> Tensor:
    """Sum sigmoid cross-entropies over classes, average over boxes; several actions may be true of
    one person.

    Args:
        logits: (P, K); labels: (P, K), 0 or 1, all zero for boxes without a person.
        background_logits: (P,), the explicit background output; its target is 1 where `is_positive`
            is False.

    Returns:
        Scalar, 0 (with a gradient of 0) for P = 0.
    """
    loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(dim=1)  # (P,)
    if background_logits is not None and is_positive is not None:
        loss = loss + F.binary_cross_entropy_with_logits(
            background_logits, 1 - is_positive.to(logits), reduction="none"
        )
    return loss.sum() / max(len(loss), 1)


def box_loss(
    deltas: Tensor, delta_targets: Tensor, is_positive: Tensor, labels: Tensor | None = None
) -> Tensor:
    """Smooth L1 over the positive boxes, divided by the number of all boxes.

    Args:
        deltas: (P, 4), or (P, K, 4) with one correction per class; then only the true classes of
            `labels` count.
        delta_targets: (P, 4); is_positive: bool, (P,); labels: (P, K).

    Returns:
        Scalar, 0 (with a gradient of 0) where nothing is positive.
    """
    if deltas.ndim == 3:
        if labels is None:
            raise ValueError(
                "class-specific deltas (P, K, 4) need labels (P, K), which select the classes "
                "that count"
            )
        counts = labels.bool() & is_positive[:, None]
        delta_targets = delta_targets[:, None].expand_as(deltas)
    else:
        counts = is_positive
    loss = F.smooth_l1_loss(deltas[counts], delta_targets[counts], beta=1.0, reduction="sum")
    return loss / max(len(deltas), 1)


def detection_loss(outputs: Outputs) -> dict[str, Tensor]:
    """Return all unweighted terms of a training forward pass of `ActionTransformer`.

    "class", "box"; "rpn_objectness" and "rpn_box" where the model made its own proposals. Without
    any person every term stays finite.
    """
    labels, is_positive = outputs["proposal_labels"], outputs["is_positive"]
    terms = {
        "class": action_loss(
            outputs["logits"], labels, outputs.get("background_logits"), is_positive
        ),
        "box": box_loss(outputs["box_deltas"], outputs["box_delta_targets"], is_positive, labels),
    }
    if "loss_objectness" in outputs:
        terms["rpn_objectness"] = outputs["loss_objectness"]
        terms["rpn_box"] = outputs["loss_rpn_box"]
    return terms
