"""A copy of a video with the answers drawn on every frame, as H.264 that browsers play."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.inference.detector import Detections, Person
from marey.inference.prediction import Prediction
from marey.persons.blur import Blur
from marey.persons.pose_tracks import PoseTracks
from marey.transforms.keypoints import BONES
from marey.video.decode import VideoReader, open_video
from marey.video.draw import draw_answers, draw_boxes, draw_skeletons
from marey.video.encode import write_video

COLOURS = (
    (255, 99, 71),
    (60, 180, 255),
    (120, 220, 90),
    (255, 200, 50),
    (220, 120, 255),
    (80, 230, 220),
    (255, 130, 190),
    (200, 200, 200),
)
"""A person keeps the colour of the track number, modulo 8."""

MIN_SIDE = 480
"""Smaller videos are enlarged to this short side, so that text can be read."""

CHUNK_FRAMES = 16
"""Frames decoded together: bounds the memory."""

SHOWN_FRAMES = 8
"""Frames of a contact sheet where poses were read."""

HOLD_SECONDS = 0.6
"""A box without a partner in the next key frame is drawn no further than this from its own."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One person on one frame."""

    track: int
    box_xyxy_norm: tuple[float, float, float, float]
    """x1, y1, x2, y2 in [0, 1]."""
    person: Person | None = None
    """Whose actions are written; None: nothing is known of them."""
    keypoints: Tensor | None = None
    """(17, 3): x, y in [0, 1] and score; None: no skeleton."""
    caption: str = ""
    """Written behind the track number, where no person is given."""


def annotate_video(
    video: str | Path,
    out: Path,
    answers: Sequence[tuple[str, float]],
    note: str = "",
    *,
    poses: PoseTracks | None = None,
    captions: Mapping[int, str] | None = None,
    blur: Blur | None = None,
) -> None:
    """Write the video with the same (label, probability) answers, and a note above them, in a panel
    below every frame.

    Args:
        poses: everyone, drawn with boxes and skeletons.
        captions: track number -> what is written at the person.
        blur: makes people unrecognisable first.
    """

    def draw(frame: Tensor, seconds: float) -> Tensor:
        return draw_answers(with_poses(enlarged(frame), seconds, poses, captions), answers, note)

    _write(video, out, draw, blur)


def annotate_segments(
    video: str | Path,
    out: Path,
    segments: Sequence[tuple[float, float, str, float]],
    *,
    poses: PoseTracks | None = None,
    blur: Blur | None = None,
) -> None:
    """Write the video with, at each moment, the answer of its segment in a panel below.

    Args:
        segments: (start_seconds, end_seconds, label, probability), in time order.
        poses: everyone, drawn with boxes and skeletons.
        blur: makes people unrecognisable first.
    """

    def draw(frame: Tensor, seconds: float) -> Tensor:
        now = [segment for segment in segments if segment[0] <= seconds < segment[1]]
        _, _, label, probability = (now or list(segments))[-1]
        return draw_answers(with_poses(enlarged(frame), seconds, poses), [(label, probability)])

    _write(video, out, draw, blur)


def annotate_persons(
    video: str | Path, out: str | Path, detections: Detections, *, blur: Blur | None = None
) -> None:
    """Write the video with boxes, track numbers, the one or two most probable actions of each
    person, and skeletons where there are poses."""

    def draw(frame: Tensor, seconds: float) -> Tensor:
        return draw_persons(enlarged(frame), persons_at(detections, seconds), detections)

    _write(video, out, draw, blur)


def annotate_poses(
    video: str | Path, out: str | Path, poses: PoseTracks, *, blur: Blur | None = None
) -> None:
    """Write the video with boxes, track numbers and skeletons."""

    def draw(frame: Tensor, seconds: float) -> Tensor:
        return draw_persons(enlarged(frame), poses_at(poses, seconds))

    _write(video, out, draw, blur)


def _write(
    video: str | Path,
    out: str | Path,
    draw: Callable[[Tensor, float], Tensor],
    blur: Blur | None = None,
) -> None:
    with open_video(video) as reader:
        write_video(out, _drawn(reader, draw, blur), fps=reader.fps)


def _drawn(
    reader: VideoReader, draw: Callable[[Tensor, float], Tensor], blur: Blur | None
) -> Iterator[Tensor]:
    for clip in reader.iterate(chunk=CHUNK_FRAMES):
        for frame, seconds in zip(clip.frames, clip.frame_seconds, strict=True):
            shown = frame if blur is None else blur(frame, seconds)
            yield draw(shown, seconds)


