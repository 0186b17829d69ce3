"""What the cells of `marey reproduce gat` share: the data, the trained models, and their answers.

Sahu et al., section 4.1: the first 64,000 videos of the validate partition choose the checkpoint
and the settings, the rest of it is the test set. The official test partition is unlabelled. The
mini data has a labelled test partition of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import send_to_device
from torch import nn
from torch.utils.data import DataLoader, Subset

from marey.checkpoints.load import load_checkpoint
from marey.datasets.youtube8m_loading import IndexedExamples
from marey.datasets.youtube8m_shards import FeatureSet, open_feature_set
from marey.errors import UserError
from marey.files import atomic_folder
from marey.losses.attention_regularisation import attention_regularisation
from marey.metrics.youtube8m import YouTube8MEvaluator
from marey.papers.cells import ReproduceOptions, Row
from marey.papers.stored_models import code_digest, trained_model
from marey.recipes.gat import variant_of
from marey.synthetic.youtube8m import render_youtube8m_mini
from marey.training.config import TrainConfig
from marey.training.loop import train
from marey.training.task import Batch
from marey.training.tasks.features import FeatureObjective, check_labelled, collate_videos
from marey.training.terms.adversarial import perturb
from marey.training.terms.classification import MultilabelTerm

Part = Literal["validate", "test"]
BATCH = 50
"""Videos of one forward pass in evaluation."""
PGD_STEPS = 5


@dataclass(frozen=True, kw_only=True)
class GATRow(Row):
    """A line of a table or figure; `base` names a column of Table 1 (`recipes.gat.VARIANTS`)."""

    scale: str = "both"
    """"mini" or "full" where the line belongs to one scale."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What the cells of one run share."""

    options: ReproduceOptions
    config: TrainConfig
    """The recipe of the scale."""
    rows: Mapping[str, GATRow]
    """The models of the tables by name."""
    opened: dict[Part, IndexedExamples] = field(default_factory=dict)
    """Partitions that were opened."""
    answered: dict[tuple[str, int, Part], YouTube8MEvaluator] = field(default_factory=dict)
    """Answers to unchanged videos, by model, seed and partition."""

    def data(self) -> Path:
        """Return the data; mini scale renders it once into the cache."""
        if self.options.data is not None:
            return Path(self.options.data)
        folder = self.options.cache / f"youtube8m-mini-{code_digest()}"
        if not (folder / "features.json").is_file():
            with atomic_folder(folder) as temporary:
                render_youtube8m_mini(temporary)
        return folder

    def feature_set(self) -> FeatureSet:
        """Return the shards with widths and label space."""
        settings = self.config.data.features
        return open_feature_set(
            self.data(),
            features=settings.widths,
            vocabulary=settings.vocabulary,
            hierarchy=settings.hierarchy,
        )

    def configure(self, name: str) -> TrainConfig:
        """Return the configuration of a model of the tables."""
        row = self.rows[name]
        return row.configure(variant_of(self.config, row.base))

    def model(self, name: str, seed: int) -> nn.Module:
        """Return a model of the tables at a seed in evaluation mode, trained now where it is not
        stored."""
        config = self.configure(name)
        if self.options.scale == "full":
            config = self.options.at_full_scale(config, seed)
        else:
            config = replace(
                config,
                data=replace(config.data, path=str(self.data())),
                train=replace(config.train, seed=seed, device=self.options.train_device),
            )
        best = trained_model(config, self.options.cache / "models", train, quiet=True)
        return load_checkpoint(best).model.to(self.options.device).eval()

    def videos(self, part: Part) -> IndexedExamples | Subset:
        """Return the videos that choose models ("validate") or that models are tested on ("test").

        Where `data.features.max_val_videos` is set, the first so many of the validate shards choose
        and the rest of them is the test set (section 4.1); damaged records are treated as in
        training.

        Raises:
            UserError: if nothing is left to test on, or the videos have no labels.
        """
        settings, data = self.config.data.features, self.feature_set()
        held_out = settings.max_val_videos
        shards: Part = "validate" if held_out is not None else part
        if shards not in self.opened:
            whole = IndexedExamples(
                data.shards(shards),
                data.space,
                features=data.features,
                level=settings.level,
                max_frames=settings.max_frames,
                on_corrupt=settings.on_corrupt,
            )
            check_labelled(whole, data.root)
            self.opened[shards] = whole
        whole = self.opened[shards]
        if held_out is None:
            return whole
        if part == "validate":
            return Subset(whole, range(min(held_out, len(whole))))
        if len(whole) <= held_out:
            raise UserError(
                f"{data.root}: its validate shards hold {len(whole)} videos, all of which choose "
                f"the checkpoint (data.features.max_val_videos={held_out}); nothing is left to "
                "test on, so lower that number"
            )
        return Subset(whole, range(held_out, len(whole)))

    def batches(self, part: Part) -> Iterator[Batch]:
        """Yield the videos of a partition in order, on the device of the study."""
        loader = DataLoader(
            self.videos(part),
            batch_size=BATCH,
            collate_fn=collate_videos,
            num_workers=self.config.train.workers,
        )
        for batch in loader:
            yield send_to_device(batch, self.options.device)

    def evaluator(self) -> YouTube8MEvaluator:
        """Return an empty evaluator of the label space."""
        return YouTube8MEvaluator(len(self.feature_set().space.class_names))

    def frame_norms(self) -> dict[str, float]:
        """Return the mean L2 norm of the frames of validation videos, of at most 1,000, by
        feature."""
        sums: dict[str, float] = {}
        frames, videos = 0, 0
        for batch in self.batches("validate"):
            mask = batch["mask"]
            for feature, values in batch["features"].items():
                norms = torch.linalg.vector_norm(values, dim=2) * mask
                sums[feature] = sums.get(feature, 0.0) + float(norms.sum())
            frames, videos = frames + int(mask.sum()), videos + len(mask)
            if videos >= 1000:
                break
        return {feature: total / frames for feature, total in sums.items()}

    def answers(self, name: str, seed: int, part: Part) -> YouTube8MEvaluator:
        """Return what a model says about the videos of a partition."""
        key = (name, seed, part)
        if key not in self.answered:
            model, found = self.model(name, seed), self.evaluator()
            for batch in self.batches(part):
                with torch.no_grad():
                    add_answers(found, model(batch["features"], batch["mask"]), batch)
            self.answered[key] = found
        return self.answered[key]


