"""What a pose network reports of a scene: cameras, errors, other people, held-out splits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from marey.synthetic.poses.compositions import stand
from marey.synthetic.poses.errors import confuse, exchange_persons, exchange_sides, observe
from marey.synthetic.poses.library import LIMBS, SPEEDS, Library, draw_motion
from marey.synthetic.poses.recordings import read_cmu, read_deepmimic
from marey.synthetic.poses.scenes import (
    beside,
    draw_scene,
    draw_window,
    nearest_body,
    spoiled,
)
from marey.synthetic.poses.views import PARTITIONS, View, draw_view, look
from marey.synthetic.poses.vocabulary import OTHER, VOCABULARY, split_of
from marey.transforms.pose_clip import PoseSampling

SECONDS = np.arange(25) / 12.5


@pytest.fixture(scope="module")
def library(cmu_folder) -> Library:
    pytest.importorskip("pybullet_data", reason="recordings of DeepMimic are inside pybullet")
    return Library(cmu=read_cmu(cmu_folder), deepmimic=read_deepmimic())


def joints_of(seed: int = 0) -> np.ndarray:
    return stand(np.random.default_rng(seed))[0][: len(SECONDS)]


def view(**changes: float) -> View:
    values = {"azimuth": 0, "elevation": 0, "distance": 1e6, "roll": 0, "pan": 0, "shake": 0}
    return View(**{**values, **changes})


def test_a_far_camera_ahead_sees_left_on_its_right_and_up_as_less():
    joints = joints_of()
    picture, depth = look(joints, view(), SECONDS, np.random.default_rng(0))
    np.testing.assert_allclose(np.ptp(picture[..., 0]), np.ptp(joints[..., 0]), rtol=1e-3)
    assert (picture[:, 5, 0] > picture[:, 6, 0]).all()
    assert (picture[:, 0, 1] < picture[:, 15, 1]).all()
    assert (depth[:, 0] < depth[:, 3:5].mean(1)).all()  # the nose is nearer


def test_a_camera_at_the_back_sees_left_on_its_left():
    picture, depth = look(joints_of(), view(azimuth=np.pi), SECONDS, np.random.default_rng(0))
    assert (picture[:, 5, 0] < picture[:, 6, 0]).all()
    assert (depth[:, 0] > depth[:, 3:5].mean(1)).all()


def test_a_camera_above_sees_a_shorter_person_and_a_near_one_more_perspective():
    joints, rng = joints_of(), np.random.default_rng(0)
    level = np.ptp(look(joints, view(), SECONDS, rng)[0][..., 1])
    above = np.ptp(look(joints, view(elevation=1.0), SECONDS, rng)[0][..., 1])
    assert above < 0.75 * level
    near = look(joints, view(distance=2.5, elevation=0.5), SECONDS, rng)[0]
    far = look(joints, view(elevation=0.5), SECONDS, rng)[0]
    shoulders, hips = (abs(near[:, a, 0] - near[:, a + 1, 0]).mean() for a in (5, 11))
    plain = abs(far[:, 5, 0] - far[:, 6, 0]).mean() / abs(far[:, 11, 0] - far[:, 12, 0]).mean()
    assert shoulders / hips > 1.02 * plain


def test_no_azimuth_pace_or_limb_of_one_split_occurs_in_another():
    for partitions in (PARTITIONS, SPEEDS, LIMBS):
        spans = [(low, high, split) for split, parts in partitions.items() for low, high in parts]
        spans.sort()
        for (_, high, _), (low, _, _) in itertools.pairwise(spans):
            assert high <= low
    drawn = {split: draw_view(np.random.default_rng(1), split).azimuth for split in PARTITIONS}
    assert len(set(drawn.values())) == 3


def test_recordings_of_one_action_are_in_one_split_each(library):
    for action in ("running", "jumping", "basketball", "walking_extra"):
        names = [
            {recording.name for recording in library.any_of((action,), split)}
            for split in ("train", "val", "test")
        ]
        assert all(names)
        assert len(set().union(*names)) == sum(map(len, names))
    assert split_of("cmu/walking_extra/walking_12_test", "walking_extra") == "val"
    assert split_of("cmu/walking_extra/walking_13_test", "walking_extra") == "test"


@pytest.mark.parametrize("label", list(VOCABULARY))
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_action_has_a_motion_in_every_split(library, label, split):
    motion = draw_motion(label, split, library, np.random.default_rng(0))
    assert motion.joints.shape[1:] == (17, 3)
    assert np.isfinite(motion.joints).all()
    assert motion.source


def test_jitter_grows_as_scores_fall():
    still = np.repeat(joints_of()[:1], 400, axis=0)[..., :2] * (1, -1)
    found = np.concatenate(
        [observe(still, np.zeros((400, 17)), np.random.default_rng(seed)) for seed in range(8)]
    )
    step = found[1:-1, :, :2] - (found[:-2, :, :2] + found[2:, :, :2]) / 2
    size, score = np.linalg.norm(step, axis=-1), found[1:-1, :, 2]
    sure, unsure = size[score > 0.6], size[(score > 0.1) & (score < 0.25)]
    assert np.median(unsure) > 3 * np.median(sure)


def test_exchanged_sides_are_the_same_points_under_other_names():
    rng = np.random.default_rng(3)
    points, score = rng.normal(size=(200, 17, 2)), rng.random((200, 17))
    swapped, scores = exchange_sides(points, score, rng)
    changed = (swapped != points).any(-1)
    assert 0 < changed.mean() < 0.5
    np.testing.assert_allclose(np.sort(swapped[..., 0]), np.sort(points[..., 0]))
    np.testing.assert_allclose(np.sort(scores), np.sort(score))


def test_somebody_in_front_lowers_scores_and_somebody_far_off_changes_nothing():
    rng = np.random.default_rng(0)
    points = joints_of()[..., :2] * (1, -1)
    found = observe(points, np.zeros((25, 17)), rng)
    far = confuse(found, points + 50, np.full((25, 17), 1.0), np.random.default_rng(1))
    np.testing.assert_allclose(far, np.clip(found, None, 100))
    near = confuse(found, points, np.full((25, 17), -1.0), np.random.default_rng(1))
    assert near[..., 2].mean() < found[..., 2].mean() - 0.03


def test_the_same_seed_gives_the_same_window_and_another_seed_another(library):
    sampling = PoseSampling()
    first, source = draw_window("kick", "train", library, sampling, np.random.default_rng(5))
    again, _ = draw_window("kick", "train", library, sampling, np.random.default_rng(5))
    other, _ = draw_window("kick", "train", library, sampling, np.random.default_rng(6))
    assert first.shape == (16, 17, 3)
    assert source
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("label", list(VOCABULARY))
def test_a_scene_shows_its_actor_first(library, label):
    people = draw_scene(
        label, "train", library, SECONDS, np.random.default_rng(2), company=("stand",)
    )
    assert people[0].label == label
    assert all(person.keypoints.shape == (25, 17, 3) for person in people)
    assert all(np.isfinite(person.keypoints).all() for person in people)
    assert all(person.keypoints[..., 2].min() >= 0 for person in people)


def test_company_stands_within_four_metres_and_goes_the_same_way_if_together():
    joints, other = joints_of(0), joints_of(1)[:, :, [2, 1, 0]] * (1, 1, -1)  # a quarter turn
    way = np.arange(25)[:, None, None] * np.array([0.1, 0, 0])
    middle = joints[:, 11:13].mean(1)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        moved = beside(joints, other + way, rng, together=bool(seed % 2))
        apart = (moved[:, 11:13].mean(1) - middle)[:, [0, 2]]
        between = np.linalg.norm(apart[0] if seed % 2 else apart.mean(0))
        assert 0.4 < between < 4.1
        walked = moved[-1, 11:13].mean(0) - moved[0, 11:13].mean(0)
        np.testing.assert_allclose(np.linalg.norm(walked[[0, 2]]), 2.4, atol=0.2)
        if seed % 2:  # turned to where the actor faces: from x to z
            assert abs(walked[2]) > 10 * abs(walked[0])


def test_the_nearest_body_is_by_the_middle_in_the_picture():
    bodies = [np.full((5, 17, 2), place) for place in (0.0, 3.0, -1.0)]
    assert [nearest_body(bodies, number) for number in range(3)] == [2, 0, 0]


def test_a_lost_track_goes_over_to_the_other_person():
    rng = np.random.default_rng(0)
    here = observe(np.zeros((25, 17, 2)) + np.arange(17)[:, None], np.zeros((25, 17)), rng)
    there = np.full((25, 17, 2), 500.0) + np.arange(17)[:, None]
    changed = 0
    for seed in range(10):
        out = exchange_persons(here, there, np.zeros((25, 17)), np.random.default_rng(seed))
        over = (out[..., 0] > 250).all(1)
        assert ((out == here).all((1, 2)) | over | (out[..., 2].max(1) == 0)).all()
        assert (np.diff(np.flatnonzero(over)) <= 2).all()
        changed += over.any()
    assert changed == 10


def test_hugs_have_a_partner_who_hugs_and_kicks_one_who_does_not(library):
    hugs = [
        draw_scene("hug", "train", library, SECONDS, np.random.default_rng(s)) for s in range(9)
    ]
    kicks = [
        draw_scene("kick", "train", library, SECONDS, np.random.default_rng(s)) for s in range(9)
    ]
    assert {person.label for people in hugs for person in people[1:]} == {"hug"}
    assert {person.label for people in kicks for person in people[1:]} <= {"stand", OTHER}


def test_a_spoiled_motion_is_shuffled_held_or_upside_down():
    joints = joints_of() + np.arange(25)[:, None, None]
    kinds = set()
    for seed in range(12):
        out = spoiled(joints, np.random.default_rng(seed))
        if (np.diff(out, axis=0) == 0).all():
            kinds.add("held")
        elif out[..., 1].min() < 0:
            kinds.add("upside down")
        else:
            assert not np.array_equal(out, joints)
            np.testing.assert_allclose(np.sort(out[:, 0, 2]), np.sort(joints[:, 0, 2]))
            kinds.add("shuffled")
    assert kinds == {"held", "upside down", "shuffled"}
