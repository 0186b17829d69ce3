"""A tiny clip task and model that train in milliseconds, for the tests of the loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from marey.datasets.clips import collate_clips, sample_generator
from marey.training.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from marey.training.objective_config import ObjectiveConfig
from marey.training.task import Batch, Objective, Outputs, Task, Terms
from marey.training.tasks.clip_evaluator import ClipsEvaluator
from marey.training.tasks.clips import ClipsObjective
from marey.training.terms.classification import ClassTerm

CLASSES = ("bright", "dark", "grey")


class ToyClips:
    """Clips (4, 3, 8, 8) of three brightnesses; noise of item (epoch, i) follows from both."""

    def __init__(
        self, num_samples: int = 30, seed: int = 0, unreadable: tuple[int, ...] = ()
    ) -> None:
        self.num_samples, self.seed, self.unreadable = num_samples, seed, unreadable
        self.labels = [i % 3 for i in range(num_samples)]

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, i = key
        if i in self.unreadable:
            return {"error": f"clip{i}.mp4: broken", "sample": i}
        generator = sample_generator(self.seed, epoch, i)
        clip = self.labels[i] - 1 + 0.5 * torch.randn(4, 3, 8, 8, generator=generator)
        return {"clip": clip, "label": self.labels[i], "sample": i}


def toy_model(**changes: Any) -> ModelConfig:
    arguments = {
        "num_classes": 3,
        "num_frames": 4,
        "image_size": 8,
        "patch_size": 4,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "dropout": 0.1,
    }
    return ModelConfig(name="timesformer", arguments={**arguments, **changes})


def toy_task(
    config: TrainConfig,
    num_samples: int = 30,
    unreadable: tuple[int, ...] = (),
    describes_clips: bool = False,
) -> Task:
    train, val = ToyClips(num_samples, unreadable=unreadable), ToyClips(18, seed=1)
    objective = ClipsObjective(
        config.objective.weights,
        {"class": ClassTerm()},
        num_classes=3,
        classification=config.objective.classification,
    )
    return Task(
        train_data=train,
        val_data=val,
        objective=objective,
        make_evaluator=lambda: ClipsEvaluator(CLASSES),
        class_names=CLASSES,
        collate=collate_clips,
        labels=train.labels,
        describes_clips=describes_clips,
    )


def toy_config(
    *,
    optim: OptimConfig | None = None,
    objective: ObjectiveConfig | None = None,
    model: ModelConfig | None = None,
    **run: Any,
) -> TrainConfig:
    settings = {
        "epochs": 3,
        "batch_size": 8,
        "tensorboard": False,
        "device": "cpu",
        "threads": 1,
        **run,
    }
    return TrainConfig(
        model=model or toy_model(),
        objective=objective or ObjectiveConfig(),
        optim=optim or OptimConfig(lr=2e-3),
        train=RunConfig(**settings),
    )


def shared_toy() -> tuple[TrainConfig, Task]:
    """A run whose losses do not depend on how many processes share it: no dropout, no mixing."""
    config = toy_config(
        epochs=2, model=toy_model(dropout=0.0), optim=OptimConfig(name="sgd", lr=0.05), log_every=1
    )
    return config, toy_task(config, num_samples=31)


class AdversarialToy(Objective):
    """Three forward passes and a gradient with respect to the input, as adversarial training
    needs."""

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Outputs, Terms]:
        clip = batch["clip"].clone().requires_grad_(torch.is_grad_enabled())
        outputs = model(clip)
        clean = nn.functional.cross_entropy(outputs["logits"], batch["label"])
        if not model.training:
            return outputs, {"class": clean}
        (gradient,) = torch.autograd.grad(clean, clip, retain_graph=True)
        perturbed = model(clip.detach() + 0.1 * gradient.sign())
        adversarial = nn.functional.cross_entropy(perturbed["logits"], batch["label"])
        return outputs, {"class": clean, "adversarial": adversarial}


def adversarial_toy() -> tuple[TrainConfig, Task]:
    weights = {"class": 1.0, "adversarial": 0.5}
    config = toy_config(
        epochs=2,
        model=toy_model(dropout=0.0),
        optim=OptimConfig(name="sgd", lr=0.05),
        log_every=1,
        objective=ObjectiveConfig(weights=weights),
    )
    task = toy_task(config, num_samples=31)
    task.objective = AdversarialToy(weights)
    return config, task
