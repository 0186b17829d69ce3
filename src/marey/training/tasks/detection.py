"""The task "detection": every person of a key frame, with a box and actions."""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.data import ConcatDataset

from marey.datasets.ava import (
    AvaIndex,
    annotation_file,
    is_ava,
    open_ava,
    read_predicted_boxes,
    require_labels,
    videos_of,
)
from marey.datasets.ava_clips import AvaDataset, collate_scenes
from marey.datasets.seen import describe_training, positions_seen
from marey.errors import UserError
from marey.layers.efficientnet_lite import load_imagenet_stem
from marey.metrics.ava_evaluator import AvaEvaluator
from marey.models.action_transformer import postprocess
from marey.synthetic.mosaic import MosaicScenes
from marey.training.config import TrainConfig
from marey.training.data import augment_of, preprocess_of
from marey.training.data_config import DetectionData
from marey.training.stages import Stage, build_stages
from marey.training.task import (
    Batch,
    Evaluator,
    Objective,
    Outputs,
    Task,
    check_terms,
    no_items,
)
from marey.training.tasks.scene_features import store_scene_features
from marey.training.terms.detection import detection_terms
from marey.transforms.preprocess import Preprocess

HEAD_TERMS, PROPOSAL_TERMS = ("class", "box"), ("rpn_objectness", "rpn_box")


def build(config: TrainConfig) -> Task:
    """Build the task for a folder in AVA's layout, optionally with pasted scenes.

    With `data.feature_cache` a frozen image stem (`trunk="efficientnet_lite0"`) runs once per clip
    and variant before training; the rest of the network then trains in a fraction of the time.

    Raises:
        UserError: if the data does not fit, naming file and line.
    """
    check_terms(config.objective.weights, (*HEAD_TERMS, *PROPOSAL_TERMS))
    if config.data.path is None or not is_ava(config.data.path):
        raise UserError(
            f"detection needs --data with a folder in AVA's layout (ava_train.csv, frames/), got "
            f"{config.data.path}"
        )
    preprocess = preprocess_of(config)
    if preprocess.resize_mode != "stretch":
        raise UserError("detection keeps the whole frame: set data.preprocess.resize_mode=stretch")

    data = config.data.detection
    train = open_ava(config.data.path, data.train_split, label_map=data.label_map)
    require_labels(train)
    val = open_val(config.data.path, data)
    train_data, val_data = open_scenes(config, preprocess, train, val)
    has_image_trunk = config.model.arguments.get("trunk") == "efficientnet_lite0"
    return Task(
        train_data=train_data,
        val_data=val_data,
        prepare_model=load_image_stem
        if has_image_trunk and config.model.init_from is None
        else None,
        objective=DetectionObjective(
            config.objective.weights,
            config.objective.detection.boxes,
            build_stages(config.objective),
        ),
        make_evaluator=lambda: DetectionEvaluator(train.class_names),
        model_arguments={
            "num_classes": len(train.class_names),
            "num_frames": preprocess.sampling.num_frames,
        },
        class_names=train.class_names,
        preprocess=preprocess,
        collate=collate_scenes,
        describes_clips=False,
        recalibrates=True,
        describe_training=functools.partial(describe_training, videos_of(train)),
        seen_in_training=no_items if val is None else functools.partial(key_frames_seen, val),
        store_features=functools.partial(store_scene_features, config),
        extra={
            "data": {
                "train_key_frames": len(train.key_frames),
                "val_key_frames": len(val.key_frames) if val is not None else 0,
                "class_counts": {str(k): v for k, v in train.class_counts().items()},
            }
        },
    )


def key_frames_seen(index: AvaIndex, tensors: Mapping[str, Tensor]) -> frozenset[int]:
    """Return the positions of the key frames whose video was trained on."""
    names = list(index.sources)
    known = {names[position] for position in positions_seen(videos_of(index), tensors)}
    return frozenset(
        position for position, key in enumerate(index.key_frames) if key.video in known
    )


def open_val(root: str, data: DetectionData) -> AvaIndex | None:
    """Return the validation key frames, None where there are none.

    Raises:
        UserError: if nobody in them has an action.
    """
    if annotation_file(root, data.val_split) is None:
        return None
    index = open_ava(root, data.val_split, label_map=data.label_map)
    require_labels(index)
    return index


def open_scenes(
    config: TrainConfig, preprocess: Preprocess, train: AvaIndex, val: AvaIndex | None
) -> tuple[Any, Any]:
    """Return training and validation items; pasted scenes come after the training key frames.

    Raises:
        UserError: if the pasted clips have other classes, or the outside detector's boxes are
            missing.
    """
    data, seed = config.data.detection, config.train.seed
    augment = augment_of(config, preprocess)
    train_data: Any = AvaDataset(
        train, preprocess, augment, seed=seed, proposals=predicted_boxes(config, "train")
    )
    if data.mosaic is not None:
        mosaic = MosaicScenes(data.mosaic, preprocess, length=data.mosaic_scenes, seed=seed)
        if mosaic.class_names != train.class_names:
            raise UserError(
                f"{data.mosaic}: its {len(mosaic.class_names)} classes are not the "
                f"{len(train.class_names)} of {config.data.path}; render both with the same actions"
            )
        train_data = Joined([train_data, mosaic])
    val_boxes = predicted_boxes(config, "val")
    return train_data, AvaDataset(val, preprocess, proposals=val_boxes) if val is not None else None


