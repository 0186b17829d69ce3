"""The detector's terms are those of its loss."""

from __future__ import annotations

import torch

from marey.losses.detection import detection_loss
from marey.training.terms.detection import detection_terms


def test_the_terms_are_those_of_the_detection_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = {
        "logits": torch.randn(6, 3, generator=generator),
        "background_logits": torch.randn(6, generator=generator),
        "box_deltas": torch.randn(6, 4, generator=generator),
        "box_delta_targets": torch.randn(6, 4, generator=generator),
        "proposal_labels": torch.randint(0, 2, (6, 3), generator=generator).float(),
        "is_positive": torch.tensor([True, False, True, True, False, False]),
        "loss_objectness": torch.tensor(0.5),
        "loss_rpn_box": torch.tensor(0.25),
    }
    terms = {name: term(outputs, {}) for name, term in detection_terms().items()}
    expected = detection_loss(outputs)
    assert list(terms) == list(expected)
    for name, value in expected.items():
        assert torch.equal(terms[name], value)
