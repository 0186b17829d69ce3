"""The mini scale of `marey reproduce action_transformer`: scenes of several rendered persons.

8 frames of 112 x 112. The heads of every line are trained on the stored trunk maps and proposals of
a first run (`action_transformer_scenes`), which costs a minute instead of hours. "From scratch"
trains the whole network end to end from random weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from marey.datasets.ava_clips import AvaDataset
from marey.features.cache import FeatureCache, cache_key
from marey.layers.batch_statistics import recalibrate_batch_statistics
from marey.losses.detection import detection_loss
from marey.metrics.ava_evaluator import AvaEvaluator
from marey.models.action_transformer import ActionTransformer, count_parameters, postprocess
from marey.papers.action_transformer_paired import store_answers
from marey.papers.action_transformer_scenes import (
    SIZE,
    Mapped,
    dataset_of,
    descend,
    first_run,
    flip_boxes,
    groups,
    load_data,
    trunk_maps,
)
from marey.papers.cells import ReproduceOptions, Row
from marey.recipes.action_transformer import TABLE_MODEL, mini_augment, mini_preprocess
from marey.synthetic.relations import RELATIONS, TWINS

STEPS = 150
"""Steps of a mini line's heads, 8 scenes each."""
SCRATCH_STEPS = 150
"""Steps of the line from scratch."""


@dataclass(frozen=True, kw_only=True)
class Variant(Row):
    """One line of the tables."""

    model: dict[str, Any]
    """Arguments of `ActionTransformer` that the line changes."""
    mini: dict[str, Any]
    """Arguments it changes at mini scale: the size of its head."""
    boxes: Literal["own", "truth"] = "own"
    """Whose boxes are classified: the network's proposals or the true ones."""
    augmented: bool = True
    long: str = ""
    """Name of the line whose model this one tests with half as many frames again."""
    scratch: bool = False
    scenes: Literal["", "relations"] = ""
    """The scenes of the tables, or those whose label depends on another person."""
    masked: bool = False
    """Nothing is seen outside the labelled person's boxes, in training and test."""
    full: bool = True
    """Whether the full scale has the line."""
    seconds: float = 40.0

    def kind(self, split: str) -> str:
        """Return the name of the line's scenes of a split, for `dataset_of`."""
        return " ".join(part for part in (self.scenes, split, "masked" * self.masked) if part)


def run_mini(variant: Variant, options: ReproduceOptions, seed: int) -> dict[str, Any]:
    """Train one line's heads and measure them on the test scenes.

    Returns:
        "mAP", with own boxes "loc50" and "loc75", in percent; "params" and "head_params", millions
        of the model that was trained.
    """
    model = build(variant, options, seed)
    if variant.scratch:
        train_scratch(model, seed, options)
        evaluator = measure_clips(model, options)
    else:
        model.load_state_dict(trained_heads(model, variant, options, seed), strict=False)
        _, test = trunk_maps(options, variant.kind("test-long" if variant.long else "test"))
        evaluator = measure(model, test, variant)
    store_answers(options, variant.name, seed, evaluator.rows())

    scores = percent(evaluator.compute())
    if variant.boxes == "truth":
        scores = {"mAP": scores["mAP"]}
    if variant.scenes:
        scores |= accuracies(evaluator)
    counts = count_parameters(model)
    return {
        **scores,
        "params": round(counts["total"], 3),
        "head_params": round(counts["head"] + counts["outputs"], 3),
    }


def build(variant: Variant, options: ReproduceOptions, seed: int) -> ActionTransformer:
    """Return the line's detector, its heads fresh, trunk and proposal network of the first run."""
    arguments = {**TABLE_MODEL, **variant.model, **variant.mini}
    if variant.scratch:
        arguments["trunk_arguments"] = {**TABLE_MODEL["trunk_arguments"], "from_scratch": True}
    _, state = ("", {}) if variant.scratch else first_run(options)
    torch.manual_seed(seed)
    class_names = dataset_of(options, variant.kind("train")).index.class_names
    model = ActionTransformer(num_classes=len(class_names), num_frames=8, **arguments)
    model.load_state_dict(state, strict=False)
    return model.to(options.device)


# ---- training ---------------------------------------------------------------------------------


def trained_heads(
    model: ActionTransformer, variant: Variant, options: ReproduceOptions, seed: int
) -> dict[str, Tensor]:
    """Return the weights of a line's heads, trained now or by a line that differs at test time
    only."""
    maps_key, scenes = trunk_maps(options, variant.kind("train"))
    key = cache_key(
        kind="heads",
        maps=maps_key,
        model={name: v for name, v in model.arguments.items() if name != "num_proposals"},
        boxes=variant.boxes,
        augmented=variant.augmented,
        steps=STEPS,
        seed=seed,
    )

    def make() -> dict[str, Tensor]:
        train_heads(model, scenes, variant, seed)
        skipped = ("trunk.", "rpn.")
        return {k: v for k, v in model.state_dict().items() if not k.startswith(skipped)}

    return FeatureCache(options.cache / "features").get_or_make(key, make)


def train_heads(model: ActionTransformer, scenes: Mapped, variant: Variant, seed: int) -> None:
    """Train the heads on stored maps and proposals, and measure their batch statistics anew."""
    frozen = ("trunk.", "rpn.")
    parameters = [p for name, p in model.named_parameters() if not name.startswith(frozen)]

    flips = torch.Generator().manual_seed(seed)

    def loss(chosen: list[int]) -> Tensor:
        share = 0.5 if variant.augmented else 0.0
        turned = torch.rand(len(chosen), generator=flips) < share
        outputs = detect(model, scenes, chosen, variant, turned)
        return torch.stack(list(detection_loss(outputs).values())).sum()

    descend(model, parameters, loss, len(scenes), seed, STEPS)
    recalibrate_batch_statistics(model, loss, groups(len(scenes)))


