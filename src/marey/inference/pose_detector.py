"""Who does what, at regular moments of a video, by a model of poses: persons, tracks, actions."""

from __future__ import annotations

from pathlib import Path

import torch

from marey.checkpoints.folder import Checkpoint
from marey.errors import UserError
from marey.inference.detector import (
    FOLLOWED_FPS,
    MAX_PEOPLE,
    Detections,
    Moment,
    Person,
)
from marey.inference.poses import PosePredictor
from marey.persons.pose_tracks import PoseTracks, read_poses
from marey.persons.sources import pose_finder


class PoseDetector:
    """A model of poses asked about every person at every key frame.

    Args:
        checkpoint: of a pose model.
        persons: who says where people are, a name of `persons.sources.SOURCES` but "own".
        device: where the model runs; the pose network runs on the CPU.

    Raises:
        UserError: if the checkpoint is of no pose model, or the source is unknown or has no poses.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        persons: str = "auto",
        device: str | torch.device = "cpu",
    ) -> None:
        if persons == "own":
            raise UserError(
                f"--persons own: {checkpoint.source} reads poses and has no boxes of its own; use "
                "--persons auto, or --model marey-mini-detect"
            )
        self.predictor = PosePredictor(checkpoint, device=device, finder=pose_finder(persons))
        self.persons = persons
        self.class_names = self.predictor.class_names

    @property
    def class_ids(self) -> list[int]:
        """Action id of each class in AVA files: 1, 2, ..."""
        return list(range(1, len(self.class_names) + 1))

    def __call__(self, video: str | Path, *, every_seconds: float = 1.0) -> Detections:
        """Name what everybody does at regular moments of a video.

        Args:
            video: file or frame folder.
            every_seconds: time between key frames; the first is half of it after the start.

        Raises:
            VideoError: if the video cannot be read.
        """
        if not every_seconds > 0:
            raise UserError(f"every_seconds must be above 0, got {every_seconds}")
        found = read_poses(
            video, fps=FOLLOWED_FPS, max_people=MAX_PEOPLE, finder=self.predictor.finder
        )
        return self.detect(found, every_seconds=every_seconds)

    def detect(self, found: PoseTracks, *, every_seconds: float = 1.0) -> Detections:
        """Name what everybody does, from poses that are already found.

        A person's action at a key frame is that of the window around it; a person seen too briefly
        has none.
        """
        duration = float(found.seconds[-1]) + 1 / found.fps
        count = max(1, int(duration / every_seconds + 0.5))
        wanted = torch.tensor([min((i + 0.5) * every_seconds, duration) for i in range(count)])
        looked = torch.from_numpy(found.seconds).to(wanted)
        places = (looked[None] - wanted[:, None]).abs().argmin(1).tolist()
        return Detections(
            video=found.video,
            width=found.width,
            height=found.height,
            class_names=self.class_names,
            moments=tuple(self._moment(found, place) for place in dict.fromkeys(places)),
            poses=found,
        )

    def _moment(self, found: PoseTracks, place: int) -> Moment:
        """Answer the people of one of the frames that were looked at."""
        seconds = float(found.seconds[place])
        half = self.predictor.sampling.seconds / 2
        answer = self.predictor.answer(found, (seconds - half, seconds + half))
        answers = {person.track: person for person in answer.persons}
        unit = torch.tensor([found.height / found.width, 1.0]).repeat(2)
        persons = []
        for pose in found.at(seconds):
            box = (torch.from_numpy(pose.box_xyxy).float() * unit).clamp(0, 1).tolist()
            mine = answers.get(pose.number)
            persons.append(
                Person(
                    track=pose.number,
                    box_xyxy_norm=(box[0], box[1], box[2], box[3]),
                    score=pose.score,
                    probabilities=() if mine is None else tuple(mine.probabilities.tolist()),
                    unknown=None if mine is None else mine.unknown,
                )
            )
        return Moment(
            seconds=seconds,
            frame_index=int(found.frame_indices[place]),
            persons=tuple(persons),
        )
