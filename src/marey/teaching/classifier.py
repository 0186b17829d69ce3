"""A classifier of videos with scikit-learn's interface, for research.

    classifier = VideoClassifier("frames+motion").fit(videos, labels, groups)
    classifier.predict(others), classifier.score(others, their_labels)

scikit-learn is not needed; `sklearn.base.clone`, `cross_val_score` and `GridSearchCV` take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marey.datasets.index import DatasetIndex, Sample
from marey.errors import UserError, VideoError
from marey.features.cache import FeatureCache
from marey.features.videos import VideoEncoder, encode_videos
from marey.models.device import best_device
from marey.teaching.crossval import Candidate, choose
from marey.teaching.regression import Regression

Videos = Sequence[str | Path]


class VideoClassifier:
    """A linear map of a frozen encoder.

    Args:
        encoder: what `VideoEncoder` takes, such as "frames", "frames+motion" or "hf:ID".
        strength: of the penalty of ridge regression; None: chosen, with ridge or logistic
            regression, by cross-validation over groups among the videos of `fit`.
        views: temporal views per video.
        device: "auto", "cpu", "cuda", "mps".
        cache: where features are stored; None takes the user's.
        seed: of the folds.
    """

    _estimator_type = "classifier"

    def __init__(
        self,
        encoder: str = "frames",
        *,
        strength: float | None = None,
        views: int = 3,
        device: str = "auto",
        cache: FeatureCache | None = None,
        seed: int = 0,
    ) -> None:
        self.encoder, self.strength, self.views = encoder, strength, views
        self.device, self.cache, self.seed = device, cache, seed

    def fit(
        self, videos: Videos, labels: Sequence[Any], groups: Sequence[Any] | None = None
    ) -> VideoClassifier:
        """Learn from labelled videos.

        Args:
            groups: scene or person of each video, which inner folds do not cut; None: every video
                is its own.

        Raises:
            VideoError: if a video cannot be read.
            UserError: if the lengths differ or there are fewer than two classes.
        """
        if len(labels) != len(videos) or (groups is not None and len(groups) != len(videos)):
            raise UserError(
                f"{len(videos)} videos, {len(labels)} labels, "
                f"{'no' if groups is None else len(groups)} groups; give as many of each"
            )
        self.classes_, numbers = np.unique(np.asarray(labels), return_inverse=True)
        if len(self.classes_) < 2:
            raise UserError(f"{len(self.classes_)} class; a classifier needs two or more")
        targets = torch.from_numpy(numbers.reshape(-1)).long()
        features, blocks = self._encode(videos)
        names = [str(number) for number in range(len(self.classes_))]
        kind, self.strength_ = "ridge", self.strength
        if self.strength_ is None:
            inner = range(len(videos)) if groups is None else groups
            choice, _ = choose(
                [Candidate(self.encoder, features, blocks)],
                torch.arange(len(videos)),
                [names[number] for number in targets.tolist()],
                [str(group) for group in inner],
                names,
                seed=self.seed,
            )
            kind, self.strength_ = choice.kind, choice.strength
        regression = Regression(kind, features, targets, len(names), blocks)
        weight, bias = regression.linear(self.strength_)
        self.coef_, self.intercept_ = weight.numpy(), bias.numpy()
        return self

    def decision_function(self, videos: Videos) -> NDArray[np.float64]:
        """Return the logits (N, K), mean over views.

        Raises:
            VideoError: if a video cannot be read.
            UserError: if nothing was learned yet.
        """
        if not hasattr(self, "coef_"):
            raise UserError("nothing was learned yet; call fit first")
        features, _ = self._encode(videos)
        return features.double().mean(1).numpy() @ self.coef_.T + self.intercept_

    def predict_proba(self, videos: Videos) -> NDArray[np.float64]:
        """Return the softmax of the logits (N, K); not calibrated, `marey teach` does that."""
        return torch.from_numpy(self.decision_function(videos)).softmax(1).numpy()

    def predict(self, videos: Videos) -> NDArray[Any]:
        """Return the most probable label of each video."""
        best = self.decision_function(videos).argmax(1)
        return self.classes_[best]

    def score(self, videos: Videos, labels: Sequence[Any]) -> float:
        """Return the accuracy."""
        return float((self.predict(videos) == np.asarray(labels)).mean())

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments it was made with."""
        names = ("encoder", "strength", "views", "device", "cache", "seed")
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> VideoClassifier:
        """Change arguments.

        Raises:
            UserError: if there is no such argument.
        """
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise UserError(f"no argument '{name}'; there are {', '.join(known)}")
            setattr(self, name, value)
        return self

    def _encode(self, videos: Videos) -> tuple[Tensor, list[int]]:
        device = best_device() if self.device == "auto" else self.device
        index = DatasetIndex(
            samples=tuple(Sample(path=Path(video), label=None) for video in videos),
            class_names=(),
            name="videos",
            root=Path(),
        )
        encoder = VideoEncoder(self.encoder, device=device)
        encoded = encode_videos(encoder, index, views=self.views, cache=self.cache)
        if encoded.unreadable:
            raise VideoError(encoded.unreadable[0]["error"])
        return encoded.features, encoded.blocks
