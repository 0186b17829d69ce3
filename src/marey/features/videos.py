"""The embeddings of the videos of a data set by one encoder, each computed once.

    encoded = encode_videos("frames+poses", index, views=3)
    encoded.features            # (N, V, E): N readable videos, V temporal views
    encoded.blocks              # [E of frames, E of poses]

Interrupted, the next call goes on: what is stored in the cache is not computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from marey.checkpoints.encoders import LoadedEncoder, load_encoder
from marey.datasets.clips import VideoViews
from marey.datasets.index import DatasetIndex, Sample, subset
from marey.errors import UserError, VideoError
from marey.features.cache import FeatureCache, cache_key
from marey.features.poses import pose_vector
from marey.files import file_identity, weights_digest
from marey.persons.pose_tracks import read_poses

Tick = Callable[[int, int], None]
"""Called with (videos done, videos in all)."""


POSES = "poses"
"""The encoder that describes people's poses (`features.poses`); it reads the file, not a clip."""


@dataclass(kw_only=True)
class EncodedVideos:
    """The embeddings of the readable videos of a data set."""

    index: DatasetIndex
    """The readable videos, in the data's order."""
    positions: list[int]
    """Their places in the index that was asked for."""
    features: Tensor
    """(N, V, E) float32."""
    blocks: list[int]
    """Widths of the encoders' parts of E."""
    unreadable: list[dict[str, str]] = field(default_factory=list)
    """[{"video", "error"}]."""

    def only(self, positions: list[int]) -> EncodedVideos:
        """Return the videos at some of `positions`, in their order."""
        rows = [self.positions.index(position) for position in positions]
        return replace(
            self,
            index=subset(self.index, rows),
            positions=positions,
            features=self.features[rows],
        )


class VideoEncoder:
    """One or several encoders side by side.

    Args:
        source: names joined by "+": what `load_encoder` takes, and at most one "poses".
        device: where the network runs.
        loaded: the encoder of clips, where it is already loaded.

    Raises:
        UserError: if a name is unknown, or two encoders of clips are named.
    """

    def __init__(
        self,
        source: str,
        *,
        device: str | torch.device = "cpu",
        loaded: LoadedEncoder | None = None,
    ) -> None:
        names = source.split("+")
        clip_names = [name for name in names if name != POSES]
        if len(clip_names) > 1 or len(set(names)) < len(names):
            raise UserError(
                f"encoder '{source}': one encoder of clips, one of poses or both, such as "
                f"frames+{POSES}"
            )
        self.source, self.device = source, device
        self.poses = POSES in names
        self.clips = loaded
        if loaded is None and clip_names:
            self.clips = load_encoder(clip_names[0])
        if self.clips is not None:
            self.clips.encoder.to(device).eval()
            self._weights = weights_digest(self.clips.encoder.state_dict())


def encode_videos(
    encoder: VideoEncoder | str,
    index: DatasetIndex,
    *,
    views: int = 3,
    cache: FeatureCache | None = None,
    tick: Tick | None = None,
) -> EncodedVideos:
    """Encode every readable video of an index and name the unreadable ones.

    Args:
        encoder: or its source.
        views: temporal views per video; poses are the same in all of them.
        cache: where embeddings are stored; None takes the user's.
        tick: called after each video.
    """
    cache = FeatureCache() if cache is None else cache
    encoder = VideoEncoder(encoder) if isinstance(encoder, str) else encoder
    rows: list[list[Tensor]] = []
    kept: list[int] = []
    unreadable: list[dict[str, str]] = []
    for position, sample in enumerate(index.samples):
        try:
            parts = [] if encoder.clips is None else [_clips(encoder, index, sample, views, cache)]
            if encoder.poses:
                parts.append(stored_poses(sample, cache).expand(views, -1))
            rows.append(parts)
            kept.append(position)
        except VideoError as error:
            unreadable.append({"video": index.relative_path(sample), "error": str(error)})
        if tick is not None:
            tick(position + 1, len(index))
    features = [torch.cat(parts, dim=1) for parts in rows]
    return EncodedVideos(
        index=subset(index, kept),
        positions=kept,
        features=torch.stack(features) if rows else torch.zeros(0, views, 0),
        blocks=[part.shape[1] for part in rows[0]] if rows else [],
        unreadable=unreadable,
    )


def stored_poses(sample: Sample, cache: FeatureCache) -> Tensor:
    """Return `pose_vector` of a video, (E,), computed now where it is not stored.

    Raises:
        VideoError: if the video cannot be read.
        UserError: if the sample is a stretch of a longer video or packed, which poses cannot be
            read of.
    """
    stretch = (sample.row, sample.start_seconds, sample.end_seconds)
    if stretch != (None, None, None):
        raise UserError(
            f"{sample.path}: poses are read of whole files, not of stretches or packed rows; cut "
            "the file, or take --encoder frames"
        )
    if not sample.path.exists():
        raise VideoError(f"{sample.path}: no such file")
    key = cache_key(video=file_identity(sample.path), encoder=POSES)
    made = cache.get_or_make(key, lambda: {"poses": pose_vector(read_poses(sample.path))})
    return made["poses"]


def reads_poses(model: nn.Module) -> bool:
    """Return whether a model reads the pose vector of a video beside its clips."""
    return bool(getattr(model, "pose_dim", 0))


def _clips(
    encoder: VideoEncoder, index: DatasetIndex, sample: Sample, views: int, cache: FeatureCache
) -> Tensor:
    """Return (V, E) of one video, computed now where it is not stored."""
    loaded = encoder.clips
    assert loaded is not None
    if not sample.path.exists() and sample.row is None:
        raise VideoError(f"{sample.path}: no such file")
    preprocess = replace(loaded.preprocess, crops=1)

    def make() -> dict[str, Tensor]:
        item = VideoViews(replace(index, samples=(sample,)), preprocess, (views, 1))[0]
        if "error" in item:
            raise VideoError(item["error"])
        with torch.inference_mode():
            found = loaded.encoder(item["views"].to(encoder.device))["embedding"]
        return {"embedding": found.float().cpu()}

    key = cache_key(
        weights=encoder._weights,
        arguments=getattr(loaded.encoder, "arguments", {}),
        preprocess=preprocess.to_dict(),
        views=views,
        video=file_identity(sample.path if sample.row is None else index.root / "packed.json"),
        stretch=[sample.row, sample.start_seconds, sample.end_seconds],
    )
    return cache.get_or_make(key, make)["embedding"]
