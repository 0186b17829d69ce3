"""Ranking names by meaning, with and without the correction for hubs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from marey.errors import UserError
from marey.inference.zero_shot import label_vectors, rank_labels, similarity


def checkpoint(**tensors: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(source="toy", class_names=("run", "eat"), tensors=tensors, extra={})


def test_stored_embeddings_need_no_text_model_and_scale_does_not_matter() -> None:
    toy = checkpoint(label_embeddings=torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    assert torch.equal(label_vectors(["Eat", "run"], toy), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    probs = rank_labels({"label_embedding": torch.tensor([[5.0, 0.1]])}, ["eat", "run"], toy)
    assert probs.shape == (1, 2)
    assert probs.argmax() == 1
    assert torch.allclose(probs.sum(), torch.tensor(1.0))


def test_csls_takes_a_hub_down() -> None:
    """A hub is near every reference; by hand: cosines (0.8, 0.8), hubness (1, 0.28), so 2c - h =
    (0.6, 1.32)."""
    hub, rare = torch.tensor([1.0, 0.0]), torch.tensor([0.28, 0.96])
    seen = torch.tensor([[0.8, 0.6]])
    plain = similarity(seen, torch.stack([hub, rare]))
    corrected = similarity(seen, torch.stack([hub, rare]), references=hub[None])
    assert torch.allclose(plain, torch.tensor([[0.8, 0.8]]))
    assert torch.allclose(corrected, torch.tensor([[0.6, 1.32]]))


def test_mistakes_are_named() -> None:
    toy = checkpoint(label_embeddings=torch.eye(2))
    with pytest.raises(UserError, match="toy has no label-embedding head.*--model marey-mini-rgb"):
        rank_labels({"logits": torch.zeros(1, 2)}, ["run"], toy)
    with pytest.raises(UserError, match="label embeddings have 2 values, the model predicts 3"):
        rank_labels({"label_embedding": torch.zeros(1, 3)}, ["run"], toy)


def test_vectors_of_another_size_than_the_stored_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"jump": [1, 0, 0]}')
    toy = checkpoint(label_embeddings=torch.eye(2))
    toy.extra = {"label_source": str(tmp_path / "labels.json")}
    with pytest.raises(
        UserError, match=r"labels\.json have 3 values, the checkpoint's 2; embed the labels"
    ):
        label_vectors(["run", "jump"], toy)


def test_vectors_of_classes_held_out_of_training_travel_too() -> None:
    toy = checkpoint(label_embeddings=torch.eye(2), unseen_embeddings=torch.tensor([[3.0, 4.0]]))
    toy.extra = {"unseen_classes": ["brush_hair"]}
    assert torch.allclose(label_vectors(["brush hair"], toy), torch.tensor([[0.6, 0.8]]))
