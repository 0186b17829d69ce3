"""Detection: every person of a key frame with box and actions.

With a frozen image stem (`trunk="efficientnet_lite0"`) and `data.arguments.variants`, the stem runs once per clip and
variant before training and its features are stored; the rest of the network then trains in a fraction of the time.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from marey.datasets.ava import is_ava, open_ava, read_predicted_boxes
from marey.datasets.ava_clips import AvaDataset, collate_scenes
from marey.errors import UserError, unknown_name
from marey.files import atomic
from marey.layers.efficientnet_lite import load_imagenet_stem
from marey.losses.detection import detection_loss
from marey.metrics.ava_evaluator import AvaEvaluator
from marey.models.action_transformer import postprocess
from marey.models.trunks import FrameTrunk
from marey.synthetic.mosaic import MosaicScenes
from marey.training.config import TrainConfig
from marey.training.task import Batch, Evaluator, Objective, Outputs, Task, Terms
from marey.training.tasks.clips import augment_of, preprocess_of

DATA_ARGUMENTS = ("cache", "label_map", "mosaic", "mosaic_scenes", "predicted_boxes", "train_split", "val_split",
                  "variants")
OBJECTIVE_ARGUMENTS = ("boxes", "only")
BOXES = ("own", "truth", "predicted")


def build(config: TrainConfig) -> Task:
    """Build the detection task: AVA's layout, optionally with pasted scenes of single-person clips.

    `data.arguments`: "label_map" (.pbtxt), "mosaic" (packed single-person clips to paste scenes from),
    "mosaic_scenes" (how many an epoch), "predicted_boxes" (CSV with an outside detector's boxes, "{split}" in its name
    is replaced), "train_split", "val_split"; "variants" (stored augmentations of each clip's stem features, 0: none
    stored) and "cache" (folder that keeps them). `objective.arguments`: "boxes", where the head finds them: "own"
    proposals, the "truth" (Table 1), or "predicted"; "only": "proposals" trains trunk and proposal network alone, a
    fifth of the work of a whole step, to start the heads from.

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
    if objective.get("only") not in (None, "proposals"):
        raise unknown_name("objective.arguments.only", str(objective["only"]), ("proposals",))
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
    val_data: Any = AvaDataset(val, preprocess, proposals=proposals["val"]) if val is not None else None
    image_trunk = config.model.arguments.get("trunk") == "efficientnet_lite0"
    if data.get("variants"):
        if not image_trunk or boxes == "predicted":
            raise UserError("data.arguments.variants stores the features of model.arguments.trunk=efficientnet_lite0, "
                            "for boxes of one's own or the truth; set variants=0")
        if config.model.arguments.get("trunk_arguments", {}).get("trained_stages"):
            raise UserError("data.arguments.variants stores the features of a stem that does not learn; set "
                            "variants=0, or model.arguments.trunk_arguments.trained_stages=0")
        store = FeatureStore(config, Path(data["cache"]) if "cache" in data else None)
        train_data = store.stored(train_data, int(data["variants"]))
        val_data = store.stored(val_data, 1) if val_data is not None else None
    return Task(train_data=train_data, val_data=val_data,
                prepare_model=load_image_stem if image_trunk and config.model.init_from is None else None,
                objective=DetectionObjective(config.objective.weights, boxes, objective.get("only")),
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


def load_image_stem(model: nn.Module) -> None:
    """Fill the image stem below a detector with ImageNet weights."""
    load_imagenet_stem(model.trunk.stem)  # type: ignore[arg-type, union-attr]


class FeatureStore:
    """Stem features of whole data sets, computed once and kept in memory and, with a folder, on disk.

    Args:
        config: decides the stem (ImageNet's, or that of `model.init_from`) and the names of the files.
        folder: where files are kept; None keeps nothing.
    """

    def __init__(self, config: TrainConfig, folder: Path | None) -> None:
        self.config, self.folder = config, folder
        self.trunk = FrameTrunk()
        if config.model.init_from is None:
            load_imagenet_stem(self.trunk.stem)
        else:
            from marey.checkpoints.load import load_model

            self.trunk.stem.load_state_dict(load_model(config.model.init_from).trunk.stem.state_dict())  # type: ignore[union-attr]
        self.trunk.eval()

    def stored(self, data: Any, variants: int) -> StoredFeatures:
        """Return a data set of features; variant v of item i is `data[(v, i)]`."""
        told = f"{self.config.data} {self.config.augment} {self.config.model.init_from} {self.config.train.seed}"
        digest = hashlib.sha256(f"{told} {len(data)} {variants}".encode()).hexdigest()[:12]
        path = self.folder / f"stem-{digest}.pt" if self.folder is not None else None
        if path is not None and path.is_file():
            return StoredFeatures(torch.load(path, weights_only=True), len(data))
        rows = [self.row(data[(variant, i)]) for variant in range(variants) for i in range(len(data))]
        kept: dict[str, Any] = {name: torch.stack([row[name] for row in rows]) for name in ("fine", "coarse")}
        kept |= {name: [row[name] for row in rows] for name in ("boxes_xyxy_norm", "labels")}
        if path is not None:
            with atomic(path) as temporary:
                torch.save(kept, temporary)
        return StoredFeatures(kept, len(data))

    @torch.no_grad()
    def row(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return one item with half-precision features in place of its clip."""
        fine, coarse = self.trunk.stem_features(item["clip"])
        return {**item, "fine": fine.half(), "coarse": coarse.half()}


class StoredFeatures(torch.utils.data.Dataset[dict[str, Any]]):
    """Items of stored features; epoch e shows variant (e + i) modulo their number of item i."""

    def __init__(self, kept: dict[str, Any], length: int) -> None:
        self.kept, self.length = kept, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, where: tuple[int, int]) -> dict[str, Any]:
        epoch, i = where
        variants = len(self.kept["labels"]) // self.length
        row = (epoch + i) % variants * self.length + i
        return {**{name: values[row] for name, values in self.kept.items()}, "sample": i}


class DetectionObjective(Objective):
    """The four losses of the detector; boxes from its own proposals, the truth, or an outside detector."""

    def __init__(self, weights: dict[str, float], boxes: str = "own", only: str | None = None) -> None:
        super().__init__(weights)
        self.boxes, self.only = boxes, only

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Outputs, Terms]:
        """Return the model's outputs, and in training the unweighted terms."""
        given = {"own": None, "truth": batch["boxes_xyxy_norm"], "predicted": batch.get("proposals")}[self.boxes]
        features, size = self.features(model, batch)
        if not model.training:
            return model.detect_from_features(features, size, boxes_xyxy_norm=given), {}  # type: ignore[operator]
        targets = [{"boxes_xyxy_norm": boxes, "labels": labels}
                   for boxes, labels in zip(batch["boxes_xyxy_norm"], batch["labels"], strict=True)]
        if self.only == "proposals":
            proposals, losses = model.propose(features, size, targets)  # type: ignore[operator]
            return {"proposals": proposals}, {"rpn_objectness": losses["loss_objectness"],
                                              "rpn_box": losses["loss_rpn_box"]}
        outputs = model.detect_from_features(features, size, boxes_xyxy_norm=given,  # type: ignore[operator]
                                             targets=targets)
        return outputs, detection_loss(outputs)

    def features(self, model: nn.Module, batch: Batch) -> tuple[Tensor, tuple[int, int]]:
        """Return the trunk's map and the frame size in pixels, from clips or from stored stem features."""
        if "fine" not in batch:
            return model.features(batch["clip"]), tuple(batch["clip"].shape[-2:])  # type: ignore[operator]
        fine, coarse = batch["fine"].float(), batch["coarse"].float()
        return model.trunk.mix(fine, coarse), (8 * fine.shape[-2], 8 * fine.shape[-1])  # type: ignore[operator, union-attr]


class DetectionEvaluator(Evaluator):
    """Frame mAP at IoU 0.5 ("map"), and persons found whatever they do, at 0.5 and 0.75 (`AvaEvaluator.compute`)."""

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
                                 "scores": persons[place]["scores"].cpu(),
                                 "person_scores": persons[place]["person_scores"].cpu()}

    def evaluator(self) -> AvaEvaluator:
        """Return the metric's own collector, filled with all rows in order of sample."""
        collected = AvaEvaluator(self.class_names)
        for _, row in sorted(self.rows.items()):
            collected.add_image(row["truth"].numpy(), row["labels"].numpy(), row["boxes"].numpy(),
                                row["scores"].numpy(), row["person_scores"].numpy())
        return collected

    def compute(self) -> dict[str, Any]:
        """Return the metrics as shares, 0..1."""
        return {**self.evaluator().compute(), "images": len(self.rows)}
