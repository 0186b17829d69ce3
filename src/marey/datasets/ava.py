"""AVA (v2.1, v2.2, and our own scenes in its layout): the key frames of a split, with everybody's
box and actions.

    <root>/ava_<split>[_v2.x].csv                  video_id,second,x1,y1,x2,y2,action_id,person_id
    <root>/ava_<split>_excluded_timestamps*.csv    video_id,second: left out
    <root>/ava_included_timestamps*.txt            seconds that may be used, one a line
    <root>/*action_list*.pbtxt                     id -> name; the 60 classes before the 80
    <root>/frames/<video>/<video>_000001.jpg ...   30 frames a second from second 900 on, or
    <root>/videos/<video>.mp4 (.mkv .webm ...)     the movie, or videos_15min/ cut at second 900
    <root>/scenes.csv                              video,split,fps,key_frame,num_frames of rendered
                                                   scenes; absent in the official data
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from marey.datasets.ava_format import (
    AVA_60_CLASSES,
    BoxRows,
    check_box_rows,
    read_box_rows,
    read_label_map,
    read_timestamps,
)
from marey.datasets.index import DatasetIndex, Sample
from marey.errors import UserError
from marey.files import untrusted

FRAMES_FPS, FIRST_SECOND = 30.0, 900.0
"""Frame folders of AVA hold 30 frames a second and start at second 900: key frame of second s is
(s - 900) * 30."""

VIDEO_FOLDERS = {"videos": 0.0, "videos_15min": FIRST_SECOND}
"""Folder of movie files -> the second of the movie its files begin at."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the frames of one video are."""

    path: Path
    """Folder of frames or video file."""
    fps: float | None
    """Frames per second of a folder; None for a file, which says itself."""
    first_second: float
    """Second of the movie the first frame shows."""
    key_frame: int | None = None
    """Index of the only key frame of a rendered scene."""
    num_frames: int | None = None
    """Frames of a folder."""


@dataclass(frozen=True, kw_only=True)
class KeyFrame:
    """One annotated moment: P persons, K classes."""

    video: str
    seconds: float
    boxes_xyxy_norm: Tensor
    """float, (P, 4), in [0, 1]."""
    labels: Tensor
    """float, (P, K), 0 or 1."""
    person_ids: tuple[int, ...]
    """Number of each person within the video."""
    line: int
    """Line of the CSV its first row stands in; 0 where it has none."""


@dataclass(frozen=True, kw_only=True)
class AvaIndex:
    """The key frames of one split."""

    root: Path
    split: str
    csv_path: Path
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...]
    """Action id of each class in the files."""
    key_frames: tuple[KeyFrame, ...]
    sources: dict[str, Source]

    @property
    def label_map(self) -> dict[int, str]:
        """Action id -> name."""
        return dict(zip(self.class_ids, self.class_names, strict=True))

    def class_counts(self) -> dict[int, int]:
        """Return how many persons carry each action id (Fig. 5 of the Action Transformer needs the
        training ones)."""
        total = sum(
            (key.labels.sum(0) for key in self.key_frames), torch.zeros(len(self.class_ids))
        )
        return dict(zip(self.class_ids, total.int().tolist(), strict=True))


def videos_of(index: AvaIndex) -> DatasetIndex:
    """Return the videos of a split, one unlabelled sample each, in the order of `index.sources`."""
    samples = tuple(Sample(path=source.path, label=None) for source in index.sources.values())
    return DatasetIndex(samples=samples, class_names=(), name="ava", root=index.root)


def is_ava(root: str | Path) -> bool:
    """Tell whether a folder has AVA's layout."""
    return Path(root).is_dir() and any(Path(root).glob("ava_*.csv"))


def annotation_file(root: str | Path, split: str) -> Path | None:
    """Return the file of a split's boxes and actions, None where it is not there.

    `ava_<split>_excluded_timestamps_v2.x.csv`, which the official test split has alone, is none.
    """
    names = (f"ava_{split}.csv", f"ava_{split}_v2.2.csv", f"ava_{split}_v2.1.csv")
    return next((Path(root) / name for name in names if (Path(root) / name).is_file()), None)


