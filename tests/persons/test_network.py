from __future__ import annotations

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.persons.network import Network, letterbox, sigmoid


def test_a_frame_is_scaled_to_the_top_left_corner_of_multiples_of_32():
    frame = torch.full((1, 3, 100, 200), 255, dtype=torch.uint8)
    picture, scale = letterbox(frame, 256)
    assert picture.shape == (1, 3, 128, 256)
    assert scale == pytest.approx(1.28)
    assert (picture == 255).all()

    picture, scale = letterbox(frame.transpose(2, 3), 96)
    assert picture.shape == (1, 3, 96, 64)
    assert (picture[..., :48] == 255).all()
    assert (picture[..., 48:] == 0).all()


def test_a_frame_of_the_right_size_is_left_alone():
    frame = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    picture, scale = letterbox(frame, 96)
    assert scale == 1
    assert torch.equal(picture, frame)


def test_a_missing_network_is_named():
    with pytest.raises(UserError, match="nosuch.*the person network is missing"):
        Network("nosuch")


def test_the_logistic_function_saturates_quietly():
    values = sigmoid(np.array([-1e4, 0, 1e4], np.float32))
    np.testing.assert_allclose(values, [0, 0.5, 1], atol=1e-6)
