"""The mini scale of `marey reproduce action_transformer`: scenes of several rendered persons.

8 frames of 112 x 112, heads an eighth as wide as I3D's. Heads and proposal network of every cell
are trained from fresh weights on the same stored features of the bundled model's frozen trunk,
which costs seconds instead of hours; "From scratch" trains the whole network end to end from random
weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from marey.checkpoints.load import load_model
from marey.datasets.ava import AvaIndex, open_ava
from marey.datasets.ava_clips import AvaDataset
from marey.features.cache import FeatureCache, cache_key
from marey.files import file_identity, weights_digest
from marey.losses.detection import detection_loss
from marey.metrics.ava_evaluator import AvaEvaluator
from marey.models.action_transformer import ActionTransformer, count_parameters, postprocess
from marey.papers.cells import ReproduceOptions, Row
from marey.recipes.action_transformer import MINI_MODEL, mini_augment, mini_preprocess
from marey.synthetic.scenes import render_ava

TRAIN_SCENES, TEST_SCENES = 400, 100
VARIANTS = 2
"""Augmented versions of each training scene whose features are stored."""
STEPS = 150
"""Steps of a mini cell, 8 scenes each."""
LONG_FRAMES = 12
"""Frames at test time of the "+96f" cell: half as many again as in training, as 96 is to 64."""


@dataclass(frozen=True, kw_only=True)
class Variant(Row):
    """One line of the tables."""

    model: dict[str, Any]
    """Arguments of `ActionTransformer` that the line changes."""
    boxes: Literal["own", "truth"] = "own"
    """Whose boxes are classified: the network's proposals or the true ones."""
    augmented: bool = True
    long: bool = False
    """`LONG_FRAMES` at test time, mini scale."""
    scratch: bool = False
    seconds: float = 40.0


# ---- features of a frozen trunk --------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """Features of scenes with what is true of them."""

    features: Tensor
    """float16, (N, D, t, h, w)."""
    boxes: list[Tensor]
    labels: list[Tensor]


def load_data(options: ReproduceOptions) -> tuple[AvaIndex, AvaIndex]:
    """Return training and test key frames: the user's AVA folder, or scenes rendered into the cache
    once."""
    if options.data is not None:
        root = Path(options.data)
        test = "test" if any(root.glob("ava_test*.csv")) else "val"
        return open_ava(root, "train"), open_ava(root, test)
    found = []
    for split, count, frames in (("train", TRAIN_SCENES, 8), ("test", TEST_SCENES, LONG_FRAMES)):
        root = options.cache / "action_transformer" / split
        if not (root / "scenes.csv").is_file():  # written last
            render_ava(root, count, split=split, num_frames=frames, fps=4.0)
        found.append(open_ava(root, split))
    return found[0], found[1]


@functools.lru_cache(maxsize=1)
def bundled_trunk() -> nn.Module:
    """Return the trunk of `marey-mini-detect`."""
    return load_model("marey-mini-detect").trunk  # type: ignore[return-value]


def stored_features(options: ReproduceOptions, kind: str) -> Scenes:
    """Return features, computed on first use: "plain" or "augmented" training scenes, "test",
    "test-long".

    "augmented" holds `VARIANTS` random flips, crops and colours of each scene, one after the other.
    """
    train, test = load_data(options)
    index = test if kind.startswith("test") else train
    preprocess = mini_preprocess()
    if kind == "test-long":
        sampling = replace(preprocess.sampling, num_frames=LONG_FRAMES)
        preprocess = replace(preprocess, sampling=sampling)
    augment = mini_augment(mini_preprocess()) if kind == "augmented" else None

    trunk = bundled_trunk()
    key = cache_key(
        kind=f"scenes, {kind}",
        files=[file_identity(source.path) for source in index.sources.values()],
        labels=file_identity(index.csv_path),
        preprocess=repr(preprocess),
        augment=repr(augment),
        variants=VARIANTS if augment is not None else 1,
        weights=weights_digest(trunk.state_dict()),
    )
    dataset = AvaDataset(index, preprocess, augment)
    stored = FeatureCache(options.cache / "features").get_or_make(
        key, lambda: see_scenes(dataset, trunk)
    )
    persons = stored["persons"].tolist()
    return Scenes(
        features=stored["features"],
        boxes=list(stored["boxes"].split(persons)),
        labels=list(stored["labels"].split(persons)),
    )


@torch.no_grad()
def see_scenes(dataset: AvaDataset, trunk: nn.Module) -> dict[str, Tensor]:
    """Return the trunk's features of every scene, and boxes and labels of all persons with their
    number per scene."""
    features, boxes, labels = [], [], []
    for epoch in range(VARIANTS if dataset.augment is not None else 1):
        for i in range(len(dataset)):
            item = dataset[(epoch, i)]
            features.append(trunk(item["clip"].transpose(0, 1)[None])[0].half())
            boxes.append(item["boxes_xyxy_norm"])
            labels.append(item["labels"])
    return {
        "features": torch.stack(features),
        "boxes": torch.cat(boxes),
        "labels": torch.cat(labels),
        "persons": torch.tensor([len(part) for part in boxes]),
    }


