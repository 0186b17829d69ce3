"""TimeSformer's family on keypoints: shapes, masks, order, checkpoints, messages."""

from __future__ import annotations

import pytest
import torch

from marey.checkpoints.folder import load_folder, save_checkpoint
from marey.errors import UserError
from marey.models import create_model
from marey.transforms.pose_clip import PoseSampling

SMALL = {
    "num_classes": 5,
    "num_frames": 6,
    "stem": "pose",
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "cls_in_time": True,
}
HEADS = {"label_dim": 4, "label_hidden": [8], "class_hidden": [8], "num_orders": 7}


def keypoints(persons: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    clip = torch.rand(3, 6, 17 * persons, 3, generator=generator)
    clip[..., 2] = 0.2 + 0.8 * clip[..., 2]
    clip[0, 2, 4] = clip[1, :, 7] = clip[2, 5] = 0  # unseen ones are zeros
    return clip


@pytest.mark.parametrize(
    "kinds", [("softmax", "softmax"), ("cosine", "cosine"), ("cosine", "softmax")]
)
@pytest.mark.parametrize("attention", ["divided", "joint"])
@pytest.mark.parametrize("persons", [1, 2])
def test_every_kind_of_attention_reads_keypoints(kinds, attention, persons):
    time, space = kinds
    if attention == "joint" and time != space:
        pytest.skip("joint attention is of one kind")
    torch.manual_seed(0)
    model = create_model(
        "sevitar",
        **SMALL,
        **HEADS,
        attention=attention,
        time_attention=time,
        space_attention=space,
        num_persons=persons,
    ).eval()
    outputs = model(keypoints(persons))
    assert outputs["logits"].shape == (3, 5)
    assert outputs["order_logits"].shape == (3, 7)
    assert outputs["label_embedding"].shape == (3, 4)
    assert torch.isfinite(outputs["logits"]).all()


def test_attention_has_parts_of_the_body_in_place_of_patches():
    model = create_model("timesformer", **SMALL).eval()
    outputs = model(keypoints(), return_attention=True)
    assert outputs["attention_time"][0].shape == (3, 13, 2, 6, 7)
    assert outputs["attention_space"][0].shape == (3, 6, 2, 14, 14)
    assert (outputs["attention_time"][0][1, 3, :, :, 1:] == 0).all()  # the unseen elbow


def test_a_moment_without_anybody_has_no_say_beyond_its_number():
    torch.manual_seed(0)
    model = create_model("timesformer", **SMALL).eval()
    weights = model(keypoints(), return_attention=True)["attention_space"][0]
    assert (weights[2, 5, :, :, 1:] == 0).all()
    torch.testing.assert_close(weights[2, 5, :, :, 0], torch.ones(2, 14))


def test_the_order_of_the_moments_matters():
    torch.manual_seed(0)
    model = create_model("direcformer", **SMALL, num_orders=7).eval()
    for block in model.blocks:
        torch.nn.init.normal_(block.temporal_fc.weight, std=0.2)
    clip = keypoints()
    assert not torch.allclose(model(clip)["logits"], model(clip.flip(1))["logits"], atol=1e-4)


def test_every_parameter_learns():
    model = create_model("sevitar", **SMALL, **HEADS, time_attention="cosine").train()
    outputs = model(keypoints())
    sum(value.square().sum() for value in outputs.values()).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert silent == []


def test_a_checkpoint_keeps_how_tracks_are_cut(tmp_path):
    model = create_model("sevitar", **SMALL, **HEADS).eval()
    sampling = PoseSampling(num_frames=6, fps=3.0)
    save_checkpoint(tmp_path, model, class_names=list("abcde"), preprocess=sampling)
    found = load_folder(tmp_path)
    assert found.pose_sampling == sampling
    assert found.preprocess is None
    assert found.task == "poses"
    torch.testing.assert_close(found.model(keypoints())["logits"], model(keypoints())["logits"])


def test_clips_of_pixels_are_refused_by_name():
    model = create_model("timesformer", **SMALL)
    with pytest.raises(UserError, match="takes keypoints"):
        model(torch.zeros(1, 6, 3, 32, 32))
    with pytest.raises(UserError, match="takes keypoints"):
        model(torch.zeros(1, 5, 17, 3))


def test_attention_within_each_moment_alone_is_refused():
    with pytest.raises(UserError, match="needs attention over time"):
        create_model("timesformer", **{**SMALL, "attention": "space"})
