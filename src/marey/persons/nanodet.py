"""NanoDet: frames -> boxes of persons.

RangiLyu, "NanoDet", https://github.com/RangiLyu/nanodet (Apache License 2.0), version m-416. Boxes
are distances from a cell's centre to four sides, each the expectation over 11 bins (Li et al.,
"Generalized Focal Loss", NeurIPS 2020, Eq. 3).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import nms

from marey.persons.network import Network, letterbox, sigmoid

Array = NDArray[np.floating]

MIN_SCORE = 0.35
"""Of a person, where NanoDet decides alone."""

MIN_PROPOSED = 0.2
"""Of a person, where a look at the pose decides."""

MEAN_BGR = np.array([103.53, 116.28, 123.675], np.float32)
STD_BGR = np.array([57.375, 57.12, 58.395], np.float32)

STRIDES = {"stride8": 8, "stride16": 16, "stride32": 32}

BINS = 11
"""Of one side's distance: 0 to 10 strides."""


class NanoDetPersons:
    """NanoDet as a finder of persons.

    Args:
        min_score: boxes below it are not reported.
        image_size: long side of the picture the network sees, in pixels; a multiple of 32.
        threads: computing threads; None takes as many as torch does.
    """

    def __init__(
        self, *, min_score: float = MIN_SCORE, image_size: int = 416, threads: int | None = None
    ) -> None:
        self.min_score = min_score
        self.image_size = image_size
        self.network = Network("nanodet", threads=threads)

    def __call__(self, frame: Tensor, video: str, seconds: float) -> tuple[Tensor, Tensor]:
        """Return boxes (P, 4) in [0, 1] and scores (P,) of a uint8 (3, H, W) frame."""
        H, W = frame.shape[-2:]
        picture, scale = letterbox(frame[None], self.image_size)
        heads = self.network(normalise(picture.numpy()))
        boxes, scores = decode_persons(
            {name: head[0] for name, head in heads.items()}, min_score=self.min_score
        )
        size = scale * torch.tensor([W, H, W, H])
        return (torch.from_numpy(boxes) / size).clamp(0, 1), torch.from_numpy(scores)


def normalise(frames: NDArray[np.uint8]) -> Array:
    """Return RGB uint8 frames (T, 3, H, W) as the network wants them: BGR, standardised."""
    bgr = frames[:, ::-1].astype(np.float32)
    return (bgr - MEAN_BGR[:, None, None]) / STD_BGR[:, None, None]


def decode_persons(
    heads: Mapping[str, Array], *, min_score: float = MIN_SCORE, nms_threshold: float = 0.5
) -> tuple[Array, Array]:
    """Read the persons from the maps of one frame.

    Args:
        heads: "stride8", "stride16", "stride32": (45, h, w), the logit of "person", then 4 sides
            (left, top, right, bottom) x 11 bins.
        min_score: boxes below it are dropped.
        nms_threshold: of two boxes with a larger IoU the lower-scored one is dropped.

    Returns:
        boxes_xyxy (P, 4) in pixels of the network's input, scores (P,), best first.
    """
    found_boxes, found_scores = [], []
    for name, stride in STRIDES.items():
        head = heads[name]
        score = sigmoid(head[0])
        rows, columns = np.nonzero(score >= min_score)

        logits = head[1:, rows, columns].reshape(4, BINS, len(rows))
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        left, top, right, bottom = stride * np.einsum("sbn,b->sn", weights, np.arange(BINS))

        x, y = (columns + 0.5) * stride, (rows + 0.5) * stride
        found_boxes.append(np.stack([x - left, y - top, x + right, y + bottom], axis=1))
        found_scores.append(score[rows, columns])

    boxes = np.concatenate(found_boxes).astype(np.float32)
    scores = np.concatenate(found_scores).astype(np.float32)
    keep = nms(torch.from_numpy(boxes), torch.from_numpy(scores), nms_threshold).numpy()
    return boxes[keep], scores[keep]
