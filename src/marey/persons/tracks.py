"""Link the person boxes of successive frames into tracks: greedily, by overlap, then by
distance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou


def link_similarity(before: Tensor, after: Tensor) -> Tensor:
    """Return how similar boxes of two frames are, as candidates for the same person.

    IoU where boxes overlap; else minus the distance of their centres in mean box heights; -inf for
    centres further than one height apart or heights that differ by more than a factor 2.2.

    Args:
        before: (N, 4); after: (M, 4); xyxy in the same units.

    Returns:
        (N, M).
    """
    iou = box_iou(before, after)
    centre = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (before, after)]
    size = [(boxes[:, 2:] - boxes[:, :2]).amax(dim=1) for boxes in (before, after)]
    distance = torch.cdist(*centre) / ((size[0][:, None] + size[1][None]) / 2).clamp(min=1e-6)
    ratio = (size[0][:, None] / size[1][None].clamp(min=1e-6)).log().abs()
    similarity = torch.where(iou > 0.1, iou, -distance)
    return similarity.masked_fill((ratio > 0.8) | (distance > 1.0), float("-inf"))


def link_persons(
    boxes_of_frames: Sequence[Tensor], seconds: Sequence[float], *, max_gap_seconds: float = 2.5
) -> list[list[int]]:
    """Give every box a track number that stays with the person.

    Each box takes the most similar track seen in the last `max_gap_seconds` that is still free; a
    box that fits none starts a new track. Numbers count from 1 and are never used again.

    Args:
        boxes_of_frames: for each frame, boxes (P, 4) of which x, y, width and height share one
            unit, best person first.
        seconds: time of each frame.
        max_gap_seconds: how long a person may be unseen before the track ends; frames further apart
            are not linked.

    Returns:
        For each frame, one track number per box.
    """
    numbers: list[list[int]] = []
    last_box: dict[int, Tensor] = {}
    last_seen: dict[int, float] = {}
    following = 1
    for now, boxes in zip(seconds, boxes_of_frames, strict=True):
        alive = [track for track, seen in last_seen.items() if now - seen <= max_gap_seconds]
        assigned = [0] * len(boxes)
        if alive and len(boxes):
            similarity = link_similarity(torch.stack([last_box[track] for track in alive]), boxes)
            # Greedy: the most similar pair of track and box first; both are then taken.
            while torch.isfinite(similarity).any():
                row, column = divmod(int(similarity.argmax()), similarity.shape[1])
                assigned[column] = alive[row]
                similarity[row], similarity[:, column] = float("-inf"), float("-inf")
        for index, box in enumerate(boxes):
            if not assigned[index]:
                assigned[index], following = following, following + 1
            last_box[assigned[index]], last_seen[assigned[index]] = box, now
        numbers.append(assigned)
    return numbers
