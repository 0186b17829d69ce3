"""Continuous predictions for a live source, smoothed over time, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from marey.errors import UserError
from marey.features.motion import MOTION_FPS
from marey.inference.poses import PosePredictor
from marey.inference.prediction import Prediction
from marey.inference.predictor import Predictor
from marey.persons.follow import Follower, TrackedFrame
from marey.persons.pose_tracks import gathered
from marey.video.clip import Clip

WATCH_FPS = 10.0
"""Frames a second in which people are looked for: a pose model's moments are 1/8 s apart."""

MIN_WATCH_FPS = 6.0
"""Below it moments of a window are empty, and no answer is given."""


def watch(
    predictor: Predictor | PosePredictor,
    frames: Iterable[tuple[float, Tensor]],
    *,
    window_seconds: float = 2.0,
    step_seconds: float = 0.5,
    smoothing: float = 0.5,
    top: int = 3,
) -> Iterator[dict[str, Any]]:
    """Predict for the last `window_seconds` of a stream every `step_seconds`.

    Of a model of clips only the frames of one window are kept, thinned on arrival to twice the
    model's number of frames. For a model of poses people are looked for as frames come in,
    `WATCH_FPS` times a second at most, and only their keypoints are kept.

    Args:
        frames: (seconds, uint8 (3, H, W)) in time order, as `iterate_live` gives them.
        smoothing: weight of the past in the exponential average of probabilities, in [0, 1); 0 does
            not smooth.

    Yields:
        {"seconds", "predictions": [{"label", "probability"}], "unknown"} for each answer; of a
        model of poses also "persons", each as in `marey predict`. Where fewer than `MIN_WATCH_FPS`
        frames a second could be looked at, there are no predictions but a "note" that says so.

    Raises:
        UserError: if smoothing is outside [0, 1), or window or step are not positive.
    """
    if not 0 <= smoothing < 1:
        raise UserError(f"smoothing {smoothing} is outside [0, 1); 0 does not smooth")
    if window_seconds <= 0 or step_seconds <= 0:
        raise UserError(
            f"window {window_seconds} s and step {step_seconds} s must both be positive"
        )
    recent: RecentPoses | RecentFrames
    if isinstance(predictor, PosePredictor):
        recent = RecentPoses(predictor, window_seconds)
    else:
        recent = RecentFrames(predictor, window_seconds)
    average: Tensor | None = None
    next_answer = window_seconds
    for seconds, frame in frames:
        recent.add(seconds, frame)
        if seconds + 1e-6 < next_answer:
            continue
        next_answer = seconds + step_seconds
        answer: dict[str, Any] = {"seconds": round(seconds, 3)}
        if isinstance(recent, RecentPoses) and recent.rate() < MIN_WATCH_FPS:
            note = (
                f"{recent.rate():.1f} frames a second could be looked at, {MIN_WATCH_FPS:g} are "
                "needed: use a faster machine or source, or --persons movenet"
            )
            yield answer | {"predictions": [], "unknown": True, "persons": [], "note": note}
            continue
        prediction = recent.predict()
        if prediction.nobody:
            average = None
            answer["predictions"] = [{"label": prediction.class_names[0], "probability": 1.0}]
        else:
            now = prediction.probabilities
            average = now if average is None else smoothing * average + (1 - smoothing) * now
            best = average.topk(min(top, len(predictor.class_names)))
            answer["predictions"] = [
                {"label": predictor.class_names[int(index)], "probability": round(float(p), 6)}
                for p, index in zip(best.values, best.indices, strict=True)
            ]
        answer["unknown"] = prediction.trust.get("unknown")
        if isinstance(predictor, PosePredictor):
            names = predictor.class_names
            answer["persons"] = [person.to_dict(names, top) for person in prediction.persons]
        yield answer


class RecentFrames:
    """The frames of the last window of a stream, for a model of clips."""

    def __init__(self, predictor: Predictor, window_seconds: float) -> None:
        self.predictor = predictor
        self.window_seconds = window_seconds
        self.num_frames = predictor.preprocess.sampling.num_frames
        self.dense = bool(predictor.vectors.names)
        self.spacing = 1 / MOTION_FPS if self.dense else window_seconds / (2 * self.num_frames)
        self.kept: deque[tuple[float, Tensor]] = deque()

    def add(self, seconds: float, frame: Tensor) -> None:
        """Take the next frame, uint8 (3, H, W)."""
        if not self.kept or seconds - self.kept[-1][0] >= self.spacing - 1e-6:
            self.kept.append((seconds, frame))
        while self.kept and self.kept[0][0] < seconds - self.window_seconds:
            self.kept.popleft()

    def predict(self) -> Prediction:
        """Answer frames spread evenly over those kept; a taught model that measures motion or poses
        gets all of them."""
        count = len(self.kept) if self.dense else self.num_frames
        return self.predictor.predict_clip(_evenly(self.kept, count))


class RecentPoses:
    """The people of the last window of a stream, for a model of poses."""

    def __init__(self, predictor: PosePredictor, window_seconds: float) -> None:
        self.predictor = predictor
        self.window_seconds = window_seconds
        self.follower = Follower(predictor.finder, video="stream")
        self.kept: deque[TrackedFrame] = deque()
        self.size = (0, 0)

    def add(self, seconds: float, frame: Tensor) -> None:
        """Take the next frame, uint8 (3, H, W), and look for people where it is time to."""
        if self.kept and seconds - self.kept[-1].seconds < 1 / WATCH_FPS - 1e-3:
            return
        index = self.kept[-1].frame_index + 1 if self.kept else 0
        self.kept.append(self.follower(frame, index, seconds))
        self.size = (frame.shape[-1], frame.shape[-2])
        while self.kept[0].seconds < seconds - self.window_seconds:
            self.kept.popleft()

    def rate(self) -> float:
        """Return how many frames a second were looked at."""
        span = self.kept[-1].seconds - self.kept[0].seconds
        return (len(self.kept) - 1) / span if span > 0 else 0.0

    def predict(self) -> Prediction:
        """Answer the poses kept."""
        width, height = self.size
        found = gathered(list(self.kept), video="stream", width=width, height=height)
        return self.predictor.predict_tracks(found)


def _evenly(recent: deque[tuple[float, Tensor]], num_frames: int) -> Clip:
    """Return `num_frames` frames spread evenly over those kept; repeated where there are fewer."""
    indices = torch.linspace(0, len(recent) - 1, num_frames).round().long().tolist()
    chosen = [recent[index] for index in indices]
    return Clip(
        frames=torch.stack([frame for _, frame in chosen]),
        frame_indices=tuple(indices),
        frame_seconds=tuple(seconds for seconds, _ in chosen),
        fps=max(len(recent) - 1, 1) / max(recent[-1][0] - recent[0][0], 1e-6),
        path="stream",
    )
