"""The embeddings of the videos of a data set by one encoder, each computed once.

    encoded = encode_videos("frames+poses", index, views=3)
    encoded.features            # (N, V, E): N readable videos, V temporal views
    encoded.blocks              # [E of frames, E of poses]: widths of the parts

Interrupted, the next call goes on: what is stored in the cache is not computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from marey.checkpoints.encoders import LoadedEncoder, load_encoder
from marey.datasets.clips import VideoViews
from marey.datasets.index import DatasetIndex, Sample, subset
from marey.datasets.pack import open_packed
from marey.errors import UserError, VideoError
from marey.features.cache import FeatureCache, cache_key
from marey.features.video_vectors import VECTOR_DIMS, VERSION, VideoVectors, joined
from marey.files import file_identity, weights_digest
from marey.persons.poses import PoseFinder
from marey.video.clip import Clip

Tick = Callable[[int, int], None]
"""Called with (videos done, videos in all)."""


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
        source: names joined by "+": at most one that `load_encoder` takes, and any of
            `VECTOR_DIMS`, which are measured of the video and not of a clip.
        device: where the network runs.
        loaded: the encoder of clips, where it is already loaded.
        finder: who finds the people.

    Raises:
        UserError: if a name is unknown or given twice, or two encoders of clips are named.
    """

    def __init__(
        self,
        source: str,
        *,
        device: str | torch.device = "cpu",
        loaded: LoadedEncoder | None = None,
        finder: PoseFinder | None = None,
    ) -> None:
        names = parts_of(source)
        clip_names = [name for name in names if name not in VECTOR_DIMS]
        if len(clip_names) > 1 or len(set(names)) < len(names):
            raise UserError(
                f"encoder '{source}': one encoder of clips and any of {', '.join(VECTOR_DIMS)}, "
                "each once, such as frames+motion+poses"
            )
        self.source, self.device = source, device
        self.vectors = VideoVectors([name for name in names if name in VECTOR_DIMS], finder=finder)
        self.clips = loaded
        if loaded is None and clip_names:
            self.clips = load_encoder(clip_names[0])
        if self.clips is not None:
            self.clips.encoder.to(device).eval()
            self._weights = weights_digest(self.clips.encoder.state_dict())


def parts_of(source: str) -> list[str]:
    """Return the names in a sum of encoders; a "+" inside a path or a hub id stays there.

    >>> parts_of("hf:me/a+b+poses")
    ['hf:me/a+b', 'poses']
    """
    names: list[str] = []
    for part in source.split("+"):
        if names and ":" in names[-1] and part not in VECTOR_DIMS:
            names[-1] += f"+{part}"
        else:
            names.append(part)
    return names


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
        views: temporal views per video; what is measured of the video is the same in all.
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
            measured = stored_vectors(encoder.vectors, sample, cache, index.root)
            parts += [vector.expand(views, -1) for vector in measured.values()]
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


def stored_vectors(
    vectors: VideoVectors, sample: Sample, cache: FeatureCache, root: Path | None = None
) -> dict[str, Tensor]:
    """Return what is measured of a video, measured now where it is not stored.

    Args:
        root: of the data set, for packed rows.

    Raises:
        VideoError: if the video cannot be read.
    """
    if sample.row is None and not sample.path.exists():
        raise VideoError(f"{sample.path}: no such file")
    stretch = [sample.row, sample.start_seconds, sample.end_seconds]
    source = sample.path if sample.row is None or root is None else root / "packed.json"
    found: dict[str, Tensor] = {}
    missing: list[str] = []
    for name in vectors.names:
        stored = cache.get(_vector_key(name, source, stretch))
        if stored is None:
            missing.append(name)
        else:
            found[name] = stored[name]
    if missing:
        for name, vector in _measured(vectors.only(missing), sample, cache, root).items():
            cache.put(_vector_key(name, source, stretch), {name: vector})
            found[name] = vector
    return {name: found[name] for name in vectors.names}


def stored_vector(
    vectors: VideoVectors, sample: Sample, cache: FeatureCache, root: Path | None = None
) -> Tensor:
    """Return `stored_vectors` side by side, (E,)."""
    return joined(stored_vectors(vectors, sample, cache, root))


def _vector_key(name: str, source: Path, stretch: list[float | int | None]) -> str:
    return cache_key(video=file_identity(source), encoder=name, stretch=stretch, measures=VERSION)


def _measured(
    vectors: VideoVectors, sample: Sample, cache: FeatureCache, root: Path | None = None
) -> dict[str, Tensor]:
    if sample.row is None or root is None:
        return vectors.of_file(
            sample.path,
            start_seconds=sample.start_seconds,
            end_seconds=sample.end_seconds,
            cache=cache,
        )
    packed = open_packed(root)
    frames = packed.frames(sample.row)
    return vectors.of_clip(
        Clip(
            frames=frames,
            frame_indices=tuple(range(len(frames))),
            frame_seconds=tuple(place / packed.fps for place in range(len(frames))),
            fps=packed.fps,
            path=f"{root}, row {sample.row}",
        )
    )


def video_tokens(
    encoder: VideoEncoder,
    index: DatasetIndex,
    *,
    cache: FeatureCache | None = None,
    tick: Tick | None = None,
) -> Tensor:
    """Return the tokens (N, L, D) of the middle view of every video, in half precision.

    Raises:
        VideoError: if a video cannot be read.
    """
    cache = FeatureCache() if cache is None else cache
    rows = []
    for position, sample in enumerate(index.samples):
        rows.append(_clips(encoder, index, sample, 1, cache, what="tokens")[0])
        if tick is not None:
            tick(position + 1, len(index))
    return torch.stack(rows)


def _clips(
    encoder: VideoEncoder,
    index: DatasetIndex,
    sample: Sample,
    views: int,
    cache: FeatureCache,
    what: str = "embedding",
) -> Tensor:
    """Return (V, E) of one video, or its tokens (V, L, D), computed now where they are not
    stored."""
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
            found = loaded.encoder(item["views"].to(encoder.device))[what].cpu()
        return {what: found.float() if what == "embedding" else found.half()}

    kind = {} if what == "embedding" else {"what": what}
    key = cache_key(
        **kind,
        weights=encoder._weights,
        arguments=getattr(loaded.encoder, "arguments", {}),
        preprocess=preprocess.to_dict(),
        views=views,
        video=file_identity(sample.path if sample.row is None else index.root / "packed.json"),
        stretch=[sample.row, sample.start_seconds, sample.end_seconds],
    )
    return cache.get_or_make(key, make)[what]
