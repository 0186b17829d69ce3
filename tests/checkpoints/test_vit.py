"""Image ViTs as a start: every layout gives the ViT's own features, frame by frame."""

from __future__ import annotations

import pytest
import torch

from marey.checkpoints.vit import initialise_from_vit, timm_names
from marey.errors import UserError
from marey.models import create_model

TINY = {
    "num_classes": 3,
    "num_frames": 2,
    "image_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
}


def strong(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2, generator=generator)
    return model.eval()


def timm_vit():
    timm = pytest.importorskip("timm", reason="writes one of the layouts")
    return strong(
        timm.create_model(
            "vit_base_patch16_224",
            img_size=32,
            patch_size=8,
            embed_dim=24,
            depth=2,
            num_heads=3,
            num_classes=7,
        )
    )


def as_hf_4(state):
    """timm's tensors by the names of transformers 4.x."""
    renamed = {}
    for name, value in state.items():
        if name.startswith("blocks."):
            _, index, rest = name.split(".", 2)
            kind = rest.rsplit(".", 1)[1]
            prefix = f"vit.encoder.layer.{index}."
            if rest.startswith("attn.qkv"):
                for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    renamed[f"{prefix}attention.attention.{part}.{kind}"] = piece
                continue
            theirs = {
                "norm1": "layernorm_before",
                "norm2": "layernorm_after",
                "attn.proj": "attention.output.dense",
                "mlp.fc1": "intermediate.dense",
                "mlp.fc2": "output.dense",
            }[rest.rsplit(".", 1)[0]]
            renamed[f"{prefix}{theirs}.{kind}"] = value
        else:
            for ours, theirs in (
                ("cls_token", "vit.embeddings.cls_token"),
                ("head", "classifier"),
                ("pos_embed", "vit.embeddings.position_embeddings"),
                ("norm", "vit.layernorm"),
                ("patch_embed.proj", "vit.embeddings.patch_embeddings.projection"),
            ):
                if name == ours or name.startswith(ours + "."):
                    renamed[theirs + name[len(ours) :]] = value
    return renamed


@pytest.mark.parametrize("architecture", ["timesformer", "sevitar"])
@pytest.mark.parametrize("layout", ["timm", "hf4"])
def test_a_fresh_video_model_sees_what_the_image_model_sees(tmp_path, architecture, layout):
    image_model = timm_vit()
    state = image_model.state_dict()
    torch.save(state if layout == "timm" else as_hf_4(state), tmp_path / "vit.pth")
    model = create_model(architecture, **TINY).eval()
    report = initialise_from_vit(model, tmp_path / "vit.pth")
    assert not report.unexpected
    assert {name.split(".")[0 if "blocks" not in name else 2] for name in report.missing} <= {
        "temporal_fc",
        "time_embed",
        "head",
        "semantic_mlp",
        "class_mlp",
    }
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    clip = image.unsqueeze(1).expand(-1, 2, -1, -1, -1)
    with torch.no_grad():
        expected = image_model.forward_features(image)[:, 0]
        torch.testing.assert_close(model(clip)["embedding"], expected, atol=1e-4, rtol=0)
    assert torch.equal(model.blocks[1].temporal_attn.qkv.weight, model.blocks[1].attn.qkv.weight)
    assert torch.equal(model.blocks[0].temporal_norm1.bias, model.blocks[0].norm1.bias)


def test_the_installed_transformers_writes_a_layout_we_read(tmp_path):
    transformers = pytest.importorskip("transformers", reason="writes the layout under test")
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        layer_norm_eps=1e-6,
    )
    image_model = strong(transformers.ViTModel(config))
    image_model.save_pretrained(tmp_path)
    model = create_model("timesformer", **TINY).eval()
    initialise_from_vit(model, tmp_path)
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = image_model(image).last_hidden_state[:, 0]
        answer = model(image.unsqueeze(1).expand(-1, 2, -1, -1, -1))["embedding"]
    torch.testing.assert_close(answer, expected, atol=1e-4, rtol=0)


def test_names_of_transformers_5_are_read():
    state = {
        f"layers.0.attention.{part}_proj.weight": torch.full((2, 2), float(i))
        for i, part in enumerate("qkv")
    }
    state |= {
        "layers.0.attention.o_proj.bias": torch.zeros(2),
        "layers.0.mlp.fc1.weight": torch.ones(1),
    }
    renamed = timm_names(state)
    assert set(renamed) == {
        "blocks.0.attn.qkv.weight",
        "blocks.0.attn.proj.bias",
        "blocks.0.mlp.fc1.weight",
    }
    assert renamed["blocks.0.attn.qkv.weight"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_another_grid_is_stretched_and_a_joint_embedding_repeats():
    state = timm_vit().state_dict()
    wide = create_model("timesformer", **TINY | {"image_size": 48})
    initialise_from_vit(wide, dict(state))
    assert wide.pos_embed.shape == (1, 37, 24)
    joint = create_model("timesformer", **TINY, position_embedding="joint")
    initialise_from_vit(joint, dict(state))
    torch.testing.assert_close(joint.pos_embed[0, 1:].view(2, 16, 24)[1], state["pos_embed"][0, 1:])


def test_files_that_are_something_else():
    model = create_model("timesformer", **TINY)
    with pytest.raises(UserError, match="not an image ViT"):
        initialise_from_vit(model, {"conv.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="depth|missing"):
        initialise_from_vit(
            create_model("timesformer", **TINY | {"depth": 3}), timm_vit().state_dict()
        )
    with pytest.raises(UserError, match="stem='linear' only"):
        initialise_from_vit(create_model("timesformer", **TINY, stem="conv"), {})
