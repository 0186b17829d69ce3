"""The mini scale of `marey reproduce action_transformer`: scenes of several rendered persons.

8 frames of 112 x 112, heads an eighth as wide as I3D's. Heads and proposal network of every cell
are trained from fresh weights on the same stored features of the bundled model's frozen trunk,
which costs seconds instead of hours; "From scratch" trains the whole network end to end from random
weights.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
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
from marey.papers.cells import ReproduceOptions
from marey.recipes.action_transformer import MINI_MODEL, mini_preprocess
from marey.synthetic.scenes import render_ava
from marey.transforms.augment import Augment

TRAIN_SCENES, TEST_SCENES = 400, 100
VARIANTS = 2
"""Augmented versions of each training scene whose features are stored."""
STEPS = 150
"""Steps of a mini cell, 8 scenes each."""
LONG_FRAMES = 12
"""Frames at test time of the "+96f" cell: half as many again as in training, as 96 is to 64."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One line of the tables."""

    name: str
    table: str
    paper: Mapping[str, float]
    model: dict[str, Any]
    """Arguments of `ActionTransformer` that the line changes."""
    boxes: Literal["own", "truth"] = "own"
    """Whose boxes are classified: the network's proposals or the true ones."""
    augmented: bool = True
    frames: int = 8
    """Frames at test time, mini scale."""
    scratch: bool = False
    priority: int = 1
    estimate_seconds: float = 40.0


# ---- features of a frozen trunk
# ------------------------------------------------------------------------------


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
        return open_ava(root, "train"), open_ava(
            root, "test" if any(root.glob("ava_test*.csv")) else "val"
        )
    roots = [options.cache / "action_transformer" / split for split in ("train", "test")]
    for root, count, split, frames in zip(
        roots, (TRAIN_SCENES, TEST_SCENES), ("train", "test"), (8, LONG_FRAMES), strict=True
    ):
        if not (root / "scenes.csv").is_file():  # written last
            render_ava(root, count, split=split, num_frames=frames, fps=4.0)
    return open_ava(roots[0], "train"), open_ava(roots[1], "test")


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
        preprocess = replace(
            preprocess, sampling=replace(preprocess.sampling, num_frames=LONG_FRAMES)
        )
    augment = mini_augment() if kind == "augmented" else None

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


def mini_augment() -> Augment:
    """Return the flips, crops and colours of the mini recipe."""
    return Augment(
        preprocess=mini_preprocess(),
        crop="random_resized",
        area_range=(0.5, 1.0),
        flip=0.5,
        brightness=0.2,
        contrast=0.2,
    )


# ---- training and measuring ---------------------------------------------------------------------


def run_mini(variant: Variant, seed: int, options: ReproduceOptions) -> dict[str, Any]:
    """Train one line's heads and measure them on the test scenes.

    Returns:
        "mAP", with own boxes "loc50" and "loc75", in percent; "params": millions at full width;
        "steps".
    """
    torch.manual_seed(seed)
    class_names = load_data(options)[0].class_names
    arguments = {**MINI_MODEL, **variant.model}
    model = ActionTransformer(num_classes=len(class_names), num_frames=8, **arguments).to(
        options.device
    )
    if variant.scratch:
        model.trunk.stem.requires_grad_(True)  # type: ignore[union-attr]
        train_scratch(model, seed, options)
    else:
        train_heads(
            model,
            stored_features(options, "augmented" if variant.augmented else "plain"),
            variant,
            seed,
        )
    test = stored_features(options, "test-long" if variant.frames == LONG_FRAMES else "test")
    scores = measure(model, test, variant, class_names, None if not variant.scratch else options)
    full = {
        key: value
        for key, value in variant.model.items()
        if key in ("head", "query", "class_specific_boxes")
    }
    with torch.device("meta"):
        params = count_parameters(ActionTransformer(num_classes=60, background=True, **full))[
            "total"
        ]
    kept = ("mAP",) if variant.boxes == "truth" else ("mAP", "loc50", "loc75")
    return {
        **{key: scores[key] for key in kept},
        "params": round(params, 2),
        "steps_trained": f"{STEPS}",
    }


def train_heads(model: ActionTransformer, scenes: Scenes, variant: Variant, seed: int) -> None:
    """Train everything but the trunk on stored features: AdamW 1e-3, one-cycle, 8 scenes a step."""
    parameters = [p for name, p in model.named_parameters() if not name.startswith("trunk.")]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=STEPS)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(STEPS):
        chosen = torch.randint(len(scenes.features), (8,), generator=generator).tolist()
        targets = [{"boxes_xyxy_norm": scenes.boxes[i], "labels": scenes.labels[i]} for i in chosen]
        given = [scenes.boxes[i] for i in chosen] if variant.boxes == "truth" else None
        device = next(model.parameters()).device
        outputs = model.detect_from_features(
            scenes.features[chosen].float().to(device),
            (112, 112),
            boxes_xyxy_norm=given,
            targets=targets,
        )
        _step(optimizer, schedule, outputs, parameters)


def train_scratch(model: ActionTransformer, seed: int, options: ReproduceOptions) -> None:
    """Train the whole network from random weights, batch norm included, for as many steps on the
    same scenes."""
    dataset = AvaDataset(load_data(options)[0], mini_preprocess(), mini_augment(), seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=STEPS)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for step in range(STEPS):
        chosen = torch.randint(len(dataset), (8,), generator=generator).tolist()
        items = [dataset[(step, i)] for i in chosen]
        clip = torch.stack([item["clip"] for item in items]).to(options.device)
        _step(optimizer, schedule, model(clip, targets=items), list(model.parameters()))


def _step(
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    outputs: dict[str, Any],
    parameters: list[nn.Parameter],
) -> None:
    optimizer.zero_grad()
    torch.stack(list(detection_loss(outputs).values())).sum().backward()
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
    dataset = (
        AvaDataset(load_data(end_to_end)[1], mini_preprocess()) if end_to_end is not None else None
    )
    device = next(model.parameters()).device
    for i in range(len(test.boxes)):
        if dataset is not None:
            features = model.features(dataset[(0, i)]["clip"][None].to(device))
        else:
            features = test.features[i : i + 1].float().to(device)
        given = [test.boxes[i]] if variant.boxes == "truth" else None
        outputs = model.detect_from_features(features, (112, 112), boxes_xyxy_norm=given)
        persons = postprocess(outputs, nms_threshold=1.0 if given is not None else model.head_nms)[
            0
        ]
        evaluator.add_image(
            test.boxes[i].numpy(),
            test.labels[i].numpy(),
            persons["boxes_xyxy_norm"].cpu().numpy(),
            persons["scores"].cpu().numpy(),
        )
    found = evaluator.compute()
    return {
        "mAP": 100 * found["map"],
        "loc50": 100 * found["localisation_50"],
        "loc75": 100 * found["localisation_75"],
    }
