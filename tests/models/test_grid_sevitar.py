"""A model of older checkpoints: it is read and answers, and is not offered for training."""

from __future__ import annotations

import pytest
import torch

from marey.checkpoints.folder import save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.models import list_models
from marey.models.grid_sevitar import GridSeViTAR, grid_statistics
from marey.transforms.preprocess import Preprocess

TINY = {
    "num_classes": 3,
    "num_frames": 4,
    "image_size": 32,
    "patch_size": 16,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
    "label_dim": 5,
}


def test_the_statistics_are_mean_change_and_standard_deviation():
    values = torch.tensor([[[[1.0]], [[3.0]], [[2.0]]]])  # three frames of one patch and channel
    assert grid_statistics(values)[0].tolist() == pytest.approx([2.0, 1.5, 1.0])
    with pytest.raises(UserError, match="at least 2 frames"):
        grid_statistics(values[:, :1])


def test_a_clip_and_its_stem_features_give_the_same_logits():
    model = GridSeViTAR(**TINY).eval()
    torch.nn.init.normal_(model.grid_head.weight, std=0.1)
    clip = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        features = model.stem_features(clip)
        assert features is not None
        torch.testing.assert_close(model(clip)["logits"], model(features)["logits"])


def test_a_stem_without_features_is_refused():
    with pytest.raises(UserError, match="stem is 'linear'; choose that stem, or model sevitar"):
        GridSeViTAR(**TINY, stem="linear")


def test_older_checkpoints_load_and_the_model_is_not_offered(tmp_path):
    model = GridSeViTAR(**TINY).eval()
    torch.nn.init.normal_(model.grid_head.weight, std=0.1)
    save_checkpoint(
        tmp_path / "m", model, class_names=["a", "b", "c"], preprocess=Preprocess(image_size=32)
    )
    clip = torch.randn(1, 4, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    loaded = load_checkpoint(tmp_path / "m").model.eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(clip)["logits"], model(clip)["logits"])
    assert "grid_sevitar" not in list_models()
