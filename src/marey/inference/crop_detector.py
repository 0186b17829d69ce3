"""Who does what, at regular moments of a video, by a model of clips: every tracked person is cut
out, and the model is asked about the person alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.errors import UserError
from marey.features.motion import MOTION_FPS
from marey.inference.detector import FOLLOWED_FPS, MAX_PEOPLE, Detections, Moment, Person
from marey.inference.predictor import Predictor
from marey.persons.pose_tracks import Pose, PoseTrack, PoseTracks, read_poses
from marey.persons.sources import pose_finder
from marey.video.clip import Clip
from marey.video.decode import VideoReader, open_video

WINDOW_SECONDS = 2.0
"""Of video around a key frame that the model is shown."""

MARGIN = 1.3
"""Side of the square that is cut out, in longer sides of the box around a person's way through the
window."""

CROP_SIDE = 256
"""Side of what is cut out after resizing, in pixels; the model's own preprocessing follows."""


class CropDetector:
    """A model of clips asked about every person at every key frame.

    A model that was trained on whole pictures sees other pictures here; teach or train it on clips
    of single persons where that matters.

    Args:
        checkpoint: of a model of clips, a taught one for example.
        persons: who says where people are, a name of `persons.sources.SOURCES` but "own".
        device: where the model runs; people are found on the CPU.

    Raises:
        UserError: if the checkpoint takes no clips, or the source is unknown or has no poses.
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
                f"--persons own: {checkpoint.source} has no boxes of its own; use --persons auto, "
                "or --model marey-mini-detect"
            )
        self.predictor = Predictor(checkpoint, device=device)
        self.finder = pose_finder(persons)
        self.class_names = tuple(checkpoint.class_names)

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
        found = read_poses(video, fps=FOLLOWED_FPS, max_people=MAX_PEOPLE, finder=self.finder)
        with open_video(video) as reader:
            count = max(1, int(reader.duration_seconds / every_seconds + 0.5))
            wanted = (np.arange(count) + 0.5) * every_seconds
            places = np.abs(found.seconds[None] - wanted[:, None]).argmin(1).tolist()
            moments = tuple(self._moment(reader, found, place) for place in dict.fromkeys(places))
        return Detections(
            video=found.video,
            width=found.width,
            height=found.height,
            class_names=self.class_names,
            moments=moments,
            poses=found,
        )

    def _moment(self, reader: VideoReader, found: PoseTracks, place: int) -> Moment:
        """Answer the people of one of the frames that were looked at."""
        seconds = float(found.seconds[place])
        poses = found.at(seconds)
        index = int(found.frame_indices[place])
        if not poses:
            return Moment(seconds=seconds, frame_index=index, persons=())
        indices = self._frames_around(reader, seconds)
        window = reader.frames_at(indices, held=len(indices))
        tracks = {track.number: track for track in found.tracks}
        persons = tuple(self._person(window, pose, tracks[pose.number], found) for pose in poses)
        return Moment(seconds=seconds, frame_index=index, persons=persons)

    def _frames_around(self, reader: VideoReader, seconds: float) -> list[int]:
        """Return the frames of the window around a time: as many as the model takes, or so dense
        that motion can be measured."""
        count = self.predictor.preprocess.sampling.num_frames
        if self.predictor.vectors.names:
            count = max(count, round(WINDOW_SECONDS * MOTION_FPS))
        start = max(0.0, seconds - WINDOW_SECONDS / 2)
        end = min(reader.duration_seconds, seconds + WINDOW_SECONDS / 2)
        return reader.indices_at_seconds(np.linspace(start, end, count, endpoint=False).tolist())

    def _person(self, window: Clip, pose: Pose, track: PoseTrack, found: PoseTracks) -> Person:
        """Ask the model about one person of a window."""
        crops = cut_out(window, track)
        prediction = self.predictor.predict_clip(
            Clip(
                frames=crops,
                frame_indices=window.frame_indices,
                frame_seconds=window.frame_seconds,
                fps=window.fps,
                path=window.path,
            )
        )
        unit = torch.tensor([found.height / found.width, 1.0]).repeat(2)
        box = (torch.from_numpy(pose.box_xyxy).float() * unit).clamp(0, 1).tolist()
        return Person(
            track=pose.number,
            box_xyxy_norm=(box[0], box[1], box[2], box[3]),
            score=pose.score,
            probabilities=tuple(prediction.probabilities.tolist()),
            unknown=prediction.trust.get("unknown"),
        )


def cut_out(window: Clip, track: PoseTrack) -> Tensor:
    """Cut a square around a person's way through a window out of its frames.

    Args:
        window: uint8 frames (T, 3, H, W), maybe reduced.
        track: the person, boxes in frame heights.

    Returns:
        uint8, (T, 3, `CROP_SIDE`, `CROP_SIDE`), black where the square leaves the picture.
    """
    H, W = window.frames.shape[-2:]
    first, last = window.frame_seconds[0], window.frame_seconds[-1]
    inside = (track.seconds >= first - 0.1) & (track.seconds <= last + 0.1)
    boxes = track.boxes_xyxy[inside] if inside.any() else track.boxes_xyxy
    low, high = boxes[:, :2].min(0) * H, boxes[:, 2:].max(0) * H
    side = max(2, round(MARGIN * float((high - low).max())))
    left, top = (round(float(value)) for value in (low + high) / 2 - side / 2)
    seen = window.frames[..., max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    outside = [max(v, 0) for v in (-left, left + side - W, -top, top + side - H)]
    square = F.pad(seen, outside)
    size = (CROP_SIDE, CROP_SIDE)
    return F.interpolate(square, size=size, mode="bilinear", antialias=True)
