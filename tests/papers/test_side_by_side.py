"""Copies that train side by side, against each of them alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from marey.models import create_model
from marey.papers.hmdb_mini import StoredCells, mini_base
from marey.papers.side_by_side import Copy, train_copies
from marey.training.config import override

LABELS = [k % 2 for k in range(24)]
NUMBERS = tuple(range(24))


def features(number: int, seed: int, epoch: int | None) -> torch.Tensor:
    """Clips (4, 4, 6) of two classes that a short training tells apart."""
    generator = torch.Generator().manual_seed(number)
    clip = 0.3 * torch.randn(4, 4, 6, generator=generator)
    clip[..., 0] += LABELS[number] * 2 - 1
    return clip


def build(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = create_model(
        "timesformer",
        num_classes=2,
        num_frames=4,
        image_size=2,
        patch_size=1,
        embed_dim=16,
        depth=1,
        num_heads=2,
    )
    model.patch_embed = StoredCells(6, 16)
    return model


def config(*settings: str):
    base = mini_base()
    base = replace(base, train=replace(base.train, epochs=3, batch_size=4))
    return override(base, list(settings))


def copies(*seeds: int) -> list[Copy]:
    return [Copy(seed, NUMBERS[:12], NUMBERS[12:18], NUMBERS[18:]) for seed in seeds]


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_a_copy_learns_what_it_learns_alone(optimiser):
    settings = config(f"optim.name={optimiser}", "optim.lr=0.01")
    together = train_copies(copies(0, 1), build, features, LABELS, settings)
    for number, seed in enumerate((0, 1)):
        (alone,) = train_copies(copies(seed), build, features, LABELS, settings)
        torch.testing.assert_close(together[number].best, alone.best, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(together[number].last, alone.last, atol=1e-4, rtol=1e-3)
        assert together[number].val_loss == pytest.approx(alone.val_loss, abs=1e-4)
    assert not torch.allclose(together[0].best, together[1].best)


def test_it_learns_and_keeps_the_epoch_with_the_lowest_validation_loss():
    settings = config("optim.lr=0.01", "train.epochs=10")
    (found,) = train_copies(copies(0), build, features, LABELS, settings)
    assert found.train_share == 1.0
    right = found.best.argmax(1) == torch.tensor(LABELS[18:])
    assert right.all()

    model = build(0)
    model.load_state_dict(found.weights)
    clips = torch.stack([features(number, 0, None) for number in NUMBERS[18:]])
    torch.testing.assert_close(model(clips)["logits"].softmax(1), found.best, atol=1e-5, rtol=1e-4)


def test_frozen_weights_stay_and_the_head_learns():
    settings = config('model.freeze=["*"]', "optim.lr=0.05")
    (found,) = train_copies(copies(0), build, features, LABELS, settings)
    before = build(0).state_dict()
    changed = {k for k, v in found.weights.items() if not torch.equal(v, before[k])}
    assert changed == {"head.weight", "head.bias"}


def test_drawn_clips_are_asked_for_by_seed_and_epoch():
    asked = set()

    def drawn(number: int, seed: int, epoch: int | None) -> torch.Tensor:
        asked.add((seed, epoch))
        return features(number, seed, epoch)

    train_copies(copies(3, 5), build, drawn, LABELS, config(), draws=True)
    assert asked == {(0, None), *((seed, epoch) for seed in (3, 5) for epoch in range(3))}
