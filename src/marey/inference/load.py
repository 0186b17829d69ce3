"""Load a model as the class that its task needs: a predictor of clips or of features, or a detector
of persons."""

from __future__ import annotations

from pathlib import Path

import torch

from marey.checkpoints.load import load_checkpoint
from marey.inference.detector import Detector
from marey.inference.features import FeaturePredictor
from marey.inference.predictor import Predictor


def load_answerer(
    model: str | Path, *, views: int = 3, device: str | torch.device = "cpu"
) -> Predictor | FeaturePredictor | Detector:
    """Load a model by bundled name, folder, `hf:` id or `torchvision:` name, as the class its task
    needs.

    Args:
        views: temporal views per video, for a predictor of clips.
        device: where the model runs.

    Raises:
        UserError: if there is no such model.
    """
    checkpoint = load_checkpoint(model)
    if checkpoint.task == "detection":
        return Detector(checkpoint, device=device)
    if checkpoint.task == "features":
        return FeaturePredictor(checkpoint, device=device)
    return Predictor(checkpoint, views=views, device=device)


def load_clip_predictor(model: str | Path, *, device: str | torch.device = "cpu") -> Predictor:
    """Load a model for timelines, streams and attention maps, which need single clips.

    Raises:
        UserError: if there is no such model, or it takes no clips.
    """
    return Predictor(load_checkpoint(model), device=device)
