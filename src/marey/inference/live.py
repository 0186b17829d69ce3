"""Continuous predictions for a live source, smoothed over time, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from marey.errors import UserError
from marey.inference.predictor import Predictor
from marey.video.clip import Clip


def watch(
    predictor: Predictor,
    frames: Iterable[tuple[float, Tensor]],
    *,
    window_seconds: float = 2.0,
    step_seconds: float = 0.5,
    smoothing: float = 0.5,
    top: int = 3,
) -> Iterator[dict[str, Any]]:
    """Predict for the last `window_seconds` of a stream every `step_seconds`.

    Only the frames of one window are kept, thinned on arrival to twice the model's number of
    frames.

    Args:
        frames: (seconds, uint8 (3, H, W)) in time order, as `iterate_live` gives them.
        smoothing: weight of the past in the exponential average of probabilities, in [0, 1); 0 does
            not smooth.

    Yields:
        {"seconds", "predictions": [{"label", "probability"}], "unknown"} for each answer.

    Raises:
        UserError: if smoothing is outside [0, 1), or window or step are not positive.
    """
    if not 0 <= smoothing < 1:
        raise UserError(f"smoothing {smoothing} is outside [0, 1); 0 does not smooth")
    if window_seconds <= 0 or step_seconds <= 0:
        raise UserError(
            f"window {window_seconds} s and step {step_seconds} s must both be positive"
        )
    num_frames = predictor.preprocess.sampling.num_frames
    spacing = window_seconds / (2 * num_frames)
    recent: deque[tuple[float, Tensor]] = deque()
    average: Tensor | None = None
    next_answer = window_seconds
    for seconds, frame in frames:
        if not recent or seconds - recent[-1][0] >= spacing - 1e-6:
            recent.append((seconds, frame))
        while recent and recent[0][0] < seconds - window_seconds:
            recent.popleft()
        if seconds + 1e-6 < next_answer:
            continue
        next_answer = seconds + step_seconds
        prediction = predictor.predict_clip(_evenly(recent, num_frames))
        now = prediction.probabilities
        average = now if average is None else smoothing * average + (1 - smoothing) * now
        best = average.topk(min(top, len(predictor.class_names)))
        yield {
            "seconds": round(seconds, 3),
            "predictions": [
                {"label": predictor.class_names[int(index)], "probability": round(float(p), 6)}
                for p, index in zip(best.values, best.indices, strict=True)
            ],
            "unknown": prediction.trust.get("unknown"),
        }


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
