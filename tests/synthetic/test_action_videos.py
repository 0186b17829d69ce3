from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.features.sound import decode_sound
from marey.synthetic.action_videos import (
    draw_shots,
    draw_sound,
    make_action_videos,
    thumps,
    write_video_with_sound,
)
from marey.video.decode import open_video


def test_steps_come_at_their_rate():
    sound = np.abs(thumps(2.0, 10.0, np.random.default_rng(0)))
    busy = sound.reshape(-1, 800).max(1) > 0.3  # 50 ms at a time
    assert 17 <= int((busy[1:] & ~busy[:-1]).sum()) + int(busy[0]) <= 23


def test_a_third_of_the_videos_has_no_track_and_actions_without_steps_none_to_hear():
    tracks = [draw_sound(["walk"], [2.0], np.random.default_rng(seed)) for seed in range(300)]
    assert 0.25 < sum(track is None for track in tracks) / 300 < 0.42
    assert all(np.abs(track).max() <= 1 for track in tracks if track is not None)
    loudest = [
        np.abs(draw_sound(["punch"], [2.0], np.random.default_rng(seed))).max()
        for seed in range(60)
        if draw_sound(["punch"], [2.0], np.random.default_rng(seed)) is not None
    ]
    assert max(loudest) < 0.35


def test_sound_and_pictures_go_into_one_file(tmp_path):
    frames = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    sound = 0.5 * np.sin(np.arange(32_000) / 5).astype(np.float32)
    write_video_with_sound(tmp_path / "a.mp4", frames, 4.0, sound)
    write_video_with_sound(tmp_path / "b.mp4", frames, 4.0, None)
    with open_video(tmp_path / "a.mp4") as reader:
        assert reader.num_frames == 8
    assert abs(len(decode_sound(tmp_path / "a.mp4")) - 32_000) < 3_000
    assert decode_sound(tmp_path / "b.mp4") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_a_video_has_one_to_three_actions():
    labels = [0] * 5 + [1] * 5 + [2] * 50
    drawn = [draw_shots(labels, np.random.default_rng(seed), [0, 1, 2]) for seed in range(200)]
    assert {len({labels[place] for place in shots}) for shots in drawn} == {1, 2, 3}
    assert max(len(shots) for shots in drawn) <= 5
    assert all(labels[place] != 2 for place in draw_shots(labels, np.random.default_rng(0), [0, 1]))
    share = sum(0 in {labels[place] for place in shots} for shots in drawn) / 200
    assert 0.45 < share < 0.75  # 0.6: rare clips do not make a rare action


def test_splits_are_kept_apart_and_labels_listed(tmp_path):
    pytest.importorskip("pybullet", reason="the extra 'mocap' is not installed")
    from marey.synthetic.dataset import RenderPlan, render_dataset

    plan = RenderPlan(
        size=16, num_frames=4, actions=("jump", "walk"), splits=("train", "val", "test")
    )
    render_dataset(tmp_path / "clips", 12, plan, workers=0)
    make_action_videos(tmp_path / "clips", tmp_path / "out", 10)
    with (tmp_path / "out" / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == ["train"] * 7 + ["val", "test", "test"]
    assert {label for row in rows for label in row["label"].split(";")} == {"jump", "walk"}
    assert json.loads((tmp_path / "clips" / "packed.json").read_text())["fps"] == 4.0


def test_nothing_to_make_is_refused(tmp_path):
    with pytest.raises(UserError, match="num_videos must be 1 or more"):
        make_action_videos(tmp_path, tmp_path / "out", 0)
