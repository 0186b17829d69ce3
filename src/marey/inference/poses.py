"""Predictions for what people do, from their poses: persons, tracks, windows, the model, one
answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.errors import UserError
from marey.inference.condition import condition_of, with_condition
from marey.inference.frames_given import answers_to
from marey.inference.none_of_these import NONE_OF_THESE, none_of_these
from marey.inference.pose_windows import PoseClips, cut_tracks, fuse, fuse_by_track
from marey.inference.prediction import NO_PERSON, UNSEEN, Prediction
from marey.inference.stability import stability
from marey.inference.zero_shot import label_vectors, rank_labels
from marey.metrics.selective import rejection_of
from marey.models.outputs import outputs_of
from marey.persons.pose_tracks import PoseTracks, poses_of_frames, read_poses
from marey.persons.poses import PoseFinder
from marey.persons.sources import pose_finder
from marey.transforms.keypoints import NUM_KEYPOINTS, TRUNK
from marey.transforms.pose_clip import PoseSampling
from marey.video.clip import Clip
from marey.video.decode import open_video
from marey.video.sampling import frames_at_rate

BATCH_SIZE = 64
"""Windows of one forward pass."""

POSE_FPS = 12.5
"""Frames a second in which people are looked for."""

ARM_ACTIONS = (
    "fight: kick, punch or push",
    "hug",
    "shake hands",
    "throw or dribble",
    "wave, point or signal",
)
"""Actions that can be named where no leg is seen."""

MIN_LEGS = 0.25
"""Share of the moments in which something of hips and legs is seen, below which other actions are
not named."""


@dataclass(frozen=True, kw_only=True)
class PersonAnswer:
    """What one person does."""

    track: int
    probabilities: Tensor
    """(K,), over the known actions."""
    unknown_score: float
    """1 is the stored limit; NaN where the checkpoint has none."""
    start_seconds: float
    end_seconds: float
    needs_legs: bool = False
    """Whether the first action cannot be told without legs, and none were seen."""

    @property
    def unknown(self) -> bool | None:
        """Whether no known action is likely enough; None where the checkpoint has no limit."""
        if self.needs_legs:
            return True
        return None if math.isnan(self.unknown_score) else self.unknown_score > 1

    def caption(self, class_names: Sequence[str]) -> str:
        """Return what this person does in a few words."""
        if self.unknown:
            return "unknown"
        best = int(self.probabilities.argmax())
        return f"{class_names[best]} {float(self.probabilities[best]):.0%}"

    def to_dict(self, class_names: Sequence[str], top: int = 5) -> dict[str, Any]:
        """Return the entry of this person in the JSON of `marey predict`."""
        best = self.probabilities.topk(min(top, len(class_names)))
        return {
            "track": self.track,
            "start_seconds": round(self.start_seconds, 3),
            "end_seconds": round(self.end_seconds, 3),
            "unknown": self.unknown,
            "predictions": [
                {"label": class_names[int(place)], "probability": round(float(p), 6)}
                for p, place in zip(best.values, best.indices, strict=True)
            ],
        }


@dataclass(frozen=True, kw_only=True)
class PoseAnswer:
    """What happens in a video, or a stretch of it."""

    probabilities: Tensor
    """(K,), over the known actions; empty where nobody was found."""
    unnamed_probability: float
    """That none of the known actions is shown."""
    unknown_score: float
    """1 is the stored limit."""
    agreement: float
    """Share of the windows, by their say, whose own answer is the video's."""
    needs_legs: bool
    """Whether the first action cannot be told without legs, and none were seen."""
    persons: tuple[PersonAnswer, ...]
    """The person with most to say first."""
    clips: PoseClips
    label_embedding: Tensor | None = None
    """(E,), the mean over windows, by their say; None where the model predicts none."""

    @property
    def unknown(self) -> bool | None:
        """Whether no known action is likely enough, or it cannot be told without legs; None where
        the checkpoint has no limit."""
        if self.needs_legs:
            return True
        return None if math.isnan(self.unknown_score) else self.unknown_score > 1

    @property
    def somebody(self) -> bool:
        """Whether anybody was found."""
        return len(self.clips) > 0


