"""Figs. 4 to 7 of Girdhar et al. on held-out scenes, and what Fig. 4 is said to show, measured
on renders.

The model is `marey-mini-detect` (Tx head, HighRes queries) and its scenes are the test scenes of
the mini tables; at full scale it is the trained "Tx HighRes, R=300" on AVA's validation clips.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from marey.checkpoints.load import load_checkpoint
from marey.datasets.ava import AvaIndex, open_ava
from marey.errors import UserError
from marey.explain.persons import class_answers, detect_all, explain_person, gallery
from marey.files import atomic
from marey.inference.detector import Detector
from marey.metrics.ava_breakdown import breakdown
from marey.metrics.ava_evaluator import AvaEvaluator
from marey.models.action_transformer import ActionTransformer
from marey.papers.action_transformer_scenes import dataset_of, load_data
from marey.papers.cells import ReproduceOptions
from marey.synthetic.relations import TWINS
from marey.synthetic.scenes import RenderedScene, render_scene
from marey.video.draw import contact_sheet, draw_boxes

LINE = "Tx HighRes, R=300"
"""The line whose model the figures show at full scale."""
OBSERVED_SCENES = 40
"""Held-out scenes on which attention is measured, rendered anew with identities and joints."""
FIRST_SEED = 90_000_000
UNTRAINED = 3
"""Seeds of the untrained network."""


def figures_folder(cache: Path) -> Path:
    """Return where the pictures are drawn; `page` copies them beside the tables."""
    return cache / "action_transformer" / "figures"


@functools.lru_cache(maxsize=1)
def detector_of(options: ReproduceOptions) -> Detector:
    """Return the model of the figures.

    Raises:
        UserError: at full scale, if the line was not trained yet.
    """
    if options.scale != "full":
        return Detector.load("marey-mini-detect", persons="own", min_score=0.0)
    folder = options.cache / "action_transformer" / f"{LINE.replace(' ', '-')}-seed0" / "best"
    if not folder.is_dir():
        raise UserError(f"the figures show the line '{LINE}', seed 0: run it first")
    return Detector.load(folder, persons="own", min_score=0.0)


def data_of(options: ReproduceOptions) -> tuple[AvaIndex, AvaIndex]:
    """Return training and held-out key frames."""
    if options.scale == "full":
        return open_ava(str(options.data), "train"), open_ava(str(options.data), "val")
    return load_data(options)


@functools.lru_cache(maxsize=1)
def detected(options: ReproduceOptions) -> list[dict[str, Tensor]]:
    """Return the model's persons in all held-out key frames."""
    return detect_all(detector_of(options), data_of(options)[1])


def figure_4(options: ReproduceOptions, seed: int) -> dict[str, Any]:
    """Draw key embeddings and attention of the person the model is surest of (Fig. 4)."""
    _, test = data_of(options)
    sure = [float(found["person_scores"][:1].sum()) for found in detected(options)]
    number = int(np.argmax(sure))
    key = test.key_frames[number]
    source = test.sources[key.video]
    seconds = key.seconds - source.first_second
    if source.key_frame is not None:
        seconds = source.key_frame / (source.fps or 4.0)
    path = figures_folder(options.cache) / "fig4.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    found = explain_person(detector_of(options), source.path, seconds, path)
    return {"scene": key.video, **found}


def figure_5(options: ReproduceOptions, seed: int) -> dict[str, Any]:
    """Break the score down by class with its training rows, by size and by number of persons
    (Fig. 5)."""
    train, test = data_of(options)
    evaluator = AvaEvaluator(test.class_names)
    for key, found in zip(test.key_frames, detected(options), strict=True):
        boxes, scores = found["boxes_xyxy_norm"].numpy(), found["scores"].numpy()
        evaluator.add_image(key.boxes_xyxy_norm.numpy(), key.labels.numpy(), boxes, scores)
    truth, rows = evaluator.rows()
    counts = dict(enumerate(train.class_counts().values(), start=1))
    parts = breakdown(truth, rows, evaluator.label_map, training_counts=counts)
    draw_breakdown(parts, figures_folder(options.cache) / "fig5.png")
    return {"breakdown": parts}


