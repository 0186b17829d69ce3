from __future__ import annotations

import numpy as np
import pytest
import torch

from marey.persons.nanodet import (
    BINS,
    STRIDES,
    NanoDetPersons,
    decode_persons,
    normalise,
)
from marey.persons.network import Network, sigmoid

EVERY_CELL = 7


@pytest.fixture(scope="module")
def heads(golden):
    network = Network("nanodet", threads=1)

    def run(name):
        frame = golden[f"{name}/frame"]
        square = np.zeros((416, 416, 3), np.uint8)
        square[: frame.shape[0], : frame.shape[1]] = frame
        return {k: v[0] for k, v in network(normalise(square.transpose(2, 0, 1)[None])).items()}

    return run


@pytest.mark.parametrize("name", ["one", "three", "nobody"])
def test_scores_and_bins_equal_those_of_tfjs(golden, heads, name):
    maps = heads(name)
    scores = np.concatenate([sigmoid(maps[key][0]).reshape(-1) for key in STRIDES])
    bins = np.concatenate([maps[key][1:].reshape(44, -1).T for key in STRIDES])
    expected = golden[f"{name}/nanodet_scores"]
    np.testing.assert_allclose(scores[::EVERY_CELL], expected, atol=1e-3)
    np.testing.assert_allclose(bins[::EVERY_CELL], golden[f"{name}/nanodet_bins"], atol=1e-3)


def naive(heads, min_score, nms_threshold):
    """Boxes written with loops, from the paper's expectation over bins and greedy NMS."""
    found = []
    for name, stride in STRIDES.items():
        head = heads[name].astype(np.float64)
        for row in range(head.shape[1]):
            for column in range(head.shape[2]):
                score = 1 / (1 + np.exp(-head[0, row, column]))
                if score < min_score:
                    continue
                sides = []
                for side in range(4):
                    logits = head[1 + side * BINS : 1 + (side + 1) * BINS, row, column]
                    share = np.exp(logits) / np.exp(logits).sum()
                    sides.append(stride * sum(b * share[b] for b in range(BINS)))
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                box = (x - sides[0], y - sides[1], x + sides[2], y + sides[3])
                found.append((score, box))
    kept = []
    for score, box in sorted(found, reverse=True):
        if all(iou(box, other) <= nms_threshold for _, other in kept):
            kept.append((score, box))
    return kept


def iou(first, second):
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (first, second)]
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize("name", ["one", "three", "nobody"])
def test_boxes_equal_a_decoder_of_loops(heads, name):
    boxes, scores = decode_persons(heads(name), min_score=0.3, nms_threshold=0.5)
    expected = naive(heads(name), 0.3, 0.5)
    np.testing.assert_allclose(scores, [score for score, _ in expected], atol=1e-4)
    np.testing.assert_allclose(
        boxes, np.array([box for _, box in expected]).reshape(-1, 4), atol=1e-2
    )


def test_blue_green_and_red_are_standardised_each_by_its_own():
    frame = np.zeros((1, 3, 1, 1), np.uint8)
    frame[0, 0] = 255  # red
    expected = [(0 - 103.53) / 57.375, (0 - 116.28) / 57.12, (255 - 123.675) / 58.395]
    np.testing.assert_allclose(normalise(frame)[0, :, 0, 0], expected, rtol=1e-5)


def test_three_drawn_people_are_found_where_they_stand(golden):
    frame = torch.from_numpy(golden["three/frame"]).permute(2, 0, 1)
    boxes, scores = NanoDetPersons(threads=1)(frame, "", 0.0)
    assert len(boxes) == 3
    left = sorted((boxes[:, 0] * 256).round().int().tolist())
    np.testing.assert_allclose(left, [26, 95, 186], atol=8)
    assert (scores > 0.35).all()
