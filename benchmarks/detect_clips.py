"""What `marey detect` says about real clips: boxes, tracks, and actions it does not know.

    python -m benchmarks.detect_clips --clips ../shared/clips --out results/detect_clips.json
        [--pictures DIR] [--poses DIR]

The model is the default, `marey-mini`. Beside it stand labels written by hand
(`results/detect_clips_labels.json`): at every key frame everybody's box, which person it is, and
which of the model's actions would be true of them; none where they do something else. Boxes were
corrected from the detector's where those were visibly right, so only right (IoU of .5 or more) and
wrong are counted. Persons lower than 40 pixels and regions to ignore count neither way. `--poses`
keeps everyone's poses, one file a clip, and takes them from there.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from benchmarks.interleave import machine
from benchmarks.written_result import write_result
from marey.inference.detector import FOLLOWED_FPS, MAX_PEOPLE, Detections, Moment
from marey.inference.load import load_detector
from marey.persons.pose_tracks import PoseTracks, read_poses
from marey.persons.similarity import box_iou
from marey.video.decode import open_video
from marey.video.draw import contact_sheet, draw_boxes

LABELS = Path(__file__).parents[1] / "results" / "detect_clips_labels.json"
MIN_HEIGHT = 40
"""Persons lower than this many pixels of the video count neither way."""
MIN_IOU = 0.5


def overlaps(first: Sequence[Any], second: Sequence[Any]) -> np.ndarray:
    """Return the IoU of every box of one list with every box of another, (N, M)."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    return np.asarray(box_iou(np.array(first, float), np.array(second, float)))


def share_inside(box: Sequence[float], region: Sequence[float]) -> float:
    """Return the share of a box that lies in a region."""
    width = min(box[2], region[2]) - max(box[0], region[0])
    height = min(box[3], region[3]) - max(box[1], region[1])
    area = (box[2] - box[0]) * (box[3] - box[1])
    return max(0.0, width) * max(0.0, height) / area if area else 0.0


def verdict(said: str | None, unknown: bool | None, true: Sequence[str]) -> str:
    """Judge an answer about a person: what was said against the actions that would be true."""
    if said is None:
        return "seen too briefly"
    if true:
        if unknown:
            return "known action, said unknown"
        return "known action, right" if said in true else "known action, wrong"
    return "other action, said unknown" if unknown else "other action, named"


def matched(
    moment: Moment, labels: dict[str, Any], height: int
) -> tuple[list[tuple[dict[str, Any], int]], list[dict[str, Any]], list[int]]:
    """Match labelled persons with found ones by IoU.

    Returns:
        Pairs (label, index of the found person); persons missed; indices of false finds. What
        counts neither way is in none of them.
    """
    truth, boxes = labels["persons"], [list(person.box_xyxy_norm) for person in moment.persons]
    table = overlaps([person["box"] for person in truth], boxes)
    rows, columns = linear_sum_assignment(-np.where(table >= MIN_IOU, table, 0.0))
    right = [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if table[i, j] >= MIN_IOU]
    small = {i for i, p in enumerate(truth) if (p["box"][3] - p["box"][1]) * height < MIN_HEIGHT}
    pairs = [(truth[i], j) for i, j in right if i not in small]
    missed = [
        person
        for i, person in enumerate(truth)
        if i not in small and i not in {row for row, _ in right}
    ]
    regions = labels.get("ignore", [])
    false = [
        j
        for j, box in enumerate(boxes)
        if j not in {column for _, column in right}
        and (box[3] - box[1]) * height >= MIN_HEIGHT
        and not any(share_inside(box, region) > 0.5 for region in regions)
    ]
    return pairs, missed, false


