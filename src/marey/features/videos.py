"""The embeddings of the videos of a data set by one encoder, each computed once.

    encoded = encode_videos(load_encoder("frames"), index, views=3)
    encoded.features            # (N, V, E): N readable videos, V temporal views

Interrupted, the next call goes on: what is stored in the cache is not computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from marey.checkpoints.encoders import LoadedEncoder
from marey.datasets.clips import VideoViews
from marey.datasets.index import DatasetIndex, subset
from marey.features.cache import FeatureCache, cache_key
from marey.files import file_identity, weights_digest

Tick = Callable[[int, int], None]
"""Called with (videos done, videos in all)."""


@dataclass(kw_only=True)
class EncodedVideos:
    """The embeddings of the readable videos of a data set."""

    index: DatasetIndex
    """The readable videos, in the data's order."""
    features: Tensor
    """(N, V, E) float32."""
    unreadable: list[dict[str, str]] = field(default_factory=list)
    """[{"video", "error"}]."""


def encode_videos(
    loaded: LoadedEncoder,
    index: DatasetIndex,
    *,
    views: int = 3,
    device: str | torch.device = "cpu",
    cache: FeatureCache | None = None,
    tick: Tick | None = None,
) -> EncodedVideos:
    """Encode every readable video of an index and name the unreadable ones.

    Args:
        views: temporal views per video.
        device: where the encoder runs.
        cache: where embeddings are stored; None takes the user's.
        tick: called after each video.
    """
    cache = FeatureCache() if cache is None else cache
    encoder = loaded.encoder.to(device).eval()
    preprocess = replace(loaded.preprocess, crops=1)
    items = VideoViews(index, preprocess, (views, 1))
    common = {
        "weights": weights_digest(encoder.state_dict()),
        "arguments": getattr(encoder, "arguments", {}),
        "preprocess": preprocess.to_dict(),
        "views": views,
    }
    rows: list[Tensor] = []
    kept: list[int] = []
    unreadable: list[dict[str, str]] = []
    for position, sample in enumerate(index.samples):
        key = None
        if sample.path.exists():
            stretch = [sample.row, sample.start_seconds, sample.end_seconds]
            key = cache_key(video=file_identity(sample.path), stretch=stretch, **common)
        stored = None if key is None else cache.get(key)
        if stored is None:
            item = items[position]
            if "error" in item:
                unreadable.append({"video": index.relative_path(sample), "error": item["error"]})
            else:
                with torch.inference_mode():
                    embedding = encoder(item["views"].to(device))["embedding"].float().cpu()
                stored = {"embedding": embedding}
                if key is not None:
                    cache.put(key, stored)
        if stored is not None:
            rows.append(stored["embedding"])
            kept.append(position)
        if tick is not None:
            tick(position + 1, len(index))
    features = torch.stack(rows) if rows else torch.zeros(0, views, 0)
    return EncodedVideos(index=subset(index, kept), features=features, unreadable=unreadable)
