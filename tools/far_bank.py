"""Write the bank of other footage that chooses the far score: `python tools/far_bank.py`.

Sixteen short videos of our own, eight rendered people and eight patterns without anybody, in
`weights/far-bank`. No real video is in it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from marey.synthetic.backgrounds import draw_background
from marey.synthetic.clip import render_clip
from marey.video.encode import write_video

OUT = Path(__file__).resolve().parents[1] / "weights" / "far-bank"
SIZE, FRAMES, FPS = 112, 32, 12.5
ACTIONS = ("walk", "run", "jump", "dance a", "roll", "cartwheel", "punch", "get up from the front")


def person(number: int) -> Tensor:
    """Return one rendered clip, uint8 (T, 3, S, S)."""
    split = ("train", "val", "test")[number % 3]
    action = ACTIONS[number % len(ACTIONS)]
    clip = render_clip(
        action, seed=1600 + number, split=split, size=SIZE, num_frames=FRAMES, fps=FPS
    )
    return clip.clip.frames


def pattern(number: int) -> Tensor:
    """Return a drawn picture that the camera moves over, with another one in front of it."""
    generator = torch.Generator().manual_seed(number)
    split = ("train", "val", "test")[number % 3]
    behind = draw_background(2 * SIZE, split, generator)
    before = draw_background(SIZE // 3, "train", generator)
    frames = []
    for t in range(FRAMES):
        shift = round(t / FRAMES * SIZE)
        top, left = (shift, 0) if number % 2 else (0, shift)
        frame = behind[:, top : top + SIZE, left : left + SIZE].clone()
        place = round((SIZE - SIZE // 3) * abs(1 - 2 * ((t * (1 + number % 3) / FRAMES) % 1)))
        frame[:, place : place + SIZE // 3, 20 : 20 + SIZE // 3] = before
        frames.append(frame)
    return torch.stack(frames)


def to_bytes(frames: Tensor) -> Tensor:
    """Return uint8 frames of floats in [0, 1], or of bytes as they are."""
    return frames if frames.dtype == torch.uint8 else (frames.clamp(0, 1) * 255).round().byte()


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for number in range(8):
        write_video(OUT / f"person-{number}.mp4", to_bytes(person(number)), fps=FPS, crf=28)
        write_video(OUT / f"pattern-{number}.mp4", to_bytes(pattern(number)), fps=FPS, crf=28)
