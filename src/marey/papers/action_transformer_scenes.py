"""The scenes of `marey reproduce action_transformer --scale mini` as stored features.

The ImageNet stem below the detector is frozen and runs once per scene. One first run, shared by all
lines and seeds as the paper's Kinetics weights are, trains what lies between stem and heads:
convolutions over time and space, and the proposal network. It learns actions through one linear
layer on averaged tubes, so that its features favour neither the Tx nor the I3D head. Scenes are
augmented by flipping maps, not by crops of pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from marey.datasets.ava import AvaIndex, KeyFrame, annotation_file, open_ava, require_labels
from marey.datasets.ava_clips import AvaDataset
from marey.features.cache import FeatureCache, cache_key
from marey.files import file_identity, weights_digest
from marey.layers.batch_statistics import recalibrate_batch_statistics
from marey.layers.efficientnet_lite import load_imagenet_stem
from marey.layers.roi import pool_tubes
from marey.losses.detection import action_loss
from marey.models.action_transformer import ActionTransformer
from marey.models.trunks import FrameTrunk
from marey.papers.cells import ReproduceOptions
from marey.recipes.action_transformer import TABLE_MODEL, mini_preprocess
from marey.synthetic.relations import mask_outside, read_tubes, render_relations
from marey.synthetic.scenes import render_ava

TRAIN_SCENES, TEST_SCENES = 400, 100
FIRST_STEPS = 200
"""Steps of the first run, 8 scenes each."""
LONG_FRAMES = 12
"""Frames at test time of the "+96f" line: half as many again as in training, as 96 is to 64."""
RELATION_SCENES = {"train": 240, "test": 96}
SIZE = (112, 112)


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """Features of N scenes with what is true of them."""

    fine: Tensor
    """float16, (N, T, 40, h, w), stride 8."""
    coarse: Tensor
    """float16, (N, T, 112, h / 2, w / 2)."""
    boxes: list[Tensor]
    labels: list[Tensor]

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """Trunk maps of N scenes, with the proposals of the first run."""

    maps: Tensor
    """float16, (N, D, t, h, w)."""
    proposals: list[Tensor]
    """N tensors (R, 4), best first."""
    boxes: list[Tensor]
    labels: list[Tensor]

    def __len__(self) -> int:
        return len(self.boxes)


def load_data(options: ReproduceOptions) -> tuple[AvaIndex, AvaIndex]:
    """Return training and test key frames: the user's AVA folder, or scenes rendered into the cache
    once.

    Raises:
        UserError: if a split has no labels.
    """
    if options.data is not None:
        root = Path(options.data)
        test = "test" if annotation_file(root, "test") is not None else "val"
        found = [open_ava(root, "train"), open_ava(root, test)]
    else:
        found = []
        for split, count, frames in (
            ("train", TRAIN_SCENES, 8),
            ("test", TEST_SCENES, LONG_FRAMES),
        ):
            root = options.cache / "action_transformer" / split
            if not (root / "scenes.csv").is_file():  # written last
                render_ava(root, count, split=split, num_frames=frames, fps=4.0)
            found.append(open_ava(root, split))
    for index in found:
        require_labels(index)
    return found[0], found[1]


def dataset_of(options: ReproduceOptions, kind: str) -> AvaDataset:
    """Return clips by the name of their kind.

    "train", "test", "test-long" (`LONG_FRAMES`); "relations train", "relations test": scenes whose
    label depends on another person, also "... masked" outside the labelled person's boxes.
    """
    preprocess = mini_preprocess()
    if kind.startswith("relations"):
        _, split, *masked = kind.split()
        root = options.cache / "action_transformer" / f"relations_{split}"
        if not (root / "scenes.csv").is_file():  # written last
            render_relations(root, RELATION_SCENES[split], split=split)
        index = open_ava(root, split)
        return MaskedScenes(index, preprocess) if masked else AvaDataset(index, preprocess)
    train, test = load_data(options)
    if kind == "test-long":
        sampling = replace(preprocess.sampling, num_frames=LONG_FRAMES)
        preprocess = replace(preprocess, sampling=sampling)
    return AvaDataset(train if kind == "train" else test, preprocess)


class MaskedScenes(AvaDataset):
    """Scenes of `render_relations` in which only the labelled person's boxes are seen."""

    def frames(self, key: KeyFrame) -> Tensor:
        """Decode a scene, grey outside the boxes."""
        return mask_outside(super().frames(key), read_tubes(self.index.root)[key.video])


