"""Store features of every labelled video of a data set, clean and under every kind x severity.

    python -m benchmarks.robustness_features DATA [DATA ...] --out FOLDER

What the heads of `robustness_study` are trained and tested on. The middle of a video, 24 frames at
12.5 frames a second, is stretched to 96 x 96, the model's own resolution, and changed there; of
it the frozen network (EfficientNet-Lite0, stage 6) sees four frames, and the motion vector compares
each of them with the next. Four passes: the clean clip and severity 3; severities 1 and 5; one kind
of each family that changes pixels at the video's own size, before the stretch, on a quarter of the
videos; severities 2 and 4. Run again, it goes on where it stopped.

Legend: C conditions, T = 4 frames, g*g = 4 cells, D = 192 channels, M of the motion vector.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from marey.checkpoints.encoders import bundled_frames, frames_preprocess
from marey.corruptions import KINDS, Corruption, corruption
from marey.datasets import open_dataset
from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.perturb_plan import video_seed
from marey.errors import UserError
from marey.evaluation.changed_clips import DecodedVideo, changed_clips
from marey.evaluation.robustness import video_name
from marey.files import write_json
from marey.transforms import functional
from marey.video.decode import open_video

RESOLUTION = 96
"""Pixels of a side of what the network sees, and at which pixels are changed."""
FPS = 12.5
"""Frames a second at which a video is read; codecs see these frames."""
WINDOW_FRAMES = 24
VIEW = (0.0, 0)
"""The one view of a video: its picture, or that picture stretched."""
NUM_FRAMES = 4
CELLS = 6
"""Per side, of the grid over a difference of frames."""
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.97)
CHANGED = (0.1, 0.2, 0.4, 0.8)
SOURCE_KINDS = (
    "gaussian_noise",
    "defocus_blur",
    "jpeg_compression",
    "fog",
    "h264_crf",
    "translate",
)
"""One kind of each family that changes pixels; temporal kinds are the same at any size."""
SOURCE_SEVERITIES = (1, 3, 5)
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One change and where it is applied."""

    change: Corruption | None
    at: str

    @property
    def tag(self) -> str:
        """Return its name in the stored files."""
        if self.change is None:
            return "clean"
        return f"{self.at}/{self.change.name}/{self.change.severity}"


def model_conditions(severities: tuple[int, ...]) -> list[Condition]:
    """Return every kind at some severities at the model's resolution."""
    return [
        Condition(change=corruption(kind, severity, "rose"), at="model")
        for kind in KINDS
        for severity in severities
    ]


def source_conditions() -> list[Condition]:
    """Return `SOURCE_KINDS` at `SOURCE_SEVERITIES` at the video's own size."""
    return [
        Condition(change=corruption(kind, severity, "rose"), at="source")
        for kind in SOURCE_KINDS
        for severity in SOURCE_SEVERITIES
    ]


PASSES: dict[str, tuple[list[Condition], float]] = {
    "middle": ([Condition(change=None, at="model"), *model_conditions((3,))], 1.0),
    "outer": (model_conditions((1, 5)), 1.0),
    "source": (source_conditions(), 0.25),
    "even": (model_conditions((2, 4)), 1.0),
}
"""Pass -> its conditions, and the share of the videos that it changes."""


def shown_frames(num_frames: int) -> list[int]:
    """Return the four frames that the network sees, each followed by its neighbour for the motion
    vector."""
    found = []
    for part in range(NUM_FRAMES):
        first = int((part + 0.5) / NUM_FRAMES * num_frames)
        first = max(0, min(first, num_frames - 2))
        found += [first, min(first + 1, num_frames - 1)]
    return found


