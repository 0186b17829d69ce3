from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.losses.adversarial import (
    adversarial_perturbation,
    linf_perturbation,
    perturbation_from_gradient,
)


def gradient(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 4, 3, 6, 6)])
def test_every_frame_is_moved_by_eps(shape):
    moved = perturbation_from_gradient(gradient(*shape), 0.5)
    assert torch.allclose(moved.flatten(2).norm(dim=2), torch.full(shape[:2], 0.5))


def test_the_whole_clip_norm_moves_a_video_by_eps():
    moved = perturbation_from_gradient(gradient(2, 5, 7), 0.5, "clip")
    assert torch.allclose(moved.flatten(1).norm(dim=1), torch.full((2,), 0.5))
    assert torch.allclose(
        moved, 0.5 * gradient(2, 5, 7) / gradient(2, 5, 7).flatten(1).norm(dim=1)[:, None, None]
    )


def test_eq_3_worked_by_hand():
    moved = perturbation_from_gradient(torch.tensor([[[3.0, 4.0], [0.0, -2.0]]]), 0.5)
    assert moved.tolist() == [[[pytest.approx(0.3), pytest.approx(0.4)], [0.0, -0.5]]]


def test_frames_without_gradient_are_not_moved():
    one = gradient(2, 3, 4)
    one[0, 1] = 0
    one[1] = 0
    for norm in ("frame", "clip"):
        moved = perturbation_from_gradient(one, 0.5, norm)
        assert torch.isfinite(moved).all()
        assert (moved[0, 1] == 0).all()
        assert (moved[1] == 0).all()


def test_the_scale_of_the_loss_does_not_matter_even_near_underflow():
    plain = perturbation_from_gradient(gradient(1, 3, 4), 0.5)
    assert torch.allclose(
        perturbation_from_gradient(gradient(1, 3, 4) * 1e-30, 0.5), plain, atol=1e-5
    )


def test_the_perturbation_raises_the_loss_and_carries_no_graph():
    weight = gradient(4, seed=1).requires_grad_()
    clip = gradient(2, 3, 4).requires_grad_()

    def loss(x):
        return (x @ weight).pow(2).sum()

    before = loss(clip)
    (moved,) = adversarial_perturbation(before, [clip], 0.01)
    assert not moved.requires_grad
    assert weight.grad is None
    assert loss(clip + moved) > before
    before.backward()  # the graph is still there to train on
    assert weight.grad is not None


def test_modalities_are_moved_each_by_its_own_norm():
    rgb, audio = gradient(1, 2, 8).requires_grad_(), gradient(1, 2, 3).requires_grad_()
    moves = adversarial_perturbation(
        rgb.pow(2).sum() + 1e-3 * audio.pow(2).sum(), [rgb, audio], 0.5
    )
    assert [move.norm(dim=2).mean().item() for move in moves] == pytest.approx([0.5, 0.5])


def test_an_input_the_loss_does_not_use_is_refused():
    used, unused = torch.ones(1, 1, 1, requires_grad=True), torch.ones(1, 1, 1, requires_grad=True)
    with pytest.raises(UserError, match="does not depend on every input"):
        adversarial_perturbation(used.sum(), [used, unused], 0.5)


def test_a_relative_length_is_a_share_of_the_mean_frame_norm_worked_by_hand():
    features = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [9.0, 9.0]]], requires_grad=True)
    loss = features[:, :2].sum()  # the last frame is padding: no gradient
    (moved,) = adversarial_perturbation(loss, [features], 0.1, relative=True)
    assert moved[0].norm(dim=1).tolist() == pytest.approx([0.3, 0.3, 0.0])  # norms 5 and 1
    whole = features.detach()[:, :2].requires_grad_()
    (moved,) = adversarial_perturbation(whole.sum(), [whole], 0.1, "clip", relative=True)
    assert float(moved.norm()) == pytest.approx(0.1 * 26**0.5)


def test_a_relative_perturbation_follows_the_scale_of_the_features():
    one = gradient(2, 4, 3).requires_grad_()
    scaled = (100 * one.detach()).requires_grad_()
    (moved,) = adversarial_perturbation((one**2).sum(), [one], 0.02, relative=True)
    (other,) = adversarial_perturbation((scaled**2).sum(), [scaled], 0.02, relative=True)
    assert torch.allclose(other, 100 * moved, rtol=1e-4)


def test_the_box_of_pixels_is_kept_and_the_loss_rises():
    torch.manual_seed(0)
    std = torch.tensor([0.2, 0.25, 0.3]).view(1, 1, 3, 1, 1)
    pixels = torch.rand(2, 4, 3, 5, 5)
    clip = (pixels - 0.5) / std
    weights = torch.randn_like(clip)

    def loss_of(moved):
        return (weights * moved).sum()

    eps = 8 / 255 / std
    low, high = -0.5 / std, 0.5 / std
    change = linf_perturbation(loss_of, clip, eps, low, high, steps=5)
    moved = (clip + change) * std + 0.5
    assert ((moved - pixels).abs() <= 8 / 255 + 1e-6).all()
    assert (moved >= -1e-6).all()
    assert (moved <= 1 + 1e-6).all()
    # A linear loss has its maximum in a corner of the box.
    corner = (pixels + 8 / 255 * weights.sign()).clamp(0, 1)
    assert torch.allclose(moved, corner, atol=1e-5)