def require_labels(index: AvaIndex) -> None:
    """Refuse key frames that cannot be scored or learned from.

    Raises:
        UserError: if no person in them has an action.
    """
    if not any(bool(key.labels.any()) for key in index.key_frames):
        raise UserError(
            f"{index.csv_path}: none of its {len(index.key_frames)} key frames has a person with "
            "an action of the label map; expected labels (AVA's are public for train and val, not "
            "for test): give a labelled split"
        )


def open_ava(root: str | Path, split: str, *, label_map: str | Path | None = None) -> AvaIndex:
    """Read the key frames of a split and find their frames.

    Args:
        root: folder in the layout above.
        split: "train", "val" or "test".
        label_map: .pbtxt file; None takes the one in `root`, else the 60 official classes.

    Raises:
        UserError: naming file and line, for malformed rows, boxes without area or outside the
            image, actions the map lacks, and key frames outside their video; naming the video,
            where its frames are not found.
    """
    root = Path(root)
    with untrusted(root, "data in AVA's format"):
        return _open(root, split, label_map)


def _open(root: Path, split: str, label_map: str | Path | None) -> AvaIndex:
    path = annotation_file(root, split)
    if path is None:
        raise UserError(
            f"{root}: none of ava_{split}.csv, ava_{split}_v2.2.csv, ava_{split}_v2.1.csv is "
            "there; expected AVA's layout (docs/datasets.md)"
        )
    labels = _label_map(root, label_map)
    rows = read_box_rows(path)
    check_box_rows(rows, labels)
    rows = _timed(rows, root, split)
    scenes = _read_scenes(root / "scenes.csv")
    sources = {
        video: _find_source(root, video, scenes)
        for video in dict.fromkeys(key[0] for key in rows.keys)
    }
    key_frames = _key_frames(rows, tuple(labels))
    for key in key_frames:
        _check_inside(key, sources[key.video], path)
    empty = [
        name
        for name, (scene_split, *_rest) in scenes.items()
        if scene_split == split and name not in sources
    ]
    for video in empty:  # a scene in which nobody is seen
        sources[video] = _find_source(root, video, scenes)
        key_frames.append(
            KeyFrame(
                video=video,
                seconds=0.0,
                boxes_xyxy_norm=torch.zeros(0, 4),
                labels=torch.zeros(0, len(labels)),
                person_ids=(),
                line=0,
            )
        )
    return AvaIndex(
        root=root,
        split=split,
        csv_path=path,
        class_names=tuple(labels.values()),
        class_ids=tuple(labels),
        key_frames=tuple(key_frames),
        sources=sources,
    )


def _label_map(root: Path, given: str | Path | None) -> dict[int, str]:
    if given is not None:
        return read_label_map(given)
    found = sorted(
        root.glob("*action_list*.pbtxt"),
        key=lambda path: ("activitynet" not in path.name, path.name),
    )
    return read_label_map(found[0]) if found else dict(AVA_60_CLASSES)


def _timed(rows: BoxRows, root: Path, split: str) -> BoxRows:
    """Drop rows at excluded seconds, and at seconds not included."""
    keep = np.ones(len(rows), bool)
    for path in root.glob(f"ava_{split}_excluded_timestamps*.csv"):
        excluded = read_timestamps(path)
        keep &= np.array([rows.keys[i] not in excluded for i in rows.image], bool)
    for path in root.glob("ava_included_timestamps*.txt"):
        included = {float(line) for line in path.read_text().split()}
        keep &= np.array([rows.keys[i][1] in included for i in rows.image], bool)
    return rows.select(keep)