def judge(found: Detections, labels: dict[str, Any]) -> dict[str, Any]:
    """Compare the answers about one clip with its labels."""
    counts = {"right": 0, "missed": 0, "false": 0}
    tracks_of: dict[str, list[int]] = defaultdict(list)
    verdicts: dict[str, int] = defaultdict(int)
    rows = []
    for seconds, label in labels["moments"].items():
        moment = min(found.moments, key=lambda one: abs(one.seconds - float(seconds)))
        if abs(moment.seconds - float(seconds)) > 0.2:
            raise ValueError(f"{found.video}: no key frame near {seconds} s; label the clip anew")
        pairs, missed, false = matched(moment, label, found.height)
        counts["right"] += len(pairs)
        counts["missed"] += len(missed)
        counts["false"] += len(false)
        for person, index in pairs:
            answer = moment.persons[index]
            top = found.top(answer, 1)
            said = top[0][0] if top else None
            what = verdict(said, answer.unknown, person["does"])
            verdicts[what] += 1
            tracks_of[person["who"]].append(answer.track)
            rows.append(
                {
                    "seconds": round(moment.seconds, 2),
                    "who": person["who"],
                    "track": answer.track,
                    "said": said,
                    "probability": round(top[0][1], 3) if top else None,
                    "unknown": answer.unknown,
                    "verdict": what,
                }
            )
    steps = [pair for tracks in tracks_of.values() for pair in pairwise(tracks)]
    owners: dict[int, set[str]] = defaultdict(set)
    for who, tracks in tracks_of.items():
        for track in tracks:
            owners[track].add(who)
    return {
        "action": labels["action"],
        "key_frames": len(labels["moments"]),
        "boxes": counts,
        "tracks": {
            "persons": len(tracks_of),
            "steps": len(steps),
            "steps_with_the_same_number": sum(a == b for a, b in steps),
            "numbers_of_two_persons": sum(len(people) > 1 for people in owners.values()),
        },
        "verdicts": dict(sorted(verdicts.items())),
        "answers": rows,
    }


def draw(found: Detections, labels: dict[str, Any], target: Path) -> None:
    """Draw the labelled key frames: red: found, white: by hand."""
    moments = [
        min(found.moments, key=lambda one: abs(one.seconds - float(seconds)))
        for seconds in labels["moments"]
    ]
    with open_video(found.video) as reader:
        frames = reader.frames_at([moment.frame_index for moment in moments], held=len(moments))
    pictures, captions = [], []
    for moment, frame, label in zip(
        moments, frames.frames, labels["moments"].values(), strict=True
    ):
        height, width = frame.shape[-2:]
        scale = torch.tensor([width, height, width, height])
        by_hand = [(torch.tensor(p["box"]) * scale).tolist() for p in label["persons"]]
        frame = draw_boxes(frame, by_hand, [[] for _ in by_hand], [(255, 255, 255)] * len(by_hand))
        boxes, lines = [], []
        for person in moment.persons:
            boxes.append((torch.tensor(list(person.box_xyxy_norm)) * scale).tolist())
            top = found.top(person, 1)
            said = (
                "brief" if not top else f"{'? ' * bool(person.unknown)}{top[0][0]} {top[0][1]:.0%}"
            )
            lines.append([f"{person.track} {said}"])
        pictures.append(draw_boxes(frame, boxes, lines, [(255, 0, 0)] * len(boxes)))
        captions.append(f"{moment.seconds:.1f} s")
    sheet = contact_sheet(torch.stack(pictures), captions, columns=4, width=480)
    sheet.save(target)


def detected(detector: Any, video: Path, poses: Path | None) -> Detections:
    """Return what `marey detect` says of a clip, with its poses from a folder where they are."""
    if poses is None:
        return detector(video)
    stored = poses / f"{video.name}.npz"
    if not stored.is_file():
        poses.mkdir(parents=True, exist_ok=True)
        finder = detector.predictor.finder
        read_poses(video, fps=FOLLOWED_FPS, max_people=MAX_PEOPLE, finder=finder).save(stored)
    return replace(detector.detect(PoseTracks.load(stored)), video=str(video))


def main(arguments: Sequence[str] | None = None) -> None:
    """Detect, compare with the labels, write the table; a reading written by hand is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--labels", type=Path, default=LABELS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--poses", type=Path)
    given = parser.parse_args(arguments)
    labels = json.loads(given.labels.read_text(encoding="utf-8"))["clips"]
    detector = load_detector("marey-mini")
    clips = {}
    for name, label in labels.items():
        found = detected(detector, given.clips / name, given.poses)
        clips[name] = judge(found, label)
        if given.pictures:
            given.pictures.mkdir(parents=True, exist_ok=True)
            draw(found, label, given.pictures / f"{Path(name).stem}.png")

    def total(part: str) -> dict[str, int]:
        sums: dict[str, int] = defaultdict(int)
        for clip in clips.values():
            for key, count in clip[part].items():
                sums[key] += count
        return dict(sums)

    result = {
        "command": "python -m benchmarks.detect_clips --clips ../shared/clips "
        "--out results/detect_clips.json",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine("torch"),
        "model": "marey-mini",
        "every_seconds": 1.0,
        "min_height_pixels": MIN_HEIGHT,
        "boxes": total("boxes"),
        "tracks": total("tracks"),
        "verdicts": total("verdicts"),
        "clips": clips,
    }
    print(json.dumps({name: result[name] for name in ("boxes", "tracks", "verdicts")}, indent=1))
    if given.out:
        write_result(given.out, result)


if __name__ == "__main__":
    main()
