"""What the cells of `marey reproduce gat` share: the data, trained models, and their evaluation.

Models are evaluated on the test partition, clean and attacked (Fig. 7), with how far their
attention maps move under attack (the paper: 1.23 -> 0.02). Trained models are kept beside the data.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from marey.checkpoints.load import load_checkpoint
from marey.datasets.youtube8m_loading import IndexedExamples
from marey.datasets.youtube8m_shards import FeatureSet, open_feature_set
from marey.files import atomic_folder
from marey.losses.attention_regularisation import attention_regularisation
from marey.metrics.youtube8m import METRICS, YouTube8MEvaluator
from marey.papers.cells import ReproduceOptions
from marey.synthetic.youtube8m import render_youtube8m_mini
from marey.training.config import TrainConfig
from marey.training.loop import train
from marey.training.task import Batch
from marey.training.tasks.features import FeatureObjective, collate_videos
from marey.training.terms.adversarial import perturb
from marey.training.terms.classification import MultilabelTerm

ATTACK_EPS = 0.5
"""Fig. 7 attacks with the radius of training."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What the cells of one run share."""

    options: ReproduceOptions
    config: TrainConfig
    """The recipe of the scale."""

    def data(self) -> Path:
        """Return the data; mini scale renders it once into the cache."""
        if self.options.data is not None:
            return Path(self.options.data)
        folder = self.options.cache / "youtube8m-mini"
        if not (folder / "features.json").is_file():
            with atomic_folder(folder) as temporary:
                render_youtube8m_mini(temporary)
        return folder

    def trained(self, name: str, config: TrainConfig, seed: int) -> Path:
        """Return the checkpoint of a configuration at a seed, trained now if it is not there."""
        out = self.options.cache / "gat-models" / f"{name}-seed{seed}".replace(" ", "_")
        if not (out / "best" / "config.json").is_file() or not (out / "done").is_file():
            shutil.rmtree(out, ignore_errors=True)
            settled = replace(
                config,
                data=replace(config.data, path=str(self.data())),
                train=replace(config.train, seed=seed, device=self.options.train_device),
            )
            train(settled, out, quiet=True)
            (out / "done").touch()
        return out / "best"


def measure(study: Study, name: str, config: TrainConfig, seed: int) -> dict[str, Any]:
    """Train one model and measure it on the test partition.

    Returns:
        GAP, MAP, PERR, Hit@1 in percent (clean), the same GAP under attack, the distance of
        attention maps under attack, and mean and deviation of the four over five equal parts of the
        test videos.
    """
    checkpoint = load_checkpoint(study.trained(name, config, seed))
    model, data = checkpoint.model, open_feature_set(study.data())
    clean, attacked, moved = evaluate_under_attack(model, data, ATTACK_EPS)
    results: dict[str, Any] = {metric: 100 * clean.compute()[metric] for metric in METRICS}
    results |= {
        "gap_attacked": 100 * attacked.compute()["gap"],
        "map_distance": moved,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    results["five_parts"] = {
        metric: {key: 100 * value for key, value in part.items()}
        for metric, part in clean.partitions(5).items()
    }
    return results


def batches_of_test(data: FeatureSet, batch_size: int = 50) -> DataLoader:
    """Return the test videos in order (validation where there is no test partition)."""
    examples = IndexedExamples(
        data.shards("test", "validate", ""), data.space, features=data.features
    )
    return DataLoader(examples, batch_size=batch_size, collate_fn=collate_videos)


def evaluate_under_attack(
    model: nn.Module, data: FeatureSet, eps: float
) -> tuple[YouTube8MEvaluator, YouTube8MEvaluator, float]:
    """Evaluate on the test videos as they are and on their adversarial counterparts (Fig. 7).

    Returns:
        Both evaluators, and the mean Frobenius distance of the global maps between the two, summed
        over modalities.
    """
    clean, attacked = (YouTube8MEvaluator(len(data.space.class_names)) for _ in range(2))
    objective, distances = FeatureObjective({"class": 1.0}, {"class": MultilabelTerm()}), []
    for batch in batches_of_test(data):
        outputs, moved = answer_clean_and_attacked(model, objective, batch, eps)
        for evaluator, answer in ((clean, outputs), (attacked, moved)):
            evaluator.update(answer["logits"].double().sigmoid().numpy(), batch["targets"].numpy())
        distances.append(
            float(attention_regularisation(outputs, moved, batch["mask"])) * len(batch["ids"])
        )
    return clean, attacked, sum(distances) / clean.num_videos


def answer_clean_and_attacked(
    model: nn.Module, objective: FeatureObjective, batch: Batch, eps: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the model's outputs, maps included, for a batch and for the batch moved against it."""
    moved = perturb(objective, model, batch, eps)
    with torch.no_grad():
        return tuple(
            model(one["features"], one["mask"], return_attention=True)  # type: ignore[return-value]
            for one in (batch, moved)
        )
