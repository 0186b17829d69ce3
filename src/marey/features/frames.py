"""Frame encoders, one vector per second: the bundled EfficientNet-Lite0 (ImageNet), a Marey
classifier, or Inception v3 with weights from a file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import inception_v3

from marey.checkpoints.encoders import bundled_frames, frames_preprocess
from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.features.weights import load_weights
from marey.models import MODELS
from marey.video.decode import VideoReader

SECONDS_AT_ONCE = 8
"""Seconds that are decoded and encoded together; it bounds the memory."""

UNIT_SCALE = 0.8
"""Root mean square of a scaled clip embedding, so that [-2, 2] holds 2.5 standard deviations of
it."""


class FrameEncoder(Protocol):
    """Turns some seconds of a video into one vector each."""

    source: str
    model: nn.Module

    def offsets(self) -> list[float]:
        """Return the times at which frames are needed, in seconds from the start of a second."""
        ...

    def encode(self, frames: Tensor, rows: Tensor) -> Tensor:
        """Encode S seconds; returns float (S, dim).

        Args:
            frames: uint8 (U, 3, H, W), each frame once.
            rows: int (S, n), which of them each second needs.
        """
        ...


class ClipEncoder:
    """A Marey classifier: the frames of each second are a clip, its `embedding` the feature.

    The feature describes the motion of the whole second, not a single frame. Every vector is scaled
    to a root mean square of 0.8, because embeddings have no common scale.
    """

    def __init__(self, source: str) -> None:
        """Load a checkpoint (bundled name, folder, "hf:...").

        Raises:
            UserError: if it names an architecture instead of weights, or has no preprocessing or no
                embedding.
        """
        if source in MODELS:
            raise UserError(
                f"'{source}' is an architecture without weights, and random encoder weights are "
                "refused; "
                "give a checkpoint such as marey-mini-rgb or a run's folder"
            )
        checkpoint = load_checkpoint(source)
        if checkpoint.preprocess is None or checkpoint.task != "clips":
            raise UserError(
                f"{source}: does not read clips, so it cannot encode frames; use marey-mini-rgb"
            )
        self.source = source
        self.model: nn.Module = checkpoint.model.eval()
        self.preprocess = replace(checkpoint.preprocess, crops=1)

    def offsets(self) -> list[float]:
        """Return the times of a clip around the middle of a second.

        Frames are as far apart as in training (`sampling.target_fps`), so a clip may reach into the
        neighbouring seconds; a model without a `target_fps` gets evenly spaced frames of the
        second.
        """
        sampling = self.preprocess.sampling
        count, rate = sampling.num_frames, sampling.target_fps
        if rate is None:
            return [(frame + 0.5) / count for frame in range(count)]
        return [
            0.5 + (frame - (count - 1) / 2) * sampling.stride_frames / rate
            for frame in range(count)
        ]

    @torch.inference_mode()
    def encode(self, frames: Tensor, rows: Tensor) -> Tensor:
        """Return one scaled embedding a second; a pretrained stem runs once per frame, however
        clips overlap."""
        prepared = self.preprocess.clip(frames)[0]  # (U, 3, s, s)
        stem = getattr(self.model, "feature_stem", None)
        if stem is not None:
            prepared = stem.features(prepared)  # (U, N, C)
        outputs = self.model(prepared[rows])
        if "embedding" not in outputs:
            raise UserError(
                f"{self.source}: gives no embedding, so it cannot encode frames; use marey-mini-rgb"
            )
        return scaled(outputs["embedding"].float())


class ImageEncoder:
    """EfficientNet-Lite0 with ImageNet weights on one frame a second, as YouTube-8M has one.

    The maps of its sixth stage for the whole picture, stretched to 160 x 160, are averaged over 2 x
    2 cells: 4 x 192 values, scaled to a root mean square of 0.8. The weights are those inside
    marey-mini-rgb, which the package carries once.
    """

    GRID = 2

    def __init__(self) -> None:
        self.source = "frames"
        self.model: nn.Module = bundled_frames(num_frames=1, grid=self.GRID, statistics=["mean"])
        self.preprocess = frames_preprocess(num_frames=1)

    def offsets(self) -> list[float]:
        """Return the middle of the second: a first frame is often black."""
        return [0.5]

    @torch.inference_mode()
    def encode(self, frames: Tensor, rows: Tensor) -> Tensor:
        """Return (S, 768)."""
        prepared = self.preprocess.clip(frames)[0]  # (U, 3, s, s)
        embedding = self.model(prepared[rows])["embedding"].float()
        return scaled(embedding)


def scaled(embedding: Tensor) -> Tensor:
    """Scale vectors (S, dim) to a root mean square of `UNIT_SCALE`."""
    return UNIT_SCALE * embedding / embedding.pow(2).mean(1, keepdim=True).sqrt().clamp(min=1e-6)


class InceptionEncoder:
    """Inception v3 up to its last pooling (2,048 values), as in YouTube-8M; PCA follows
    elsewhere."""

    def __init__(self, path: str) -> None:
        """Read torchvision-named weights from a file.

        Raises:
            UserError: if the file is absent or does not fit.
        """
        model = inception_v3(
            weights=None, aux_logits=False, init_weights=False, transform_input=False
        )
        self.source = f"inception:{path}"
        self.model = load_weights(model, path)
        self.model.fc = nn.Identity()

    def offsets(self) -> list[float]:
        """Return the start of the second: one frame a second, as in the data set."""
        return [0.0]

    @torch.inference_mode()
    def encode(self, frames: Tensor, rows: Tensor) -> Tensor:
        """Return (S, 2048): frames stretched to 299 x 299, values in [-1, 1]."""
        resized = F.interpolate(
            frames[rows[:, 0]].float(), size=(299, 299), mode="bilinear", antialias=True
        )
        return self.model(resized / 127.5 - 1)


def load_frame_encoder(source: str) -> FrameEncoder:
    """Load a frame encoder: "frames" (ImageNet, bundled), "inception:FILE", or any Marey checkpoint
    that reads clips."""
    if source == "frames":
        return ImageEncoder()
    if source.startswith("inception:"):
        return InceptionEncoder(source.partition(":")[2])
    return ClipEncoder(source)


def whole_seconds(duration_seconds: float, max_seconds: int) -> int:
    """Return the number of feature seconds of a video: a last part of half a second or more counts,
    at least 1."""
    return min(max(1, math.floor(duration_seconds + 0.5)), max_seconds)


def encode_frames(
    reader: VideoReader, encoder: FrameEncoder, start_seconds: float, seconds: int
) -> Tensor:
    """Encode `seconds` seconds of a video from a time on; returns float (seconds, dim)."""
    parts = _seconds(reader, encoder.offsets(), start_seconds, seconds)
    return torch.cat([encoder.encode(frames, rows) for frames, rows in parts])


def _seconds(
    reader: VideoReader, offsets: list[float], start: float, seconds: int
) -> Iterator[tuple[Tensor, Tensor]]:
    last = max(reader.duration_seconds - 1e-6, 0.0)
    for first in range(0, seconds, SECONDS_AT_ONCE):
        count = min(SECONDS_AT_ONCE, seconds - first)
        # Clips of neighbouring seconds share frames; each is decoded once.
        times = [
            min(max(start + first + second + offset, 0.0), last)
            for second in range(count)
            for offset in offsets
        ]
        indices, rows = torch.tensor(reader.indices_at_seconds(times)).unique(return_inverse=True)
        clip = reader.frames_at(indices.tolist(), held=len(indices))
        yield clip.frames, rows.view(count, len(offsets))
