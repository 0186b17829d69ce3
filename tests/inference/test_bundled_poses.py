"""What the bundled model of poses says of a rendered walk, and of what it should be careful with.

`walk_poses.npz` holds the poses that `marey pose` finds in examples/walk.mp4.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from marey.checkpoints.load import load_checkpoint
from marey.checkpoints.sources import WEIGHTS_FOLDER
from marey.cli import build_app
from marey.inference.direction import direction_of
from marey.inference.pose_windows import cut_tracks, main_window, windows_at
from marey.inference.poses import PosePredictor
from marey.metrics.order import longest_increasing_run
from marey.persons.pose_tracks import PoseTracks
from marey.transforms.keypoints import MIRRORED
from marey.video.clip import Clip

Keypoints = np.ndarray
CAREFUL = 0.5
"""A wrong action may be named below this probability, never above."""


@pytest.fixture(scope="module")
def predictor() -> PosePredictor:
    return PosePredictor(load_checkpoint("marey-mini"))


@pytest.fixture(scope="module")
def walk() -> PoseTracks:
    return PoseTracks.load(Path(__file__).with_name("walk_poses.npz"))


def changed(found: PoseTracks, change: Callable[[Keypoints], Keypoints]) -> PoseTracks:
    """Return the poses with every person's keypoints (F, 17, 3) changed."""
    tracks = tuple(
        replace(track, keypoints=change(track.keypoints.copy())) for track in found.tracks
    )
    return replace(found, tracks=tracks)


def mirrored(keypoints: Keypoints) -> Keypoints:
    keypoints = keypoints[:, list(MIRRORED)]
    keypoints[..., 0] = 1 - keypoints[..., 0]
    return keypoints


def upside_down(keypoints: Keypoints) -> Keypoints:
    keypoints[..., 1] = 1 - keypoints[..., 1]
    return keypoints


def torso_only(keypoints: Keypoints) -> Keypoints:
    keypoints[:, 11:, 2] = 0.05
    return keypoints


def tiny_and_shaky(keypoints: Keypoints) -> Keypoints:
    """Somebody of 16 pixels in a frame of 720: keypoints are off by a seventh of the height."""
    random = np.random.default_rng(0)
    keypoints[..., :2] *= 0.03
    keypoints[..., :2] += random.normal(0, 0.003, keypoints[..., :2].shape)
    keypoints[..., 2] *= 0.6
    return keypoints


def noise(keypoints: Keypoints) -> Keypoints:
    keypoints[..., :2] = np.random.default_rng(0).uniform(0, 1, keypoints[..., :2].shape)
    return keypoints


def test_it_is_small():
    folder = WEIGHTS_FOLDER / "marey-mini"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 10 * 2**20


@pytest.mark.parametrize("change", [lambda keypoints: keypoints, mirrored])
def test_a_walk_is_a_walk_in_a_mirror_too(predictor, walk, change):
    prediction = predictor.predict_tracks(changed(walk, change))
    assert prediction.top(1)[0][0] == "walk"
    assert prediction.trust["unknown"] is False


@pytest.mark.parametrize("change", [upside_down, torso_only, tiny_and_shaky, noise])
def test_what_cannot_be_seen_well_is_no_confident_action(predictor, walk, change):
    prediction = predictor.predict_tracks(changed(walk, change))
    assert prediction.trust["unknown"] or prediction.top(1)[0][1] < CAREFUL


def test_a_still_picture_of_a_walk_stands(predictor, walk):
    def still(keypoints: Keypoints) -> Keypoints:
        return np.repeat(keypoints[:1], len(keypoints), axis=0)

    prediction = predictor.predict_tracks(changed(walk, still))
    assert prediction.trust["unknown"] or prediction.top(1)[0][0] == "stand"


