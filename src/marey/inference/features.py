"""Predictions of GAT models, from feature files and from videos through their features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.checkpoints.sources import WEIGHTS_FOLDER, bundled_names
from marey.datasets.youtube8m import FrameExample, read_examples
from marey.errors import UserError, VideoError
from marey.features.extract import FeatureExtractor
from marey.inference.condition import condition_of, with_condition
from marey.inference.prediction import Prediction
from marey.metrics.calibration import cosine_knn

NEIGHBOURS = 5
"""Which nearest second of training a second is compared with."""


class FeaturePredictor:
    """A GAT checkpoint with the encoders that make its features, so that it answers video files.

    Every class has a probability of its own, so the probabilities of a prediction do not sum to 1.
    """

    def __init__(self, checkpoint: Checkpoint, *, device: str | torch.device = "cpu") -> None:
        """Keep the checkpoint; encoders are loaded with the first video.

        Raises:
            UserError: if the checkpoint reads no features.
        """
        if checkpoint.task != "features":
            raise UserError(
                f"{checkpoint.source}: is a {checkpoint.name}, which reads no features; "
                "marey-mini-gat does"
            )
        self.checkpoint = checkpoint
        self.model = checkpoint.model.to(device).eval()
        self.class_names = tuple(checkpoint.class_names)
        self.device = torch.device(device)
        self._extractor: FeatureExtractor | None = None

    @classmethod
    def load(
        cls, model: str | Path = "marey-mini-gat", *, device: str | torch.device = "cpu"
    ) -> FeaturePredictor:
        """Load a bundled model by name, or a checkpoint folder.

        Raises:
            UserError: if there is no such model, or it reads no features.
        """
        return cls(load_checkpoint(model), device=device)

    @property
    def name(self) -> str:
        """Name or folder the model was loaded from."""
        return self.checkpoint.source

    @property
    def extractor(self) -> FeatureExtractor:
        """The encoders named in the checkpoint.

        Raises:
            UserError: if the model was trained on features whose encoders are not known (YouTube-8M
                itself).
        """
        if self._extractor is None:
            encoders = self.checkpoint.extra.get("encoders")
            if not encoders:
                raise UserError(
                    f"{self.name}: was trained on ready-made features, so it cannot read a video; "
                    "give it "
                    "a .tfrecord file with --features, or train on the output of 'marey features'"
                )
            folder = WEIGHTS_FOLDER / self.name if self.name in bundled_names() else Path(self.name)
            self._extractor = FeatureExtractor.from_description(encoders, folder)
        return self._extractor

    def __call__(
        self,
        video: str | Path,
        *,
        labels: Sequence[str] | None = None,
        trust: str = "basic",
        max_pixels: int | None = None,
        max_seconds: float | None = None,
    ) -> Prediction:
        """Extract features by second from a video and return every class's probability.

        Raises:
            VideoError: if the video cannot be read.
            UserError: if `labels` are asked for, which need a label-embedding head.
        """
        if trust != "basic":
            raise UserError(
                f"{self.name}: --trust {trust} perturbs single clips, which this model does not "
                "read; use --trust basic, or marey-mini-rgb"
            )
        if labels is not None:
            raise UserError(
                f"{self.name}: has no label-embedding head, so --labels cannot be ranked; "
                "marey-mini-rgb can"
            )
        features = self.extractor(video, max_pixels=max_pixels)
        return self.answer(FrameExample(id=str(video), labels=(), features=dict(features)))

    @torch.inference_mode()
    def answer(self, example: FrameExample) -> Prediction:
        """Return the prediction for the features of one example.

        Raises:
            UserError: if a feature has another width than the model reads.
        """
        length = self.model.arguments["max_frames"]
        inputs = {
            name: torch.from_numpy(np.ascontiguousarray(example.values(name, length)))[None].to(
                self.device
            )
            for name in self.model.arguments["features"]
            if name in example.features
        }
        outputs = self.model(inputs)
        probabilities: Tensor = (
            outputs["logits"][0].float().cpu() / self.checkpoint.temperature
        ).sigmoid()
        seconds = tuple(float(t) for t in range(min(example.num_frames, length)))
        trust = {
            "probability": round(float(probabilities.max()), 6),
            "calibrated": self.checkpoint.calibrated,
            "agreement": 1.0,
            **self.unknownness(example),
        }
        return Prediction(
            video=example.id,
            model=self.name,
            class_names=self.class_names,
            probabilities=probabilities,
            frame_seconds=seconds,
            trust=trust,
        )

    def unknownness(self, example: FrameExample) -> dict[str, Any]:
        """Return the OOD score of a video: the mean cosine distance of its seconds to the 5th
        nearest second of training (`cosine_knn`)."""
        stored, bank = (
            (self.checkpoint.calibration or {}).get("ood"),
            self.checkpoint.tensors.get("ood_bank"),
        )
        if not stored or bank is None:
            return {"ood_score": None, "unknown": None}
        seconds = torch.from_numpy(example.values("rgb"))  # (T, D)
        score = float(cosine_knn(seconds, bank, NEIGHBOURS).mean())
        return {
            "ood_score": round(score, 4),
            "ood_threshold": stored["threshold"],
            "unknown": score > float(stored["threshold"]),
        }


def predict_features(
    path: str | Path,
    model: str | FeaturePredictor = "marey-mini-gat",
    threshold: float = 0.2,
    top: int = 3,
) -> dict[str, Any]:
    """Predict for one video, or for every record of one .tfrecord file.

    Args:
        path: a video (its features are made first) or a feature file.
        model: a GAT checkpoint, or a predictor already loaded.
        threshold, top: list at most `top` labels above `threshold` (Table 2 of the paper: 0.2 and
            3).

    Returns:
        For a video {"video", "predictions": [{"label", "probability"}], "error"}; for a feature
        file the same with
        "records": one such entry a record, and the first record's predictions.

    Raises:
        UserError: if the model is no GAT or does not fit the features; an unreadable video is an
            "error" instead.
    """
    predictor = (
        model if isinstance(model, FeaturePredictor) else FeaturePredictor(load_checkpoint(model))
    )
    try:
        if Path(path).suffix == ".tfrecord":
            widths = predictor.model.arguments["features"]
            records = [
                _entry(predictor.answer(example), threshold, top)
                for example in read_examples(path, widths)
            ]
            return {
                "video": str(path),
                "predictions": records[0]["predictions"] if records else [],
                "records": records,
                "error": None,
            }
        prediction = with_condition(predictor(path), condition_of(path))
        return {**_entry(prediction, threshold, top), "video": str(path)}
    except VideoError as error:
        return {"video": str(path), "predictions": [], "trust": {}, "error": str(error)}


def predict_files(
    paths: Sequence[str | Path], model: str = "marey-mini-gat", threshold: float = 0.2, top: int = 3
) -> list[dict[str, Any]]:
    """Predict for several videos and feature files, one entry a video or record, with the model
    loaded once."""
    predictor = FeaturePredictor(load_checkpoint(model))
    answers = [predict_features(path, predictor, threshold, top) for path in paths]
    return [entry for answer in answers for entry in answer.get("records", [answer])]


def _entry(prediction: Prediction, threshold: float, top: int) -> dict[str, Any]:
    return {
        "video": prediction.video,
        "predictions": [
            {"label": label, "probability": round(p, 6)}
            for label, p in prediction.above(threshold, top)
        ],
        "trust": prediction.trust,
        "error": None,
    }
