"""Predictions for video files: sampling, preprocessing, the model, and how far its answer can be
trusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.datasets.index import is_frame_folder, videos_below
from marey.errors import UserError, VideoError
from marey.features.motion import MOTION_FPS, SECONDS
from marey.features.video_vectors import VideoVectors, joined, vectors_of
from marey.inference.condition import condition_of, with_condition
from marey.inference.features import FeaturePredictor
from marey.inference.frames_given import answers_to
from marey.inference.kept_results import KeptResults
from marey.inference.none_of_these import NONE_OF_THESE, none_of_these
from marey.inference.poses import PosePredictor
from marey.inference.prediction import Prediction
from marey.inference.stability import stability
from marey.inference.text_video import TextVideoPredictor
from marey.inference.zero_shot import label_vectors, rank_labels
from marey.metrics.calibration import ood_score, stem_distance
from marey.metrics.selective import rejection_of
from marey.metrics.trust import (
    UNTAUGHT,
    check_logits,
    judge,
    mean_scores,
    trust_damage,
    trust_features,
)
from marey.models.outputs import outputs_of
from marey.transforms import functional
from marey.transforms.preprocess import Preprocess
from marey.video.clip import Clip
from marey.video.decode import MAX_PIXELS, MAX_SECONDS, open_video
from marey.video.sampling import frames_at_rate

CHANGED_SIDE = 256
"""Pixels of the shorter side at which the frames of a model that measures people or motion are
changed."""

OTHER_COMMANDS = {
    "features": ", it answers 'marey predict --features'",
    "detection": ", it answers 'marey detect'",
    "poses": ", it reads poses",
    "texts": ", it ranks names given to it: marey predict VIDEO --labels 'a,b'",
}
"""Task of a model that takes no clips -> the command that runs it."""


class Predictor:
    """A classifier of clips with the preprocessing, class names and calibration it was saved
    with."""

    def __init__(
        self, checkpoint: Checkpoint, *, views: int = 3, device: str | torch.device = "cpu"
    ) -> None:
        if checkpoint.preprocess is None or checkpoint.task in OTHER_COMMANDS:
            raise UserError(
                f"{checkpoint.source} is no classifier of clips"
                f"{OTHER_COMMANDS.get(checkpoint.task, '')}; marey-mini-rgb is one"
            )
        self.checkpoint = checkpoint
        self.model = checkpoint.model.to(device).eval()
        self.preprocess: Preprocess = checkpoint.preprocess
        self.class_names = tuple(checkpoint.class_names)
        self.views = views
        self.device = torch.device(device)
        self.vectors = VideoVectors(vectors_of(checkpoint.model))

    @classmethod
    def load(
        cls, model: str | Path = "marey-mini", *, views: int = 3, device: str | torch.device = "cpu"
    ) -> VideoPredictor:
        """Load a model that names the action of whole videos, by bundled name, folder, `hf:` id or
        `torchvision:` name.

        Args:
            views: temporal views per video, of a model of clips; their answers are averaged and
                their agreement is reported.

        Returns:
            A predictor of the model's kind, see `predictor_of`.

        Raises:
            UserError: if there is no such model, or it finds persons (`marey.inference.detector`
                answers with it).
        """
        return predictor_of(load_checkpoint(model), views=views, device=device)

    @property
    def name(self) -> str:
        """Name or folder the model was loaded from."""
        return self.checkpoint.source

    def __call__(
        self,
        video: Any,
        *,
        labels: Sequence[str] | None = None,
        trust: str = "basic",
        max_pixels: int | None = None,
        max_seconds: float | None = None,
    ) -> Any:
        """Recognise what happens in a video: a `Prediction`, or a list of them for a list.

        Args:
            video: a file or folder of frames; or frames in memory (uint8, (T, 3, H, W) or
                (T, H, W, 3), a tensor or an array, of which the model is shown as many as it takes,
                evenly spread); or a `Clip`; or a list of any of them, or a batch of frames.
            labels: rank these names, never trained on, by meaning instead of the model's own
                classes.
            trust: "basic" (no extra decoding), "full" (adds stability under three mild
                corruptions).
            max_pixels, max_seconds: refuse larger or longer videos; None keeps the reader's limits.

        Raises:
            VideoError: if the video cannot be read.
            UserError: if `labels` are asked of a model without a label-embedding head.
        """
        if trust not in ("basic", "full"):
            raise UserError(f"trust '{trust}' is neither 'basic' nor 'full'")
        if not isinstance(video, (str, Path)):
            options: dict[str, Any] = {"labels": labels, "trust": trust}
            options |= {"max_pixels": max_pixels, "max_seconds": max_seconds}
            return answers_to(
                video,
                lambda clip: self.predict_clip(clip, labels),
                lambda part: self(part, **options),
            )
        with open_video(
            video, max_pixels=max_pixels or MAX_PIXELS, max_seconds=max_seconds or MAX_SECONDS
        ) as reader:
            views, clips = self.preprocess.views(reader, num_temporal=self.views)
        vectors = None
        if self.vectors.names:
            vectors = joined(
                self.vectors.of_file(video, max_pixels=max_pixels, max_seconds=max_seconds)
            )
        outputs = self.outputs(views, vectors)
        prediction = self._answer(str(video), outputs, tuple(clips), labels)
        if trust == "full" and self.vectors.names:
            prediction.trust["stability"] = self._stability_of_middle(
                video, max_pixels=max_pixels, max_seconds=max_seconds
            )
        elif trust == "full":
            first = int(prediction.probabilities.argmax()) if labels is None else None
            prediction.trust["stability"] = stability(
                clips, self._fused_probabilities, self.class_names, first
            )
        condition = condition_of(video, max_pixels=max_pixels, max_seconds=max_seconds)
        return with_condition(prediction, condition)

    def predict_clip(self, clip: Clip, labels: Sequence[str] | None = None) -> Prediction:
        """Recognise what happens in frames that are already decoded, as one view.

        Args:
            clip: frames, of which the model is shown as many as it takes, evenly spread; for a
                model that measures motion or poses as dense as `features.video_vectors` asks.
            labels: as of a video.
        """
        wanted = self.preprocess.sampling.num_frames
        if not self.vectors.names:
            if clip.num_frames != wanted:
                spread = torch.linspace(0, clip.num_frames - 1, wanted).round().long()
                clip = clip.take(spread.tolist())
            outputs = self.outputs(self.preprocess.clip(clip.frames))
            return self._answer(clip.path, outputs, (clip,), labels)
        last = clip.num_frames - 1
        shown = clip.take(torch.linspace(0, last, wanted).round().long().tolist())
        outputs = self.outputs(
            self.preprocess.clip(shown.frames), joined(self.vectors.of_clip(clip))
        )
        return self._answer(clip.path, outputs, (shown,), None)

    def _stability_of_middle(self, video: str | Path, **limits: Any) -> Any:
        """Answer the middle of a video again under mild corruptions, see `stability`: motion and
        people are measured in changed frames, too."""
        given = {name: value for name, value in limits.items() if value is not None}
        with open_video(video, **given) as reader:
            seconds = reader.frame_seconds
            middle = (seconds[0] + seconds[-1]) / 2
            looked = [
                index
                for index in sorted(set(frames_at_rate(seconds, MOTION_FPS)))
                if abs(seconds[index] - middle) <= SECONDS / 2
            ]
            parts = [
                functional.resize_short_side(reader.frames_at([index]).frames, CHANGED_SIDE)
                for index in looked
            ]
        clip = Clip(
            frames=torch.cat(parts),
            frame_indices=tuple(looked),
            frame_seconds=tuple(seconds[index] for index in looked),
            fps=MOTION_FPS,
            path=str(video),
        )
        return stability(
            [clip],
            lambda clips: self.predict_clip(replace(clip, frames=clips[0])).probabilities,
            self.class_names,
        )

    def outputs(self, views: Tensor, vectors: Tensor | None = None) -> dict[str, Tensor]:
        """Run the model on preprocessed views, float (V, T, C, S, S), see `outputs_of`.

        Args:
            vectors: (E,), what is measured of the video, for a model that reads it.
        """
        per_view = None if vectors is None else vectors.expand(len(views), -1)
        return outputs_of(self.model, views, device=self.device, vectors=per_view)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return probabilities, (..., K), of logits (..., K), at the checkpoint's temperature or,
        without one, 1."""
        return (logits / self.checkpoint.temperature).softmax(-1)

    def _fused_probabilities(self, clips: Sequence[Tensor]) -> Tensor:
        """Return the probabilities (K,) over the views of some clips of frames, uint8 (T, C, H, W)
        each."""
        views = torch.cat([self.preprocess.clip(frames) for frames in clips])
        return self.probabilities(self.outputs(views)["logits"]).mean(0)

    def _answer(
        self,
        video: str,
        outputs: dict[str, Tensor],
        clips: tuple[Clip, ...],
        labels: Sequence[str] | None,
    ) -> Prediction:
        check_logits(outputs["logits"])
        class_names = self.class_names
        if labels is None:
            per_view = self.probabilities(outputs["logits"])
        else:
            class_names, per_view = tuple(labels), rank_labels(outputs, labels, self.checkpoint)
        fused = per_view.mean(0)
        trust: dict[str, Any] = {
            "probability": round(float(fused.max()), 6),
            "calibrated": labels is None and self.checkpoint.calibrated,
            "agreement": round(float((per_view.argmax(-1) == fused.argmax()).float().mean()), 4),
        }
        if labels is None:
            trust |= self.unknownness(outputs)
            # Calibration was measured on videos like those of training, and holds for no others.
            doubtful = "damaged" in trust or trust.get("unknown") or trust.get("warning")
            trust["calibrated"] = trust["calibrated"] and not doubtful
            trust |= rejection_of(float(fused.max()), self.calibration)
        else:
            trust |= self._zero_shot_trust(outputs, labels)
        seconds = tuple(sorted({second for clip in clips for second in clip.frame_seconds}))
        prediction = Prediction(
            video=video,
            model=self.name,
            class_names=class_names,
            probabilities=fused,
            frame_seconds=seconds,
            trust=trust,
            clips=clips,
            calibration=None if labels is not None or "damaged" in trust else self.calibration,
            scores=self.scores(outputs),
        )
        if prediction.has_set() and not trust.get("unknown"):  # none of the classes may be shown
            trust["set"] = prediction.set()
        return prediction

    @property
    def calibration(self) -> dict[str, Any]:
        """What the checkpoint stores about trust; empty where it stores nothing."""
        return self.checkpoint.calibration or {}

    def _zero_shot_trust(self, outputs: dict[str, Any], labels: Sequence[str]) -> dict[str, Any]:
        """Return what is said of an answer among given names: it is relative to them; whether none
        of them fits (`none_of_these`); and whether the video is unlike those of training, which the
        model's own classes have no part in."""
        vectors = label_vectors(labels, self.checkpoint)
        found = none_of_these(outputs["label_embedding"], vectors, self.checkpoint)
        judged = self.unknownness(outputs)
        if judged.get("reason") == UNTAUGHT:  # new names are what is asked for
            judged |= {"unknown": False, "reason": None}
        if found["none_of_these"]:
            judged |= {"unknown": True, "reason": judged.get("reason") or NONE_OF_THESE}
        return {"relative_to_labels": True, **found, **judged}

    def scores(self, outputs: dict[str, Any]) -> dict[str, float]:
        """Return the scores of some views that could say "unknown", means over the views; distances
        only where the checkpoint carries whole trust data."""
        deciding = trust_features(outputs, self.calibration)
        tensors = self.checkpoint.tensors
        if trust_damage(self.calibration, tensors) or "trust_mean" not in tensors:
            deciding = None
        return mean_scores(outputs["logits"], deciding, self.calibration, tensors)

    def unknownness(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Return how far the outputs of some views lie from those of the training clips.

        Returns:
            "ood_score": mean over views, scaled so that 1 is the stored threshold; for a model with
                a pretrained stem
            the larger of two scores, of its embedding and of its stem's mean feature. "unknown":
            whether it is above 1; None where the checkpoint has no OOD detector.
        """
        if "trust" in self.calibration:
            return self._judged(outputs)
        stored = self.calibration.get("ood")
        if not stored or outputs.get("embedding") is None:
            return {"ood_score": None, "unknown": None}
        calibration, tensors = self.calibration, self.checkpoint.tensors
        score = float(
            ood_score(outputs["embedding"], outputs["logits"], calibration, tensors).mean()
        )
        threshold = float(stored["threshold"])
        # The distance from the threshold is divided by the threshold's size, so that 1 is the
        # threshold itself.
        scaled = 1 + (score - threshold) / max(abs(threshold), 1e-6)
        if "ood_stem_mean" in tensors and outputs.get("stem_embedding") is not None:
            stem = float(stem_distance(outputs["stem_embedding"], tensors).mean())
            scaled = max(scaled, stem / float(stored["stem_threshold"]))
        return {"ood_score": round(scaled, 4), "ood_threshold": 1.0, "unknown": scaled > 1}

    def _judged(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Return the judgement of trust data that `fit_trust` made, or why there is none."""
        damage = trust_damage(self.calibration, self.checkpoint.tensors)
        if damage is not None:
            return {"unknown": None, "damaged": damage}
        if self.calibration["trust"].get("reason"):
            return {"unknown": None, "not_calibrated": self.calibration["trust"]["reason"]}
        deciding = trust_features(outputs, self.calibration)
        if deciding is None:
            return {"unknown": None}
        return judge(outputs["logits"], deciding, self.calibration, self.checkpoint.tensors)


VideoPredictor = Predictor | PosePredictor | FeaturePredictor | TextVideoPredictor
"""What names the action of whole videos."""


def predictor_of(
    checkpoint: Checkpoint, *, views: int = 3, device: str | torch.device = "cpu"
) -> VideoPredictor:
    """Return what answers with a checkpoint: a `PosePredictor` for a model of keypoints, a
    `FeaturePredictor` for one of features by second, a `TextVideoPredictor` for one that ranks
    given names, else a `Predictor` of clips.

    Raises:
        UserError: if the model finds persons.
    """
    if checkpoint.task == "poses":
        return PosePredictor(checkpoint, device=device)
    if checkpoint.task == "features":
        return FeaturePredictor(checkpoint, device=device)
    if checkpoint.task == "texts":
        return TextVideoPredictor(checkpoint, views=views, device=device)
    return Predictor(checkpoint, views=views, device=device)


def predict_many(
    predictor: VideoPredictor,
    videos: Iterable[str | Path],
    *,
    top: int = 5,
    kept: KeptResults | None = None,
    **options: Any,
) -> Iterator[tuple[Prediction | None, dict[str, Any]]]:
    """Predict for every readable video of a list and name every unreadable one.

    Args:
        kept: entries of an earlier call that was interrupted, which are not computed again; new
            ones are added.

    Yields:
        (prediction, its JSON entry); the prediction is None where the entry is a kept one, and
        where reading failed: the entry then has an "error".
    """
    for video in videos:
        if kept is not None and (entry := kept.get(video)) is not None:
            yield None, entry
            continue
        try:
            prediction = predictor(video, **options)
        except VideoError as error:
            yield (
                None,
                {
                    "video": str(video),
                    "predictions": [],
                    "frame_seconds": [],
                    "trust": {},
                    "error": str(error),
                },
            )
        else:
            entry = prediction.to_dict(top)
            if kept is not None:
                kept.put(video, entry)
            yield prediction, entry


def videos_in(paths: Iterable[str | Path]) -> list[Path]:
    """Return the videos that paths name: files and frame folders as they are, other folders
    searched for videos.

    Raises:
        UserError: if a folder holds no video.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir() and not is_frame_folder(path):
            below = [
                video
                for folder in sorted(
                    {path, *(entry for entry in path.rglob("*") if entry.is_dir())}
                )
                if not is_frame_folder(folder)
                for video in videos_below(folder)
            ]
            if not below:
                raise UserError(
                    f"{path}: no videos in this folder; name a video file or a folder with videos"
                )
            found += below
        else:
            found.append(path)
    return found
