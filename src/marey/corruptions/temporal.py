"""Temporal corruptions: index functions that say which source frame is shown at each moment.

Each function takes the number of SOURCE frames and returns that many indices; sampling for the
model comes after. Where a source shortens the clip, ours keeps the length by showing the last kept
frame longer.
"""

from __future__ import annotations

import torch
from torch import Generator


def frame_sampling(num_frames: int, *, stride: int) -> list[int]:
    """Keep every `stride`-th frame, each shown `stride` times (the source shortens the clip)."""
    return [i - i % stride for i in range(num_frames)]


def reverse_sampling(num_frames: int, *, stride: int) -> list[int]:
    """Keep every `stride`-th frame as in `frame_sampling`, then play backwards."""
    return frame_sampling(num_frames, stride=stride)[::-1]


def _shuffled(count: int, generator: Generator) -> list[int]:
    return torch.randperm(count, generator=generator, device=generator.device).tolist()


def jumble(num_frames: int, *, segment: int, generator: Generator) -> list[int]:
    """Shuffle the frames inside consecutive segments; the segments stay in order.

    In the source's table a higher severity has shorter segments, so it disturbs less: severity 1 is
    the hardest.
    """
    order: list[int] = []
    for start in range(0, num_frames, segment):
        length = min(segment, num_frames - start)
        order.extend(start + i for i in _shuffled(length, generator))
    return order


def box_jumble(num_frames: int, *, segment: int, generator: Generator) -> list[int]:
    """Shuffle the order of consecutive segments; the frames inside a segment stay in order."""
    starts = list(range(0, num_frames, segment))
    return [
        i
        for box in _shuffled(len(starts), generator)
        for i in range(starts[box], min(starts[box] + segment, num_frames))
    ]


def freeze(
    num_frames: int, *, kept_share: float, kept_least: int, generator: Generator
) -> list[int]:
    """Keep max(share of the frames, least) random frames, each shown until the next kept one.

    The source drops what comes before the first kept frame; ours shows the first kept frame there.
    """
    kept = min(num_frames, max(int(kept_share * num_frames), kept_least))
    shown = sorted(_shuffled(num_frames, generator)[:kept])

    order, current = [], 0
    for i in range(num_frames):
        if current + 1 < len(shown) and i >= shown[current + 1]:
            current += 1
        order.append(shown[current])
    return order
