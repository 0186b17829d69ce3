"""The task of a configuration: its data, objective and evaluator."""

from __future__ import annotations

from collections.abc import Callable

from marey.errors import UserError
from marey.training.config import TrainConfig
from marey.training.task import Task
from marey.training.tasks import arrow_of_time, clips, detection, features, poses
from marey.training.terms.adversarial import AdversarialTraining
from marey.transforms.preprocess import Preprocess

TASKS: dict[str, Callable[[TrainConfig], Task]] = {
    "clips": clips.build,
    "features": features.build,
    "detection": detection.build,
    "poses": poses.build,
    "arrow_of_time": arrow_of_time.build,
}
"""`objective.task` -> the function that builds it."""


def build_task(config: TrainConfig) -> Task:
    """Build the task of a configuration, with stored features and adversarial training if set.

    Raises:
        UserError: if the data does not fit the task.
    """
    task = TASKS[config.objective.task](config)
    if config.data.feature_cache is not None:
        if task.store_features is None:
            raise UserError(
                f"objective.task={config.objective.task} has no frozen stem to store features of; "
                "set data.feature_cache=null"
            )
        task = task.store_features(task)

    weights = config.objective.weights
    if weights.get("adversarial") or weights.get("attention"):
        task.objective.adversarial = AdversarialTraining(
            config.objective.adversarial,
            compare_attention=bool(weights.get("attention")),
            preprocess=task.preprocess if isinstance(task.preprocess, Preprocess) else None,
        )
    return task
