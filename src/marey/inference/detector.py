"""Detection of persons and their actions at regular moments of a video, linked into tracks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.datasets.ava_clips import clip_indices
from marey.datasets.ava_format import AVA_60_CLASSES, BoxRows, rows_from_arrays
from marey.errors import UserError
from marey.models.action_transformer import ActionTransformer, postprocess
from marey.persons.pose_tracks import PoseTracks, read_poses
from marey.persons.sources import person_finder, pose_finder
from marey.persons.tracks import link_persons
from marey.transforms.functional import crop
from marey.video.decode import VideoReader, open_video

ZOOM_BELOW = 0.35
"""Persons given from outside whose height is below this share of the frame are classified in an
enlarged window."""

FOLLOWED = ("auto", "movenet", "nanodet")
"""Sources of persons that are fast enough to look at every frame."""

FOLLOWED_FPS = 12.5
"""Frames per second at which people are followed."""

MAX_PEOPLE = 1000
"""Tracks kept in a video where people are followed."""

ZOOM_HEIGHTS = 2.0
"""Side of that window, in heights of the person."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """One person at one moment."""

    track: int
    """Number of the person, the same through the whole video."""
    box_xyxy_norm: tuple[float, float, float, float]
    """x1, y1, x2, y2 in [0, 1]."""
    score: float
    """Score of the source of boxes that this is a person, 0 to 1."""
    probabilities: tuple[float, ...]
    """One per class: independent of each other, or of a model of poses summing to 1, and none where
    the person was seen too briefly."""
    unknown: bool | None = None
    """Whether no known action is likely enough; None where the model does not judge that."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One key frame with its persons."""

    seconds: float
    frame_index: int
    persons: tuple[Person, ...]


@dataclass(frozen=True, kw_only=True)
class Detections:
    """The persons and actions found in one video."""

    video: str
    width: int
    height: int
    class_names: tuple[str, ...]
    moments: tuple[Moment, ...]
    poses: PoseTracks | None = None
    """Everyone on every frame, with the same track numbers; None where the source of boxes has no
    poses."""

    def top(
        self, person: Person, count: int = 3, min_probability: float = 0.1
    ) -> list[tuple[str, float]]:
        """Return a person's most probable actions; at least one, unless nothing was answered."""
        if not person.probabilities:
            return []
        order = sorted(range(len(self.class_names)), key=lambda c: -person.probabilities[c])
        kept = [c for c in order[:count] if person.probabilities[c] >= min_probability] or order[:1]
        return [(self.class_names[c], person.probabilities[c]) for c in kept]

    def caption(self, person: Person, count: int = 2, min_probability: float = 0.3) -> list[str]:
        """Return what a person does as lines to be drawn: the actions, or "unknown"."""
        if person.unknown:
            return ["unknown"]
        best = self.top(person, count, min_probability)
        return [f"{label} {probability:.0%}" for label, probability in best]

    def tracks(self) -> list[dict[str, Any]]:
        """Return per person the time seen and the actions by mean probability."""
        seen: dict[int, list[tuple[float, Person]]] = defaultdict(list)
        for moment in self.moments:
            for person in moment.persons:
                seen[person.track].append((moment.seconds, person))
        found = []
        for track, entries in sorted(seen.items()):
            answered = [person for _, person in entries if person.probabilities]
            best = []
            if answered:
                mean = np.mean([person.probabilities for person in answered], axis=0)
                best = [
                    {"label": self.class_names[c], "probability": round(float(mean[c]), 4)}
                    for c in np.argsort(-mean)[:3]
                ]
            judged = [person.unknown for person in answered if person.unknown is not None]
            found.append(
                {
                    "track": track,
                    "unknown": 2 * sum(judged) > len(judged) if judged else None,
                    "from_seconds": round(entries[0][0], 3),
                    "to_seconds": round(entries[-1][0], 3),
                    "moments": len(entries),
                    "actions": best,
                }
            )
        return found

    def to_dict(self, top: int = 3) -> dict[str, Any]:
        """Return the JSON entry of this video."""
        scale = np.array([self.width, self.height, self.width, self.height])
        moments = [
            {
                "seconds": round(moment.seconds, 3),
                "frame": moment.frame_index,
                "persons": [
                    {
                        "track": person.track,
                        "person_score": round(person.score, 4),
                        "unknown": person.unknown,
                        "box_xyxy": [
                            round(float(v), 1) for v in np.array(person.box_xyxy_norm) * scale
                        ],
                        "box_xyxy_norm": [round(v, 4) for v in person.box_xyxy_norm],
                        "actions": [
                            {"label": label, "probability": round(p, 4)}
                            for label, p in self.top(person, top)
                        ],
                    }
                    for person in moment.persons
                ],
            }
            for moment in self.moments
        ]
        return {
            "video": self.video,
            "width": self.width,
            "height": self.height,
            "moments": moments,
            "tracks": self.tracks(),
            "error": None,
        }

    def rows(self, class_ids: Sequence[int], min_probability: float = 0.01) -> BoxRows:
        """Return AVA rows: one per person and action at least this probable."""
        keys = [(Path(self.video).stem, round(moment.seconds, 3)) for moment in self.moments]
        table = [
            (i, *person.box_xyxy_norm, class_ids[c], p)
            for i, moment in enumerate(self.moments)
            for person in moment.persons
            for c, p in enumerate(person.probabilities)
            if p >= min_probability
        ]
        values = np.array(table).reshape(-1, 7)
        return rows_from_arrays(
            keys, values[:, 0], values[:, 1:5], values[:, 5], values[:, 6], self.video
        )