def predicted_boxes(config: TrainConfig, split: str) -> dict[tuple[str, float], Tensor] | None:
    """Return the outside detector's boxes (R, 4) by video and second, None if they are not used."""
    if config.objective.detection.boxes != "predicted":
        return None
    if config.data.detection.predicted_boxes is None:
        raise UserError(
            "objective.detection.boxes=predicted needs data.detection.predicted_boxes, a CSV of "
            "boxes"
        )
    return read_predicted_boxes(config.data.detection.predicted_boxes.replace("{split}", split))


class Joined(ConcatDataset[dict[str, Any]]):
    """Several sources of (epoch, i) items, one after the other; sample numbers run on."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:  # type: ignore[override]
        source, own = self._source_of(key[1])
        return {**source[(key[0], own)], "sample": key[1]}

    def identity(self, i: int) -> list[Any]:
        """Return what item i is made of."""
        source, own = self._source_of(i)
        return source.identity(own)

    def _source_of(self, i: int) -> tuple[Any, int]:
        number = bisect_right(self.cumulative_sizes, i)
        return self.datasets[number], i - (self.cumulative_sizes[number - 1] if number else 0)


def load_image_stem(model: nn.Module) -> None:
    """Fill the image stem below a detector with ImageNet weights."""
    load_imagenet_stem(model.trunk.stem)  # type: ignore[arg-type, union-attr]


class DetectionObjective(Objective):
    """The sum of the losses of the detector's heads and of its proposal network.

    Args:
        weights: factor of each term; without those of "class" and "box" only trunk and proposal
            network are trained, a fifth of the work of a whole step, to start the heads from.
        boxes: where the head finds persons: "own" proposals, the "truth", or "predicted" by an
            outside detector. Boxes from elsewhere leave the proposal network without a loss.
        stages: see `Objective`.
    """

    evaluation_terms = ()

    def __init__(
        self, weights: dict[str, float], boxes: str = "own", stages: Sequence[Stage] = ()
    ) -> None:
        trained = [name for name in weights if boxes == "own" or name not in PROPOSAL_TERMS]
        super().__init__(
            weights,
            {name: term for name, term in detection_terms().items() if name in trained},
            stages,
        )
        self.boxes = boxes

    def call_model(
        self, model: nn.Module, batch: Batch, names: Sequence[str], return_attention: bool
    ) -> Outputs:
        """Return the model's outputs, in training with what the terms compare them to."""
        given = {
            "own": None,
            "truth": batch["boxes_xyxy_norm"],
            "predicted": batch.get("proposals"),
        }[self.boxes]
        features, size = self.features(model, batch)
        detector: Any = model
        if not model.training:
            return detector.detect_from_features(features, size, boxes_xyxy_norm=given)

        targets = [
            {"boxes_xyxy_norm": boxes, "labels": labels}
            for boxes, labels in zip(batch["boxes_xyxy_norm"], batch["labels"], strict=True)
        ]
        if {*HEAD_TERMS} & set(names):
            return detector.detect_from_features(
                features, size, boxes_xyxy_norm=given, targets=targets
            )
        proposals, losses = detector.propose(features, size, targets)
        return {"proposals": proposals, **losses}

    def features(self, model: nn.Module, batch: Batch) -> tuple[Tensor, tuple[int, int]]:
        """Return the trunk's map and the frame size in pixels, from clips or stored features."""
        detector: Any = model
        if "fine" not in batch:
            return detector.features(batch["clip"]), tuple(batch["clip"].shape[-2:])
        fine, coarse = batch["fine"], batch["coarse"]
        return detector.trunk.mix(fine, coarse), (8 * fine.shape[-2], 8 * fine.shape[-1])


class DetectionEvaluator(Evaluator):
    """Frame mAP at IoU 0.5 ("map"), and persons found at IoU 0.5 and 0.75 (`AvaEvaluator`)."""

    main = "map"

    def __init__(self, class_names: tuple[str, ...], nms_threshold: float = 0.6) -> None:
        super().__init__()
        self.class_names, self.nms_threshold = class_names, nms_threshold

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in one batch: suppress overlapping boxes and keep what is left."""
        persons = postprocess(outputs, nms_threshold=self.nms_threshold)
        for position, sample in enumerate(batch["sample"].tolist()):
            found = {
                name: persons[position][name].cpu()
                for name in ("boxes_xyxy_norm", "scores", "person_scores")
            }
            self.rows[sample] = {
                **found,
                "true_boxes": batch["boxes_xyxy_norm"][position].cpu(),
                "labels": batch["labels"][position].cpu(),
            }

    def evaluator(self) -> AvaEvaluator:
        """Return the metric's own collector, filled with all rows in order of sample."""
        collected = AvaEvaluator(self.class_names)
        for _, row in sorted(self.rows.items()):
            collected.add_image(
                row["true_boxes"].numpy(),
                row["labels"].numpy(),
                row["boxes_xyxy_norm"].numpy(),
                row["scores"].numpy(),
                row["person_scores"].numpy(),
            )
        return collected

    def compute(self) -> dict[str, Any]:
        """Return the metrics as shares, 0..1."""
        return {**self.evaluator().compute(), "images": len(self.rows)}
