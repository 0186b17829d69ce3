"""SeViTAR with a linear map of the stem's features: what the map sees, and its closed-form fit."""

from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.models.grid_sevitar import GridSeViTAR, choose_ridge, grid_statistics, ridge
from marey.models.timesformer import TimeSformer

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


def stem_features(clips: int, variants: int, channels: int = 112) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(clips, variants, 4, 4, channels, generator=generator)


def test_the_statistics_are_mean_change_and_standard_deviation():
    values = torch.tensor([[[[1.0]], [[3.0]], [[2.0]]]])  # three frames of one patch and channel
    assert grid_statistics(values)[0].tolist() == pytest.approx([2.0, 1.5, 1.0])
    with pytest.raises(UserError, match="at least 2 frames"):
        grid_statistics(values[:, :1])


def test_ridge_without_penalty_recovers_a_linear_map():
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(5, 40, generator=generator, dtype=torch.double)
    targets = values @ torch.randn(40, 2, generator=generator, dtype=torch.double)
    weight, bias = ridge(values, targets, 1e-9)
    torch.testing.assert_close(values @ weight.T + bias, targets, rtol=1e-5, atol=1e-5)


def test_cross_validation_prefers_a_weak_penalty_where_the_labels_are_in_the_values():
    labels = torch.arange(30) % 3
    values = (
        torch.nn.functional.one_hot(labels, 3).double()[:, None].expand(-1, 2, -1).repeat(1, 1, 4)
    )
    values = values + 0.01 * torch.randn(
        values.shape, generator=torch.Generator().manual_seed(2), dtype=torch.double
    )
    targets = torch.nn.functional.one_hot(labels, 3).double()[:, None].expand(-1, 2, -1)
    assert choose_ridge(values, targets, labels, 5).accuracy == 1.0
    noise = torch.randn(
        values.shape, generator=torch.Generator().manual_seed(3), dtype=torch.double
    )
    assert choose_ridge(noise, targets, labels, 5).accuracy < 0.7


def test_the_fitted_head_names_the_training_clips_and_silences_the_class_mlp():
    model = GridSeViTAR(**TINY).eval()
    features, labels = stem_features(9, 2), torch.arange(9) % 3
    found = model.fit_head(features, labels, folds=3)
    assert set(found) == {"ridge", "scale", "cross_validated"}
    with torch.no_grad():
        logits = model(features[:, 0])["logits"]
    assert logits.argmax(1).tolist() == labels.tolist()
    assert float(model.class_mlp[-1].weight.detach().abs().sum()) == 0


def test_a_clip_and_its_stem_features_give_the_same_logits():
    model = GridSeViTAR(**TINY).eval()
    torch.nn.init.normal_(model.grid_head.weight, std=0.1)
    clip = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        features = model.stem_features(clip)
        assert features is not None
        torch.testing.assert_close(model(clip)["logits"], model(features)["logits"])


def test_other_models_have_nothing_to_fit():
    assert not hasattr(TimeSformer, "fit_head")


def test_a_stem_without_features_is_refused():
    with pytest.raises(UserError, match="stem is 'linear'; choose that stem, or model sevitar"):
        GridSeViTAR(**TINY, stem="linear")