def add_answers(evaluator: YouTube8MEvaluator, outputs: Mapping[str, Any], batch: Batch) -> None:
    """Score one batch; float64, so that large logits do not become ties."""
    probabilities = outputs["logits"].detach().cpu().double().sigmoid().numpy()
    evaluator.update(probabilities, batch["targets"].cpu().numpy())


def plain_objective() -> FeatureObjective:
    """Return the loss that attacks raise: binary cross-entropy (Eq. 3)."""
    return FeatureObjective({"class": 1.0}, {"class": MultilabelTerm()})


def measure_under_attack(
    study: Study, name: str, seed: int, eps: float, *, steps: int = 1, against: str | None = None
) -> dict[str, float]:
    """Measure a model on adversarial counterparts of the validation videos (Fig. 7).

    Args:
        study: the study.
        name, seed: the model.
        eps: length of the perturbation of a frame, as a share of the mean norm of a video's frames.
        steps: 1 is the paper's attack, more are projected gradient ascent.
        against: the model the perturbation is computed on, at another seed (a transfer attack);
            None: the model itself.

    Returns:
        "gap" in percent, and "map_distance": how far the head-averaged global maps move, Frobenius
        norm, summed over modalities (the paper: 1.23 without, 0.02 with regularisation).
    """
    model = study.model(name, seed)
    other_seed = (seed + 1) % max(2, study.options.seeds)
    attacked = model if against is None else study.model(against, other_seed)
    evaluator, distances, count = study.evaluator(), 0.0, 0
    for batch in study.batches("validate"):
        moved = perturb(plain_objective(), attacked, batch, eps, relative=True, steps=steps)
        with torch.no_grad():
            clean, answer = (
                model(one["features"], one["mask"], return_attention=True) for one in (batch, moved)
            )
        add_answers(evaluator, answer, batch)
        size = len(batch["ids"])
        distances += size * float(attention_regularisation(clean, answer, batch["mask"]))
        count += size
    return {"gap": 100 * evaluator.compute()["gap"], "map_distance": distances / count}