def draw_breakdown(parts: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw the three panels of Fig. 5: bars of AP, in green the number of rows."""
    from matplotlib.figure import Figure

    panels = (
        ("class", "ap", "training_rows", "training rows", [r["label"] for r in parts["class"]]),
        ("size", "mAP", "boxes", "boxes", [f"{100 * r['to']:.1f} %" for r in parts["size"]]),
        ("persons", "mAP", "images", "images", [str(r["persons"]) for r in parts["persons"]]),
    )
    widths = [max(len(parts[name]), 6) for name, *_ in panels]
    figure = Figure(figsize=(15, 4.5))
    axes = figure.subplots(1, 3, width_ratios=widths)
    titles = ("by class", "by box area, up to", "by number of persons")
    for axis, title, (name, value, count, unit, labels) in zip(axes, titles, panels, strict=True):
        rows = parts[name]
        places = np.arange(len(rows))
        heights = [0.0 if math.isnan(row[value]) else 100 * row[value] for row in rows]
        axis.bar(places, heights, color="#4477aa")
        slant = {} if name == "persons" else {"rotation": 60, "ha": "right"}
        axis.set_xticks(places, labels, **slant)
        axis.set_title(title)
        axis.set_ylabel("AP, %")
        other = axis.twinx()
        other.plot(places, [row[count] for row in rows], color="#228833", marker=".")
        other.set_ylim(bottom=0)
        other.set_ylabel(unit, color="#228833")
    figure.tight_layout()
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=80)


def figure_6(options: ReproduceOptions, seed: int) -> dict[str, Any]:
    """Draw the surest answers of the class with the highest AP (Fig. 6)."""
    label = ranked_classes(options)[-1]
    answers = class_answers(detected(options), data_of(options)[1], label)[:6]
    save_gallery(options, answers, f"most certain: {label}", "fig6.png")
    return {"label": label, "right": sum(shown.right for shown in answers), "shown": len(answers)}


def figure_7(options: ReproduceOptions, seed: int) -> dict[str, Any]:
    """Draw the surest wrong answers of the class with the lowest AP (Fig. 7)."""
    label = ranked_classes(options)[0]
    answers = class_answers(detected(options), data_of(options)[1], label)
    wrong = [shown for shown in answers if not shown.right][:6]
    save_gallery(options, wrong, f"wrong, most certain first: {label}", "fig7.png")
    return {"label": label, "truth": [shown.truth for shown in wrong]}


def ranked_classes(options: ReproduceOptions) -> list[str]:
    """Return the classes that somebody does, lowest AP first."""
    rows = figure_5(options, 0)["breakdown"]["class"]
    known = [row for row in rows if not math.isnan(row["ap"])]
    return [row["label"] for row in sorted(known, key=lambda row: row["ap"])]


def save_gallery(options: ReproduceOptions, answers: Sequence[Any], title: str, name: str) -> None:
    """Write a gallery of answers."""
    path = figures_folder(options.cache) / name
    picture = gallery(detector_of(options), data_of(options)[1], answers, title)
    with atomic(path) as temporary:
        picture.save(temporary, format="png")


def relation_scenes(options: ReproduceOptions, seed: int) -> dict[str, Any]:
    """Draw a held-out scene per relation: first, key and last frame, and the key frame masked.

    Twins stand in rows below each other; white: the labelled person's box.
    """
    whole, masked = (dataset_of(options, f"relations test{kind}") for kind in ("", " masked"))
    index, pictures, captions = whole.index, [], []
    numbers = [index.class_names[int(key.labels[0].argmax())] for key in index.key_frames]
    for label in [name for pair in TWINS.items() for name in pair]:
        key = index.key_frames[numbers.index(label)]
        frames, alone = whole.frames(key), masked.frames(key)
        middle, size = len(frames) // 2, frames.shape[-1]
        for name, frame in (
            (f"{label}: start", frames[0]),
            ("key frame", frames[middle]),
            ("end", frames[-1]),
            ("key frame, masked", alone[middle]),
        ):
            big = F.interpolate(frame[None], scale_factor=2, mode="nearest")[0]
            if name == "key frame":
                box = (key.boxes_xyxy_norm[0] * 2 * size).tolist()
                big = draw_boxes(big, [box], [[]], [(255, 255, 255)])
            pictures.append(big)
            captions.append(name)
    path = figures_folder(options.cache) / "relations.png"
    sheet = contact_sheet(torch.stack(pictures), captions, columns=4, width=170)
    with atomic(path) as temporary:
        sheet.save(temporary, format="png")
    return {"scenes": len(numbers)}


# ---- what Fig. 4 is said to show ---------------------------------------------------------------


def observations(options: ReproduceOptions, seed: int) -> dict[str, Any]:
    """Measure attention and keys of the trained model and of an untrained one on renders.

    "We show that .. the model learns to track individual people .. its attention mechanism learns
    to emphasize hands and faces" (abstract). The untrained network has the same trunk and freshly
    drawn heads, three seeds.

    Returns:
        Per measure the trained and the untrained mean over scenes, and their difference with its
        95 % interval (bootstrap over scenes): "own" and "others": attention on the pixels of the
        person and of the other persons over the share of these pixels in the clip (1: no
        preference); "head", "hands": the same around them, within the person's own pixels;
        "identity": share of a person's pixels at other times whose key is nearest to that person's
        mean key in the key frame among all persons (chance in "identity_chance"); "people": share
        of cells told right as person or background by the nearest of the two mean keys.
    """
    scenes = [
        render_scene(seed=FIRST_SEED + i, split="test", num_frames=8, fps=4.0)
        for i in range(OBSERVED_SCENES)
    ]
    detector = detector_of(options)
    trained = measures(detector.model, detector, scenes)
    fresh = []
    for number in range(UNTRAINED):
        torch.manual_seed(number)
        model = ActionTransformer(**detector.model.arguments)
        model.trunk.load_state_dict(load_checkpoint("marey-mini-detect").model.trunk.state_dict())  # type: ignore[union-attr, arg-type]
        fresh.append(measures(model.eval(), detector, scenes))
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(scenes), (2000, len(scenes)))
    found: dict[str, Any] = {}
    for name, values in trained.items():
        untrained = np.nanmean([other[name] for other in fresh], axis=0)
        gains = np.nanmean((values - untrained)[drawn], axis=1)
        found[f"{name} trained"] = float(np.nanmean(values))
        found[f"{name} untrained"] = float(np.nanmean(untrained))
        low, high = np.quantile(gains, [0.025, 0.975])
        found[f"{name} interval"] = [float(low), float(high)]
    return found


@torch.no_grad()
def measures(
    model: ActionTransformer, detector: Detector, scenes: Sequence[RenderedScene]
) -> dict[str, np.ndarray]:
    """Return each measure of `observations` per scene, (S,), NaN where it cannot be taken."""
    rows = []
    for scene in scenes:
        key, size = len(scene.clip.frames) // 2, scene.clip.frames.shape[-1]
        features = model.features(detector.preprocess.clip(scene.clip.frames))
        t, h, w = features.shape[2:]
        seen = torch.where(scene.visible[key])[0].tolist()
        masks = cells_of_persons(scene, t, h, w)  # (P, t, h, w)
        if seen and min(float(masks[p].sum()) for p in seen) > 0:
            boxes = scene.boxes_xyxy[key, seen] / size
            outputs = model.detect_from_features(
                features, (size, size), [boxes], return_attention=True
            )
            attention = outputs["attention_space_time"][-1].mean(dim=1)  # (persons, t, h, w)
            rows.append(
                attention_measures(scene, attention, masks, seen)
                | key_measures(model, features, masks, seen)
            )
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}


def cells_of_persons(scene: RenderedScene, t: int, h: int, w: int) -> Tensor:
    """Return the share of each feature cell that shows each person: (P, t, h, w)."""
    P = scene.visible.shape[1]
    masks = torch.stack([(scene.persons == p).float() for p in range(P)])  # (P, T, H, W)
    return F.adaptive_avg_pool3d(masks, (t, h, w))


def attention_measures(
    scene: RenderedScene, attention: Tensor, masks: Tensor, seen: Sequence[int]
) -> dict[str, float]:
    """Return "own", "others", "head" and "hands" of a scene, means over its persons."""
    t, h, w = attention.shape[1:]
    found: dict[str, list[float]] = {}

    def add(name: str, weights: Tensor, region: Tensor, within: Tensor) -> None:
        share, area = weights * within, region * within
        if float(area.sum()) > 0 and float(share.sum()) > 0:
            mass = float((weights * area).sum() / share.sum())
            found.setdefault(name, []).append(mass / float(area.sum() / within.sum()))

    everywhere = torch.ones(t, h, w)
    for position, person in enumerate(seen):
        own, weights = masks[person], attention[position]
        others = masks.sum(dim=0) - own
        add("own", weights, own, everywhere)
        add("others", weights, others, everywhere)
        near = near_points(scene, person, t, h, w)
        add("head", weights, near[0], own)
        add("hands", weights, near[1:].amax(dim=0), own)
    return {name: float(np.mean(values)) for name, values in found.items()}


def near_points(scene: RenderedScene, person: int, t: int, h: int, w: int) -> Tensor:
    """Return 1 for cells within a cell's width of head, right and left hand: (3, t, h, w)."""
    points = scene.head_and_hands_xy_norm[:, person]  # (T, 3, 2)
    points = points.reshape(t, len(points) // t, 3, 2).mean(dim=1)
    y = (torch.arange(h) + 0.5)[None, None, :, None]
    x = (torch.arange(w) + 0.5)[None, None, None, :]
    centre = points.permute(1, 0, 2)[..., None, None]  # (3, t, 2, 1, 1)
    away = (x - centre[:, :, 0] * w) ** 2 + (y - centre[:, :, 1] * h) ** 2
    return (away <= 1.0).float()


def key_measures(
    model: ActionTransformer, features: Tensor, masks: Tensor, seen: Sequence[int]
) -> dict[str, float]:
    """Return "identity", its chance and "people" of a scene: the best of the last layer's heads."""
    assert model.tx is not None
    found: dict[str, list[float]] = {}
    owners = masks[list(seen)]
    centre = features.shape[2] // 2
    for keys in model.tx.key_embeddings(features)[-1]:
        vectors = F.normalize(keys[0] - keys[0].mean(dim=(0, 1, 2)), dim=-1)  # (t, h, w, D)
        person, empty = owners.sum(dim=0) > 0.5, masks.sum(dim=0) < 0.05
        if bool(person[centre].any()) and bool(empty[centre].any()):
            means = torch.stack([vectors[centre][m[centre]].mean(dim=0) for m in (person, empty)])
            nearer = (vectors @ means.T).argmax(dim=-1)
            right = torch.cat([nearer[person] == 0, nearer[empty] == 1]).float()
            balanced = (nearer[person] == 0).float().mean() + (nearer[empty] == 1).float().mean()
            if len(right):
                found.setdefault("people", []).append(float(balanced / 2))
        solid = owners > 0.5
        if len(seen) > 1 and all(bool(mask[centre].any()) for mask in solid):
            means = torch.stack([vectors[centre][mask[centre]].mean(dim=0) for mask in solid])
            elsewhere = torch.arange(features.shape[2]) != centre
            told = [
                ((vectors[elsewhere] @ means.T).argmax(dim=-1)[mask[elsewhere]] == number).float()
                for number, mask in enumerate(solid)
                if bool(mask[elsewhere].any())
            ]
            if told:
                right_share = float(torch.stack([part.mean() for part in told]).mean())
                found.setdefault("identity", []).append(right_share)
                found["identity_chance"] = [1 / len(seen)]
    return {name: max(values) for name, values in found.items()}