class Detector:
    """An Action Transformer with its preprocessing and class names, and a source of person boxes.

    Args:
        checkpoint: of an Action Transformer.
        persons: one of `marey.persons.sources.SOURCES`. With "auto", "movenet" and "nanodet"
            people are followed with their poses through the whole video; with the others each key
            frame is looked at by itself.
        min_score: with "own": persons below it are not reported.
        device: torch device.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        persons: str = "auto",
        min_score: float = 0.3,
        device: str | torch.device = "cpu",
    ) -> None:
        if not isinstance(checkpoint.model, ActionTransformer) or checkpoint.preprocess is None:
            raise UserError(
                f"model '{checkpoint.source}' is a {checkpoint.name}, which finds no persons; "
                "use marey-mini-detect or another action_transformer checkpoint"
            )
        self.checkpoint, self.model, self.preprocess = (
            checkpoint,
            checkpoint.model.to(device),
            checkpoint.preprocess,
        )
        self.persons, self.min_score, self.device = persons, min_score, device
        self.follower = pose_finder(persons) if persons in FOLLOWED else None
        self.find = person_finder(persons)

    @classmethod
    def load(
        cls,
        model: str | Path = "marey-mini-detect",
        *,
        persons: str = "auto",
        min_score: float = 0.3,
        device: str | torch.device = "cpu",
    ) -> Detector:
        """Load a bundled model by name, or a checkpoint folder.

        Raises:
            UserError: if the model or the source of persons is unknown, or the model does not
                detect.
        """
        return cls(load_checkpoint(model), persons=persons, min_score=min_score, device=device)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the actions."""
        return tuple(self.checkpoint.class_names)

    @property
    def class_ids(self) -> list[int]:
        """Action id of each class in AVA files: the official ones for the official names, else 1,
        2, ..."""
        official = {name: number for number, name in AVA_60_CLASSES.items()}
        names = self.checkpoint.class_names
        return (
            [official[name] for name in names]
            if set(names) <= set(official)
            else list(range(1, len(names) + 1))
        )

    def __call__(self, video: str | Path, *, every_seconds: float = 1.0) -> Detections:
        """Detect at regular moments of a video and link the persons.

        Args:
            video: file or frame folder.
            every_seconds: time between key frames; the first is half of it after the start.

        Raises:
            VideoError: if the video cannot be read.
        """
        if not every_seconds > 0:
            raise UserError(f"every_seconds must be above 0, got {every_seconds}")
        poses = None
        if self.follower is not None:
            poses = read_poses(video, fps=FOLLOWED_FPS, max_people=MAX_PEOPLE, finder=self.follower)
        with open_video(video) as reader:
            if poses is None:
                moments = self._looked_at(reader, every_seconds)
            else:
                moments = self._followed(reader, every_seconds, poses)
            width, height = reader.width, reader.height
        return Detections(
            video=str(video),
            width=width,
            height=height,
            moments=tuple(moments),
            class_names=self.class_names,
            poses=poses,
        )

    def _key_frames(
        self, reader: VideoReader, every_seconds: float
    ) -> Iterator[tuple[float, int, Tensor]]:
        """Yield (seconds, frame index, frames of the clip and then the key frame) at regular
        times."""
        count = max(1, int(reader.duration_seconds / every_seconds + 0.5))
        wanted = [min((i + 0.5) * every_seconds, reader.duration_seconds) for i in range(count)]
        for index in dict.fromkeys(reader.indices_at_seconds(wanted)):
            indices = clip_indices(index, reader.num_frames, reader.fps, self.preprocess)
            clip = reader.frames_at([*indices, index], held=len(indices) + 1)
            yield reader.frame_seconds[index], index, clip.frames

    def _looked_at(self, reader: VideoReader, every_seconds: float) -> list[Moment]:
        """Find the persons of each key frame by itself, then link them."""
        found = [
            (seconds, index, *self.detect(frames[:-1], frames[-1], reader.path, seconds))
            for seconds, index, frames in self._key_frames(reader, every_seconds)
        ]
        scale = torch.tensor([reader.width, reader.height, reader.width, reader.height])
        numbers = link_persons(
            [boxes * scale for _, _, boxes, _, _ in found], [seconds for seconds, *_ in found]
        )
        moments = []
        for tracks, (seconds, index, *persons) in zip(numbers, found, strict=True):
            rows = [
                Person(
                    track=track,
                    box_xyxy_norm=tuple(box.tolist()),
                    score=float(score),
                    probabilities=tuple(probabilities.tolist()),
                )
                for track, box, score, probabilities in zip(tracks, *persons, strict=True)
            ]
            moments.append(Moment(seconds=seconds, frame_index=index, persons=tuple(rows)))
        return moments

    def _followed(
        self, reader: VideoReader, every_seconds: float, poses: PoseTracks
    ) -> list[Moment]:
        """Name what those do at each key frame who were followed through the video."""
        unit = torch.tensor([reader.height / reader.width, 1.0]).repeat(2)
        moments = []
        for seconds, index, frames in self._key_frames(reader, every_seconds):
            persons = []
            for pose in poses.at(seconds):
                box = (torch.from_numpy(pose.box_xyxy).float() * unit).clamp(0, 1)
                persons.append(
                    Person(
                        track=pose.number,
                        box_xyxy_norm=tuple(box.tolist()),
                        score=pose.score,
                        probabilities=tuple(self.classify_person(frames[:-1], box).tolist()),
                    )
                )
            moments.append(Moment(seconds=seconds, frame_index=index, persons=tuple(persons)))
        return moments

    @torch.no_grad()
    def detect(
        self, frames: Tensor, key_frame: Tensor, video: str = "", seconds: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Detect in one clip of uint8 frames (T, 3, H, W) around a key frame (3, H, W)."""
        if self.find is None:
            answer = postprocess(
                self.model(self.preprocess.clip(frames).to(self.device)),
                nms_threshold=self.model.head_nms,
                score_threshold=self.min_score,
            )[0]
            boxes = answer["boxes_xyxy_norm"]
            if boxes.ndim == 3 and len(boxes):  # class-specific: the box of the best class
                boxes = boxes[torch.arange(len(boxes)), answer["scores"].argmax(1)]
            return boxes.cpu(), answer["person_scores"].cpu(), answer["scores"].cpu()
        boxes, scores = self.find(key_frame, video, seconds)
        probabilities = [self.classify_person(frames, box) for box in boxes]
        empty = torch.zeros(0, len(self.checkpoint.class_names))
        return boxes, scores, torch.stack(probabilities) if probabilities else empty

    @torch.no_grad()
    def classify_person(self, frames: Tensor, box_xyxy_norm: Tensor) -> Tensor:
        """Return the action probabilities (K,) of one given person; a small person is cropped and
        enlarged first."""
        H, W = frames.shape[-2:]
        x1, y1, x2, y2 = (box_xyxy_norm * torch.tensor([W, H, W, H])).tolist()
        if y2 - y1 < ZOOM_BELOW * H:
            side = int(min(max(ZOOM_HEIGHTS * max(y2 - y1, x2 - x1), 16), H, W))
            left = int(min(max((x1 + x2 - side) / 2, 0), W - side))
            top = int(min(max((y1 + y2 - side) / 2, 0), H - side))
            frames = crop(frames, top, left, side, side)
            box_xyxy_norm = (
                (torch.tensor([x1, y1, x2, y2]) - torch.tensor([left, top] * 2)) / side
            ).clamp(0, 1)
        outputs = self.model(
            self.preprocess.clip(frames).to(self.device), boxes_xyxy_norm=[box_xyxy_norm[None]]
        )
        return outputs["logits"][0].sigmoid().cpu()
