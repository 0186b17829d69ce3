"""Features of boxes: RoIPool to 14 x 14 and max pool to 7 x 7, or RoIAlign. torchvision's operators
underneath.

Girdhar et al., "Video Action Transformer Network", CVPR 2019, Sec. 3.3 and 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torchvision.ops import roi_align, roi_pool

RoiOperator = Literal["pool", "align"]


def pool_boxes(
    features: Tensor,
    boxes_xyxy_norm: Sequence[Tensor],
    operator: RoiOperator = "pool",
    output_size: int = 7,
) -> Tensor:
    """Cut boxes out of feature maps.

    Args:
        features: (B, D, h, w).
        boxes_xyxy_norm: B tensors (P_b, 4), fractions of width and height.
        operator: "pool", the paper's: RoIPool at twice the output size, then max pool; or "align":
            RoIAlign with one sample in the middle of each cell, finer on small maps and a quarter
            of the work.
        output_size: cells per side.

    Returns:
        (sum of P_b, D, output_size, output_size).
    """
    h, w = features.shape[-2:]
    scale = features.new_tensor([w, h, w, h])
    boxes = [box.to(features) * scale for box in boxes_xyxy_norm]
    if operator == "align":
        return roi_align(
            features, boxes, (output_size, output_size), sampling_ratio=1, aligned=True
        )
    return F.max_pool2d(roi_pool(features, boxes, (2 * output_size, 2 * output_size)), 2)


def pool_tubes(
    features: Tensor,
    boxes_xyxy_norm: Sequence[Tensor],
    operator: RoiOperator = "pool",
    output_size: int = 7,
) -> Tensor:
    """Cut the same box out of every time step (ST-RoIPool, Sec. 3.3).

    Args:
        features: (B, D, t, h, w).
        boxes_xyxy_norm: B tensors (P_b, 4), fractions of width and height.

    Returns:
        (sum of P_b, D, t, output_size, output_size).
    """
    t = features.shape[2]
    frames = rearrange(features, "b d t h w -> (b t) d h w")
    tubes = [box for boxes in boxes_xyxy_norm for box in [boxes] * t]
    pooled = pool_boxes(frames, tubes, operator, output_size)  # rows (b t p): frame by frame
    parts = torch.split(pooled, [t * len(boxes) for boxes in boxes_xyxy_norm])
    return torch.cat([rearrange(part, "(t p) d h w -> p d t h w", t=t) for part in parts])
