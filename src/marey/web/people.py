"""The people of a video for the page: boxes and skeletons over time, and what each one does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from marey.inference.detector import Detections
from marey.inference.poses import POSE_FPS, PersonAnswer
from marey.labels.embed import readable
from marey.persons.follow import DETECT_EVERY_SECONDS
from marey.persons.nanodet import MIN_PROPOSED, NanoDetPersons
from marey.persons.pose_tracks import PoseTracks, read_poses
from marey.persons.poses import FramePoses, Glance, PoseFinder
from marey.transforms.keypoints import BONES
from marey.web.task import Task

MIN_SECONDS = 0.5
"""A person seen for less is not shown, unless the video is shorter than twice that."""

SERVER_FPS = 8.0
"""Frames a second in which people are looked for, as many as `marey-mini` reads; `marey predict`
takes 12.5, as does the server where a video has fewer than 20. What it changes is in
results/pose_rate.json."""

SERVER_DETECTS_SECONDS = 0.3
"""How often the person detector is asked, with `SERVER_FPS`: every third frame."""

SPARSE_FROM_FPS = 20.0
"""Videos of fewer frames a second are looked at as `marey predict` does."""

MOST_THREADS = 8
"""Frames looked at at once; bounds the memory."""


class TickingFinder(PoseFinder):
    """The usual finder of people, which says when it looks at a frame.

    It uses every core, also in a server with as many processes as cores: a lone visitor need not
    wait for the half that others would have.
    """

    def __init__(self) -> None:
        super().__init__(NanoDetPersons(min_score=MIN_PROPOSED, threads=1), threads=usable_cores())
        self.tick: Callable[[], None] | None = None

    def look(
        self,
        frame: Tensor,
        boxes_xyxy_norm: NDArray[Any],
        box_scores: NDArray[Any],
        glance: Glance | None = None,
    ) -> FramePoses:
        """Return the people of a frame, and tick."""
        if self.tick is not None:
            self.tick()
        return super().look(frame, boxes_xyxy_norm, box_scores, glance)


def usable_cores() -> int:
    """Return how many cores this process may use, at most `MOST_THREADS`."""
    if hasattr(os, "sched_getaffinity"):
        return min(MOST_THREADS, len(os.sched_getaffinity(0)))
    return min(MOST_THREADS, os.cpu_count() or 1)


def follow_people(task: Task, num_frames: int, fps: float) -> PoseTracks:
    """Find everyone in the visitor's video; ticks once a frame.

    Args:
        num_frames, fps: of the video.
    """
    finder = task.shelf.finder(TickingFinder)
    sparse = fps >= SPARSE_FROM_FPS
    rate = SERVER_FPS if sparse else POSE_FPS
    detect_every = SERVER_DETECTS_SECONDS if sparse else DETECT_EVERY_SECONDS
    total = max(1, round(num_frames * min(1.0, rate / max(fps, 1e-6))))
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        task.stage("finding people", min(done, total), total)

    finder.tick = tick
    try:
        return read_poses(task.upload, fps=rate, finder=finder, detect_every_seconds=detect_every)
    finally:
        finder.tick = None


def find_people(task: Task) -> dict[str, Any]:
    """Answer the request for boxes and skeletons."""
    facts = task.facts()
    return people_of_tracks(follow_people(task, facts.num_frames, facts.fps))


def people_of_tracks(
    found: PoseTracks,
    answers: Sequence[PersonAnswer] = (),
    class_names: Sequence[str] = (),
) -> dict[str, Any]:
    """Return people with skeletons as the page draws them; places in thousandths of the frame.

    Args:
        answers: what they do, of those that a model answered for.
    """
    said = {answer.track: answer for answer in answers}
    length = float(found.seconds[-1] - found.seconds[0]) if len(found.seconds) else 0.0
    people = []
    for track in found.tracks:
        seen = float(track.seconds[-1] - track.seconds[0])
        if seen < min(MIN_SECONDS, length / 2) and track.number not in said:
            continue
        aspect = found.height / found.width
        keypoints = track.keypoints.copy()
        keypoints[..., 0] *= aspect
        boxes = track.boxes_xyxy.copy()
        boxes[:, [0, 2]] *= aspect
        answer = said.get(track.number)
        people.append(
            {
                "track": track.number,
                "from_seconds": round(float(track.seconds[0]), 3),
                "to_seconds": round(float(track.seconds[-1]), 3),
                "seconds": [round(float(second), 3) for second in track.seconds],
                "boxes": (1000 * boxes).round().astype(int).tolist(),
                "keypoints": [
                    [[round(1000 * x), round(1000 * y), round(100 * s)] for x, y, s in pose]
                    for pose in keypoints.tolist()
                ],
                "says": None if answer is None else said_of(answer, class_names),
            }
        )
    return {"people": people, "bones": [list(bone) for bone in BONES]}


def said_of(answer: PersonAnswer, class_names: Sequence[str]) -> dict[str, Any]:
    """Return what a person does, as the page writes it."""
    best = int(answer.probabilities.argmax())
    return {
        "label": "unknown" if answer.unknown else readable(class_names[best]),
        "nearest": readable(class_names[best]),
        "probability": round(float(answer.probabilities[best]), 4),
        "unknown": answer.unknown,
    }


def people_of_detections(found: Detections) -> dict[str, Any]:
    """Return the people of a detector as the page draws them."""
    tracks = {entry["track"]: entry for entry in found.tracks()}
    says = {
        number: {
            "label": readable(entry["actions"][0]["label"]),
            "nearest": readable(entry["actions"][0]["label"]),
            "probability": entry["actions"][0]["probability"],
            "unknown": None,
        }
        for number, entry in tracks.items()
    }
    if found.poses is not None:
        document = people_of_tracks(found.poses)
        for person in document["people"]:
            person["says"] = says.get(person["track"])
        return document
    people = []
    for number, entry in tracks.items():
        seen = [
            (moment.seconds, person.box_xyxy_norm)
            for moment in found.moments
            for person in moment.persons
            if person.track == number
        ]
        people.append(
            {
                "track": number,
                "from_seconds": entry["from_seconds"],
                "to_seconds": entry["to_seconds"],
                "seconds": [round(seconds, 3) for seconds, _ in seen],
                "boxes": [[round(1000 * value) for value in box] for _, box in seen],
                "keypoints": [],
                "says": says[number],
            }
        )
    return {"people": people, "bones": []}
