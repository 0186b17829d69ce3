"""A student with a teacher of another size and normalisation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.models import create_model
from marey.training.config import ModelConfig, TrainConfig
from marey.training.data_config import DataConfig
from marey.training.objective_config import ObjectiveConfig, OrderConfig, TeacherConfig
from marey.training.tasks import build_task
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling


def config(
    root: Path, teacher: Path, labels: tuple[str, str] = ("bright", "dark"), frames: int = 4
) -> TrainConfig:
    root.mkdir(exist_ok=True)
    pixels = np.zeros((6, frames, 3, 20, 20), dtype=np.uint8)
    pixels[::2] = 235
    np.save(root / "frames.npy", pixels)
    (root / "packed.json").write_text(json.dumps({"format": 1, "fps": 8.0}))
    (root / "manifest.csv").write_text(
        "path,label\n" + "".join(f"c{i},{labels[i % 2]}\n" for i in range(6))
    )
    preprocess = Preprocess(
        sampling=ClipSampling(kind="equidistant", num_frames=frames),
        short_side=16,
        image_size=16,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    return TrainConfig(
        model=ModelConfig(name="timesformer"),
        data=DataConfig(path=str(root), preprocess=preprocess, val_fraction=0.0),
        objective=ObjectiveConfig(
            weights={"class": 0.5, "teacher": 0.5}, teacher=TeacherConfig(checkpoint=str(teacher))
        ),
    )


def test_the_teacher_sees_the_clip_in_its_own_size_and_normalisation(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    from marey.checkpoints.load import load_checkpoint

    task = build_task(config(tmp_path / "d", tiny_checkpoint))
    batch = task.collate([task.train_data[(0, i)] for i in range(2)])
    translated = task.objective.terms["teacher"].translate(batch["clip"])
    theirs = load_checkpoint(tiny_checkpoint).preprocess
    white = torch.full((4, 3, 32, 32), 235, dtype=torch.uint8)
    assert translated.shape == (2, 4, 3, 32, 32)
    assert torch.allclose(translated[0], theirs.normalise(white), atol=1e-5)


def test_only_the_student_learns_and_evaluation_asks_no_teacher(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    task = build_task(config(tmp_path / "d", tiny_checkpoint))
    inferred = {
        name: task.model_arguments[name] for name in ("num_classes", "num_frames", "image_size")
    }
    student = create_model(
        "timesformer", embed_dim=16, depth=1, num_heads=2, patch_size=16, **inferred
    )
    batch = task.collate([task.train_data[(0, i)] for i in range(4)])
    _, terms = task.objective(student.train(), batch)
    assert set(terms) == {"class", "teacher"}
    task.objective.total(terms).backward()
    assert student.head.weight.grad is not None
    assert all(
        parameter.grad is None for parameter in task.objective.terms["teacher"].teacher.parameters()
    )
    assert set(task.objective(student.eval(), batch)[1]) == {"class"}


def test_mistakes_are_named(tmp_path: Path, tiny_checkpoint: Path) -> None:
    plain = config(tmp_path / "d", tiny_checkpoint)
    with pytest.raises(UserError, match="distillation needs a teacher"):
        build_task(replace(plain, objective=replace(plain.objective, teacher=TeacherConfig())))
    with pytest.raises(UserError, match="knows 2 classes, other than the 2 of the data"):
        build_task(config(tmp_path / "e", tiny_checkpoint, labels=("run", "eat")))
    with pytest.raises(UserError, match="the teacher takes 4 frames, the student 6"):
        build_task(config(tmp_path / "f", tiny_checkpoint, frames=6))


def test_the_teacher_sees_the_ordered_clips_only(tmp_path: Path, tiny_checkpoint: Path) -> None:
    plain = config(tmp_path / "d", tiny_checkpoint)
    weights, order = {"class": 1.0, "order": 1.0, "teacher": 0.5}, OrderConfig(num_permutations=5)
    task = build_task(
        replace(plain, objective=replace(plain.objective, weights=weights, order=order))
    )
    student = create_model(
        "direcformer", embed_dim=16, depth=1, num_heads=2, patch_size=16, **task.model_arguments
    )
    batch = task.collate([task.train_data[(0, i)] for i in range(4)])
    _, terms = task.objective(student.train(), batch)
    with torch.no_grad():
        teacher = task.objective.terms["teacher"]
        alone = teacher(student(batch["clip"]), batch)
    assert list(terms) == ["class", "order", "teacher"]
    torch.testing.assert_close(terms["teacher"].detach(), alone)
