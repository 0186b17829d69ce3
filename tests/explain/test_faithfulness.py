"""Deletion, insertion and leaving frames out, on a model whose reasons are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from marey.errors import UserError
from marey.explain.faithfulness import deletion_insertion, frame_importance
from marey.explain.gradients import gradient_relevance

T, S = 4, 64


def clip_with_a_sign() -> Tensor:
    """A checkerboard of detail everywhere, but the answer rests on the top-left patch of frame 2
    alone."""
    clip = torch.zeros(T, 3, S, S)
    clip[:, :, ::2] = 1.0
    return clip


class Sign(nn.Module):
    """Probability = how much of the stripes in the top-left 16 x 16 of frame 2 is left."""

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        region = clip[:, 2, :, :16, :16]
        value = (region[..., ::2, :] - region[..., 1::2, :]).mean((1, 2, 3))
        return {"logits": torch.stack([1 - value, value], -1)}


def score(batch: Tensor) -> Tensor:
    return Sign()(batch)["logits"][:, 1]


def test_the_true_map_beats_random_maps_and_its_opposite_does_not() -> None:
    relevance = torch.zeros(T, 4, 4)
    relevance[2, 0, 0] = 1.0
    generator = torch.Generator().manual_seed(0)
    good = deletion_insertion(score, clip_with_a_sign(), relevance, generator=generator)
    bad = deletion_insertion(score, clip_with_a_sign(), -relevance, generator=generator)
    assert good.better_than_random
    assert not bad.better_than_random
    assert good.deletion == pytest.approx(
        0.05, abs=0.02
    )  # only the first point of ten is still high
    assert good.insertion == pytest.approx(0.95, abs=0.02)


def test_only_the_frame_that_carries_the_sign_matters() -> None:
    clip = clip_with_a_sign()
    clip[[0, 1, 3]] = 0.0
    assert torch.allclose(frame_importance(score, clip), torch.tensor([0.0, 0.0, 1.0, 0.0]))


@pytest.mark.parametrize("method", ["integrated_gradients", "saliency"])
def test_gradients_find_the_sign_and_nothing_else(method: str) -> None:
    pytest.importorskip("captum", reason="the extra 'explain' is not installed")
    found = gradient_relevance(Sign(), clip_with_a_sign(), 1, method=method)
    assert found.shape == (T, 4, 4)
    assert found[2, 0, 0] > 0
    found[2, 0, 0] = 0
    assert float(found.abs().max()) == 0


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(UserError, match="unknown relevance method 'gradcam'"):
        gradient_relevance(Sign(), clip_with_a_sign(), 1, method="gradcam")
