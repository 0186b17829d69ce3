"""Bodies, cameras and lights; those that ask the renderer skip without pybullet."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from marey.synthetic.body import CLOTHES, LINKS, draw_body
from marey.synthetic.motion import PARTITIONS, load_motion
from marey.synthetic.renderer import Camera, Light, Stage, draw_light, shake_joints

needs_pybullet = pytest.mark.skipif(
    importlib.util.find_spec("pybullet") is None,
    reason="rendering needs pybullet (the extra mocap)",
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_body_has_the_sizes_of_its_split_and_one_colour_per_piece_of_clothing(split):
    for seed in range(20):
        body = draw_body(split, generator(seed))
        for name in ("height", "girth", "limbs"):
            assert any(low <= getattr(body, name) < high for low, high in PARTITIONS[name][split])
        colour_of = dict(zip(LINKS, body.colours, strict=True))
        for links in CLOTHES.values():
            assert len({colour_of[link] for link in links}) == 1


def test_bodies_repeat_by_their_seed():
    assert draw_body("train", generator(1)) == draw_body("train", generator(1))
    assert draw_body("train", generator(1)) != draw_body("train", generator(2))


def test_light_comes_from_above_and_is_never_black():
    for seed in range(50):
        light = draw_light(generator(seed))
        assert light.direction[1] > 0
        assert light.ambient >= 0.3
        assert all(0.75 <= value <= 1 for value in light.colour)


def test_shaking_changes_joints_a_little_and_not_the_root():
    rows = np.zeros((8, 43))
    rows[:, [3, 7, 11, 15]] = 1.0
    shaken = shake_joints(rows, np.arange(8) / 8, 0.05, generator())
    np.testing.assert_allclose(shaken[:, :3], rows[:, :3])
    assert 0 < np.abs(shaken - rows).max() < 0.5


@needs_pybullet
def test_the_target_of_a_camera_is_the_middle_of_its_picture():
    camera = Camera(eye=(0.0, 1.0, 4.0), target=(0.0, 1.0, 0.0), field_of_view_degrees=45.0)
    np.testing.assert_allclose(camera.project(np.array([[0.0, 1.0, 0.0]])), [[0.5, 0.5]], atol=1e-6)
    right, above = camera.project(np.array([[0.5, 1.0, 0.0], [0.0, 1.5, 0.0]]))
    assert right[0] > 0.5
    assert above[1] < 0.5


@needs_pybullet
def test_a_photograph_shows_the_person_and_says_where():
    body = draw_body("train", generator())
    camera = Camera(eye=(0.0, 1.0, 4.0), target=(0.0, 0.9, 0.0), field_of_view_degrees=45.0)
    light = Light(
        direction=(0.0, 1.0, 1.0), colour=(1.0, 1.0, 1.0), ambient=0.5, diffuse=0.5, shadow=False
    )
    with Stage([body]) as stage:
        stage.pose(0, load_motion("walk").poses(np.array([0.0]))[0])
        picture, persons = stage.photograph(camera, light, 32, 24)
    assert picture.shape == (24, 32, 3)
    assert 10 < (persons == 0).sum() < 24 * 32 / 2
