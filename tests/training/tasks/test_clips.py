"""The objective of clips: what happens before the forward pass, and after it."""

from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.training.config import TrainConfig, override
from marey.training.objective_config import ClassificationConfig
from marey.training.tasks.clips import ClipsObjective
from marey.training.terms.classification import ClassTerm


class Fixed(torch.nn.Module):
    """Answers with the mean brightness as the logit of class 1."""

    def forward(self, clip: torch.Tensor) -> dict[str, torch.Tensor]:
        level = clip.mean((1, 2, 3, 4))
        return {"logits": torch.stack([torch.zeros_like(level), level], 1)}


def test_training_mixes_and_smooths_and_evaluation_does_not() -> None:
    objective = ClipsObjective(
        {"class": 1.0},
        {"class": ClassTerm()},
        num_classes=2,
        classification=ClassificationConfig(mixup_alpha=1.0, label_smoothing=0.2),
    )
    batch = {"clip": torch.randn(4, 2, 3, 4, 4), "label": torch.tensor([0, 1, 0, 1])}
    model = Fixed().eval()
    _, terms = objective(model, batch)
    expected = torch.nn.functional.cross_entropy(model(batch["clip"])["logits"], batch["label"])
    torch.testing.assert_close(terms["class"], expected)
    assert not torch.allclose(objective(model.train(), batch)[1]["class"], expected)


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(UserError, match="objective.task should be 'clips', 'poses', .* got 'clip'"):
        override(TrainConfig(), ["objective.task=clip"])
