"""Longer videos of rendered motions, several actions in a row, with sound: the training data of
`marey-mini-gat`.

A video is one to five rendered clips, each a person doing one captured motion before another
background; its labels are their actions. Steps and landings can be heard as thumps in two thirds of
the videos that have them, over hum and hiss of any strength; a third of all videos has no sound
track. Train, val and test come from clips whose bodies, views, speeds, phases and backgrounds are
drawn from ranges that do not meet (`marey.synthetic`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marey.errors import UserError
from marey.files import atomic, write_csv
from marey.synthetic.dataset import PackedClips
from marey.synthetic.motion import RECORDINGS
from marey.video.encode import write_video

SPLITS = ("train",) * 7 + ("val", "test", "test")
"""Split of video i: entry i modulo ten."""
SAMPLE_RATE = 16_000
THUMPS_PER_SECOND = {
    "walk": 1.8,
    "walk backwards": 1.8,
    "run": 2.8,
    "run backwards": 2.8,
    "jump": 0.7,
    "backflip": 0.7,
    "front flip": 0.7,
}
"""How often feet are heard, where an action has steps or landings."""


def thumps(rate: float, seconds: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Return dull knocks at about `rate` a second, float32 at 16 kHz."""
    sound = np.zeros(int(seconds * SAMPLE_RATE), dtype=np.float32)
    t = np.arange(int(0.12 * SAMPLE_RATE)) / SAMPLE_RATE
    knock = np.exp(-t * 45) * np.sin(2 * math.pi * generator.uniform(140, 260) * t)
    at = generator.uniform(0, 1 / rate)
    while at < seconds:
        start = int(at * SAMPLE_RATE)
        part = knock[: len(sound) - start] * generator.uniform(0.7, 1.0)
        sound[start : start + len(part)] += part
        at += generator.normal(1, 0.06) / rate
    return sound


def draw_sound(
    actions: list[str], lengths: list[float], generator: np.random.Generator
) -> NDArray[np.float32] | None:
    """Return the sound of a video, or None for the third that has no track."""
    if generator.random() < 1 / 3:
        return None
    audible = generator.random() < 2 / 3
    total = sum(int(length * SAMPLE_RATE) for length in lengths)
    noise = generator.normal(size=total).astype(np.float32)
    hum = np.sin(2 * math.pi * generator.uniform(80, 400) * np.arange(total) / SAMPLE_RATE)
    sound = 10 ** generator.uniform(-4, -1.3) * noise + 10 ** generator.uniform(-4, -1.3) * hum
    at = 0
    for action, length in zip(actions, lengths, strict=True):
        count = int(length * SAMPLE_RATE)
        if audible and action in THUMPS_PER_SECOND:
            sound[at : at + count] += generator.uniform(0.2, 0.7) * thumps(
                THUMPS_PER_SECOND[action], length, generator
            )
        at += count
    return sound.clip(-1, 1).astype(np.float32)


def write_video_with_sound(
    path: Path, frames: Tensor, fps: float, sound: NDArray[np.float32] | None
) -> None:
    """Write frames (T, 3, H, W) uint8 as H.264 and sound at 16 kHz as AAC into one MP4."""
    if sound is None:
        write_video(path, frames, fps)
        return
    silent = path.with_name(f".{path.stem}.silent.mp4")
    write_video(silent, frames, fps)
    with (
        atomic(path) as temporary,
        av.open(str(silent)) as source,
        av.open(str(temporary), "w") as target,
    ):
        video = target.add_stream_from_template(source.streams.video[0])
        audio = target.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                target.mux(packet)
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        for packet in (*audio.encode(frame), *audio.encode(None)):
            target.mux(packet)
    silent.unlink()


def make_action_videos(
    clips: str | Path,
    out: str | Path,
    num_videos: int,
    *,
    seed: int = 0,
    reversals: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write videos and a manifest.csv (`path,label,split`; several labels are separated by ";").

    Args:
        clips: folder of rendered clips (`marey data render mocap`), whose splits are kept apart.
        out: folder; videos that exist are kept, so an interrupted run goes on.
        num_videos: 7 of 10 train, 1 val, 2 test.
        seed: video i is drawn from (seed, i).
        reversals: also use clips of recordings played backwards.
        progress: called with (done, all).

    Raises:
        UserError: if there is nothing to do, or the folder holds no rendered clips of a split.
    """
    if num_videos < 1:
        raise UserError(f"num_videos must be 1 or more, got {num_videos}")
    out, rows = Path(out), []
    parts = {split: PackedClips(clips, split) for split in dict.fromkeys(SPLITS)}
    fps = float(json.loads((Path(clips) / "packed.json").read_text(encoding="utf-8"))["fps"])
    (out / "videos").mkdir(parents=True, exist_ok=True)
    for number in range(num_videos):
        split, generator = SPLITS[number % len(SPLITS)], np.random.default_rng([seed, number])
        names = parts[split].class_names
        shots = draw_shots(
            parts[split].labels,
            generator,
            [k for k, name in enumerate(names) if reversals or name in RECORDINGS],
        )
        actions = [names[parts[split].labels[row]] for row in shots]
        path = out / "videos" / f"{number:05d}.mp4"
        if not path.is_file():
            frames = [parts[split][row]["frames"] for row in shots]
            sound = draw_sound(actions, [len(part) / fps for part in frames], generator)
            write_video_with_sound(path, torch.cat(frames), fps, sound)
        rows.append([f"videos/{path.name}", ";".join(sorted(set(actions))), split])
        if progress is not None:
            progress(number + 1, num_videos)
    write_csv(out / "manifest.csv", [["path", "label", "split"], *rows])
    return out


def draw_shots(
    labels: Sequence[int], generator: np.random.Generator, allowed: Sequence[int]
) -> list[int]:
    """Choose one to five clips of one to three allowed actions, which are equally frequent; shots
    in any order."""
    every, known = np.asarray(labels), np.intersect1d(labels, allowed)
    count = min(int(generator.choice([1, 2, 3], p=[0.4, 0.4, 0.2])), len(known))
    actions = generator.choice(known, size=count, replace=False)
    shots = [
        int(generator.choice(np.flatnonzero(every == action)))
        for action in actions
        for _ in range(int(generator.integers(1, 3)))
    ]
    return [shots[i] for i in generator.permutation(len(shots))][:5]