def drawn(keypoints: Keypoints, width: int = 256, height: int = 256) -> torch.Tensor:
    """Draw a person (17, 3) as a cartoon: thick limbs of flat colours, a round head, a meadow; the
    frame is uint8 (3, height, width)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    picture = torch.tensor([120, 190, 250])[:, None, None].repeat(1, height, width)
    picture[:, height * 4 // 5 :] = torch.tensor([90, 170, 70])[:, None, None]

    def stroke(a: np.ndarray, b: np.ndarray, thickness: float, colour: list[int]) -> None:
        ax, ay, bx, by = a[0] * width, a[1] * height, b[0] * width, b[1] * height
        length = max((bx - ax) ** 2 + (by - ay) ** 2, 1e-6)
        along = (((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length).clamp(0, 1)
        away = ((x - ax - along * (bx - ax)) ** 2 + (y - ay - along * (by - ay)) ** 2).sqrt()
        picture[:, away < thickness] = torch.tensor(colour)[:, None]

    shoulders, hips = keypoints[5:7].mean(0), keypoints[11:13].mean(0)
    for a, b in ((11, 13), (13, 15), (12, 14), (14, 16)):
        stroke(keypoints[a], keypoints[b], 7, [40, 50, 120])
    stroke(shoulders, hips, 13, [200, 40, 40])
    for a, b in ((5, 7), (7, 9), (6, 8), (8, 10)):
        stroke(keypoints[a], keypoints[b], 5, [240, 190, 150])
    stroke(keypoints[0], keypoints[0], 12, [240, 190, 150])
    return picture.to(torch.uint8)


@pytest.mark.slow
def test_a_cartoon_is_no_confident_wrong_action(predictor: PosePredictor, walk: PoseTracks) -> None:
    track = walk.tracks[0]
    frames = torch.stack([drawn(keypoints) for keypoints in track.keypoints])
    clip = Clip(
        frames=frames,
        frame_indices=tuple(range(len(frames))),
        frame_seconds=tuple(float(second) for second in track.seconds),
        fps=12.5,
        path="cartoon",
    )
    prediction = predictor.predict_clip(clip)
    (label, probability), *_ = prediction.top(1)
    # drawn without ground contact, a walk may look like a run
    sensible = label in ("no person", "walk", "run") or prediction.trust["unknown"]
    assert sensible or probability < CAREFUL
    meadow = predictor.predict_clip(replace(clip, frames=frames[..., :1].expand(-1, -1, -1, 256)))
    assert meadow.top(1)[0][0] == "no person"


def test_thirty_walkers_walk(predictor, walk):
    (track,) = walk.tracks
    crowd = tuple(
        replace(
            track,
            number=number,
            keypoints=track.keypoints + np.array([0.1 * number, 0, 0], np.float32),
            boxes_xyxy=track.boxes_xyxy + np.array([0.1 * number, 0] * 2, np.float32),
        )
        for number in range(30)
    )
    prediction = predictor.predict_tracks(replace(walk, tracks=crowd))
    assert prediction.top(1)[0][0] == "walk"
    assert len(prediction.persons) == 30


def test_the_bundled_arrow_of_time_says_in_which_direction_somebody_walks(
    walk: PoseTracks,
) -> None:
    arrow = load_checkpoint("marey-arrow")
    assert arrow.pose_sampling is not None
    clips = cut_tracks(walk, arrow.pose_sampling)
    people = windows_at(walk, clips.start_seconds[main_window(clips)], arrow.pose_sampling)
    forwards = direction_of(arrow, people)
    assert forwards.forwards > 0.5
    turned = direction_of(arrow, replace(people, clips=people.clips.flip(1)))
    assert turned.forwards == pytest.approx(1 - forwards.forwards, abs=1e-5)
    assert turned.told == forwards.told


@pytest.mark.slow
def test_the_command_puts_a_walk_back_in_order_and_says_its_direction() -> None:
    video = Path(__file__).parents[2] / "src/marey/web/examples/walk.mp4"
    asked = CliRunner().invoke(build_app(), ["order", str(video), "--shuffle", "0", "--json"])
    assert asked.exit_code == 0, asked.output
    [entry] = json.loads(asked.stdout)["results"]
    assert entry["method"] == "arrow"
    assert entry["note"] is None
    recovered = [entry["shuffle"][place] for place in entry["order"]]
    up_to_direction = max(longest(recovered), longest(recovered[::-1])) / 16
    assert up_to_direction >= 0.75
    assert entry["direction"]["forwards"] >= 0.5
    assert entry["order_accuracy"] == pytest.approx(longest(recovered) / 16)


def longest(places: list[int]) -> int:
    """Return the length of the longest rising subsequence."""
    return int(longest_increasing_run(torch.tensor([places]))[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("video", "label"),
    [
        ("cartwheel", "cartwheel"),
        ("spin_kick", "fight: kick, punch or push"),
        ("walk", "walk"),
    ],
)
def test_the_examples_are_answered_right_and_not_called_unknown(predictor, video, label):
    """With trust that says what is known: no probability is calibrated on real video."""
    answer = predictor(Path(__file__).parents[2] / "examples" / f"{video}.mp4")
    assert answer.top(1)[0][0] == label
    assert answer.trust["unknown"] is False
    assert answer.trust["calibrated"] is False
