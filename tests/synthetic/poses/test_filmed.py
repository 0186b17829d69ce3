"""Scenes drawn as pictures: what is drawn is where it should be, and what is found has the right
name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from marey.cli import run
from marey.persons.sources import pose_finder
from marey.synthetic.poses.body import turn
from marey.synthetic.poses.compositions import stand, wave
from marey.synthetic.poses.filmed import film_scene, film_windows, owner_of
from marey.synthetic.poses.library import Library
from marey.synthetic.poses.pictures import HEIGHT, WIDTH, draw_looks, facing, film
from marey.synthetic.poses.render import PosePlan, render_poses
from marey.synthetic.poses.scenes import around, partner_of
from marey.synthetic.poses.splice import heading_of
from marey.transforms.pose_clip import PoseSampling

pytest.importorskip("cv2", reason="people are drawn with OpenCV")

SECONDS = np.arange(6) / 12.5


def someone(seed: int = 0, turned: float = 0.0):
    """Places and depths of somebody who stands and faces the camera, as `views.look` gives them."""
    joints = stand(np.random.default_rng(seed))[0][:6]
    joints = joints @ turn("y", np.array([turned]))[0].T
    joints = joints - joints.mean((0, 1))
    return np.stack([joints[..., 0], -joints[..., 1]], axis=-1), -joints[..., 2]


def test_people_are_drawn_where_their_joints_are():
    places, depths = someone()
    found = 0
    for seed in range(6):
        pictures, shown = film([places], [depths], 9.0, np.random.default_rng(seed))
        assert pictures.shape == (6, HEIGHT, WIDTH, 3)
        assert pictures.dtype == np.uint8
        frame = torch.from_numpy(pictures[3:4]).permute(0, 3, 1, 2)
        seen = pose_finder("auto")(frame)[0].keypoints[..., :2] * (WIDTH, HEIGHT)
        away = np.median(np.linalg.norm(seen - shown[3, 0], axis=-1), axis=-1)
        found += bool((away < 0.08 * np.ptp(shown[3, 0], axis=0).max()).any())
    assert found >= 4


def test_the_same_seed_gives_the_same_pictures():
    places, depths = someone()
    first = film([places], [depths], 9.0, np.random.default_rng(3))[0]
    again = film([places], [depths], 9.0, np.random.default_rng(3))[0]
    other = film([places], [depths], 9.0, np.random.default_rng(4))[0]
    assert (first == again).all()
    assert (first != other).any()


def test_whoever_is_nearer_hides_the_other(monkeypatch):
    """Two people in one place, the first in red and the second in blue."""
    places, depths = someone()
    colours = [np.array([230.0, 20, 20]), np.array([20.0, 20, 230])]

    def redness(behind: int) -> float:
        looks = iter(colours)
        monkeypatch.setattr(
            "marey.synthetic.poses.pictures.draw_looks",
            lambda rng: replace(draw_looks(rng), top=next(looks)),
        )
        away = [depths + 2 * (behind == person) for person in range(2)]
        pictures, shown = film([places, places], away, 9.0, np.random.default_rng(1))
        torso = shown[3, :, [5, 6, 11, 12]].mean((0, 1)).astype(int)
        red, _, blue = pictures[3, torso[1], torso[0]].astype(int)
        return red - blue

    assert redness(behind=1) > 30
    assert redness(behind=0) < -30


@pytest.mark.parametrize("turned", [0.0, 0.8, np.pi, -1.2])
def test_where_a_body_faces_is_read_from_shoulders_and_hips(turned):
    places, depths = someone(turned=turned)
    joints = np.stack([places[0, :, 0], -places[0, :, 1], -depths[0]], axis=-1)
    heading = float(heading_of(joints))
    way = facing(places[0], depths[0], 1.0)
    np.testing.assert_allclose(way[[0, 2]], (np.sin(heading), -np.cos(heading)), atol=0.35)


@pytest.fixture(scope="module")
def library() -> Library:
    """Compositions need no recordings."""
    return Library(cmu=[], deepmimic=[])


def test_a_track_has_the_name_of_whom_it_follows(library):
    names = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        seconds = np.arange(20) / 12.5
        scene = film_scene("bend", "train", library, seconds, pose_finder("auto"), rng, company=())
        assert len(scene.labels) == len(scene.sources) == len(scene.tracks.tracks)
        names += scene.labels
    assert names.count("bend") >= 3
    assert set(names) <= {"bend", "other"}


def test_a_track_far_from_everybody_follows_nobody(library):
    seconds = np.arange(20) / 12.5
    for seed in range(8):
        rng = np.random.default_rng(seed)
        scene = film_scene("bend", "train", library, seconds, pose_finder("auto"), rng, company=())
        if scene.tracks.tracks:
            break
    track = scene.tracks.tracks[0]
    boxes = track.boxes_xyxy * HEIGHT
    here = np.stack([boxes[:, :2], boxes[:, 2:]], axis=1)[:, None].repeat(9, 2)[:, :, :17]
    assert owner_of(track, here, track.seconds) == 0
    assert owner_of(track, here + 3 * HEIGHT, track.seconds) is None
    both = np.concatenate([here + 0.2 * HEIGHT, here], axis=1)
    assert owner_of(track, both, track.seconds) == 1
    tiny = replace(track, boxes_xyxy=track.boxes_xyxy.mean(0) + 0 * track.boxes_xyxy)
    assert owner_of(tiny, here * 40, track.seconds) is None


def test_a_window_is_cut_of_everyone_who_is_found(library):
    sampling = PoseSampling(num_persons=2)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        windows = film_windows("hug", "train", library, sampling, pose_finder("auto"), rng)
        if windows:
            break
    assert windows
    for window, name, _ in windows:
        assert window.shape == (16, 34, 3)
        assert name in ("hug", "other", "stand", "walk", "wave or signal")
        assert (window[..., 2] > 0).any()


def test_attackers_face_their_victim():
    victim = stand(np.random.default_rng(0))[0][:20]
    for seed in range(10):
        rng = np.random.default_rng(seed)
        attacker = around(victim, wave(rng)[0][:20], rng)
        way = victim[10, 11:13].mean(0) - attacker[0, 11:13].mean(0)
        assert 0.4 < np.linalg.norm(way[[0, 2]]) < 1.2
        heading = float(heading_of(attacker[0]))
        assert way[[0, 2]] @ (np.sin(heading), np.cos(heading)) > 0.4


def test_in_a_fight_most_fight_back_and_some_lie_on_the_ground():
    joints = stand(np.random.default_rng(0))[0][:20]
    seconds = np.arange(20) / 12.5
    labels = [
        partner_of(joints, "fight", seconds, np.random.default_rng(seed))[1] for seed in range(200)
    ]
    assert 70 <= labels.count("fight") <= 130
    assert 10 <= labels.count("fall or lie down") <= 45


def test_an_interrupted_set_goes_on_with_the_same_bytes(tmp_path, cmu_folder, monkeypatch):
    pytest.importorskip("pybullet_data", reason="recordings of DeepMimic are inside pybullet")
    monkeypatch.setattr("marey.synthetic.poses.render.SCENES", 2)
    plan = PosePlan(cmu=str(cmu_folder), filmed_scenes=4)

    def stop(parts, total):
        for number, part in enumerate(parts):
            if number == total - 2:  # the last part is not filmed yet
                raise KeyboardInterrupt
            yield part

    with pytest.raises(KeyboardInterrupt):
        render_poses(tmp_path / "a", 6, plan, workers=0, progress=stop)
    assert (tmp_path / "a.parts" / "scenes-0.npz").is_file()
    filmed = []

    def counted(*words):
        filmed.append(words[0])
        return film_windows(*words)

    monkeypatch.setattr("marey.synthetic.poses.render.film_windows", counted)
    first = render_poses(tmp_path / "a", 6, plan, workers=0)
    assert len(filmed) == 2
    assert not (tmp_path / "a.parts").exists()
    again = render_poses(tmp_path / "b", 6, plan, workers=0)
    assert len(filmed) == 6
    assert (first / "keypoints.npy").read_bytes() == (again / "keypoints.npy").read_bytes()
    rows = (first / "manifest.csv").read_text().splitlines()
    assert rows == (again / "manifest.csv").read_text().splitlines()
    assert sum(",filmed/" in row for row in rows) == len(rows) - 7 > 0


def test_the_command_films_scenes_and_an_interruption_is_said(
    tmp_path, cmu_folder, monkeypatch, capsys
):
    pytest.importorskip("pybullet_data", reason="recordings of DeepMimic are inside pybullet")
    words = ["data", "render", "poses", "--cmu", str(cmu_folder), "--out", str(tmp_path / "w")]
    words += ["--windows", "3", "--filmed", "1", "--workers", "0"]

    def interrupted(*words):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("marey.synthetic.poses.render.film_windows", interrupted)
        assert run(words) == 130
    said = capsys.readouterr().err
    assert "interrupted; the scenes that were filmed are kept; go on with: marey data" in said
    assert run(words) == 0
    assert "3 windows and 1 filmed scene of 2 s" in capsys.readouterr().err
    assert (tmp_path / "w" / "manifest.csv").is_file()
