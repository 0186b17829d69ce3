from __future__ import annotations

import torch

from marey.layers.location_embedding import LocationEmbedding


def test_features_stay_and_the_location_is_added():
    layer = LocationEmbedding(8, time_half_steps=2)
    features = torch.randn(2, 5, 4, 3, 3)
    out = layer(features)
    assert out.shape == (2, 13, 4, 3, 3)
    torch.testing.assert_close(out[:, :5], features)
    torch.testing.assert_close(out[0, 5:], out[1, 5:])  # every clip has the same places


def test_space_channels_ignore_time_and_time_channels_ignore_space():
    out = LocationEmbedding(8, time_half_steps=2)(torch.zeros(1, 1, 4, 3, 3))[0, 1:]
    torch.testing.assert_close(out[:4, 0], out[:4, 3])
    torch.testing.assert_close(out[4:, :, 0, 0], out[4:, :, 2, 1])
    assert not torch.allclose(out[:4, 0, 0, 0], out[:4, 0, 2, 2])
    assert not torch.allclose(out[4:, 0, 0, 0], out[4:, 3, 0, 0])


def test_the_middle_of_a_longer_clip_keeps_its_times():
    layer = LocationEmbedding(8, time_half_steps=2)
    short, long = layer(torch.zeros(1, 1, 4, 2, 2)), layer(torch.zeros(1, 1, 6, 2, 2))
    torch.testing.assert_close(long[:, :, 1:5], short)
