"""Who does what at every key frame, by a model of poses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from marey.checkpoints.folder import load_folder, save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.inference.annotate import persons_at
from marey.inference.detector import Detector
from marey.inference.direction import Direction, check_direction_model, direction_of
from marey.inference.load import load_detector
from marey.inference.order import order_many, order_people, order_poses
from marey.inference.pose_detector import PoseDetector
from marey.inference.pose_windows import windows_at
from marey.inference.poses import PosePredictor
from marey.models.arrow_of_time import DIRECTIONS, ArrowOfTime
from marey.persons.pose_tracks import PoseTrack, PoseTracks
from marey.transforms.pose_clip import PoseSampling
from marey.video.encode import write_video


def person(number: int, start: int, frames: int, x: float) -> PoseTrack:
    """Somebody who walks right, found in `frames` frames from frame `start` on."""
    keypoints = np.zeros((frames, 17, 3), np.float32)
    keypoints[..., 0] = x + 0.05 * np.where(np.arange(17) % 2, 1, -1)
    keypoints[..., 0] += 0.01 * np.arange(frames)[:, None]
    keypoints[..., 1] = np.linspace(0.2, 0.8, 17)
    keypoints[:, 9, 1] += 0.05 * np.sin(np.arange(frames))
    keypoints[..., 2] = 0.8
    boxes = np.concatenate([keypoints[..., :2].min(1), keypoints[..., :2].max(1)], axis=1)
    return PoseTrack(
        number=number,
        frame_indices=np.arange(start, start + frames),
        seconds=np.arange(start, start + frames) / 12.5,
        keypoints=keypoints,
        boxes_xyxy=boxes,
        scores=np.full(frames, 0.8, np.float32),
        observed=np.ones(frames, bool),
    )


def people(*tracks: PoseTrack, frames: int = 50) -> PoseTracks:
    return PoseTracks(
        video="clip.mp4",
        width=160,
        height=80,
        fps=12.5,
        frame_indices=np.arange(frames),
        seconds=np.arange(frames) / 12.5,
        tracks=tracks,
    )


@pytest.fixture(scope="module")
def detector(tiny_pose_checkpoint: Path) -> PoseDetector:
    return PoseDetector(load_folder(tiny_pose_checkpoint))


def test_every_person_has_a_box_an_action_and_a_number_at_each_key_frame(detector):
    found = people(person(1, 0, 50, 0.4), person(2, 25, 25, 1.2))
    detections = detector.detect(found)
    entry = json.loads(json.dumps(detections.to_dict()))
    assert [len(moment["persons"]) for moment in entry["moments"]] == [1, 1, 2, 2]
    first = entry["moments"][0]["persons"][0]
    assert first["actions"][0] == {"label": "walk", "probability": pytest.approx(0.947, abs=1e-3)}
    assert first["unknown"] is False
    assert entry["tracks"][1]["track"] == 2
    assert entry["tracks"][1]["unknown"] is False

    # between key frames the box moves with the person
    boxes = [persons_at(detections, second)[0].box_xyxy_norm[0] for second in (1.0, 1.04, 1.08)]
    assert boxes[0] < boxes[1] < boxes[2]


def test_unknown_is_said_of_the_person_and_a_glimpse_has_no_action(detector):
    last = detector.predictor.model.class_mlp[-1]
    kept = last.bias.data.clone()
    last.bias.data = torch.tensor([3.0, 0.0, 0.0])
    detections = detector.detect(people(person(1, 0, 50, 0.4)))
    last.bias.data = kept
    assert detections.moments[0].persons[0].unknown is True
    assert detections.caption(detections.moments[0].persons[0]) == ["unknown"]
    assert detections.tracks()[0]["unknown"] is True

    glimpse = detector.detect(people(person(1, 0, 4, 0.4)), every_seconds=0.2).moments[0].persons[0]
    assert glimpse.probabilities == ()
    assert detections.top(glimpse) == []


def test_the_model_chooses_the_detector_and_own_boxes_are_refused(tiny_pose_checkpoint):
    assert type(load_detector(tiny_pose_checkpoint)) is PoseDetector
    assert type(load_detector("marey-mini-detect", persons="own")) is Detector
    with pytest.raises(UserError, match="--persons auto, or --model marey-mini-detect"):
        load_detector(tiny_pose_checkpoint, persons="own")


def test_the_moments_of_a_person_are_put_in_order(tiny_pose_checkpoint, tmp_path, monkeypatch):
    video = tmp_path / "clip.mp4"
    write_video(video, torch.randint(0, 255, (50, 3, 80, 160), dtype=torch.uint8), fps=12.5)
    predictor = PosePredictor(load_folder(tiny_pose_checkpoint))
    found = people(person(1, 0, 50, 0.4))
    ordered = order_poses(predictor, video, found=found)
    assert ordered.order.tolist() == list(range(16))
    shuffled = order_poses(predictor, video, found=found, shuffle=3)
    assert sorted(shuffled.path.tolist()) == list(range(16))
    assert sorted(shuffled.frame_seconds) == pytest.approx(list(ordered.frame_seconds))
    assert shuffled.frames.shape == (16, 3, 80, 160)
    assert 0 <= shuffled.order_accuracy <= 1
    part = order_poses(predictor, video, found=found, window_seconds=(1.9, 4.0))
    assert part.frame_seconds[0] == pytest.approx(1.9, abs=0.15)

    still = person(1, 0, 50, 0.4)
    still.keypoints[:] = still.keypoints[:1]
    with pytest.raises(UserError, match="are equal, so their order cannot be recovered"):
        order_poses(predictor, video, found=people(still))

    nobody = people()
    monkeypatch.setattr(PosePredictor, "read", lambda self, video, **limits: nobody)
    checkpoint = load_checkpoint(tiny_pose_checkpoint)
    entries = [entry for _, entry in order_many(checkpoint, [video] * 2, method="sort")]
    assert "nobody was found" in entries[0]["error"]
    assert entries[0]["chance"] > 0


@pytest.fixture
def arrow(tmp_path):
    """An untrained model of the direction."""
    torch.manual_seed(1)
    save_checkpoint(
        tmp_path / "arrow",
        ArrowOfTime(),
        class_names=DIRECTIONS,
        preprocess=PoseSampling(),
        extra={"told_from": 0.9},
    )
    return tmp_path / "arrow"


def sliding(num_frames: int) -> torch.Tensor:
    """A bright bar that moves to the right, uint8 (T, 3, 80, 160)."""
    frames = torch.zeros(num_frames, 3, 80, 160, dtype=torch.uint8)
    for t in range(num_frames):
        frames[t, :, :, 2 * t : 2 * t + 40] = 220
    return frames


def test_neighbours_come_from_the_pictures_and_the_direction_from_the_people(
    tiny_pose_checkpoint, arrow, tmp_path
):
    write_video(tmp_path / "clip.mp4", sliding(50), fps=12.5)
    predictor = PosePredictor(load_folder(tiny_pose_checkpoint))
    found = people(person(1, 0, 50, 0.4))
    model = load_folder(arrow)
    answers = [
        order_people(predictor, model, tmp_path / "clip.mp4", found=found, shuffle=seed)
        for seed in (None, 1, 2, 3)
    ]
    chronological = [answer.order[answer.path].tolist() for answer in answers]
    assert chronological[0] in (list(range(16)), list(range(16))[::-1])
    assert chronological == [chronological[0]] * 4  # the start of the search does not decide
    assert all(answer.direction.forwards >= 0.5 for answer in answers)
    assert answers[1].direction.forwards == pytest.approx(answers[0].direction.forwards, abs=1e-5)

    told = replace(answers[0], direction=Direction(forwards=0.97, told_from=0.9))
    rises = chronological[0][0] == 0
    assert told.played == ("forwards" if rises else "backwards")
    assert replace(told, path=told.path.flip(0)).played == ("backwards" if rises else "forwards")
    assert replace(told, shuffled=True).played is None
    assert told.to_dict()["direction"]["played"] == told.played

    # with the opposite weights the same frames run the other way
    with torch.no_grad():
        for parameter in model.model.head[-1].parameters():
            parameter.neg_()
    other = order_people(predictor, model, tmp_path / "clip.mp4", found=found, shuffle=1)
    assert other.order[other.path].tolist() == chronological[0][::-1]
    assert (
        other.weights[other.path[0], other.path[1]]
        > 0
        > other.weights[other.path[1], other.path[0]]
    )


def test_the_direction_is_not_told_below_the_limit(tiny_pose_checkpoint, arrow):
    still = windows_at(people(person(1, 0, 50, 0.4)), 0.0, PoseSampling())
    still.clips[:] = still.clips[:, :1]
    asked = direction_of(load_folder(arrow), still)
    assert asked.forwards == pytest.approx(0.5, abs=1e-5)
    assert (asked.told, asked.to_dict()["told_from"]) == (False, 0.9)
    sure = Direction(forwards=0.05, told_from=0.9)
    assert (sure.told, sure.probability) == (True, 0.95)
    assert sure.reversed().forwards == pytest.approx(0.95)
    with pytest.raises(UserError, match="tells no direction of time; give marey-arrow"):
        check_direction_model(load_folder(tiny_pose_checkpoint))


def test_without_people_the_frames_are_ordered_and_the_note_says_so(
    tiny_pose_checkpoint, arrow, tmp_path, monkeypatch
):
    write_video(tmp_path / "clip.mp4", sliding(50), fps=12.5)
    monkeypatch.setattr(PosePredictor, "read", lambda self, video, **limits: people())
    checkpoint = load_checkpoint(tiny_pose_checkpoint)
    [(found, entry)] = order_many(
        checkpoint, [tmp_path / "clip.mp4"], direction=str(arrow), shuffle=0
    )
    assert found.method == "oriented"
    assert "nobody was found for long enough: 8 frames of the clip" in entry["note"]
    assert entry["direction"] is None
    with pytest.raises(UserError, match="nobody was found"):
        list(order_many(checkpoint, [tmp_path / "clip.mp4"], direction=str(arrow), method="arrow"))
