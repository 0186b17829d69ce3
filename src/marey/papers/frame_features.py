"""Stored image features of every frame of a video, from which any sampler draws its clips.

The frozen network runs once per frame, so what is stored grows with the length of the videos and
not with the number of epochs, samplers or seeds.

Legend: L frames of a video, T of a clip, N = h*w cells, C channels.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.datasets.index import Sample
from marey.features.cache import FeatureCache, cache_key
from marey.files import file_identity, weights_digest
from marey.layers.efficientnet_lite import LITE0_MEAN, LITE0_STD
from marey.models import create_model
from marey.training.feature_cache import multiplies_bfloat16, run_trunk
from marey.training.initialise import fill_stem
from marey.transforms.preprocess import Preprocess
from marey.video.decode import open_video
from marey.video.sampling import ClipSampling, video_name

IMAGE_SIZE = 128
"""Pixels per side of the frames the network sees, their shape lost (`resize_mode="stretch"`)."""
PATCH_SIZE = 32
"""Stride of the features kept, stage 6 of EfficientNet-Lite0: 4 x 4 cells of 192 channels."""
FRAMES_AT_ONCE = 64
CHANNELS = 192


@functools.cache
def imagenet_stem() -> nn.Module:
    """Return the stem whose network, EfficientNet-Lite0 to stage 6, has ImageNet weights."""
    model = create_model(
        "timesformer",
        num_classes=2,
        depth=1,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        stem="efficientnet_lite0",
        stem_stage=6,
        freeze_stem_norm=True,
    )
    fill_stem(model)
    return model.patch_embed.eval()  # type: ignore[union-attr,operator]


def seen(sampling: ClipSampling) -> Preprocess:
    """Return how frames are prepared for the network."""
    return Preprocess(
        sampling=sampling,
        short_side=IMAGE_SIZE,
        image_size=IMAGE_SIZE,
        resize_mode="stretch",
        mean=LITE0_MEAN,
        std=LITE0_STD,
    )


class FrameFeatures:
    """The features of the frames of videos, computed where they are not stored.

    Args:
        cache: where they are stored.
    """

    def __init__(self, cache: FeatureCache) -> None:
        self.cache = cache
        self.stem = imagenet_stem()
        self.weights = weights_digest(self.stem.trunk.state_dict())  # type: ignore[union-attr,operator]
        self.videos: dict[tuple[Path, str, int], tuple[Tensor, float]] = {}

    def clip(
        self, sample: Sample, sampling: ClipSampling, side: int, generator: torch.Generator | None
    ) -> Tensor:
        """Return the features of one clip.

        Args:
            sample: a whole video file.
            sampling: chooses the frames; frames of an extended video are in no file, and are made
                from the pixels.
            side: cells along each side, a divisor of 4; the features are averaged to it.
            generator: of the choice in training; None in evaluation.

        Returns:
            float32 (T, side * side, C).
        """
        path = sample.path
        whole, fps = self._video(path, "", side)
        extended = sampling.short in ("extend", "extend_after")
        if extended and sampling.span_frames(fps) > len(whole):
            return self._video(path, repr(sampling), side, sampling)[0].float()
        indices = sampling.indices(len(whole), fps=fps, generator=generator, name=video_name(path))
        return whole[indices].float()

    def _video(
        self, path: Path, choice: str, side: int, sampling: ClipSampling | None = None
    ) -> tuple[Tensor, float]:
        """Return features (L, N, C) of all frames, or of the clip of a sampling, and the rate."""
        key = path, choice, side
        if key not in self.videos:
            stored = self.cache.get_or_make(
                cache_key(
                    kind="frames of EfficientNet-Lite0",
                    weights=self.weights,
                    preprocess=repr(seen(ClipSampling())),
                    bfloat16=multiplies_bfloat16(),
                    choice=choice,
                    video=file_identity(path.resolve()),
                ),
                functools.partial(self._encode, path, sampling),
            )
            pooled = pool(stored["features"].float(), side).half()
            self.videos[key] = pooled, float(stored["fps"])
        return self.videos[key]

    def _encode(self, path: Path, sampling: ClipSampling | None) -> dict[str, Tensor]:
        preprocess = seen(sampling or ClipSampling())
        with open_video(path) as reader:
            if sampling is None:
                frames = reader.frames_at(range(reader.num_frames), held=reader.num_frames).frames
            else:
                frames = preprocess.sample(reader).frames
            fps = torch.tensor(reader.fps)
        parts = [
            run_trunk(self.stem, preprocess.clip(part))[0].half()
            for part in frames.split(FRAMES_AT_ONCE)
        ]
        return {"features": torch.cat(parts), "fps": fps}


def pool(features: Tensor, side: int) -> Tensor:
    """Average features (..., 16, C) of 4 x 4 cells to (..., side * side, C)."""
    grid = IMAGE_SIZE // PATCH_SIZE
    if side == grid:
        return features
    maps = features.flatten(0, -3).transpose(1, 2).unflatten(2, (grid, grid))
    pooled = F.avg_pool2d(maps, grid // side).flatten(2).transpose(1, 2)
    return pooled.unflatten(0, features.shape[:-2])
