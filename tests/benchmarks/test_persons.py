from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.persons import LABELS, MIN_HEIGHT, Counts, count, margin, rates, shares
from marey.persons.sources import person_finder
from marey.video.decode import open_video

NOBODY = np.zeros((0, 4), np.float32)
PERSON = np.array([[0.1, 0.1, 0.3, 0.9]], np.float32)


def counted(boxes, scores, persons=PERSON, ignored=NOBODY, height=240):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return count(boxes, np.array(scores, np.float32), persons, ignored, height)


def test_a_find_is_right_from_an_iou_of_one_half_on():
    half = [0.1, 0.1, 0.3, 0.5 + 1e-3]
    less = [0.1, 0.1, 0.3, 0.48]
    assert counted([half], [0.9]) == Counts(right=1)
    assert counted([less], [0.9]) == Counts(wrong=1, missed=1)


def test_a_person_is_found_once_and_by_the_best_score():
    two = [[0.1, 0.1, 0.3, 0.9], [0.11, 0.1, 0.31, 0.9]]
    assert counted(two, [0.5, 0.9]) == Counts(right=1, wrong=1)


def test_ignored_regions_and_small_persons_count_neither_way():
    ignored = np.array([[0.5, 0, 1, 1]], np.float32)
    assert counted([[0.6, 0.2, 0.7, 0.5]], [0.9], NOBODY, ignored) == Counts()
    assert counted([[0.2, 0.2, 0.4, 0.5]], [0.9], NOBODY, ignored) == Counts(wrong=1)
    low = MIN_HEIGHT / 0.8 - 1
    assert counted(PERSON, [0.9], height=low) == Counts()
    assert counted([], [], height=low) == Counts()


def test_rates_by_hand_and_their_intervals_hold_them():
    found = rates([Counts(right=3, wrong=1, missed=0), Counts(right=1, wrong=0, missed=4)])
    assert found["recall"] == 0.5
    assert found["precision"] == 0.8
    assert found["recall_interval"][0] <= 0.5 <= found["recall_interval"][1]
    assert found["recall_interval"] == [0.2, 1.0]


def test_no_find_at_all_is_a_recall_of_nothing():
    found = rates([Counts(missed=3), Counts(missed=1)])
    assert found["recall"] == 0
    assert found["recall_interval"] == [0, 0]


def test_shares_weigh_videos_by_their_frames():
    found = shares([[True, True, True], [False]])
    assert found["share"] == 0.75
    assert found["frames"] == 4
    assert found["videos"] == 2


def test_people_who_changed_numbers_are_told_by_their_clothes():
    red, blue = np.eye(2)
    kept = margin(dict.fromkeys(range(12), red), dict.fromkeys(range(12), blue), 12)
    changed = margin(
        {place: red if place < 6 else blue for place in range(12)},
        {place: blue if place < 6 else red for place in range(12)},
        12,
    )
    assert kept == 2
    assert changed == -2
    assert margin({0: red, 11: red}, {0: blue, 11: blue}, 12) is None


def test_labels_are_boxes_inside_their_frames():
    frames = json.loads(LABELS.read_text())["frames"]
    assert len(frames) == 50
    for frame in frames:
        boxes = np.array(frame["persons_xyxy_norm"] + frame["ignore_xyxy_norm"]).reshape(-1, 4)
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


@pytest.mark.slow
def test_real_people_are_found(shared_dir: Path):
    find = person_finder("auto")
    assert find is not None
    counts = []
    for label in json.loads(LABELS.read_text())["frames"]:
        with open_video(shared_dir / label["path"]) as reader:
            frame = reader.frames_at([label["frame_index"]]).frames[0]
        boxes, scores = find(frame, "", 0.0)
        persons, ignored = (
            np.array(label[key], np.float32).reshape(-1, 4)
            for key in ("persons_xyxy_norm", "ignore_xyxy_norm")
        )
        height = label["height"]
        counts.append(count(boxes.numpy(), scores.numpy(), persons, ignored, height))
    found = rates(counts)
    assert found["recall"] >= 0.85
    assert found["precision"] >= 0.9