# ---- features of the image stem ---------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def image_stem() -> FrameTrunk:
    """Return a trunk whose stem has ImageNet's weights."""
    trunk = FrameTrunk()
    load_imagenet_stem(trunk.stem)
    return trunk.eval()


@functools.lru_cache(maxsize=3)
def stem_features(options: ReproduceOptions, kind: str) -> tuple[str, Scenes]:
    """Return the cache key and the features of the scenes of a kind (`dataset_of`)."""
    dataset, trunk = dataset_of(options, kind), image_stem()
    index = dataset.index
    key = cache_key(
        kind=f"scenes, {kind}",
        files=[file_identity(source.path) for source in index.sources.values()],
        labels=file_identity(index.csv_path),
        preprocess=repr(dataset.preprocess),
        weights=weights_digest(trunk.stem.state_dict()),
    )
    stored = FeatureCache(options.cache / "features").get_or_make(
        key, lambda: see_scenes(dataset, trunk)
    )
    persons = stored["persons"].tolist()
    scenes = Scenes(
        fine=stored["fine"],
        coarse=stored["coarse"],
        boxes=list(stored["boxes"].split(persons)),
        labels=list(stored["labels"].split(persons)),
    )
    return key, scenes


@torch.no_grad()
def see_scenes(dataset: AvaDataset, trunk: FrameTrunk) -> dict[str, Tensor]:
    """Return the stem's features of every scene, and boxes and labels of all persons with their
    number per scene."""
    fine, coarse, boxes, labels = [], [], [], []
    for i in range(len(dataset)):
        item = dataset[(0, i)]
        both = trunk.stem_features(item["clip"])
        fine.append(both[0].half())
        coarse.append(both[1].half())
        boxes.append(item["boxes_xyxy_norm"])
        labels.append(item["labels"])
    return {
        "fine": torch.stack(fine),
        "coarse": torch.stack(coarse),
        "boxes": torch.cat(boxes),
        "labels": torch.cat(labels),
        "persons": torch.tensor([len(part) for part in boxes]),
    }


# ---- the first run ----------------------------------------------------------------------------


def num_classes(options: ReproduceOptions) -> int:
    """Return K."""
    return len(load_data(options)[0].class_names)


@functools.lru_cache(maxsize=1)
def first_run(options: ReproduceOptions) -> tuple[str, dict[str, Tensor]]:
    """Train trunk and proposal network on the training scenes, once.

    Returns:
        Cache key and weights, "trunk.*" and "rpn.*".
    """
    scenes_key, scenes = stem_features(options, "train")
    key = cache_key(kind="first run", scenes=scenes_key, model=TABLE_MODEL, steps=FIRST_STEPS)

    def make() -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = ActionTransformer(num_classes=num_classes(options), num_frames=8, **TABLE_MODEL)
        model.trunk.stem.load_state_dict(image_stem().stem.state_dict())  # type: ignore[union-attr]
        model.to(options.device)
        probe = nn.Linear(model.trunk.out_channels, model.num_classes).to(options.device)
        modules = nn.ModuleDict({"detector": model, "probe": probe})
        names = ("detector.trunk.", "detector.rpn.", "probe.")
        parameters = [
            parameter
            for name, parameter in modules.named_parameters()
            if name.startswith(names) and parameter.requires_grad
        ]

        flips = torch.Generator().manual_seed(0)

        def loss(chosen: list[int]) -> Tensor:
            turned = torch.rand(len(chosen), generator=flips) < 0.5
            maps = mixed(model, scenes, chosen, turned)
            pairs = zip(chosen, turned.tolist(), strict=True)
            truth = [flip_boxes(scenes.boxes[i], flipped) for i, flipped in pairs]
            targets = [{"boxes_xyxy_norm": boxes.to(maps)} for boxes in truth]
            _, losses = model.propose(maps, SIZE, targets)
            tubes = pool_tubes(maps, truth, "align").mean(dim=(2, 3, 4))
            labels = torch.cat([scenes.labels[i] for i in chosen]).to(maps)
            return (
                action_loss(probe(tubes), labels)
                + losses["loss_objectness"]
                + 4 * losses["loss_rpn_box"]
            )

        descend(modules, parameters, loss, len(scenes), 0, FIRST_STEPS)
        recalibrate_batch_statistics(modules, loss, groups(len(scenes)))
        return {
            name: value
            for name, value in model.state_dict().items()
            if name.startswith(("trunk.", "rpn."))
        }

    return key, FeatureCache(options.cache / "features").get_or_make(key, make)


