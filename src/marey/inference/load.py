"""Load a model as the class that its task needs: a predictor of clips, poses or features, or a
detector of persons."""

from __future__ import annotations

from pathlib import Path

import torch

from marey.checkpoints.load import load_checkpoint
from marey.inference.crop_detector import CropDetector
from marey.inference.detector import Detector
from marey.inference.pose_detector import PoseDetector
from marey.inference.poses import PosePredictor
from marey.inference.predictor import Predictor, VideoPredictor, predictor_of
from marey.persons.sources import pose_finder


def load_answerer(
    model: str | Path, *, views: int = 3, device: str | torch.device = "cpu"
) -> VideoPredictor | Detector:
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
    return predictor_of(checkpoint, views=views, device=device)


def load_detector(
    model: str | Path,
    *,
    persons: str = "auto",
    min_score: float = 0.3,
    device: str | torch.device = "cpu",
) -> Detector | PoseDetector | CropDetector:
    """Load a model that says of every person what they do; one of clips is asked about each person
    cut out.

    Args:
        persons: who says where people are, see `persons.sources`.
        min_score: with own boxes, smallest score of a person.
        device: where the model runs.

    Raises:
        UserError: if the model or the source of persons is unknown, or they do not fit together.
    """
    checkpoint = load_checkpoint(model)
    if checkpoint.task == "poses":
        return PoseDetector(checkpoint, persons=persons, device=device)
    if checkpoint.task == "clips":
        return CropDetector(checkpoint, persons=persons, device=device)
    return Detector(checkpoint, persons=persons, min_score=min_score, device=device)


def load_window_predictor(
    model: str | Path, *, persons: str = "auto", device: str | torch.device = "cpu"
) -> Predictor | PosePredictor:
    """Load a model for timelines, streams and explanations, which need answers about parts of a
    video.

    Args:
        persons: who finds the people for a model of poses, see `persons.sources.pose_finder`.
        device: where the model runs.

    Raises:
        UserError: if there is no such model, or it takes neither clips nor poses.
    """
    checkpoint = load_checkpoint(model)
    if checkpoint.task == "poses":
        finder = None if persons == "auto" else pose_finder(persons)
        return PosePredictor(checkpoint, device=device, finder=finder)
    return Predictor(checkpoint, device=device)
