"""Stretching embeddings: nearest as released, the class token untouched."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from marey.errors import UserError
from marey.layers.position import (
    resize_joint_embedding,
    resize_position_embedding,
    resize_time_embedding,
)


def test_nearest_repeats_positions_and_keeps_the_class_token():
    embedding = torch.tensor([9.0, 0, 1, 2, 3]).view(1, 5, 1)
    stretched = resize_position_embedding(embedding, (2, 2), (4, 4))
    assert stretched[0, 0] == 9
    assert stretched[0, 1:, 0].view(4, 4).tolist() == [
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [2, 2, 3, 3],
        [2, 2, 3, 3],
    ]


def test_the_same_grid_is_returned_as_it_is():
    embedding = torch.randn(1, 5, 3)
    assert resize_position_embedding(embedding, (2, 2), (2, 2), "bicubic") is embedding


def test_bicubic_keeps_a_constant():
    embedding = torch.full((1, 5, 3), 2.0)
    stretched = resize_position_embedding(embedding, (2, 2), (3, 5), "bicubic")
    torch.testing.assert_close(stretched, torch.full((1, 16, 3), 2.0))


def test_time_is_stretched_as_released():
    embedding = torch.randn(1, 8, 4)
    expected = F.interpolate(embedding.transpose(1, 2), size=12, mode="nearest").transpose(1, 2)
    assert torch.equal(resize_time_embedding(embedding, 12), expected)
    assert resize_time_embedding(torch.arange(3.0).view(1, 3, 1), 5, "bicubic").flatten()[2] == 1


def test_joint_embeddings_stretch_over_space_and_time():
    space, time = torch.randn(1, 5, 4), torch.randn(1, 2, 4)
    joint = torch.cat((space[:, :1], (space[:, None, 1:] + time[:, :, None]).flatten(1, 2)), 1)
    stretched = resize_joint_embedding(joint, (2, 2, 2), (4, 4, 4))
    wide, long = resize_position_embedding(space, (2, 2), (4, 4)), resize_time_embedding(time, 4)
    expected = torch.cat((wide[:, :1], (wide[:, None, 1:] + long[:, :, None]).flatten(1, 2)), 1)
    torch.testing.assert_close(stretched, expected)


def test_an_unknown_mode_is_named():
    with pytest.raises(UserError, match="unknown embedding resize mode 'area'"):
        resize_time_embedding(torch.zeros(1, 2, 1), 3, "area")
