"""Who is found in real frames: recall and precision beside boxes drawn by hand, and time a frame.

    python -m benchmarks.persons --shared ../shared --out results/persons.json

Part 1: the 50 frames of tests/persons/person_boxes.json, each looked at by itself; a find is right
if its IoU with a drawn box is at least .5. Persons lower than 40 pixels and ignored regions count
neither way. Part 2: UT-Interaction, every tenth frame: are both people found? Part 3: frames per
second of processor time for the whole chain, decoding to tracks. Part 4: do the people of
UT-Interaction's hugs keep their track numbers, by the clothes they wear before and after?
Everything runs on one thread, the methods of part 1 in turns; times are processor time, which
neighbours hardly change.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.interleave import machine
from marey.datasets.ava_clips import clip_indices
from marey.files import write_json
from marey.inference.detector import Detector
from marey.persons.follow import Follower, follow
from marey.persons.similarity import box_iou, clothes_colours, colour_similarity
from marey.persons.sources import person_finder, pose_finder
from marey.video.decode import VideoReader, open_video
from marey.video.sampling import frames_at_rate

LABELS = Path(__file__).parents[1] / "tests" / "persons" / "person_boxes.json"
MIN_HEIGHT = 40
"""Persons lower than this many pixels of the video count neither way."""
MIN_IOU = 0.5
TWO_PEOPLE = ("handshake", "hug", "kick", "punch", "push")
"""Classes of UT-Interaction that show two people; "point" shows one."""
CHAIN_FPS = 12.5
RESAMPLES = 2000
TOUCHING = 0.1
"""Boxes that overlap more show the clothes of both."""

Array = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What one method did in one frame."""

    right: int = 0
    wrong: int = 0
    missed: int = 0


def count(boxes: Array, scores: Array, persons: Array, ignored: Array, height: int) -> Counts:
    """Match finds with drawn boxes, the best-scored find first.

    Args:
        boxes: (P, 4), the finds, xyxy in [0, 1].
        scores: (P,).
        persons: (Q, 4), drawn.
        ignored: (R, 4), regions: a find that matches nobody and whose centre lies in one is not
            counted.
        height: of the frame, in pixels.
    """
    tall = (persons[:, 3] - persons[:, 1]) * height >= MIN_HEIGHT
    iou = box_iou(boxes, persons)
    free = np.ones(len(persons), bool)
    right = wrong = 0
    for find in np.argsort(-scores, kind="stable"):
        overlap = np.where(free, iou[find], 0)
        best = int(overlap.argmax()) if len(overlap) else -1
        if best >= 0 and overlap[best] >= MIN_IOU:
            free[best] = False
            right += int(tall[best])
            continue
        x, y = (boxes[find, :2] + boxes[find, 2:]) / 2
        inside = (ignored[:, 0] <= x) & (x <= ignored[:, 2])
        inside &= (ignored[:, 1] <= y) & (y <= ignored[:, 3])
        wrong += int(not inside.any())
    return Counts(right=right, wrong=wrong, missed=int((free & tall).sum()))


def rates(counts: Sequence[Counts]) -> dict[str, Any]:
    """Return recall and precision with 95 % intervals from resampled frames."""
    table = np.array([(c.right, c.wrong, c.missed) for c in counts])
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(table), (RESAMPLES, len(table)))
    totals = table[drawn].sum(axis=1)

    def ratio(row: NDArray[Any], other: int) -> NDArray[Any]:
        return row[..., 0] / np.maximum(row[..., 0] + row[..., other], 1)

    result: dict[str, Any] = {}
    for name, other in (("recall", 2), ("precision", 1)):
        low, high = np.quantile(ratio(totals, other), [0.025, 0.975])
        result[name] = round(float(ratio(table.sum(axis=0), other)), 3)
        result[f"{name}_interval"] = [round(float(low), 3), round(float(high), 3)]
    result.update(zip(("right", "wrong", "missed"), table.sum(axis=0).tolist(), strict=True))
    return result


Method = Callable[[VideoReader, int, Tensor], tuple[Tensor, Tensor]]


