"""The linear probe before fine-tuning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy_training import toy_config, toy_model, toy_task

from marey.errors import UserError
from marey.models import create_model
from marey.training.linear_probe import fit_head, fit_linear_probe, head_of
from marey.training.loop import train

ARGUMENTS = {name: value for name, value in toy_model().arguments.items() if name != "num_classes"}


def test_the_head_is_fitted_on_fixed_embeddings_and_nothing_else_moves() -> None:
    torch.manual_seed(0)
    model = create_model("timesformer", num_classes=3, **ARGUMENTS)
    labels = torch.arange(30) % 3
    embedding = torch.eye(3, 16)[labels] + 0.1 * torch.randn(30, 16)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert fit_head(model, embedding, labels, steps=100) == 1.0
    moved = {
        key for key, value in model.state_dict().items() if not torch.equal(value, before[key])
    }
    assert moved == {"head.weight", "head.bias"}


def test_the_two_part_head_of_sevitar_can_be_fitted() -> None:
    torch.manual_seed(0)
    model = create_model(
        "sevitar", num_classes=3, label_dim=8, label_hidden=[8], class_hidden=[8], **ARGUMENTS
    )
    labels = torch.arange(30) % 3
    assert fit_head(model, torch.eye(3, 16)[labels] * 3, labels, steps=200) == 1.0


def test_a_model_without_a_class_head_says_so() -> None:
    with pytest.raises(UserError, match=r"train\.linear_probe needs a model with a class head"):
        head_of(torch.nn.Linear(2, 2))


def test_a_run_with_a_linear_probe_begins_better_and_resumes(tmp_path: Path) -> None:
    config = toy_config(epochs=1, linear_probe=True)
    result = train(config, tmp_path / "run", task=toy_task(config), quiet=True)
    assert result.best is not None
    assert result.best > 0.6
    assert (
        train(config, tmp_path / "run", task=toy_task(config), resume=True, quiet=True).best
        == result.best
    )


def test_videos_that_cannot_be_read_are_left_out_of_the_probe() -> None:
    torch.manual_seed(0)
    model = create_model("timesformer", num_classes=3, **ARGUMENTS)
    clips, labels = torch.randn(6, 4, 3, 8, 8), torch.arange(6) % 3
    batches = [
        {"clip": clips[:3], "label": labels[:3]},
        {"unreadable": [(9, "broken")]},
        {"clip": clips[3:], "label": labels[3:]},
    ]
    assert 0 <= fit_linear_probe(model, batches, torch.device("cpu"), smoothing=0.1) <= 1
    with pytest.raises(UserError, match="no training video can be read"):
        fit_linear_probe(
            model, [{"unreadable": [(9, "broken")]}], torch.device("cpu"), smoothing=0.1
        )
