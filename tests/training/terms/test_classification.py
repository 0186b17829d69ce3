"""The class term against PyTorch, and mixed clips."""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from marey.losses.classification import soft_targets
from marey.training.objective_config import ClassificationConfig
from marey.training.terms.classification import ClassTerm, MultilabelTerm, mix_clips


def test_the_class_term_is_pytorchs_cross_entropy() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    batch = {"targets": soft_targets(labels, 3, 0.1)}
    expected = cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(ClassTerm()({"logits": logits}, batch), expected)


def test_a_class_of_weight_zero_does_not_count() -> None:
    logits, batch = torch.randn(2, 2), {"targets": torch.eye(2)}
    term = ClassTerm(torch.tensor([2.0, 0.0]))({"logits": logits}, batch)
    torch.testing.assert_close(term, 2 * -logits.log_softmax(1)[0, 0] / 2)


def test_the_multilabel_term_takes_the_mean_or_the_sum_over_classes() -> None:
    logits, targets = torch.randn(4, 5), torch.randint(0, 2, (4, 5)).float()
    mean = MultilabelTerm()({"logits": logits}, {"targets": targets})
    total = MultilabelTerm("sum")({"logits": logits}, {"targets": targets})
    torch.testing.assert_close(mean, binary_cross_entropy_with_logits(logits, targets))
    torch.testing.assert_close(total, 5 * mean)


def test_mixing_follows_the_global_seed_and_its_probability() -> None:
    clip, targets = torch.randn(4, 2, 3, 8, 8), torch.eye(4)
    config = ClassificationConfig(mixup_alpha=1.0, cutmix_alpha=1.0)
    torch.manual_seed(0)
    first = mix_clips(clip, targets, config)
    torch.manual_seed(0)
    again = mix_clips(clip, targets, config)
    assert torch.equal(first[0], again[0])
    torch.testing.assert_close(first[1].sum(1), torch.ones(4))
    never = ClassificationConfig(mixup_alpha=1.0, mix_probability=0.0)
    assert mix_clips(clip, targets, never)[0] is clip
