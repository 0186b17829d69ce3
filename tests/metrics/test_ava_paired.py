from __future__ import annotations

import numpy as np
import pytest

from marey.metrics.ava import evaluate, match
from marey.metrics.ava_evaluator import AvaEvaluator
from marey.metrics.ava_paired import paired_map_difference, resampled_map

NAMES = {1: "walk", 2: "run"}


def answers(skill: float, seed: int = 0, images: int = 60):
    """Two persons per image; the true class gets `skill` more score than the other."""
    generator, evaluator = np.random.default_rng(seed), AvaEvaluator(list(NAMES.values()))
    boxes = np.array([[0.1, 0.1, 0.4, 0.9], [0.6, 0.1, 0.9, 0.9]])
    for _ in range(images):
        labels = np.eye(2)[generator.integers(0, 2, 2)]
        scores = generator.uniform(0, 1, (2, 2)) + skill * labels
        evaluator.add_image(boxes, labels, boxes, scores)
    return evaluator.rows()


def test_every_image_once_is_the_map_itself():
    truth, found = answers(0.3)
    matched = match(truth, found, NAMES)
    counts = np.ones((matched.num_images, 1), int)
    assert resampled_map(matched, counts)[0] == pytest.approx(evaluate(truth, found, NAMES)["mAP"])


def test_an_image_drawn_twice_counts_twice():
    truth, found = answers(0.3, images=5)
    matched = match(truth, found, NAMES)
    counts = np.array([[2], [1], [0], [1], [1]])
    chosen = np.repeat(np.arange(5), counts[:, 0])
    rows = []
    for part in (truth, found):
        picked = [np.flatnonzero(part.image == i) for i in chosen]
        image = np.concatenate([np.full(len(p), new) for new, p in enumerate(picked)])
        keys = tuple((f"new{i}", 0.0) for i in range(5))
        part = part.select(np.concatenate(picked))
        rows.append(type(part)(**{**vars(part), "image": image, "keys": keys}))
    assert resampled_map(matched, counts)[0] == pytest.approx(evaluate(*rows, NAMES)["mAP"])


def test_a_better_model_is_found_and_an_equal_one_is_not():
    good = [answers(0.8, seed) for seed in range(3)]
    poor = [answers(0.1, seed) for seed in range(3)]
    found = paired_map_difference(good, poor, NAMES, resamples=300)
    assert found["low"] > 0
    assert found["p"] < 0.05
    assert found["images"] == 60
    same = paired_map_difference(poor, poor, NAMES, resamples=300)
    assert same["difference"] == same["low"] == same["high"] == 0
    assert same["p"] == 1


def test_chance_against_chance_is_not_significant():
    first = [answers(0.0, seed) for seed in range(2)]
    second = [
        (truth, found) for (truth, _), (_, found) in zip(first, [answers(0.0, 7)] * 2, strict=False)
    ]
    found = paired_map_difference(first, second, NAMES, resamples=300)
    assert found["low"] < 0 < found["high"]
    assert found["p"] > 0.05


def test_other_images_are_refused():
    with pytest.raises(ValueError, match=r"answers on \[5, 6\] images"):
        paired_map_difference([answers(0, images=5)], [answers(0, images=6)], NAMES)
    with pytest.raises(ValueError, match="1 seeds against 2"):
        paired_map_difference([answers(0)], [answers(0)] * 2, NAMES)