class PosePredictor:
    """A classifier of windows of keypoints, and what finds the people and their poses.

    Args:
        checkpoint: of a pose model.
        device: where the model runs; the pose network runs on the CPU.
        finder: who finds people and poses; None: `persons.sources.pose_finder("auto")`.

    Raises:
        UserError: if the checkpoint is of no pose model.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str | torch.device = "cpu",
        finder: PoseFinder | None = None,
    ) -> None:
        if checkpoint.pose_sampling is None:
            raise UserError(f"{checkpoint.source} reads no poses; marey-mini does")
        self.checkpoint = checkpoint
        self.model = checkpoint.model.to(device).eval()
        self.sampling: PoseSampling = checkpoint.pose_sampling
        self.device = torch.device(device)
        self._finder = finder
        names = checkpoint.class_names
        shown = checkpoint.extra.get("shown_as") or {}
        other = checkpoint.extra.get("other_class")
        self.shown_as: dict[str, str | None] = {
            name: None if name == other else shown.get(name, name) for name in names
        }
        """Class of the model -> name of the answer it counts for; None: it has no name."""
        self.class_names = tuple(
            dict.fromkeys(name for name in self.shown_as.values() if name is not None)
        )
        self.known = list(range(len(self.class_names)))
        columns = [*self.class_names, None]
        places = [columns.index(name) for name in self.shown_as.values()]
        self.merge = torch.zeros(len(names), len(columns)).scatter_(
            1, torch.tensor(places)[:, None], 1.0
        )

    @property
    def name(self) -> str:
        """Name or folder the model was loaded from."""
        return self.checkpoint.source

    @property
    def finder(self) -> PoseFinder:
        """Who finds people and poses; its networks are loaded when first needed."""
        if self._finder is None:
            self._finder = pose_finder("auto")
        return self._finder

    def read(self, video: str | Path, **limits: Any) -> PoseTracks:
        """Find and follow everyone in a video.

        Args:
            limits: "max_pixels" and "max_seconds" of `read_poses`.

        Raises:
            VideoError: if the video cannot be read.
        """
        return read_poses(video, fps=POSE_FPS, finder=self.finder, **limits)

    def __call__(
        self,
        video: Any,
        *,
        labels: Sequence[str] | None = None,
        trust: str = "basic",
        max_pixels: int | None = None,
        max_seconds: float | None = None,
    ) -> Any:
        """Say what is done in a video: a `Prediction`, or a list of them for a list.

        Args:
            video: a file or folder of frames, or what `inference.frames_given.answers_to` takes.
            labels: rank these names, never trained on, by meaning instead of the model's actions.
            trust: "basic", or "full": people are looked for again in the window that had most to
                say, under three mild corruptions.
            max_pixels, max_seconds: refuse larger or longer videos.

        Raises:
            VideoError: if the video cannot be read.
        """
        if trust not in ("basic", "full"):
            raise UserError(f"trust '{trust}' is neither 'basic' nor 'full'")
        if not isinstance(video, (str, Path)):
            options: dict[str, Any] = {"labels": labels, "trust": trust}
            options |= {"max_pixels": max_pixels, "max_seconds": max_seconds}
            return answers_to(
                video,
                lambda clip: self.predict_tracks(
                    poses_of_frames(clip, finder=self.finder), labels=labels
                ),
                lambda part: self(part, **options),
            )
        found = self.read(video, max_pixels=max_pixels, max_seconds=max_seconds)
        prediction = self.predict_tracks(found, labels=labels)
        if trust == "full" and prediction.main_window is not None:
            clip = self.frames_of(video, prediction.main_window)
            prediction.trust["stability"] = self._stability(clip)
        condition = condition_of(video, max_pixels=max_pixels, max_seconds=max_seconds)
        return with_condition(prediction, condition)

    def predict_clip(self, clip: Clip) -> Prediction:
        """Say what is done in frames that are already decoded: people are looked for in each.

        Args:
            clip: rising times, at least 8 frames a second of the action.
        """
        return self.predict_tracks(poses_of_frames(clip, finder=self.finder))

    def frames_of(self, video: str | Path, span: tuple[float, float]) -> Clip:
        """Decode the frames that people would be looked for in, of a part of a video.

        Args:
            span: start and end in seconds.

        Raises:
            VideoError: if the video cannot be read.
        """
        with open_video(video) as reader:
            every = sorted(set(frames_at_rate(reader.frame_seconds, POSE_FPS)))
            seconds = reader.frame_seconds
            inside = [index for index in every if span[0] <= seconds[index] <= span[1]]
            return reader.frames_at(inside or every[:1], held=len(inside))

    def _stability(self, clip: Clip) -> dict[str, Any]:
        """Answer frames again under mild corruptions, see `stability`; "no person" is an answer."""

        def probabilities(clips: Sequence[Tensor]) -> Tensor:
            changed = replace(clip, frames=clips[0])
            answer = self.answer(poses_of_frames(changed, finder=self.finder))
            if not answer.somebody:
                return torch.eye(len(self.class_names) + 1)[-1]
            return torch.cat((answer.probabilities, torch.zeros(1)))

        return stability([clip], probabilities, (*self.class_names, NO_PERSON))

    def predict_tracks(
        self,
        found: PoseTracks,
        *,
        span: tuple[float, float] | None = None,
        labels: Sequence[str] | None = None,
    ) -> Prediction:
        """Say what the people of a video do, from poses that are already found.

        Args:
            span: seconds from and to which to look; None: the whole video.
        """
        answer = self.answer(found, span, labels)
        seconds = tuple(
            float(second)
            for second in found.seconds
            if span is None or span[0] <= second <= span[1]
        )
        if not answer.somebody:
            people = mostly_seen(found, seconds)
            return Prediction(
                video=found.video,
                model=self.name,
                class_names=(UNSEEN if people else NO_PERSON,),
                probabilities=torch.ones(1),
                frame_seconds=seconds,
                trust=nobody_trust(people, seconds),
                poses=found,
            )
        main = int(answer.clips.weight.argmax())
        start = answer.clips.start_seconds[main]
        prediction = Prediction(
            video=found.video,
            model=self.name,
            class_names=self.class_names if labels is None else tuple(labels),
            probabilities=answer.probabilities,
            frame_seconds=seconds,
            trust=self._trust(answer, labels),
            persons=answer.persons,
            calibration=self.checkpoint.calibration if labels is None else None,
            poses=found,
            main_window=(max(0.0, start), start + self.sampling.seconds),
        )
        # fitted on motion without video, sets would promise too much beside an answer
        if self.checkpoint.calibrated and prediction.has_set() and not prediction.trust["unknown"]:
            prediction.trust["set"] = prediction.set()
        return prediction

    def answer(
        self,
        found: PoseTracks,
        span: tuple[float, float] | None = None,
        labels: Sequence[str] | None = None,
    ) -> PoseAnswer:
        """Ask the model about every window of everyone, and fuse its answers."""
        clips = cut_tracks(found, self.sampling, span)
        if not len(clips):
            return PoseAnswer(
                probabilities=torch.zeros(0),
                unnamed_probability=1.0,
                unknown_score=float("nan"),
                agreement=float("nan"),
                needs_legs=False,
                persons=(),
                clips=clips,
            )
        outputs = self.outputs(clips)
        every = self.probabilities(outputs["logits"])  # (W, K + 1)
        shown = (
            every[:, self.known]
            if labels is None
            else rank_labels(outputs, labels, self.checkpoint)
        )
        fused, fused_every = fuse(shown, clips), fuse(every, clips)
        fused = fused / fused.sum()
        agree = (shown.argmax(-1) == fused.argmax()).to(clips.weight)
        meant = outputs.get("label_embedding")
        return PoseAnswer(
            probabilities=fused,
            unnamed_probability=self.unnamed_probability(fused_every),
            unknown_score=self.unknown_score(fused_every),
            agreement=float(agree @ clips.weight / clips.weight.sum().clamp_min(1e-9)),
            needs_legs=labels is None and self.needs_legs(fused, clips, range(len(clips))),
            persons=self._persons(shown, every, clips, named=labels is not None),
            clips=clips,
            label_embedding=None if meant is None else fuse(F.normalize(meant, dim=-1), clips),
        )

    def outputs(self, clips: PoseClips) -> dict[str, Tensor]:
        """Return what the model returns for windows."""
        return outputs_of(self.model, clips.clips, batch_size=BATCH_SIZE, device=self.device)

    def logits(self, clips: PoseClips) -> Tensor:
        """Return logits (W, K) of windows, the class without a name included."""
        return self.outputs(clips)["logits"]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return probabilities (..., K + 1) of logits of the model's classes, at the checkpoint's
        temperature: of the K answers, and last of everything without a name."""
        return self.probabilities_at(logits, self.checkpoint.temperature)

    def probabilities_at(self, logits: Tensor, temperature: float) -> Tensor:
        """Return the probabilities at a temperature."""
        return (logits / temperature).softmax(-1) @ self.merge.to(logits)

    def unnamed_probability(self, probabilities: Tensor) -> float:
        """Return how probable it is that none of the known actions is shown: that of everything
        without a name, or, of a model where all has a name, 1 less the largest.

        Args:
            probabilities: (K + 1,).
        """
        if None not in self.shown_as.values():
            return float(1 - probabilities.max())
        return float(probabilities[-1])

    def needs_legs(self, fused: Tensor, clips: PoseClips, rows: Sequence[int]) -> bool:
        """Return whether the first action of fused probabilities (K,) cannot be told without legs,
        and none were seen in these windows."""
        if self.class_names[int(fused.argmax())] in ARM_ACTIONS:
            return False
        chosen = list(rows)
        legs = (clips.clips[chosen][:, :, TRUNK[2] : NUM_KEYPOINTS, 2] > 0).any(-1)  # (W, T)
        share = clips.weight[chosen] / clips.weight[chosen].sum().clamp_min(1e-9)
        return float(share @ legs.to(share).mean(-1)) < MIN_LEGS

    def unknown_score(self, probabilities: Tensor) -> float:
        """Return how likely none of the known actions is shown: 1 is the limit beyond which the
        answer is "unknown".

        The score is `unnamed_probability` over the stored limit (`evaluation.poses.fit_unknown`).

        Args:
            probabilities: (K + 1,), as `probabilities` gives them.
        """
        stored = (self.checkpoint.calibration or {}).get("unknown")
        if not stored:
            return float("nan")
        return self.unnamed_probability(probabilities) / float(stored["threshold"])

    def _persons(
        self, shown: Tensor, every: Tensor, clips: PoseClips, *, named: bool
    ) -> tuple[PersonAnswer, ...]:
        answers = []
        whole = fuse_by_track(every, clips)
        length = self.sampling.seconds
        for number, probabilities in fuse_by_track(shown, clips).items():
            mine = [place for place, track in enumerate(clips.tracks) if track == number]
            say = float(clips.weight[mine].sum())
            starts = [clips.start_seconds[place] for place in mine]
            person = PersonAnswer(
                track=number,
                probabilities=probabilities / probabilities.sum(),
                unknown_score=self.unknown_score(whole[number]),
                start_seconds=max(0.0, min(starts)),
                end_seconds=max(starts) + length,
                needs_legs=not named and self.needs_legs(probabilities, clips, mine),
            )
            answers.append((say, person))
        answers.sort(key=lambda pair: -pair[0])
        return tuple(person for _, person in answers)

    def _trust(self, answer: PoseAnswer, labels: Sequence[str] | None) -> dict[str, Any]:
        trust: dict[str, Any] = {
            "probability": round(float(answer.probabilities.max()), 6),
            "calibrated": labels is None and self.checkpoint.calibrated,
            "agreement": round(answer.agreement, 4),
        }
        if labels is not None:
            return {**trust, "relative_to_labels": True, **self._none_of_these(answer, labels)}
        trust |= rejection_of(float(answer.probabilities.max()), self.checkpoint.calibration)
        score = answer.unknown_score
        if answer.needs_legs:
            shown = None if math.isnan(score) else round(score, 4)
            return {
                **trust,
                "ood_score": shown,
                "ood_threshold": 1.0,
                "unknown": True,
                "reason": "neither hips nor legs are seen",
            }
        if math.isnan(score):
            return {**trust, "ood_score": None, "unknown": None}
        return {
            **trust,
            "calibrated": trust["calibrated"] and score <= 1,  # not for what it never learned
            "ood_score": round(score, 4),
            "ood_threshold": 1.0,
            "unknown": score > 1,
            "reason": "no known action is likely enough" if score > 1 else None,
        }

    def _none_of_these(self, answer: PoseAnswer, labels: Sequence[str]) -> dict[str, Any]:
        """Say whether an everyday action fits better than every name given."""
        assert answer.label_embedding is not None
        vectors = label_vectors(labels, self.checkpoint)
        found = none_of_these(answer.label_embedding[None], vectors, self.checkpoint)
        unknown = found["none_of_these"]
        return {**found, "unknown": unknown, "reason": NONE_OF_THESE if unknown else None}


def mostly_seen(found: PoseTracks, seconds: Sequence[float]) -> int:
    """Return how many people are seen in half or more of the frames at these seconds."""
    looked_at = set(seconds)
    seen = [sum(float(second) in looked_at for second in track.seconds) for track in found.tracks]
    return sum(2 * count >= max(1, len(looked_at)) for count in seen)


def nobody_trust(people: int, seconds: Sequence[float]) -> dict[str, Any]:
    """Return the trust block of a video of which no window can be answered.

    Args:
        people: seen in most frames, which are then too few; 0: nobody was found for long enough.
        seconds: of the frames.
    """
    reason = "nobody was found for long enough to see what they do"
    if people:
        gap = (seconds[-1] - seconds[0]) / (len(seconds) - 1) if len(seconds) > 1 else 0.0
        rate = f" ({1 / gap:.1f} pictures a second)" if gap > 0 else ""
        reason = (
            f"{people} {'person was' if people == 1 else 'people were'} found, but in too few "
            f"moments{rate} to see what they do"
        )
    return {
        "probability": 1.0,
        "calibrated": False,
        "agreement": 1.0,
        "ood_score": None,
        "unknown": True if people else None,
        "reason": reason,
    }
