"""SeViTAR: z -> ŝ -> logits from [ŝ, z], on any kind of attention."""

from __future__ import annotations

import pytest
import torch

from marey.models.sevitar import SeViTAR

TINY = {
    "num_classes": 5,
    "label_dim": 6,
    "label_hidden": (10,),
    "class_hidden": (),
    "num_frames": 2,
    "image_size": 16,
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
}


def clip() -> torch.Tensor:
    return torch.randn(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_logits_come_from_the_label_embedding_and_the_feature():
    model = SeViTAR(**TINY).eval()
    outputs = model(clip())
    torch.testing.assert_close(outputs["label_embedding"], model.semantic_mlp(outputs["embedding"]))
    both = torch.cat((outputs["label_embedding"], outputs["embedding"]), 1)
    torch.testing.assert_close(
        outputs["logits"], both @ model.class_mlp[0].weight.T + model.class_mlp[0].bias
    )
    assert outputs["label_embedding"].shape == (2, 6)
    assert "order_logits" not in outputs


@pytest.mark.parametrize("detach", [False, True])
def test_the_classification_loss_reaches_the_semantic_mlp_unless_detached(detach):
    model = SeViTAR(**TINY, detach_label_embedding=detach)
    torch.nn.functional.cross_entropy(model(clip())["logits"], torch.tensor([0, 1])).backward()
    assert (model.semantic_mlp[0].weight.grad is None) is detach


def test_it_carries_cosine_attention_and_an_order_head():
    model = SeViTAR(
        **TINY, time_attention="cosine", space_attention="cosine", cls_in_time=True, num_orders=7
    )
    outputs = model(clip(), return_attention=True)
    assert outputs["order_logits"].shape == (2, 7)
    assert outputs["attention_time"][0].shape == (2, 4, 2, 2, 3)
    assert outputs["attention_time"][0].min() < 0


def test_widths_are_kept_in_the_arguments():
    assert SeViTAR(**TINY).arguments["label_hidden"] == [10]
    assert SeViTAR(**TINY).arguments["num_classes"] == 5
