"""The bundled encoder: frames through ImageNet features, statistics over time."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from marey.checkpoints.encoders import bundled_frames, load_encoder
from marey.checkpoints.folder import load_folder, save_checkpoint
from marey.errors import UserError
from marey.models.frame_statistics import FrameStatistics, over_time
from marey.models.probe import Probe


def test_statistics_over_time_are_the_equations():
    cells = torch.randn(2, 5, 3, 4)
    assert_close(over_time(cells, "mean"), cells.sum(1) / 5)
    variance = (cells - cells.mean(1, keepdim=True)).pow(2).sum(1) / 4
    assert_close(over_time(cells, "std"), variance.sqrt())
    steps = sum((cells[:, t + 1] - cells[:, t]).abs() for t in range(4))
    assert_close(over_time(cells, "change"), steps / 4)


def test_a_still_clip_has_no_change_and_the_order_of_frames_moves_only_the_change():
    encoder = bundled_frames(num_frames=4, image_size=64, grid=2)
    still = torch.randn(1, 1, 3, 64, 64).expand(1, 4, 3, 64, 64)
    mean, std, change = encoder(still)["embedding"].chunk(3, dim=1)
    assert float(std.abs().max()) < 1e-4
    assert float(change.abs().max()) < 1e-4
    assert float(mean.std()) > 0.1

    clip = torch.randn(1, 4, 3, 64, 64).cumsum(1)
    forward, shuffled = encoder(clip)["embedding"], encoder(clip[:, [2, 0, 3, 1]])["embedding"]
    assert_close(forward.chunk(3, 1)[:2], shuffled.chunk(3, 1)[:2], atol=1e-4, rtol=1e-4)
    assert float((forward - shuffled).abs().max()) > 0.01


def test_shapes_and_that_training_mode_changes_nothing():
    encoder = FrameStatistics(num_frames=2, image_size=64, num_stages=3, grid=2)
    clip = torch.randn(3, 2, 3, 64, 64)
    found = encoder.train()(clip)
    assert found["tokens"].shape == (3, 2 * 4, 40)
    assert found["embedding"].shape == (3, encoder.embed_dim) == (3, 3 * 4 * 40)
    assert_close(encoder.eval()(clip), found)


def test_one_frame_has_a_mean_only():
    with pytest.raises(UserError, match="2 frames or more"):
        FrameStatistics(num_frames=1)
    FrameStatistics(num_frames=1, statistics=("mean",))
    with pytest.raises(UserError, match="statistics are mean, std, change"):
        FrameStatistics(statistics=("median",))


def test_a_probe_is_linear_in_its_embedding_and_survives_a_round_trip(tmp_path):
    loaded = load_encoder("frames")
    model = Probe("frame_statistics", {"num_frames": 2, "image_size": 64, "grid": 1}, 3)
    model.encoder.trunk.load_state_dict(loaded.encoder.trunk.state_dict())
    torch.nn.init.normal_(model.head.weight)
    clip = torch.randn(2, 2, 3, 64, 64)
    outputs = model(clip)
    assert_close(outputs["logits"], outputs["embedding"] @ model.head.weight.T + model.head.bias)

    save_checkpoint(tmp_path, model, class_names=["a", "b", "c"], preprocess=loaded.preprocess)
    again = load_folder(tmp_path)
    assert again.name == "probe"
    assert_close(again.model(clip), outputs)


def test_an_unknown_encoder_names_what_there_is():
    with pytest.raises(UserError, match="unknown encoder 'frame'; did you mean 'frames'"):
        load_encoder("frame")
    with pytest.raises(UserError, match="unknown encoder 'clip'"):
        Probe("clip", {}, 2)