def mixed(
    model: ActionTransformer, scenes: Scenes, chosen: list[int], turned: Tensor | None = None
) -> Tensor:
    """Return the trunk's maps of some scenes, flipped left to right where `turned` says so."""
    device = next(model.parameters()).device
    fine, coarse = scenes.fine[chosen].float(), scenes.coarse[chosen].float()
    if turned is not None:
        fine[turned], coarse[turned] = fine[turned].flip(-1), coarse[turned].flip(-1)
    return model.trunk.mix(fine.to(device), coarse.to(device))  # type: ignore[union-attr, operator]


def flip_boxes(boxes_xyxy_norm: Tensor, turned: bool) -> Tensor:
    """Return boxes (P, 4) as a flipped frame has them."""
    if not turned:
        return boxes_xyxy_norm
    x1, y1, x2, y2 = boxes_xyxy_norm.unbind(-1)
    return torch.stack([1 - x2, y1, 1 - x1, y2], dim=-1)


def groups(num_scenes: int, count: int = 20, size: int = 8) -> Iterator[list[int]]:
    """Yield scenes for batch statistics, in groups as large as those of training."""
    order = torch.randperm(num_scenes, generator=torch.Generator().manual_seed(0)).tolist()
    for start in range(0, min(num_scenes, count * size), size):
        yield order[start : start + size]


def descend(
    model: nn.Module,
    parameters: list[nn.Parameter],
    loss: Callable[[list[int]], Tensor],
    num_scenes: int,
    seed: int,
    steps: int,
    rate: float = 2e-3,
) -> None:
    """Minimise a loss over chosen scenes: AdamW, one-cycle, 8 scenes a step."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(num_scenes, (8,), generator=generator).tolist()
        optimizer.zero_grad()
        loss(chosen).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()


@functools.lru_cache(maxsize=2)
def trunk_maps(options: ReproduceOptions, kind: str) -> tuple[str, Mapped]:
    """Return cache key, maps and 300 proposals of the scenes of a kind by the first run."""
    run_key, state = first_run(options)
    scenes_key, scenes = stem_features(options, kind)
    key = cache_key(kind="trunk maps", run=run_key, scenes=scenes_key)

    @torch.no_grad()
    def make() -> dict[str, Tensor]:
        arguments = {**TABLE_MODEL, "num_proposals": 300}
        model = ActionTransformer(num_classes=num_classes(options), num_frames=8, **arguments)
        model.load_state_dict(state, strict=False)
        model.eval().to(options.device)
        maps, proposals = [], []
        for i in range(len(scenes)):
            features = mixed(model, scenes, [i])
            (found,), _ = model.propose(features, SIZE, None)
            maps.append(features[0].half().cpu())
            proposals.append(found.cpu())
        counts = torch.tensor([len(found) for found in proposals])
        return {"maps": torch.stack(maps), "proposals": torch.cat(proposals), "counts": counts}

    stored: dict[str, Any] = FeatureCache(options.cache / "features").get_or_make(key, make)
    mapped = Mapped(
        maps=stored["maps"],
        proposals=list(stored["proposals"].split(stored["counts"].tolist())),
        boxes=scenes.boxes,
        labels=scenes.labels,
    )
    return key, mapped
