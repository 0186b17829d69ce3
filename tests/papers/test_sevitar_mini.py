from __future__ import annotations

from pathlib import Path

import pytest
import torch

from marey.errors import UserError
from marey.labels.embed import LabelEmbeddings
from marey.papers import sevitar_mini
from marey.video.encode import write_video


def make_videos(root, lengths=(80, 40)):
    for folder, length in zip(("set1", "set2"), lengths, strict=True):
        for label, level in (("hug", 200), ("kick", 40)):
            path = root / label / f"{folder}_a.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            frames = torch.full((length, 3, 120, 160), level, dtype=torch.uint8)
            frames += torch.arange(length, dtype=torch.uint8).view(-1, 1, 1, 1) // 4
            write_video(path, frames, 30)
    return root


def test_names_with_set1_and_set2_are_training_and_test(tmp_path):
    index = sevitar_mini.split_index(str(make_videos(tmp_path)))
    assert [len(index.split(name)) for name in ("train", "test")] == [2, 2]
    (tmp_path / "plain" / "run").mkdir(parents=True)
    write_video(
        tmp_path / "plain" / "run" / "a.mp4", torch.zeros(4, 3, 32, 32, dtype=torch.uint8), 10
    )
    with pytest.raises(UserError, match="matches no path|needs the splits train and test"):
        sevitar_mini.split_index(str(tmp_path / "plain"))


def test_a_training_video_gives_six_clips_of_one_size(tmp_path):
    index = sevitar_mini.split_index(str(make_videos(tmp_path)))
    clips = list(sevitar_mini.training_clips(index.split("train").samples[0]))
    assert [tuple(clip.shape) for clip in clips] == [(8, 3, 112, 112)] * 6
    assert torch.equal(clips[1], clips[0].flip(-1))
    assert clips[2].float().mean() < clips[0].float().mean() < clips[4].float().mean()


def test_the_window_is_the_middle():
    assert sevitar_mini.window(100)[0] == 18
    assert sevitar_mini.window(100)[-1] == 74
    assert max(sevitar_mini.window(20)) == 19


def test_a_perturbed_set_is_drawn_once_per_clip_name():
    clip = torch.randint(
        0, 255, (8, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    first = [sevitar_mini.perturb(clip, f"mocap#{n}", 4.0) for n in (1, 1, 2)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    assert first[0].shape == clip.shape


def test_a_set_is_made_once(tmp_path, monkeypatch):
    made = {
        f"{part}.{field}": torch.zeros(2, 1)
        for part in ("train", "test", "perturbed")
        for field in ("features", "pixels", "labels")
    }
    calls = []
    monkeypatch.setattr(sevitar_mini, "make_videos", lambda index: calls.append(1) or made)
    root = make_videos(tmp_path / "ut")
    sevitar_mini.open_mini_set.cache_clear()
    for _ in range(2):
        found = sevitar_mini.open_mini_set("ut", tmp_path / "cache", str(root))
        sevitar_mini.open_mini_set.cache_clear()
    assert calls == [1]
    assert found.class_names == ("hug", "kick")


def test_label_vectors_are_stored_for_the_next_cell(tmp_path, monkeypatch):
    calls = []

    def embed(names, source=None):
        calls.append(source)
        return LabelEmbeddings(names=tuple(names), vectors=torch.eye(2), source="toy")

    monkeypatch.setattr(sevitar_mini, "embed_labels", embed)
    sevitar_mini.label_vectors(("run", "eat"), tmp_path)
    sevitar_mini.label_vectors(("run", "eat"), tmp_path)
    assert [call is None for call in calls] == [True, False, False]
    assert all(isinstance(call, Path) for call in calls if call is not None)
