"""The task of a configuration, by `objective.kind`."""

from __future__ import annotations

import dataclasses
import importlib

from marey.errors import unknown_name
from marey.training.config import TrainConfig
from marey.training.task import Task

TASKS: dict[str, str] = {
    "classification": "marey.training.tasks.clips:build",
    "order": "marey.training.terms.order:build",
    "label_embedding": "marey.training.terms.label_embedding:build",
    "features": "marey.training.tasks.features:build",
    "detection": "marey.training.tasks.detection:build",
    "distillation": "marey.training.terms.distillation:build",
    "frozen_stem": "marey.training.feature_cache:build",
}
"""Kind of task (`objective.kind`) -> the function that builds it from a TrainConfig."""


def build_task(config: TrainConfig) -> Task:
    """Build the task named in `config.objective.kind`.

    `objective.arguments["adversarial"]` is no argument of the task: it wraps whatever objective the task has.

    Raises:
        UserError: if the kind is unknown, or the data does not fit it.
    """
    if config.objective.kind not in TASKS:
        raise unknown_name("objective.kind", config.objective.kind, TASKS)
    module, function = TASKS[config.objective.kind].split(":")
    arguments = dict(config.objective.arguments)
    adversarial = arguments.pop("adversarial", None)
    plain = dataclasses.replace(config, objective=dataclasses.replace(config.objective, arguments=arguments))
    task: Task = getattr(importlib.import_module(module), function)(plain)
    if adversarial is not None:
        from marey.training.terms.adversarial import AdversarialConfig, AdversarialObjective

        task.objective = AdversarialObjective(task.objective, AdversarialConfig.from_dict(adversarial))
    return task
