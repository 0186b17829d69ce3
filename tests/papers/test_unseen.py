from __future__ import annotations

import torch

from marey.papers import unseen as reproduce_unseen
from marey.papers.cells import ReproduceOptions
from marey.papers.sevitar_mini import MiniSet, Part


def test_the_folds_of_a_seed_are_disjoint_and_cover_all_classes():
    for seed in range(3):
        folds = [reproduce_unseen.held_out(fold, seed, 15) for fold in range(5)]
        assert sorted(number for fold in folds for number in fold) == list(range(15))
        assert {len(fold) for fold in folds} == {3}
    assert reproduce_unseen.held_out(0, 0, 15) != reproduce_unseen.held_out(0, 1, 15)


def test_features_are_mean_deviation_and_change_over_time():
    rising = torch.arange(8.0).view(1, 8, 1, 1).expand(2, 8, 1, 1)
    part = Part(rising.half(), torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))
    expected = torch.tensor([3.5, torch.arange(8.0).std(), 4.0])
    assert torch.allclose(reproduce_unseen.visual_features(part), expected.expand(2, 3))


def test_one_look_at_each_class_finds_clear_classes_and_nothing_in_noise():
    labels = torch.arange(60) % 3
    clear = torch.eye(3)[labels]
    assert reproduce_unseen.one_shot(clear, labels + 4, clear, labels + 4, seed=0) == 1.0
    noise = torch.randn(600, 16, generator=torch.Generator().manual_seed(0))
    many = torch.arange(600) % 3
    assert abs(reproduce_unseen.one_shot(noise, many, noise.flip(0), many, seed=0) - 1 / 3) < 0.06


def test_a_fold_is_scored_on_names_never_trained_on(monkeypatch, tmp_path):
    monkeypatch.setattr(reproduce_unseen, "STEPS", 2)
    pixels = torch.zeros(60, 8, 3, 4, 4, dtype=torch.uint8)
    part = Part(torch.randn(60, 8, 9, 192).half(), pixels, torch.arange(60) % 15)
    clips = MiniSet("mocap", tuple(f"action {n}" for n in range(15)), part, part, part)
    monkeypatch.setattr(reproduce_unseen, "open_mini_set", lambda *_: clips)
    monkeypatch.setattr(
        reproduce_unseen, "label_vectors", lambda names, cache: torch.eye(15)[: len(names)]
    )
    result = reproduce_unseen.run_fold(1, 0, ReproduceOptions(cache=tmp_path))
    assert len(result["unseen_classes"]) == 3
    assert {"seen", "unseen", "harmonic_mean", "zero_shot", "zero_shot_csls", "one_shot"} <= set(
        result
    )
    assert all(0 <= value <= 100 for value in result.values() if isinstance(value, float))


def test_every_fold_of_every_seed_is_one_class_split_of_one_line():
    cells = reproduce_unseen.fold_cells(ReproduceOptions(seeds=3))
    assert {cell.name for cell in cells} == {"unseen actions"}
    assert [cell.seed for cell in cells] == list(range(15))
    splits = [cell.run.args[:2] for cell in cells]  # (fold, seed of the cut)
    assert splits == [(fold, seed) for seed in range(3) for fold in range(5)]