def _key_frames(rows: BoxRows, class_ids: tuple[int, ...]) -> list[KeyFrame]:
    """Group rows by image, and within it by person (same number and box); a row's action becomes a
    label."""
    column_of = {number: i for i, number in enumerate(class_ids)}
    order = np.argsort(rows.image, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(rows.image[order])) + 1) if len(order) else []
    found = []
    for group in groups:
        persons: dict[tuple[float, ...], list[int]] = {}
        for i in group.tolist():
            persons.setdefault((*rows.boxes_xyxy_norm[i].tolist(), rows.last[i]), []).append(
                int(rows.class_ids[i])
            )
        labels = torch.zeros(len(persons), len(class_ids))
        for p, numbers in enumerate(persons.values()):
            for number in numbers:
                if number in column_of:  # the 20 ids that are not evaluated are not
                    labels[p, column_of[number]] = 1
        video, seconds = rows.keys[rows.image[group[0]]]
        found.append(
            KeyFrame(
                video=video,
                seconds=seconds,
                labels=labels,
                line=int(rows.lines[group[0]]),
                boxes_xyxy_norm=torch.tensor([key[:4] for key in persons]).float(),
                person_ids=tuple(int(key[4]) for key in persons),
            )
        )
    return found


def _read_scenes(path: Path) -> dict[str, tuple[str, float, int, int]]:
    if not path.is_file():
        return {}
    with open(path, newline="") as file:
        return {
            row["video"]: (
                row["split"],
                float(row["fps"]),
                int(row["key_frame"]),
                int(row["num_frames"]),
            )
            for row in csv.DictReader(file)
        }


def _find_source(root: Path, video: str, scenes: dict[str, tuple[str, float, int, int]]) -> Source:
    folder = root / "frames" / video
    scene = scenes.get(video)
    if folder.is_dir():
        count = sum(1 for entry in folder.iterdir() if not entry.name.startswith("."))
        if scene is not None:
            return Source(
                path=folder, fps=scene[1], first_second=0.0, key_frame=scene[2], num_frames=count
            )
        return Source(path=folder, fps=FRAMES_FPS, first_second=FIRST_SECOND, num_frames=count)
    for name, first_second in VIDEO_FOLDERS.items():
        for path in sorted((root / name).glob(f"{video}.*")):
            return Source(
                path=path,
                fps=None,
                first_second=first_second,
                key_frame=None if scene is None else scene[2],
            )
    raise UserError(
        f"{root}: no frames of video '{video}'; expected frames/{video}/ or videos/{video}.*"
    )


def _check_inside(key: KeyFrame, source: Source, path: Path) -> None:
    if source.num_frames is None or source.key_frame is not None or source.fps is None:
        return
    index = round((key.seconds - source.first_second) * source.fps)
    if not 0 <= index < source.num_frames:
        raise outside_video(
            key, path, f"{source.num_frames} frames from second {source.first_second:g} on"
        )


def outside_video(key: KeyFrame, path: Path, has: str) -> UserError:
    """Return the error of a key frame that its video does not reach; `has` says what the video
    has."""
    return UserError(
        f"{path}:{key.line}: key frame at second {key.seconds:g} is outside video '{key.video}' "
        f"({has}); correct the second or exclude it"
    )


def read_predicted_boxes(
    path: str | Path, min_score: float = 0.8
) -> dict[tuple[str, float], Tensor]:
    """Read an outside detector's boxes, `video,second,x1,y1,x2,y2,,score`
    (column 7 empty or a label).

    Args:
        min_score: boxes below it are left out (0.9 or 0.8 in the public recipes).

    Returns:
        (video, second) -> (R, 4) in [0, 1], best first.

    Raises:
        UserError: naming file and line, for malformed rows and boxes.
    """
    with untrusted(path, "boxes in AVA's format"):
        return _predicted(path, min_score)


def _predicted(path: str | Path, min_score: float) -> dict[tuple[str, float], Tensor]:
    rows = read_box_rows(path)
    check_box_rows(rows, {number: "" for number in range(1, 10_000)})
    order = np.argsort(-rows.last, kind="stable")
    found: dict[tuple[str, float], list[np.ndarray]] = {key: [] for key in rows.keys}
    for i in order[rows.last[order] >= min_score].tolist():
        found[rows.keys[rows.image[i]]].append(rows.boxes_xyxy_norm[i])
    return {
        key: torch.tensor(np.array(boxes)).float().reshape(-1, 4) for key, boxes in found.items()
    }
