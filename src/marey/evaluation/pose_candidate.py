"""A pose model in a comparison: frames are changed before the network that finds people, so that a
lost person counts as a wrong answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.errors import UserError
from marey.evaluation.candidates import match_classes
from marey.inference.poses import POSE_FPS, PosePredictor
from marey.persons.pose_tracks import poses_of_frames
from marey.video.clip import Clip
from marey.video.sampling import frames_at_rate

SHORT_SIDE = 256
"""Pixels of the shorter side of the whole picture in which people are looked for."""
WHOLE = -1.0
"""Crop ratio of a view that is the whole picture, its shape kept."""
NOBODY = -1
"""The answer where no person was found: no class of the data set."""


@dataclass(frozen=True, kw_only=True)
class PoseFrames:
    """What a pose model is shown: every frame at `POSE_FPS`, the whole picture."""

    image_size: int = SHORT_SIDE

    def sample(self, window: Any) -> Any:
        """Return the frame indices of a reader, as `Preprocess.sample` does."""
        indices = tuple(sorted(set(frames_at_rate(window.frame_seconds, POSE_FPS))))
        return SimpleNamespace(frame_indices=indices)


@dataclass(frozen=True, kw_only=True)
class PoseCandidate:
    """One pose model of a comparison; it has no gradients at the pixels, so it is not attacked."""

    name: str
    predictor: PosePredictor
    data_class_of: Tensor
    """int64, (K,): the data set's class of each answer, -1 where it has none."""
    by_meaning: tuple[str, ...] | None
    """The data set's classes, ranked by the meaning of their names, where the model was not trained
    on all of them; None where it was."""
    preprocess: PoseFrames = PoseFrames()
    has_gradients: bool = False
    tensors: Any = None

    def answers(
        self, clips: Sequence[Tensor], seconds: Sequence[float], fps: float
    ) -> list[list[float]]:
        """Return [class, probability] of each clip, uint8 (T, 3, H, W); `NOBODY` where no person
        was found.

        Args:
            clips: the same moments under every change.
            seconds: time of each frame, rising.
            fps: of the source.
        """
        found = []
        for frames in clips:
            clip = Clip(
                frames=frames,
                frame_indices=tuple(range(len(frames))),
                frame_seconds=tuple(seconds),
                fps=fps,
                path=self.name,
            )
            tracks = poses_of_frames(clip, finder=self.predictor.finder)
            answer = self.predictor.answer(
                tracks, labels=None if self.by_meaning is None else list(self.by_meaning)
            )
            if not answer.somebody:
                found.append([NOBODY, 1.0])
                continue
            best = int(answer.probabilities.argmax())
            sure = round(float(answer.probabilities[best]), 5)
            found.append([int(self.data_class_of[best]), sure])
        return found


def pose_candidate(
    source: str, checkpoint: Checkpoint, class_names: Sequence[str], device: str
) -> PoseCandidate:
    """Match a pose model's actions with a data set's classes, by name where all are known, else by
    the meaning of the names.

    Raises:
        UserError: if classes are unknown and the model predicts no label vectors.
    """
    predictor = PosePredictor(checkpoint, device=device)
    try:
        data_class_of, _ = match_classes(source, predictor.class_names, class_names)
        meaning = None
    except UserError:
        if "label_embeddings" not in checkpoint.tensors:
            raise
        data_class_of, meaning = torch.arange(len(class_names)), tuple(class_names)
    return PoseCandidate(
        name=source,
        predictor=predictor,
        data_class_of=data_class_of,
        by_meaning=meaning,
        tensors=checkpoint.tensors,
    )
