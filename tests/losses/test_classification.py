"""Cross-entropy, mixed clips and class weights against PyTorch and by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from marey.errors import UserError
from marey.losses.classification import balanced_class_weights, cross_entropy, soft_targets
from marey.transforms.mixing import cutmix, mixup


def test_smoothed_targets_by_hand() -> None:
    assert soft_targets(torch.tensor([1]), 4, 0.2).tolist() == [
        pytest.approx([0.05, 0.85, 0.05, 0.05])
    ]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_pytorch(smoothing: float) -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 1])
    ours = cross_entropy(logits, soft_targets(labels, 4, smoothing))
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, label_smoothing=smoothing))


def test_class_weights_keep_their_size_in_a_batch_of_one_class() -> None:
    logits, targets, weights = (
        torch.zeros(2, 2),
        soft_targets(torch.tensor([1, 1]), 2),
        torch.tensor([0.5, 3.0]),
    )
    assert cross_entropy(logits, targets, weights).item() == pytest.approx(
        3 * torch.tensor(2.0).log().item()
    )


def test_balanced_weights_are_one_on_average_and_zero_for_absent_classes() -> None:
    labels = [0, 0, 0, 1]
    weights = balanced_class_weights(labels, 3)
    assert weights.tolist() == pytest.approx([2 / 3, 2.0, 0.0])
    assert weights[torch.tensor(labels)].mean().item() == pytest.approx(1.0)


def test_mixup_by_hand() -> None:
    clip = torch.arange(2.0).view(2, 1, 1, 1, 1).expand(2, 1, 1, 2, 2)
    mixed, targets = mixup(clip, torch.eye(2), 0.75, torch.tensor([1, 0]))
    assert mixed[:, 0, 0, 0, 0].tolist() == [0.25, 0.75]
    assert targets.tolist() == [[0.75, 0.25], [0.25, 0.75]]


def test_cutmix_pastes_one_box_in_all_frames_and_counts_its_pixels() -> None:
    clip = torch.arange(2.0).view(2, 1, 1, 1, 1).expand(2, 3, 1, 8, 8)
    mixed, targets = cutmix(clip, torch.eye(2), 0.75, torch.tensor([1, 0]), (0.5, 0.5))
    assert mixed[0].sum((1, 2, 3)).tolist() == [16.0, 16.0, 16.0]  # a 4 x 4 box of an 8 x 8 frame
    assert mixed[0, 0, 0, 2:6, 2:6].eq(1).all()
    assert targets[0].tolist() == [0.75, 0.25]


def test_a_cutmix_box_at_the_border_counts_only_what_is_inside() -> None:
    clip = torch.arange(2.0).view(2, 1, 1, 1, 1).expand(2, 1, 1, 8, 8)
    mixed, targets = cutmix(clip, torch.eye(2), 0.75, torch.tensor([1, 0]), (0.0, 0.0))
    assert mixed[0].sum().item() == 4.0  # a 2 x 2 corner is left
    assert targets[0].tolist() == [1 - 4 / 64, 4 / 64]


def test_the_gradient_reaches_the_logits() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    cross_entropy(logits, soft_targets(torch.tensor([0, 1, 2]), 4)).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.sum(1), torch.zeros(3), atol=1e-6, rtol=0)


def test_another_number_of_classes_is_an_error() -> None:
    with pytest.raises(UserError, match=r"logits are \(2, 3\) but targets \(2, 4\)"):
        cross_entropy(torch.zeros(2, 3), torch.zeros(2, 4))
