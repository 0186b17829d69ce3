"""The task "poses": from a packed folder of windows to a checkpoint that reads tracks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.recipes import get_recipe
from marey.training.config import override
from marey.training.loop import train
from marey.training.tasks import build_task


@pytest.fixture
def windows(tmp_path):
    """Two actions that differ in where a hand is."""
    folder = tmp_path / "windows"
    folder.mkdir()
    rng = np.random.default_rng(0)
    keypoints = rng.random((48, 16, 17, 3)).astype(np.float16)
    keypoints[..., 2] = 0.8
    keypoints[::2, :, 9, 1] += 2
    np.save(folder / "keypoints.npy", keypoints)
    sampling = {
        "num_frames": 16,
        "fps": 8.0,
        "step_seconds": 0.5,
        "min_score": 0.15,
        "min_seen": 0.4,
    }
    (folder / "packed.json").write_text(
        json.dumps({"format": 1, "kind": "poses", "sampling": sampling})
    )
    rows = ["path,label,split"]
    for place in range(48):
        split = "val" if place >= 36 else "train"
        rows.append(f"keypoints.npy#{place},{'wave' if place % 2 == 0 else 'other'},{split}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def recipe(windows, **changes):
    small = {
        "data.path": str(windows),
        "model.arguments": {
            "embed_dim": 16,
            "depth": 1,
            "num_heads": 2,
            "cls_in_time": True,
            "label_hidden": [8],
            "class_hidden": [8],
        },
        "objective.order.num_permutations": 10,
        "train.max_steps": 4,
        "train.batch_size": 8,
        "train.eval_every": 4,
        **changes,
    }
    assignments = [f"{key}={json.dumps(value)}" for key, value in small.items()]
    return override(get_recipe("mini_pose"), assignments)


def test_the_recipe_trains_and_its_checkpoint_reads_tracks(windows, tmp_path):
    train(recipe(windows), tmp_path / "run", quiet=True)
    found = load_checkpoint(tmp_path / "run" / "best")
    assert found.task == "poses"
    assert found.pose_sampling is not None
    assert found.class_names == ["other", "wave"]
    assert found.extra["other_class"] == "other"
    outputs = found.model(torch.zeros(1, 16, 17, 3))
    assert outputs["logits"].shape == (1, 2)
    assert outputs["order_logits"].shape == (1, 10)
    assert "label_embeddings" in found.tensors


def test_an_item_depends_on_epoch_and_place_alone(windows):
    data = build_task(recipe(windows)).train_data
    assert torch.equal(data[(1, 5)]["clip"], data[(1, 5)]["clip"])
    assert not torch.equal(data[(1, 5)]["clip"], data[(2, 5)]["clip"])
    held_out = build_task(recipe(windows)).val_data
    assert torch.equal(held_out[(0, 5)]["clip"], held_out[(3, 5)]["clip"])


def test_a_teacher_of_pixels_is_refused(windows):
    config = recipe(
        windows, **{"objective.weights": {"class": 1.0, "teacher": 1.0}, "objective.start": {}}
    )
    with pytest.raises(UserError, match="term 'teacher' takes clips of pixels"):
        build_task(config)
