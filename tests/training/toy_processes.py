"""Tiny runs of three recipes whose losses do not depend on how many processes share the batch."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from torch import Tensor
from toy_training import toy_config, toy_model, toy_task

from marey.order.permutations import make_permutation_set
from marey.recipes import get_recipe
from marey.training.config import ModelConfig, OptimConfig, TrainConfig, override
from marey.training.objective_config import AdversarialConfig
from marey.training.task import Batch, Task
from marey.training.tasks import build_task
from marey.training.tasks.clips import ClipsObjective
from marey.training.terms.adversarial import AdversarialTraining
from marey.training.terms.classification import ClassTerm
from marey.training.terms.order import GuidedTerm, OrderTerm, PermutedClips

DETECTOR = {
    "width": 0.125,
    "head": "tx",
    "query": "highres",
    "num_proposals": 8,
    "rpn_channels": 16,
    "dim": 16,
    "ffn": 32,
    "query_channels": 8,
    "location_channels": 8,
    "anchor_sizes": [8, 16],
    "samples_per_clip": 64,
    "roi_operator": "align",
    "frozen_norm": True,
    "dropout": 0.0,
}


class PermutedBySample(PermutedClips):
    """Every clip gets the permutation its sample number names, whichever process draws it."""

    def draw(self, batch: Batch) -> Tensor:
        return batch["sample"] % len(self.permutations)


def plain(**changes) -> TrainConfig:
    return toy_config(
        model=toy_model(dropout=0.0),
        optim=OptimConfig(name="sgd", lr=0.05),
        log_every=1,
        epochs=1,
        **changes,
    )


def order(folder: Path) -> tuple[TrainConfig, Task]:
    config = plain()
    arguments = {**config.model.arguments, "num_orders": 6}
    config = replace(config, model=ModelConfig(name="direcformer", arguments=arguments))
    rows, weights = make_permutation_set(6, 4), {"class": 1.0, "order": 1.0, "guided": 1.0}
    terms = {"class": ClassTerm(), "order": OrderTerm(), "guided": GuidedTerm()}
    objective = ClipsObjective(
        weights,
        terms,
        num_classes=3,
        permuted_clips=PermutedBySample(rows, ("bright", "dark", "grey")),
    )
    return config, replace(toy_task(config), objective=objective)


def adversarial(folder: Path) -> tuple[TrainConfig, Task]:
    config = plain()
    task = toy_task(config)
    task.objective.adversarial = AdversarialTraining(
        AdversarialConfig(eps=0.5), compare_attention=False
    )
    task.objective.weights["adversarial"] = 1.0
    return config, task


def detection(folder: Path) -> tuple[TrainConfig, Task]:
    recipe = get_recipe("action_transformer_mini")
    recipe = replace(
        recipe,
        model=replace(recipe.model, arguments=DETECTOR),
        augment=None,
        data=replace(recipe.data, path=str(folder / "scenes"), feature_cache=None),
        optim=OptimConfig(name="sgd", lr=0.01),
    )
    config = override(
        recipe,
        [
            "data.preprocess.image_size=32",
            "train.batch_size=4",
            "train.max_steps=3",
            "train.tensorboard=false",
            "train.average=none",
            "train.log_every=1",
            "train.device=cpu",
            "objective.detection.boxes=truth",
        ],
    )
    return config, build_task(config)


def sharded(folder: Path) -> tuple[TrainConfig, Task]:
    config = override(plain(), ["train.shard=true", "optim.clip_norm=0.5"])
    return config, toy_task(config)


RUNS = {"sharded": sharded, "order": order, "adversarial": adversarial, "detection": detection}


if __name__ == "__main__":
    from torch.distributed import is_initialized

    from marey.training.loop import train

    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    for name, make in RUNS.items():
        config, task = make(data)
        train(config, out / name, task=task, quiet=True)
    assert is_initialized()
