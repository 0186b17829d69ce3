"""Label meaning learned beside the class, and beside the order, in one forward."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.models import create_model
from marey.training.config import ModelConfig, TrainConfig, override
from marey.training.data_config import DataConfig
from marey.training.objective_config import (
    ClassificationConfig,
    LabelConfig,
    ObjectiveConfig,
    OrderConfig,
)
from marey.training.tasks import build_task
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

TINY = {
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
    "patch_size": 16,
    "label_hidden": [8],
    "class_hidden": [8],
}


def config(root: Path, *, with_order: bool = False, **label: object) -> TrainConfig:
    frames = np.random.default_rng(0).integers(0, 255, (6, 4, 3, 16, 16), dtype=np.uint8)
    np.save(root / "frames.npy", frames)
    (root / "packed.json").write_text(json.dumps({"format": 1, "fps": 8.0}))
    rows = "".join(f"c{i},{'run' if i % 2 else 'eat'}\n" for i in range(6))
    (root / "manifest.csv").write_text("path,label\n" + rows)
    (root / "labels.json").write_text(json.dumps({"run": [3, 4, 0], "eat": [0, 0, 2]}))
    preprocess = Preprocess(
        sampling=ClipSampling(kind="equidistant", num_frames=4), short_side=16, image_size=16
    )
    weights = {"class": 1.0, "label": 1.0} | ({"order": 1.0, "guided": 1.0} if with_order else {})
    return TrainConfig(
        model=ModelConfig(name="sevitar", arguments=TINY),
        data=DataConfig(path=str(root), preprocess=preprocess, val_fraction=0.0),
        objective=ObjectiveConfig(
            weights=weights,
            order=OrderConfig(num_permutations=5),
            label=LabelConfig(source=str(root / "labels.json"), **label),
        ),
    )


@pytest.mark.parametrize("with_order", [False, True])
def test_every_head_gets_a_gradient_from_one_forward(tmp_path: Path, with_order: bool) -> None:
    task = build_task(config(tmp_path, with_order=with_order))
    arguments = TINY | task.model_arguments | ({"time_attention": "cosine"} if with_order else {})
    model = create_model("sevitar", **arguments)
    calls = []
    batch = task.collate([task.train_data[(0, i)] for i in range(4)])
    forward = model.forward
    model.forward = lambda *a, **k: (calls.append(1), forward(*a, **k))[1]
    outputs, terms = task.objective(model, batch)
    assert len(calls) == 1
    assert set(terms) == set(task.objective.weights)
    task.objective.total(terms).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert silent == []
    assert outputs["label_embedding"].shape == (4, 3)


def test_embeddings_travel_in_the_checkpoint_as_unit_vectors(tmp_path: Path) -> None:
    task = build_task(config(tmp_path))
    assert task.class_names == ("eat", "run")
    assert torch.allclose(
        task.tensors["label_embeddings"], torch.tensor([[0.0, 0.0, 1.0], [0.6, 0.8, 0.0]])
    )
    assert task.model_arguments["label_dim"] == 3
    assert task.extra["label_loss"] == "mse"


def test_the_evaluator_counts_the_nearest_label(tmp_path: Path) -> None:
    evaluator = build_task(config(tmp_path)).make_evaluator()
    outputs = {
        "logits": torch.eye(2),
        "label_embedding": torch.tensor([[0.1, 0.0, 5.0], [0.0, 0.1, 9.0]]),
    }
    evaluator.update(outputs, {"sample": torch.tensor([0, 1]), "label": torch.tensor([0, 1])})
    metrics = evaluator.compute()
    assert metrics["top1"] == 1.0
    assert metrics["label_top1"] == 0.5


def test_staged_training_moves_one_part_after_the_other(tmp_path: Path) -> None:
    task = build_task(config(tmp_path, stage_shares=(0.5, 0.25, 0.25)))
    torch.manual_seed(0)
    model = create_model("sevitar", **(TINY | task.model_arguments)).train()
    optimiser = torch.optim.AdamW(model.parameters(), 0.01)
    batch = task.collate([task.train_data[(0, i)] for i in range(4)])
    task.objective.total_steps = 8
    moved = []
    for step in range(8):
        task.objective.step = step
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimiser.zero_grad()
        _, terms = task.objective(model, batch)
        task.objective.total(terms).backward()
        optimiser.step()
        moved.append(
            {
                name.split(".")[0]
                for name, p in model.named_parameters()
                if not torch.equal(p, before[name])
            }
        )
    assert all("blocks" in parts and "semantic_mlp" not in parts for parts in moved[:4])
    assert moved[4:] == [{"semantic_mlp"}] * 2 + [{"class_mlp"}] * 2
    assert task.extra["label_training"] == "staged"


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="objective.label.loss should be 'mse' or 'cosine', got 'mae'"
    ):
        override(config(tmp_path), ["objective.label.loss=mae"])
    with pytest.raises(UserError, match=r"stage_shares=\[1.0, 0.5, 0.5\] must have sum 1"):
        override(config(tmp_path), ["objective.label.stage_shares=[1.0, 0.5, 0.5]"])
    plain = config(tmp_path)
    with pytest.raises(UserError, match="a mixed clip has no one order and no one label to mean"):
        build_task(
            replace(
                plain,
                objective=replace(
                    plain.objective, classification=ClassificationConfig(mixup_alpha=0.2)
                ),
            )
        )
    task = build_task(plain)
    batch = task.collate([task.train_data[(0, i)] for i in range(2)])
    classifier = create_model(
        "timesformer",
        num_classes=2,
        num_frames=4,
        image_size=16,
        embed_dim=16,
        depth=1,
        num_heads=2,
        patch_size=16,
    )
    with pytest.raises(UserError, match="no label-embedding head; set model.name=sevitar"):
        task.objective(classifier, batch)
