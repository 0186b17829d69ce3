"""Predictions of models that compare videos with texts: names given by the user, no classes of
their own.

    predictor = Predictor.load("hf:microsoft/xclip-base-patch32")
    predictor("clip.mp4", labels=["juggling", "cooking"]).top(2)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.errors import UserError
from marey.inference.condition import condition_of, with_condition
from marey.inference.none_of_these import EVERYDAY, NONE_OF_THESE
from marey.inference.prediction import Prediction
from marey.inference.stability import stability
from marey.labels.embed import readable
from marey.metrics.trust import check_logits
from marey.models.text_video import TextVideoModel, text_logits
from marey.transforms.preprocess import Preprocess
from marey.video.decode import MAX_PIXELS, MAX_SECONDS, open_video


class TextVideoPredictor:
    """A model that ranks names for a video, with its preprocessing."""

    def __init__(
        self, checkpoint: Checkpoint, *, views: int = 3, device: str | torch.device = "cpu"
    ) -> None:
        assert checkpoint.preprocess is not None
        self.checkpoint = checkpoint
        self.model: TextVideoModel = checkpoint.model.to(device).eval()
        self.preprocess: Preprocess = checkpoint.preprocess
        self.class_names: tuple[str, ...] = ()
        self.views = views
        self.device = torch.device(device)

    @property
    def name(self) -> str:
        """Name or folder the model was loaded from."""
        return self.checkpoint.source

    def __call__(
        self,
        video: str | Path,
        *,
        labels: Sequence[str] | None = None,
        trust: str = "basic",
        max_pixels: int | None = None,
        max_seconds: float | None = None,
    ) -> Prediction:
        """Rank names for a video.

        Everyday actions compete with them, as in `inference.none_of_these`.

        Args:
            labels: the names.
            trust: "basic" or "full" (adds stability under three mild corruptions).
            max_pixels, max_seconds: refuse larger or longer videos; None keeps the reader's limits.

        Raises:
            VideoError: if the video cannot be read.
            UserError: if no names are given.
        """
        if not labels:
            raise UserError(
                f"{self.name} has no classes of its own; say what it may be: --labels "
                "'juggling,cooking'"
            )
        if trust not in ("basic", "full"):
            raise UserError(f"trust '{trust}' is neither 'basic' nor 'full'")
        with open_video(
            video, max_pixels=max_pixels or MAX_PIXELS, max_seconds=max_seconds or MAX_SECONDS
        ) as reader:
            views, clips = self.preprocess.views(reader, num_temporal=self.views)
        names = [readable(label) for label in labels]
        others = [name for name in EVERYDAY if name not in names]
        logits = text_logits(self.model, views, [*names, *others], self.device)
        check_logits(logits)

        per_view = logits[:, : len(names)].softmax(-1)
        fused = per_view.mean(0)
        best_other = logits[:, len(names) :].mean(0)
        none_score = float(best_other.max() - logits[:, : len(names)].mean(0).max())
        found: dict[str, Any] = {
            "probability": round(float(fused.max()), 6),
            "calibrated": False,
            "agreement": round(float((per_view.argmax(-1) == fused.argmax()).float().mean()), 4),
            "relative_to_labels": True,
            "none_of_these": none_score > 0,
            "none_score": round(none_score, 4),
            "nearest_other": others[int(best_other.argmax())],
            "unknown": none_score > 0,
        }
        if none_score > 0:
            found["reason"] = NONE_OF_THESE
        if trust == "full":

            def probabilities(changed: Sequence[Tensor]) -> Tensor:
                shown = torch.cat([self.preprocess.clip(frames) for frames in changed])
                return text_logits(self.model, shown, names, self.device).softmax(-1).mean(0)

            found["stability"] = stability(clips, probabilities, labels, int(fused.argmax()))
        prediction = Prediction(
            video=str(video),
            model=self.name,
            class_names=tuple(labels),
            probabilities=fused,
            frame_seconds=tuple(sorted({s for clip in clips for s in clip.frame_seconds})),
            trust=found,
            clips=tuple(clips),
        )
        condition = condition_of(video, max_pixels=max_pixels, max_seconds=max_seconds)
        return with_condition(prediction, condition)
