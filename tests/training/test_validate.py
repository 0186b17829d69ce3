"""Which evaluation becomes the best."""

from __future__ import annotations

from marey.training.validate import is_better, numbers_of


def test_what_becomes_best_can_be_chosen() -> None:
    worse, better = {"top1": 0.5, "loss": 2.0}, {"top1": 0.6, "loss": 3.0}
    assert is_better(better, worse, "top1", True)
    assert not is_better(worse, better, "top1", True)
    assert is_better({"top1": 0.6, "loss": 2.0}, better, "top1", True)  # a tie: the lower loss
    assert is_better(worse, better, "top1", True, select="loss")
    assert is_better(worse, better, "top1", True, select="last")
    assert not is_better({"top1": float("nan")}, {}, "top1", True, select="last")


def test_only_plain_numbers_are_metrics() -> None:
    assert numbers_of({"top1": 0.5, "videos": 3, "per_class": [1], "is_fine": True}) == {
        "top1": 0.5,
        "videos": 3.0,
    }
