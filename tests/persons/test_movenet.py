from __future__ import annotations

import numpy as np
import pytest

from marey.persons.movenet import CELL, COUNTED_KEYPOINT, SPREAD, decode_people
from marey.persons.network import Network


@pytest.fixture(scope="module")
def heads(golden):
    network = Network("movenet-multipose", threads=1)

    def run(name):
        frame = golden[f"{name}/frame"].transpose(2, 0, 1)[None].astype(np.float32)
        return {key: head[0] for key, head in network(frame).items()}

    return run


@pytest.mark.parametrize("name", ["one", "three", "nobody"])
def test_six_people_equal_those_of_tfjs(golden, heads, name):
    keypoints, boxes, scores = decode_people(heads(name))
    H, W = golden[f"{name}/frame"].shape[:2]
    expected = golden[f"{name}/movenet"]  # (6, 56)

    theirs = expected[:, :51].reshape(6, 17, 3)
    ours = np.stack([keypoints[..., 1] / H, keypoints[..., 0] / W, keypoints[..., 2]], axis=2)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    np.testing.assert_allclose(boxes[:, [1, 0, 3, 2]] / [H, W, H, W], expected[:, 51:55], atol=1e-3)
    np.testing.assert_allclose(scores, expected[:, 55], atol=1e-3)


def naive(heads, index):
    """One person, written with loops from the graph."""
    center = 1 / (1 + np.exp(-heads["center"][0]))
    h, w = center.shape
    peaks = [
        (-center[y, x], y * w + x)
        for y in range(h)
        for x in range(w)
        if center[y, x] == center[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].max()
    ]
    row, column = divmod(sorted(peaks)[index][1], w)
    half = np.maximum(heads["box_scale"][:, row, column], 0) / 2
    middle = np.array([row, column]) + heads["box_offset"][:, row, column]
    (top, left), (bottom, right) = middle - half, middle + half

    found = []
    for joint in range(17):
        y0 = row + heads["regress"][2 * joint, row, column]
        x0 = column + heads["regress"][2 * joint + 1, row, column]
        best = (0.0, 0, 0)
        for y in range(h):
            for x in range(w):
                if not (top <= y < bottom and left <= x < right):
                    continue
                heat = 1 / (1 + np.exp(-heads["heatmap"][joint, y, x]))
                near = np.exp(-((y - y0) ** 2 + (x - x0) ** 2) / (SPREAD * min(h, w)))
                best = max(best, (heat * near, -y, -x))
        y, x = -best[1], -best[2]
        offset = heads["offset"][2 * joint : 2 * joint + 2, y, x]
        found.append((CELL * (x + offset[1]), CELL * (y + offset[0]), best[0]))
    return np.array(found)


def test_people_equal_a_decoder_of_loops(heads):
    maps = heads("three")
    keypoints, _, _ = decode_people(maps, max_people=3)
    for person in range(3):
        np.testing.assert_allclose(keypoints[person], naive(maps, person), atol=1e-3)


def test_a_score_is_that_of_the_centre_times_the_mean_of_the_clear_keypoints(heads):
    maps = heads("one")
    keypoints, _, scores = decode_people(maps, max_people=1)
    clear = keypoints[0, :, 2][keypoints[0, :, 2] > COUNTED_KEYPOINT]
    centre = 1 / (1 + np.exp(-maps["center"].max()))
    assert scores[0] == pytest.approx(centre * clear.mean(), abs=1e-5)


def test_weak_centres_are_no_people_and_nobody_is_an_empty_answer(heads):
    maps = heads("nobody")
    keypoints, boxes, scores = decode_people(maps, min_center=0.5)
    assert keypoints.shape == (0, 17, 3)
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


def test_more_than_six_people_can_be_asked_for(heads):
    assert len(decode_people(heads("three"), max_people=12)[2]) == 12