def shown_frames(
    video: str | Path, prediction: Prediction, blur: Blur | None = None
) -> tuple[Tensor, tuple[float, ...]]:
    """Return frames that a prediction rests on, uint8 (T, 3, H, W), and their times.

    Of a model of clips those of the view in the middle; of a model of poses `SHOWN_FRAMES` spread
    over the window that had most to say, with skeletons.
    """
    if prediction.clips:
        clip = prediction.clips[len(prediction.clips) // 2]
        return clip.frames if blur is None else blur.pictures(clip.frames), clip.frame_seconds

    captions = {
        person.track: person.caption(prediction.class_names) for person in prediction.persons
    }
    with open_video(video) as reader:
        start, end = prediction.main_window or (0.0, reader.duration_seconds)
        start, end = max(start, 0.0), min(end, reader.duration_seconds)
        middles = [start + (end - start) * (n + 0.5) / SHOWN_FRAMES for n in range(SHOWN_FRAMES)]
        clip = reader.frames_at(sorted(set(reader.indices_at_seconds(middles))))
    frames = clip.frames if blur is None else blur.pictures(clip.frames)
    drawn = [
        with_poses(frame, seconds, prediction.poses, captions)
        for frame, seconds in zip(frames, clip.frame_seconds, strict=True)
    ]
    return torch.stack(drawn), clip.frame_seconds


def with_poses(
    frame: Tensor,
    seconds: float,
    poses: PoseTracks | None,
    captions: Mapping[int, str] | None = None,
) -> Tensor:
    """Return a frame with the people of a time drawn on it; the frame itself without poses."""
    if poses is None:
        return frame
    people = poses_at(poses, seconds)
    if captions is not None:
        people = [replace(entry, caption=captions.get(entry.track, "")) for entry in people]
    return draw_persons(enlarged(frame), people)


def enlarged(frame: Tensor) -> Tensor:
    """Return a uint8 frame (3, H, W), a whole number of times larger if it is below `MIN_SIDE`."""
    scale = max(1, -(-MIN_SIDE // min(frame.shape[-2:])))
    if scale == 1:
        return frame
    big = F.interpolate(
        frame[None].float(), scale_factor=scale, mode="bilinear", align_corners=False
    )[0]
    return big.round().clamp(0, 255).byte()


def poses_at(poses: PoseTracks, seconds: float) -> list[Drawn]:
    """Return everyone who has a pose at a time."""
    unit = torch.tensor([poses.height / poses.width, 1.0])
    drawn = []
    for pose in poses.at(seconds):
        keypoints = torch.from_numpy(pose.keypoints).float()
        box = (torch.from_numpy(pose.box_xyxy) * unit.repeat(2)).tolist()
        drawn.append(
            Drawn(
                track=pose.number,
                box_xyxy_norm=(box[0], box[1], box[2], box[3]),
                keypoints=torch.cat([keypoints[:, :2] * unit, keypoints[:, 2:]], dim=1),
            )
        )
    return drawn


def persons_at(detections: Detections, seconds: float) -> list[Drawn]:
    """Return the persons to draw at a time.

    Where there are poses, boxes and skeletons are those of the time, and the actions those of the
    key frame nearest to it that shows the person. Otherwise boxes are interpolated linearly between
    the two key frames around the time; a person found in only one of the two is drawn in its half
    of the time between them, for at most `HOLD_SECONDS`.
    """
    moments = detections.moments
    if detections.poses is not None:
        nearest: dict[int, Person] = {}
        for moment in sorted(moments, key=lambda moment: -abs(moment.seconds - seconds)):
            nearest.update({person.track: person for person in moment.persons})
        drawn = poses_at(detections.poses, seconds)
        return [replace(entry, person=nearest.get(entry.track)) for entry in drawn]

    if not moments:
        return []
    times = [moment.seconds for moment in moments]
    after = next((i for i, t in enumerate(times) if t > seconds), len(times))
    before = max(after - 1, 0)
    after = min(after, len(times) - 1)
    # `share` is how far the time has gone from the key frame before to the one after, 0 to 1.
    share = (
        0.0
        if times[after] <= times[before]
        else (seconds - times[before]) / (times[after] - times[before])
    )
    share = min(max(share, 0.0), 1.0)
    first = {person.track: person for person in moments[before].persons}
    second = {person.track: person for person in moments[after].persons}
    sparse: list[Drawn] = []
    for track in sorted(first.keys() | second.keys()):
        a, b = first.get(track), second.get(track)
        if a is not None and b is not None:
            box = tuple(
                (1 - share) * u + share * v
                for u, v in zip(a.box_xyxy_norm, b.box_xyxy_norm, strict=True)
            )
            shown = a if share < 0.5 else b
            sparse.append(Drawn(track=track, box_xyxy_norm=box, person=shown))  # type: ignore[arg-type]
        elif a is not None and share < 0.5 and seconds - times[before] <= HOLD_SECONDS:
            sparse.append(Drawn(track=track, box_xyxy_norm=a.box_xyxy_norm, person=a))
        elif b is not None and share >= 0.5 and times[after] - seconds <= HOLD_SECONDS:
            sparse.append(Drawn(track=track, box_xyxy_norm=b.box_xyxy_norm, person=b))
    return sparse


def draw_persons(
    frame: Tensor, persons: Sequence[Drawn], detections: Detections | None = None
) -> Tensor:
    """Draw persons on one uint8 (3, H, W) frame of any size.

    Args:
        detections: names the actions; None: only track numbers are written.
    """
    H, W = frame.shape[-2:]
    scale = torch.tensor([W, H, W, H])
    boxes = [(torch.tensor(person.box_xyxy_norm) * scale).tolist() for person in persons]
    colours = [COLOURS[person.track % len(COLOURS)] for person in persons]
    captions = []
    for person in persons:
        actions = []
        if detections is not None and person.person is not None:
            actions = detections.caption(person.person)
        elif person.caption:
            actions = [person.caption]
        first = f"{person.track}: {actions[0]}" if actions else str(person.track)
        captions.append([first, *actions[1:]])

    posed = [
        (person.keypoints * torch.tensor([W, H, 1]), colour)
        for person, colour in zip(persons, colours, strict=True)
        if person.keypoints is not None
    ]
    if posed:
        frame = draw_skeletons(frame, [points for points, _ in posed], [c for _, c in posed], BONES)
    return draw_boxes(frame, boxes, captions, colours)
