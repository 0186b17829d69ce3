"""Detection: every person of a key frame with box and actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from marey.datasets.ava import AvaDataset, collate_scenes, is_ava, open_ava, read_predicted_boxes
from marey.datasets.mocap_mosaic import MosaicScenes
from marey.errors import UserError, unknown_name
from marey.losses.detection import detection_loss
from marey.metrics.ava import AvaEvaluator
from marey.models.action_transformer import postprocess
from marey.training.config import TrainConfig
from marey.training.tasks import Batch, Evaluator, Objective, Outputs, Task, Terms
from marey.training.tasks.classification import augment_of, preprocess_of

DATA_ARGUMENTS = ("label_map", "mosaic", "mosaic_scenes", "predicted_boxes", "train_split", "val_split")
OBJECTIVE_ARGUMENTS = ("boxes",)
BOXES = ("own", "truth", "predicted")


def build(config: TrainConfig) -> Task:
    """Build the detection task: AVA's layout, optionally with pasted scenes of single-person clips.

    `data.arguments`: "label_map" (.pbtxt), "mosaic" (packed single-person clips to paste scenes from),
    "mosaic_scenes" (how many an epoch), "predicted_boxes" (CSV with an outside detector's boxes, "{split}" in its name
    is replaced), "train_split", "val_split". `objective.arguments`: "boxes", where the head's boxes come from: "own"
    proposals, the "truth" (Table 1), or "predicted".

    Raises:
        UserError: if the data does not fit, naming file and line.
    """
    data, objective = dict(config.data.arguments), dict(config.objective.arguments)
    for given, known, kind in ((data, DATA_ARGUMENTS, "data.arguments"),
                               (objective, OBJECTIVE_ARGUMENTS, "objective.arguments")):
        for key in given:
            if key not in known:
                raise unknown_name(f"setting of {kind}:", key, known)
    boxes = objective.get("boxes", "own")
    if boxes not in BOXES:
        raise unknown_name("objective.arguments.boxes", boxes, BOXES)
    if config.data.path is None or not is_ava(config.data.path):
        raise UserError(f"detection needs --data with a folder in AVA's layout (ava_train.csv, frames/), got "
                        f"{config.data.path}")
    preprocess, seed = preprocess_of(config), config.train.seed
    if preprocess.resize_mode != "stretch":
        raise UserError("detection keeps the whole frame: set data.preprocess.resize_mode=stretch")
    train = open_ava(config.data.path, data.get("train_split", "train"), label_map=data.get("label_map"))
    val = _open_val(config.data.path, data)
    proposals = {split: _predicted(data, split, boxes) for split in ("train", "val")}
    train_data: Any = AvaDataset(train, preprocess, augment_of(config, preprocess), seed=seed,
                                 proposals=proposals["train"])
    if "mosaic" in data:
        mosaic = MosaicScenes(data["mosaic"], preprocess, length=data.get("mosaic_scenes"), seed=seed)
        if mosaic.class_names != train.class_names:
            raise UserError(f"{data['mosaic']}: its {len(mosaic.class_names)} classes are not the "
                            f"{len(train.class_names)} of {config.data.path}; render both with the same actions")
        train_data = Joined(train_data, mosaic)
    return Task(train_data=train_data,
                val_data=AvaDataset(val, preprocess, proposals=proposals["val"]) if val is not None else None,
                objective=DetectionObjective(config.objective.weights, boxes),
                make_evaluator=lambda: DetectionEvaluator(train.class_names),
                model_arguments={"num_classes": len(train.class_names),
                                 "num_frames": preprocess.sampling.num_frames},
                class_names=train.class_names, preprocess=preprocess, collate=collate_scenes, describes_clips=False,
                extra={"data": {"train_key_frames": len(train.key_frames),
                                "val_key_frames": len(val.key_frames) if val is not None else 0,
                                "class_counts": {str(k): v for k, v in train.class_counts().items()}}})


def _open_val(root: str, data: dict[str, Any]) -> Any:
    split = data.get("val_split", "val")
    return open_ava(root, split, label_map=data.get("label_map")) if any(Path(root).glob(f"ava_{split}*.csv")) else None


def _predicted(data: dict[str, Any], split: str, boxes: str) -> dict[tuple[str, float], Tensor] | None:
    if boxes != "predicted":
        return None
    if "predicted_boxes" not in data:
        raise UserError("objective.arguments.boxes=predicted needs data.arguments.predicted_boxes, a CSV of boxes")
    return read_predicted_boxes(str(data["predicted_boxes"]).replace("{split}", split))


class Joined(torch.utils.data.Dataset[dict[str, Any]]):
    """Two sources of (epoch, i) items, one after the other; sample numbers run on."""

    def __init__(self, first: Any, second: Any) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, where: tuple[int, int]) -> dict[str, Any]:
        epoch, i = where
        item = self.first[(epoch, i)] if i < len(self.first) else self.second[(epoch, i - len(self.first))]
        return {**item, "sample": i}


class DetectionObjective(Objective):
    """The four losses of the detector; boxes from its own proposals, the truth, or an outside detector."""

    def __init__(self, weights: dict[str, float], boxes: str = "own") -> None:
        super().__init__(weights)
        self.boxes = boxes

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Outputs, Terms]:
        """Return the model's outputs, and in training the unweighted terms."""
        given = {"own": None, "truth": batch["boxes_xyxy_norm"], "predicted": batch.get("proposals")}[self.boxes]
        if not model.training:
            return model(batch["clip"], boxes_xyxy_norm=given), {}
        targets = [{"boxes_xyxy_norm": boxes, "labels": labels}
                   for boxes, labels in zip(batch["boxes_xyxy_norm"], batch["labels"], strict=True)]
        outputs = model(batch["clip"], boxes_xyxy_norm=given, targets=targets)
        terms = detection_loss(outputs)
        return outputs, {name: term for name, term in terms.items() if name in self.weights or self.boxes == "own"}


class DetectionEvaluator(Evaluator):
    """Frame mAP at IoU 0.5 ("map"), and persons found whatever they do at 0.5 and 0.75 ("localisation_50", "_75")."""

    main = "map"

    def __init__(self, class_names: tuple[str, ...], nms_threshold: float = 0.6) -> None:
        super().__init__()
        self.class_names, self.nms_threshold = class_names, nms_threshold

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in one batch: suppress overlapping boxes and keep what is left."""
        persons = postprocess(outputs, nms_threshold=self.nms_threshold)
        for place, sample in enumerate(batch["sample"].tolist()):
            self.rows[sample] = {"truth": batch["boxes_xyxy_norm"][place].cpu(), "labels": batch["labels"][place].cpu(),
                                 "boxes": persons[place]["boxes_xyxy_norm"].cpu(),
                                 "scores": persons[place]["scores"].cpu()}

    def evaluator(self) -> AvaEvaluator:
        """Return the metric's own collector, filled with all rows in order of sample."""
        collected = AvaEvaluator(self.class_names)
        for _, row in sorted(self.rows.items()):
            collected.add_image(row["truth"].numpy(), row["labels"].numpy(), row["boxes"].numpy(),
                                row["scores"].numpy())
        return collected

    def compute(self) -> dict[str, Any]:
        """Return the metrics as shares, 0..1."""
        return {**self.evaluator().compute(), "images": len(self.rows)}
