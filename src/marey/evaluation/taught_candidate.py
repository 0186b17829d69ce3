"""A taught model that reads motion or people, in a comparison: frames are changed before anything
is measured in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.evaluation.candidates import match_classes
from marey.evaluation.pose_candidate import PoseFrames
from marey.features.video_vectors import joined
from marey.inference.predictor import Predictor
from marey.transforms.preprocess import Preprocess
from marey.video.clip import Clip


@dataclass(frozen=True, kw_only=True)
class TaughtFrames(PoseFrames):
    """What such a model is shown, whole pictures: first the frames of its clip, then every frame in
    which motion and people are measured."""

    clip: Preprocess

    def sample(self, window: Any) -> Any:
        """Return the frame indices of a reader: `clip.sampling.num_frames`, then the others."""
        shown = tuple(self.clip.sample(window).frame_indices)
        return SimpleNamespace(frame_indices=shown + super().sample(window).frame_indices)


@dataclass(frozen=True, kw_only=True)
class TaughtCandidate:
    """One taught model of a comparison; what it measures has no gradients, so it is not
    attacked."""

    name: str
    predictor: Predictor
    data_class_of: Tensor
    """int64, (K,): the data set's class of each logit, -1 where it has none."""
    preprocess: TaughtFrames
    has_gradients: bool = False
    tensors: Any = None

    def answers(
        self, clips: Sequence[Tensor], seconds: Sequence[float], fps: float
    ) -> list[list[float]]:
        """Return [class, probability] of each clip, uint8 (T, 3, H, W), as `TaughtFrames` orders
        its frames.

        Args:
            clips: the same moments under every change.
            seconds: time of each frame.
            fps: of the source.
        """
        count = self.preprocess.clip.sampling.num_frames
        found = []
        for frames in clips:
            measured = Clip(
                frames=frames[count:],
                frame_indices=tuple(range(len(frames) - count)),
                frame_seconds=tuple(seconds[count:]),
                fps=fps,
                path=self.name,
            )
            vectors = joined(self.predictor.vectors.of_clip(measured))
            views = self.predictor.preprocess.clip(frames[:count])
            logits = self.predictor.outputs(views, vectors)["logits"]
            probabilities = self.predictor.probabilities(logits).mean(0)
            best = int(probabilities.argmax())
            sure = round(float(probabilities[best]), 5)
            found.append([int(self.data_class_of[best]), sure])
        return found


def taught_candidate(
    source: str, checkpoint: Checkpoint, class_names: Sequence[str], device: str
) -> TaughtCandidate:
    """Match a taught model's classes with a data set's by name.

    Raises:
        UserError: if it does not know one of them.
    """
    data_class_of, _ = match_classes(source, checkpoint.class_names, class_names)
    return TaughtCandidate(
        name=source,
        predictor=Predictor(checkpoint, views=1, device=device),
        data_class_of=data_class_of,
        preprocess=TaughtFrames(clip=checkpoint.clip_preprocess),
        tensors=checkpoint.tensors,
    )