def motion_of(frames: Tensor) -> Tensor:
    """Describe the change between neighbours, float32 (M,).

    Sorted cells, quantiles and shares of changed pixels of each difference, in standard deviations
    of the grey levels; then mean, standard deviation and largest over the pairs, and logarithms.

    Args:
        frames: uint8 (2 T, 3, R, R), neighbours beside each other.
    """
    grey = F.avg_pool2d(frames.float().mean(1, keepdim=True), 2)[:, 0]
    change = (grey[1::2] - grey[::2]).abs() / (grey.std() + 5.0)
    cells = F.adaptive_avg_pool2d(change[:, None], CELLS).flatten(1).sort(1).values
    flat = change.flatten(1).sort(1).values
    quantiles = flat[:, [int(share * flat.shape[1]) for share in SHARES]]
    changed = torch.stack([(flat > limit).float().mean(1) for limit in CHANGED], dim=1)
    rows = torch.cat((cells, quantiles, changed), dim=1)
    over_time = torch.cat((rows.mean(0), rows.std(0, correction=0), rows.max(0).values))
    return torch.cat((over_time, (over_time + 1e-2).log()))


class FrameNetwork:
    """The frozen network through ONNX Runtime on one thread, twice as fast as eager PyTorch."""

    def __init__(self) -> None:
        import onnxruntime as ort

        encoder = bundled_frames()
        preprocess = frames_preprocess()
        self.mean = torch.tensor(preprocess.mean).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(preprocess.std).view(1, 3, 1, 1) * 255
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trunk.onnx"
            torch.onnx.export(
                encoder.trunk,
                (torch.zeros(2, 3, RESOLUTION, RESOLUTION),),
                str(path),
                dynamo=False,
                input_names=["frames"],
                output_names=["maps"],
                dynamic_axes={"frames": {0: "batch"}, "maps": {0: "batch"}},
            )
            self.session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )

    def __call__(self, frames: Tensor) -> Tensor:
        """Return the cells of uint8 frames (n, 3, R, R), float16 (n, 4, 192)."""
        found = []
        for batch in frames.split(8):
            values = ((batch - self.mean) / self.std).contiguous().numpy()
            maps = torch.from_numpy(self.session.run(None, {"frames": values})[0])
            found.append(F.adaptive_avg_pool2d(maps, 2).flatten(2).transpose(1, 2).half())
        return torch.cat(found)


def read_window(name: str, sample: Sample) -> DecodedVideo:
    """Decode the middle of a video at `FPS`, at its own size."""
    with open_video(sample.path) as reader:
        first, stop = reader.frame_range(sample.start_seconds, sample.end_seconds)
        step = max(1.0, reader.fps / FPS)
        count = max(1, min(WINDOW_FRAMES, int((stop - first) / step)))
        begin = first + (stop - first - step * count) / 2
        rows = [min(stop - 1, int(begin + step * i)) for i in range(count)]
        frames = reader.frames_at(rows).frames
        bitrate = None
        if sample.path.is_file() and reader.duration_seconds > 0:
            bitrate = 8 * sample.path.stat().st_size / reader.duration_seconds
        fps = min(FPS, reader.fps)
    return DecodedVideo(
        name=name,
        views={VIEW: frames},
        indices=[shown_frames(count)],
        geometry=[VIEW],
        frame_seconds=tuple(i / fps for i in range(count)),
        fps=fps,
        bitrate=bitrate,
    )


def at_model(video: DecodedVideo) -> DecodedVideo:
    """Stretch the window to the model's resolution; its bit rate shrinks with its pixels."""
    frames = video.views[VIEW]
    share = min(1.0, RESOLUTION**2 / (frames.shape[-1] * frames.shape[-2]))
    return replace(
        video,
        views={VIEW: functional.resize(frames, RESOLUTION, RESOLUTION)},
        bitrate=None if video.bitrate is None else video.bitrate * share,
    )


