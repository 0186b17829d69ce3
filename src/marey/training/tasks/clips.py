"""Classification: one label per video."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from marey.datasets import DatasetIndex, open_dataset
from marey.datasets.clips import ClipDataset, collate_clips
from marey.datasets.index import subset
from marey.datasets.split import check_classes, hold_out, labelled, limited, without_classes
from marey.errors import UserError
from marey.losses.classification import ClassificationLoss, balanced_class_weights, soft_targets
from marey.metrics.accuracy import confusion_matrix, mean_class_accuracy, topk_accuracy
from marey.training.config import DataConfig, ObjectiveConfig, TrainConfig
from marey.training.task import Batch, Evaluator, Objective, Outputs, Task, Terms
from marey.transforms.mixing import cutmix, mixup
from marey.transforms.preprocess import Preprocess


def build(config: TrainConfig) -> Task:
    """Build the classification task for the data of a configuration.

    Raises:
        UserError: if the data cannot teach a class: no videos, one class, validation labels never trained on.
    """
    train, val = open_splits(config.data, config.train.seed)
    preprocess = preprocess_of(config)
    labels = [train.label_index(sample) for sample in train.samples]
    objective = ClassificationObjective(config.objective, len(train.class_names), labels)
    return Task(train_data=ClipDataset(train, preprocess, augment_of(config, preprocess), seed=config.train.seed),
                val_data=ClipDataset(val, preprocess) if val is not None else None,
                objective=objective, make_evaluator=lambda: ClassificationEvaluator(train.class_names),
                model_arguments=clip_arguments(preprocess) | {
                    "num_classes": len(train.class_names),
                    "num_orders": 0},    # an order head that no term trains would go stale, and stall DDP
                class_names=train.class_names, preprocess=preprocess, collate=collate_clips, labels=labels,
                train_names=[train.relative_path(sample) for sample in train.samples],
                extra={"data": {"train_hash": train.manifest_hash, "train_videos": len(train),
                                "val_hash": val.manifest_hash if val is not None else None,
                                "val_videos": len(val) if val is not None else 0}})


class ClassificationObjective(Objective):
    """Cross-entropy of the class logits, on clips mixed by mixup or cutmix where the configuration asks for it."""

    def __init__(self, config: ObjectiveConfig, num_classes: int, labels: list[int]) -> None:
        super().__init__(config.weights)
        weights = balanced_class_weights(labels, num_classes) if config.class_weights == "balanced" else None
        self.config, self.num_classes = config, num_classes
        self.loss = ClassificationLoss(weights)

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Outputs, Terms]:
        """Return the model's outputs for the (mixed) clips and {"class": cross-entropy}."""
        smoothing = self.config.label_smoothing if model.training else 0.0
        clip, targets = batch["clip"], soft_targets(batch["label"], self.num_classes, smoothing)
        if model.training:
            clip, targets = self.mix(clip, targets)
        outputs = model(clip)
        return outputs, self.loss(outputs, targets)

    def mix(self, clip: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Draw whether and how this step's clips are mixed, and mix them."""
        alphas = {"mixup": self.config.mixup_alpha, "cutmix": self.config.cutmix_alpha}
        kinds = [kind for kind, alpha in alphas.items() if alpha > 0]
        if not kinds or float(torch.rand(())) >= self.config.mix_probability:
            return clip, targets
        kind = kinds[int(torch.randint(len(kinds), ()))]
        share = float(torch.distributions.Beta(alphas[kind], alphas[kind]).sample())
        partner = torch.randperm(len(clip)).to(clip.device)
        if kind == "mixup":
            return mixup(clip, targets, share, partner)
        across, down = torch.rand(2).tolist()
        return cutmix(clip, targets, share, partner, (across, down))


class ClassificationEvaluator(Evaluator):
    """Top-1, top-5, mean class accuracy and cross-entropy."""

    main = "top1"

    def __init__(self, class_names: tuple[str, ...]) -> None:
        super().__init__()
        self.class_names = class_names

    def row_of(self, outputs: Outputs, batch: Batch, place: int) -> dict[str, Any]:
        """Keep logits and label."""
        return {"logits": outputs["logits"][place].float().cpu(), "label": int(batch["label"][place])}

    def compute(self) -> dict[str, Any]:
        """Return the metrics as shares, 0..1."""
        if not self.rows:
            raise UserError("no validation video could be read; list the reasons with 'marey data check'")
        logits = torch.stack([row["logits"] for row in self.rows.values()])
        labels = torch.tensor([row["label"] for row in self.rows.values()])
        confusion = confusion_matrix(logits.argmax(1), labels, len(self.class_names))
        return {"top1": topk_accuracy(logits, labels, 1), "top5": topk_accuracy(logits, labels, 5),
                "mean_class_accuracy": mean_class_accuracy(confusion),
                "loss": nn.functional.cross_entropy(logits.double(), labels).item(), "videos": len(labels)}


# ---- data, shared by the tasks that learn from clips ----------------------------------------------------------------

def open_splits(config: DataConfig, seed: int) -> tuple[DatasetIndex, DatasetIndex | None]:
    """Open the training and validation videos of a configuration.

    Validation is the split "val" where there is one, else whole groups held out of "train", class by class; the split
    "test" is never touched. Data without splits is all training data.

    Raises:
        UserError: if there is no data, a single class, a sample without label, or a validation label absent from
            training.
    """
    if config.path is None:
        raise UserError("no data: give --data a folder of class folders or a manifest.csv (or set data.path)")
    index = open_dataset(config.path, dataset=config.dataset, split_by=config.split_by)
    index = without_classes(index, config.arguments.get("unseen_classes", ()))
    train = labelled(index.split("train") if index.splits else index)
    val = labelled(index.split("val")) if "val" in index.splits else None
    if val is None and config.val_fraction > 0:
        train, val = hold_out(train, config.val_fraction, seed)
    if config.limit is not None and config.limit < len(train):
        train = subset(train, limited(train, config.limit, seed))
    check_classes(train, val)
    untaught = [name for name, count in train.class_counts.items() if not count]
    if untaught:
        warnings.warn(f"{train.root}: classes without a training video, which the model cannot learn: "
                      + ", ".join(untaught), stacklevel=2)
    return train, val


def preprocess_of(config: TrainConfig) -> Preprocess:
    """Return the run's preprocessing: that of the configuration, else that of the checkpoint it starts from.

    Raises:
        UserError: if neither says.
    """
    if config.data.preprocess is not None:
        return config.data.preprocess
    if config.model.init_from is None:
        raise UserError("no preprocessing: set data.preprocess.image_size and the like, or model.init_from")
    from marey.checkpoints.load import load_checkpoint

    found = load_checkpoint(config.model.init_from).preprocess
    if found is None:
        raise UserError(f"{config.model.init_from}: has no preprocessing; set data.preprocess.image_size and the like")
    return found


def augment_of(config: TrainConfig, preprocess: Preprocess) -> Any:
    """Return the run's augmentation, made to end in the run's preprocessing."""
    return None if config.augment is None else replace(config.augment, preprocess=preprocess)


def clip_arguments(preprocess: Preprocess) -> dict[str, Any]:
    """Return the model arguments that follow from the preprocessing."""
    return {"num_frames": preprocess.sampling.num_frames, "image_size": preprocess.image_size}
