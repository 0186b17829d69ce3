"""Robust training never meets the test's kinds, repeats with its generator, and is an option of any
recipe."""

from __future__ import annotations

import pytest
import torch

from marey.corruptions import KINDS, Corruption, corruption
from marey.errors import UserError
from marey.transforms import corruption_augment
from marey.transforms.augment import Augment
from marey.transforms.corruption_augment import (
    MODES,
    TEST_KINDS,
    TRAIN_KINDS,
    corrupt_for_training,
    fractal_picture,
    pixmix,
)
from marey.transforms.preprocess import Preprocess


def clip() -> torch.Tensor:
    return torch.randint(
        0, 256, (8, 3, 40, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_training_kinds_and_test_kinds_are_apart() -> None:
    for mode, groups in TRAIN_KINDS.items():
        trained = {kind for group in groups for kind in group}
        assert trained <= set(KINDS)
        assert not trained & set(TEST_KINDS[mode])
        assert not trained & set(TEST_KINDS["mixed"])


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "none"])
def test_a_mode_keeps_shape_repeats_and_changes_the_clip(mode: str) -> None:
    frames = clip()
    first = [
        corrupt_for_training(frames, mode, 1.0, torch.Generator().manual_seed(s)) for s in range(12)
    ]
    again = [
        corrupt_for_training(frames, mode, 1.0, torch.Generator().manual_seed(s)) for s in range(12)
    ]
    for changed, same in zip(first, again, strict=True):
        assert changed.shape == frames.shape
        assert changed.dtype == torch.uint8
        assert torch.equal(changed, same)
    assert sum(not torch.equal(changed, frames) for changed in first) >= 8


def test_only_training_kinds_and_severities_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = set()

    def record(name: str, severity: int) -> Corruption:
        drawn.add((name, severity))
        return corruption(name, severity)

    monkeypatch.setattr(corruption_augment, "corruption", record)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        corrupt_for_training(clip(), "mixed", 1.0, generator)
    assert {kind for kind, _ in drawn} == {kind for group in TRAIN_KINDS["mixed"] for kind in group}
    assert {severity for _, severity in drawn} == {1, 2, 3}


def test_probability_is_the_share_of_changed_clips() -> None:
    generator = torch.Generator().manual_seed(0)
    changed = sum(
        corrupt_for_training(clip(), "spatial", 0.25, generator) is not None
        and not torch.equal(corrupt_for_training(clip(), "spatial", 0.25, generator), clip())
        for _ in range(200)
    )
    assert 25 < changed < 75
    assert torch.equal(corrupt_for_training(clip(), "spatial", 0.0, generator), clip())


def test_pixmix_mixes_all_frames_alike() -> None:
    still = clip()[:1].expand(4, 3, 40, 48).contiguous()
    for seed in range(10):
        mixed = pixmix(still, torch.Generator().manual_seed(seed))
        assert all(torch.equal(mixed[0], frame) for frame in mixed)
    picture = fractal_picture(40, 48, torch.Generator().manual_seed(0))
    assert picture.shape == (3, 40, 48)
    assert picture.min() >= 0
    assert picture.max() <= 1


def test_it_is_an_option_of_the_training_augmentation() -> None:
    preprocess = Preprocess(short_side=40, image_size=32)
    plain = Augment(preprocess=preprocess, crop="none", flip=0.0)
    noisy = Augment(
        preprocess=preprocess,
        crop="none",
        flip=0.0,
        corruption="spatial",
        corruption_probability=1.0,
    )
    a, b = (augment(clip(), torch.Generator().manual_seed(2)) for augment in (plain, noisy))
    assert a.shape == b.shape
    assert not torch.equal(a, b)
    with pytest.raises(UserError, match="unknown corruption augmentation 'spatia'"):
        Augment(corruption="spatia")
    with pytest.raises(UserError, match="unknown corruption augmentation"):
        corruption_augment.corrupt_for_training(clip(), "fog", 1.0, torch.Generator())