def features_of(
    index: DatasetIndex,
    position: int,
    wanted: list[Condition],
    network: FrameNetwork,
    seconds: Counter[str],
) -> dict[str, Tensor]:
    """Return "cells" (C, T, 4, 192) half and "motion" (C, M) half of one video."""
    clock = time.process_time()

    def lap(what: str) -> None:
        nonlocal clock
        now = time.process_time()
        seconds[what] += now - clock
        clock = now

    video = read_window(video_name(index, position), index.samples[position])
    small = at_model(video)
    view, shown = small.views[VIEW], small.indices[0]
    lap("decode")

    cells: list[Tensor] = []
    motion: list[Tensor] = []
    embedded: dict[int, Tensor] = {}
    same: dict[str, int] = {}
    for condition in wanted:
        change = condition.change
        key = "clean" if change is None else f"{condition.at} {change.name}"
        acts = key if change is None else f"{key} {effective(change)}"
        # Without randomness, equal constants give equal clips (quantisers stop at 31).
        if acts in same and change is not None and change.coherence == "none":
            cells.append(cells[same[acts]])
            motion.append(motion[same[acts]])
            continue
        same[acts] = len(cells)

        if change is None:
            clip = view[shown]
        elif condition.at == "source":
            clip = changed_clips(video, change, seed=SEED)[0]
            clip = functional.resize(clip, RESOLUTION, RESOLUTION)
        else:
            clip = changed_clips(small, change, seed=SEED)[0]
        lap(key)
        motion.append(motion_of(clip).half())
        lap("motion")
        if change is None or change.domain != "order":
            cells.append(network(clip[::2]))
        else:
            # Reordered frames are clean frames: each is embedded once.
            seed = video_seed(SEED, small.name, change.name, change.severity)
            order = change.frame_order(len(view), generator=torch.Generator().manual_seed(seed))
            frames = [order[i] for i in shown[::2]]
            new = [i for i in dict.fromkeys(frames) if i not in embedded]
            if new:
                embedded.update(zip(new, network(view[new]), strict=True))
            cells.append(torch.stack([embedded[i] for i in frames]))
        lap("network")
    return {"cells": torch.stack(cells), "motion": torch.stack(motion)}


def effective(change: Corruption) -> str:
    """Return the constants as they act: the quantisers of MPEG stop at 31."""
    strength = dict(change.strength)
    if "qscale" in strength:
        strength["qscale"] = min(31, strength["qscale"])
    return str(sorted(strength.items()))


def write_index(index: DatasetIndex, folder: Path) -> None:
    """Write what the rows and files of a folder are."""
    facts: dict[str, Any] = {
        "tags": {name: [found.tag for found in wanted] for name, (wanted, _) in PASSES.items()},
        "class_names": list(index.class_names),
        "resolution": RESOLUTION,
        "fps": FPS,
        "window_frames": WINDOW_FRAMES,
        "profile": "rose",
        "videos": [],
    }
    for position, sample in enumerate(index.samples):
        facts["videos"].append(
            {
                "video": video_name(index, position),
                "label": index.label_index(sample),
                "group": sample.group,
                "file": f"{position:04d}",
            }
        )
    write_json(folder / "index.json", facts, indent=1)


def main() -> None:
    """Write one file a video and pass, and facts of the run beside them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="+", help="folders of labelled videos")
    parser.add_argument("--out", type=Path, required=True, help="folder; one inside a data set")
    parser.add_argument("--limit", type=int, help="at most this many videos of each data set")
    options = parser.parse_args()
    torch.set_num_threads(1)

    indices = {Path(data).name: open_dataset(data) for data in options.data}
    for name, index in indices.items():
        write_index(index, options.out / name)
    network, seconds = FrameNetwork(), Counter[str]()
    for suffix, (wanted, share) in PASSES.items():
        jobs = []
        for name, index in indices.items():
            # In an order drawn once, so that a run cut short leaves a fair sample.
            order = np.random.default_rng(0).permutation(len(index.samples)).tolist()
            count = min(options.limit or len(order), math.ceil(share * len(order)))
            for turn, position in enumerate(order[:count]):
                jobs.append((turn / len(order), name, position))
        done = 0
        for _, name, position in sorted(jobs):
            path = options.out / name / f"{position:04d}.{suffix}.safetensors"
            if path.is_file():
                continue
            try:
                found = features_of(indices[name], position, wanted, network, seconds)
            except UserError as error:
                print(f"marey: {error}", file=sys.stderr, flush=True)
                continue
            partial = path.with_suffix(".partial")
            save_file(found, partial)
            partial.replace(path)
            done += 1
            spent = sum(seconds.values())
            print(f"{done} {name}/{path.name} {spent:.0f} s of CPU", flush=True)
            if done % 20 == 0:
                took = {"files": done, "pass": suffix, "seconds": dict(seconds)}
                write_json(options.out / f"seconds_{suffix}.json", took, indent=1)


if __name__ == "__main__":
    main()