def methods() -> dict[str, Method]:
    """Return every source of boxes: (reader, frame index, frame) -> boxes, scores."""

    def of(source: str) -> Method:
        find = person_finder(source)
        assert find is not None
        return lambda reader, index, frame: find(frame, reader.path, reader.frame_seconds[index])

    detector = Detector.load("marey-mini-detect", persons="own")

    def own(reader: VideoReader, index: int, frame: Tensor) -> tuple[Tensor, Tensor]:
        indices = clip_indices(index, reader.num_frames, reader.fps, detector.preprocess)
        clip = reader.frames_at(indices).frames
        return detector.detect(clip, frame)[:2]

    found = {source: of(source) for source in ("auto", "movenet", "nanodet", "hog")}
    return {**found, "own": own}


def labelled_frames(shared: Path) -> dict[str, Any]:
    """Run part 1."""
    labels = json.loads(LABELS.read_text())["frames"]
    finders = methods()
    counts: dict[str, dict[str, list[Counts]]] = {name: {} for name in finders}
    seconds: dict[str, list[float]] = {name: [] for name in finders}
    for turn, label in enumerate(labels):
        persons, ignored = (
            np.array(label[key], np.float32).reshape(-1, 4)
            for key in ("persons_xyxy_norm", "ignore_xyxy_norm")
        )
        folder = Path(label["path"]).parts[1] if label["path"].startswith("data") else "clips"
        with open_video(shared / label["path"], threads=1) as reader:
            frame = reader.frames_at([label["frame_index"]]).frames[0]
            names = list(finders)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                start = time.process_time()
                boxes, scores = finders[name](reader, label["frame_index"], frame)
                seconds[name].append(time.process_time() - start)
                found = count(boxes.numpy(), scores.numpy(), persons, ignored, reader.height)
                counts[name].setdefault(folder, []).append(found)
    result = {}
    for name, by_folder in counts.items():
        everywhere = [c for entries in by_folder.values() for c in entries]
        result[name] = {
            **rates(everywhere),
            "median_milliseconds": round(1e3 * float(np.median(seconds[name])), 1),
            "by_data_set": {folder: rates(entries) for folder, entries in by_folder.items()},
        }
    return {"frames": len(labels), "min_height_pixels": MIN_HEIGHT, "methods": result}


def ut_interaction(shared: Path, every: int) -> dict[str, Any]:
    """Run part 2: finds in every `every`-th frame, from still frames and from tracks."""
    finders = {source: pose_finder(source) for source in ("auto", "movenet")}
    hits: dict[str, list[list[bool]]] = {name: [] for name in (*finders, "auto_tracked")}
    points: dict[str, list[list[bool]]] = {name: [] for name in hits}
    for path in sorted((shared / "data" / "ut_interaction").glob("*/*.avi")):
        wanted = 2 if path.parent.name in TWO_PEOPLE else 1
        into = hits if wanted == 2 else points
        with open_video(path, threads=1) as reader:
            indices = list(range(0, reader.num_frames, every))
            frames = reader.frames_at(indices).frames
            for name, finder in finders.items():
                into[name].append([len(people) >= wanted for people in finder(frames)])
            watched = sorted({*indices, *frames_at_rate(reader.frame_seconds, CHAIN_FPS)})
            moments = follow(reader, watched, finders["auto"])
            seen = {m.frame_index: len(m.people) >= wanted for m in moments}
            into["auto_tracked"].append([seen[i] for i in indices])
    return {
        "every": every,
        "both_people_of_two": {name: shares(videos) for name, videos in hits.items()},
        "the_one_who_points": {name: shares(videos) for name, videos in points.items()},
    }


def shares(videos: list[list[bool]]) -> dict[str, Any]:
    """Return the share of frames, with a 95 % interval from resampled videos."""
    right = np.array([sum(video) for video in videos])
    total = np.array([len(video) for video in videos])
    drawn = np.random.default_rng(0).integers(0, len(videos), (RESAMPLES, len(videos)))
    low, high = np.quantile(right[drawn].sum(axis=1) / total[drawn].sum(axis=1), [0.025, 0.975])
    return {
        "share": round(float(right.sum() / total.sum()), 3),
        "interval": [round(float(low), 3), round(float(high), 3)],
        "frames": int(total.sum()),
        "videos": len(videos),
    }