def detect(
    model: ActionTransformer,
    scenes: Mapped,
    chosen: list[int],
    variant: Variant,
    turned: Tensor | None = None,
) -> dict[str, Any]:
    """Run the heads on some scenes: on the true boxes, or on those sampled of the proposals.

    The first `num_proposals` of the stored proposals are used at test time, 64 of them in training.

    Args:
        turned: in training, which scenes are flipped left to right; None at test time.
    """
    device = next(model.parameters()).device
    features = scenes.maps[chosen].float()
    flipped = [False] * len(chosen)
    if turned is not None:
        features[turned] = features[turned].flip(-1)
        flipped = turned.tolist()
    features = features.to(device)
    truth = [flip_boxes(scenes.boxes[i], t) for i, t in zip(chosen, flipped, strict=True)]
    boxes = truth
    if variant.boxes == "own":
        limit = model.arguments["num_proposals"] if turned is None else 64
        own = [scenes.proposals[i][:limit] for i in chosen]
        boxes = [flip_boxes(found, t) for found, t in zip(own, flipped, strict=True)]
    boxes = [found.to(device) for found in boxes]
    if turned is None:
        return model.detect_from_features(features, SIZE, boxes_xyxy_norm=boxes)

    targets = [
        {"boxes_xyxy_norm": own.to(device), "labels": scenes.labels[i].to(device)}
        for own, i in zip(truth, chosen, strict=True)
    ]
    if variant.boxes == "truth":
        return model.detect_from_features(features, SIZE, boxes_xyxy_norm=boxes, targets=targets)
    boxes, sampled = model.sample(boxes, targets, keep_all=False)
    return {**model.detect_from_features(features, SIZE, boxes_xyxy_norm=boxes), **sampled}


def train_scratch(model: ActionTransformer, seed: int, options: ReproduceOptions) -> None:
    """Train the whole network from random weights on pixels, batch statistics included."""
    preprocess = mini_preprocess()
    dataset = AvaDataset(load_data(options)[0], preprocess, mini_augment(preprocess), seed=seed)
    epoch = 0

    def loss(chosen: list[int]) -> Tensor:
        nonlocal epoch
        epoch += 1
        items = [dataset[(epoch, i)] for i in chosen]
        clip = torch.stack([item["clip"] for item in items]).to(options.device)
        terms = detection_loss(model(clip, targets=items))
        return torch.stack(list(terms.values())).sum()

    descend(model, list(model.parameters()), loss, len(dataset), seed, SCRATCH_STEPS)
    recalibrate_batch_statistics(model, loss, groups(len(dataset)))


# ---- measuring --------------------------------------------------------------------------------


@torch.no_grad()
def measure(model: ActionTransformer, test: Mapped, variant: Variant) -> AvaEvaluator:
    """Collect a line's answers on stored maps."""
    model.eval()
    evaluator = AvaEvaluator([str(k) for k in range(model.num_classes)])
    for i in range(len(test)):
        outputs = detect(model, test, [i], variant)
        if variant.boxes == "own":
            proposals = outputs["proposals_xyxy_norm"]
            outputs["boxes_xyxy_norm"] = model.decode(outputs["box_deltas"], proposals)
        threshold = 1.0 if variant.boxes == "truth" else model.head_nms
        add(evaluator, outputs, threshold, test.boxes[i], test.labels[i])
    return evaluator


@torch.no_grad()
def measure_clips(model: ActionTransformer, options: ReproduceOptions) -> AvaEvaluator:
    """Collect the answers of a network with a trunk of its own, from pixels to boxes."""
    model.eval()
    dataset = AvaDataset(load_data(options)[1], mini_preprocess())
    evaluator = AvaEvaluator([str(k) for k in range(model.num_classes)])
    for i in range(len(dataset)):
        item = dataset[(0, i)]
        outputs = model(item["clip"][None].to(options.device))
        add(evaluator, outputs, model.head_nms, item["boxes_xyxy_norm"], item["labels"])
    return evaluator


def add(
    evaluator: AvaEvaluator,
    outputs: dict[str, Any],
    nms_threshold: float,
    true_boxes: Tensor,
    labels: Tensor,
) -> None:
    """Give one scene's answers to an evaluator."""
    (persons,) = postprocess(outputs, nms_threshold=nms_threshold)
    boxes, scores = (persons[key].cpu().numpy() for key in ("boxes_xyxy_norm", "scores"))
    evaluator.add_image(true_boxes.numpy(), labels.numpy(), boxes, scores)


def accuracies(evaluator: AvaEvaluator) -> dict[str, float]:
    """Return how often the one labelled person of a relation scene is named right, in percent.

    "accuracy" is among all labels, "twins" among the two that differ in the other person only
    (chance 50).
    """
    truth, found = evaluator.rows()
    scores = found.last.reshape(len(truth), -1)
    label = truth.class_ids - 1
    names = list(RELATIONS)
    twin_of = {names.index(a): names.index(b) for a, b in TWINS.items()}
    twin_of |= {b: a for a, b in twin_of.items()}
    twin = np.array([twin_of[k] for k in label.tolist()])
    rows = np.arange(len(label))
    return {
        "accuracy": 100 * float((scores.argmax(axis=1) == label).mean()),
        "twins": 100 * float((scores[rows, label] > scores[rows, twin]).mean()),
    }


def percent(found: Mapping[str, float]) -> dict[str, float]:
    """Return an evaluation's mAP and localisation in percent, by the tables' names."""
    names = {"mAP": "map", "loc50": "localisation_50", "loc75": "localisation_75"}
    return {name: 100 * found[key] for name, key in names.items()}