# ---- cells
# ------------------------------------------------------------------------------


def run_mini(variant: Variant, options: ReproduceOptions, seed: int) -> dict[str, Any]:
    """Train one line's heads and measure them on the test scenes.

    Returns:
        "mAP", with own boxes "loc50" and "loc75", in percent; "params": millions at full width;
        "steps".
    """
    torch.manual_seed(seed)
    class_names = load_data(options)[0].class_names
    arguments = {**MINI_MODEL, **variant.model}
    model = ActionTransformer(num_classes=len(class_names), num_frames=8, **arguments)
    model = model.to(options.device)
    if variant.scratch:
        model.trunk.stem.requires_grad_(True)  # type: ignore[union-attr]
        train_scratch(model, seed, options)
    else:
        scenes = stored_features(options, "augmented" if variant.augmented else "plain")
        train_heads(model, scenes, variant, seed)
    test = stored_features(options, "test-long" if variant.long else "test")
    scores = measure(model, test, variant, class_names, None if not variant.scratch else options)
    with torch.device("meta"):
        full = ActionTransformer(num_classes=60, background=True, **variant.model)
    if variant.boxes == "truth":
        scores = {"mAP": scores["mAP"]}
    params = count_parameters(full)["total"]
    return {**scores, "params": round(params, 2), "steps_trained": f"{STEPS}"}


def train_heads(model: ActionTransformer, scenes: Scenes, variant: Variant, seed: int) -> None:
    """Train everything but the trunk on stored features."""
    parameters = [p for name, p in model.named_parameters() if not name.startswith("trunk.")]
    device = next(model.parameters()).device

    def forward(step: int, chosen: list[int]) -> dict[str, Any]:
        targets = [{"boxes_xyxy_norm": scenes.boxes[i], "labels": scenes.labels[i]} for i in chosen]
        given = [scenes.boxes[i] for i in chosen] if variant.boxes == "truth" else None
        features = scenes.features[chosen].float().to(device)
        return model.detect_from_features(
            features, (112, 112), boxes_xyxy_norm=given, targets=targets
        )

    descend(model, parameters, forward, len(scenes.features), seed)


def train_scratch(model: ActionTransformer, seed: int, options: ReproduceOptions) -> None:
    """Train the whole network from random weights, batch norm included, for as many steps on the
    same scenes."""
    preprocess = mini_preprocess()
    augment = mini_augment(preprocess)
    dataset = AvaDataset(load_data(options)[0], preprocess, augment, seed=seed)

    def forward(step: int, chosen: list[int]) -> dict[str, Any]:
        items = [dataset[(step, i)] for i in chosen]
        clip = torch.stack([item["clip"] for item in items]).to(options.device)
        return model(clip, targets=items)

    descend(model, list(model.parameters()), forward, len(dataset), seed)


def descend(
    model: nn.Module,
    parameters: list[nn.Parameter],
    forward: Callable[[int, list[int]], dict[str, Any]],
    num_scenes: int,
    seed: int,
) -> None:
    """Minimise the detection loss: AdamW 1e-3, one-cycle, 8 scenes a step.

    Args:
        forward: (step, chosen scenes) to the model's outputs.
    """
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=STEPS)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for step in range(STEPS):
        chosen = torch.randint(num_scenes, (8,), generator=generator).tolist()
        optimizer.zero_grad()
        torch.stack(list(detection_loss(forward(step, chosen)).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def measure(
    model: ActionTransformer,
    test: Scenes,
    variant: Variant,
    class_names: Sequence[str],
    end_to_end: ReproduceOptions | None = None,
) -> dict[str, float]:
    """Return mAP and localisation in percent on stored features, or on the clips themselves for a
    trunk of its own."""
    model.eval()
    evaluator = AvaEvaluator(class_names)
    dataset = None
    if end_to_end is not None:
        dataset = AvaDataset(load_data(end_to_end)[1], mini_preprocess())
    device = next(model.parameters()).device
    for i in range(len(test.boxes)):
        if dataset is not None:
            features = model.features(dataset[(0, i)]["clip"][None].to(device))
        else:
            features = test.features[i : i + 1].float().to(device)
        given = [test.boxes[i]] if variant.boxes == "truth" else None
        outputs = model.detect_from_features(features, (112, 112), boxes_xyxy_norm=given)
        (persons,) = postprocess(outputs, nms_threshold=1.0 if given else model.head_nms)
        boxes, scores = (persons[key].cpu().numpy() for key in ("boxes_xyxy_norm", "scores"))
        evaluator.add_image(test.boxes[i].numpy(), test.labels[i].numpy(), boxes, scores)
    return percent(evaluator.compute())


def percent(found: Mapping[str, float]) -> dict[str, float]:
    """Return an evaluation's mAP and localisation in percent, by the tables' names."""
    names = {"mAP": "map", "loc50": "localisation_50", "loc75": "localisation_75"}
    return {name: 100 * found[key] for name, key in names.items()}