def chain(shared: Path) -> dict[str, Any]:
    """Run part 3: decoding, finding, tracking of whole videos at 12.5 frames per second."""
    paths = sorted((shared / "clips").iterdir())
    for name in ("ut_interaction", "surv_fight"):
        paths += sorted((shared / "data" / name).glob("*/*.[am][vp][i4]"))[::40]
    finders = {source: pose_finder(source) for source in ("auto", "movenet")}
    spent: dict[str, dict[str, tuple[int, float]]] = {name: {} for name in finders}
    for path in paths:
        for name, finder in finders.items():
            start = time.process_time()
            with open_video(path, threads=1) as reader:
                indices = sorted(set(frames_at_rate(reader.frame_seconds, CHAIN_FPS)))[:100]
                moments = list(follow(reader, indices, finder))
            spent[name][path.name] = (len(moments), time.process_time() - start)
    return {
        "videos": len(paths),
        "most_frames_a_video": 100,
        "frames_per_processor_second": {
            name: {
                "all": round(
                    sum(n for n, _ in rows.values()) / sum(s for _, s in rows.values()), 1
                ),
                "slowest_video": min((round(n / s, 1), video) for video, (n, s) in rows.items()),
            }
            for name, rows in spent.items()
        },
    }


def identities(shared: Path) -> dict[str, Any]:
    """Run part 4: compare the clothes of each pair of tracks at the beginning and at the end.

    Clothes are looked at where a person touches nobody, in the first and the last third of the
    video. A pair has changed numbers if it is more alike the other way round.
    """
    finder = pose_finder("auto")
    kept, changed, uncompared = 0, [], 0
    paths = sorted((shared / "data" / "ut_interaction" / "hug").glob("*.avi"))
    for path in paths:
        worn: dict[int, dict[int, Array]] = {}
        with open_video(path, threads=1) as reader:
            indices = sorted(set(frames_at_rate(reader.frame_seconds, CHAIN_FPS)))
            follower = Follower(finder)
            frames = reader.frames_at(indices).frames
            for place, (index, frame) in enumerate(zip(indices, frames, strict=True)):
                found = follower(frame, index, reader.frame_seconds[index])
                boxes = found.people.boxes_xyxy_norm
                colours = clothes_colours(frame.numpy(), boxes)
                touching = (box_iou(boxes, boxes) > TOUCHING).sum(axis=1) > 1
                for person, number in enumerate(found.numbers):
                    if not touching[person]:
                        worn.setdefault(number, {})[place] = colours[person]
        margins = [
            margin(worn[first], worn[second], len(indices))
            for first, second in combinations(sorted(worn), 2)
        ]
        compared = [value for value in margins if value is not None]
        uncompared += not compared
        kept += sum(value >= 0 for value in compared)
        changed += [[path.name, round(value, 2)] for value in compared if value < 0]
    return {
        "videos": len(paths),
        "pairs_kept": kept,
        "pairs_changed": changed,
        "videos_without_a_pair_at_both_ends": uncompared,
    }


def margin(first: dict[int, Array], second: dict[int, Array], length: int) -> float | None:
    """Return by how much two people are more alike themselves than each other, first third of
    `length` frames against last; None where they are not both seen alone in both."""
    both = sorted(first.keys() & second.keys())
    start = [place for place in both if place < length / 3]
    end = [place for place in both if place >= 2 * length / 3]
    if len(start) < 2 or len(end) < 2:
        return None

    def mean_colours(places: list[int]) -> Array:
        return np.stack([np.mean([p[i] for i in places], axis=0) for p in (first, second)])

    alike = colour_similarity(mean_colours(start), mean_colours(end))
    return float(alike[0, 0] + alike[1, 1] - alike[0, 1] - alike[1, 0])


def main() -> None:
    """Run the four parts and write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument(
        "--every", type=int, default=10, help="UT-Interaction: every so many frames"
    )
    parser.add_argument("--out", type=Path, default=Path("results/persons.json"))
    options = parser.parse_args()

    torch.set_num_threads(1)
    import cv2

    cv2.setNumThreads(1)
    result = {
        "command": f"python -m benchmarks.persons --every {options.every} --out {options.out}",
        "date": datetime.date.today().isoformat(),
        "machine": machine("torch", "onnxruntime", "av", "opencv-python-headless"),
        "labelled_frames": labelled_frames(options.shared),
        "ut_interaction": ut_interaction(options.shared, options.every),
        "chain": chain(options.shared),
        "identities": identities(options.shared),
    }
    write_json(options.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
