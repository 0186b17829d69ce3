"""The plain head over a stem: it uses patch positions and time, and trains a stem that other models
can start from."""

from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.models import create_model
from marey.training.initialise import copy_weights

ARGUMENTS = {"num_frames": 4, "image_size": 32, "patch_size": 16, "embed_dim": 16, "stem": "conv"}


def test_logits_depend_on_the_order_of_frames_and_on_patch_positions():
    torch.manual_seed(0)
    model = create_model("stem_classifier", num_classes=3, hidden=8, **ARGUMENTS).eval()
    clip = torch.randn(2, 4, 3, 32, 32)
    outputs = model(clip)
    assert outputs["logits"].shape == (2, 3)
    assert outputs["embedding"].shape == (2, 32)
    assert not torch.allclose(outputs["logits"], model(clip.flip(1))["logits"])
    swapped = torch.cat((clip[..., 16:], clip[..., :16]), dim=-1)
    assert not torch.allclose(outputs["logits"], model(swapped)["logits"])


def test_a_transformer_starts_from_its_stem():
    source = create_model("stem_classifier", num_classes=3, **ARGUMENTS)
    target = create_model("timesformer", num_classes=3, depth=1, num_heads=2, **ARGUMENTS)
    text = copy_weights(source, target, "stem")
    assert torch.equal(source.patch_embed.convs[0].weight, target.patch_embed.convs[0].weight)
    assert text.startswith("stem: ")
    assert "fresh: blocks" in text


def test_messages():
    with pytest.raises(UserError, match="image_size 30 must be a multiple of patch_size 16"):
        create_model("stem_classifier", num_classes=3, **{**ARGUMENTS, "image_size": 30})
    with pytest.raises(
        UserError, match="clip is 4 frames of 16x16 pixels, but this model was built for 4 of 32x32"
    ):
        create_model("stem_classifier", num_classes=3, **ARGUMENTS)(torch.zeros(1, 4, 3, 16, 16))
