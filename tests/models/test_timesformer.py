"""TimeSformer: equal to the transformers implementation at strong weights, pinned sizes, clear
errors."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from marey.errors import UserError
from marey.layers.transformer_block import fold_temporal_projection
from marey.models import create_model
from marey.models.timesformer import TimeSformer, stretched_state

TINY = {
    "num_classes": 5,
    "num_frames": 4,
    "image_size": 32,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 4,
}


def strong(model: nn.Module, std: float = 0.2, seed: int = 0) -> nn.Module:
    """Draw every parameter anew, so that no path is close to zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.normal_(0, std, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return model.eval()


def clip(batch: int = 2, T: int = 4, side: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, T, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("ours", "theirs"), [("divided", "divided_space_time"), ("joint", "joint_space_time")]
)
def test_logits_and_attention_equal_transformers(ours, theirs):
    transformers = pytest.importorskip("transformers", reason="the independent implementation")
    from marey.checkpoints.huggingface import to_hf_name

    config = transformers.TimesformerConfig(
        image_size=32,
        patch_size=8,
        num_frames=4,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        attention_type=theirs,
        num_labels=5,
    )
    reference = transformers.TimesformerForVideoClassification(config).eval()
    model = strong(TimeSformer(**TINY, attention=ours))
    reference.load_state_dict(
        {to_hf_name(name): value for name, value in model.state_dict().items()}
    )
    frames = clip()
    with torch.no_grad():
        expected, outputs = (
            reference(frames, output_attentions=True),
            model(frames, return_attention=True),
        )
        fused, reversed_logits = model(frames)["logits"], model(frames.flip(1))["logits"]
    torch.testing.assert_close(outputs["logits"], expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(fused, expected.logits, atol=1e-4, rtol=0)
    assert (
        reversed_logits - fused
    ).abs().max() > 0.1  # time matters, so the temporal path was tested
    if ours == "divided":
        for weights, reference_weights in zip(
            outputs["attention_space"], expected.attentions, strict=True
        ):
            torch.testing.assert_close(weights.flatten(0, 1), reference_weights, atol=1e-5, rtol=0)


def test_sizes_of_the_base_model(monkeypatch):
    monkeypatch.setattr("marey.layers.transformer_block.FOLD_TOKENS", 1e9)
    with torch.device("meta"):
        model = create_model("timesformer", num_classes=400)
        frames = torch.zeros(1, 8, 3, 224, 224)
    assert sum(parameter.numel() for parameter in model.parameters()) == 121_566_352
    assert len(model.state_dict()) == 249
    with FlopCounterMode(display=False) as counter:
        model(frames)
    assert (
        round(counter.get_total_flops() / 2e9) == 196
    )  # multiply-adds at 8 x 224, without the folding


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"attention": "joint"},
        {"attention": "space"},
        {"position_embedding": "joint"},
        {"stem": "conv"},
        {"time_attention": "cosine", "cls_in_time": True},
        {"space_attention": "cosine"},
        {"cls_in_time": True},
        {"attention": "joint", "time_attention": "cosine", "space_attention": "cosine"},
    ],
)
def test_every_form_gives_equal_outputs_with_and_without_attention_weights(arguments):
    model = strong(TimeSformer(**TINY, **arguments))
    with_weights, without = model(clip(), return_attention=True), model(clip())
    torch.testing.assert_close(with_weights["logits"], without["logits"], atol=1e-4, rtol=1e-4)
    assert without["logits"].shape == (2, 5)
    assert without["embedding"].shape == (2, 32)
    json.dumps(model.arguments)


def test_shapes_of_the_attention_weights():
    outputs = TimeSformer(**TINY)(clip(), return_attention=True)
    assert [tuple(weights.shape) for weights in outputs["attention_time"]] == [(2, 16, 4, 4, 4)] * 2
    assert [tuple(weights.shape) for weights in outputs["attention_space"]] == [
        (2, 4, 4, 17, 17)
    ] * 2
    with_cls = TimeSformer(**TINY, cls_in_time=True)(clip(), return_attention=True)
    assert with_cls["attention_time"][0].shape == (2, 16, 4, 4, 5)
    joint = TimeSformer(**TINY, attention="joint")(clip(), return_attention=True)
    assert joint["attention_joint"][0].shape == (2, 4, 65, 65)


def test_a_loss_on_attention_weights_reaches_the_parameters():
    model = strong(TimeSformer(**TINY, time_attention="cosine"))
    sum(
        weights.sum() for weights in model(clip(), return_attention=True)["attention_time"]
    ).backward()
    assert model.blocks[1].temporal_attn.qkv.weight.grad.abs().sum() > 0
    assert model.patch_embed.proj.weight.grad.abs().sum() > 0


def test_a_fresh_model_is_an_image_model_over_frames():
    model = TimeSformer(**TINY).eval()
    assert all(
        (block.temporal_fc.weight == 0).all() and (block.temporal_fc.bias == 0).all()
        for block in model.blocks
    )
    torch.testing.assert_close(model(clip())["logits"], model(clip().flip(1))["logits"])


def test_batch_order_does_not_matter():
    model = strong(TimeSformer(**TINY))
    frames = clip(3)
    torch.testing.assert_close(
        model(frames)["logits"].flip(0), model(frames.flip(0))["logits"], atol=1e-4, rtol=1e-4
    )


def test_folding_the_temporal_projection_changes_no_logits_and_follows_the_weights():
    model = strong(TimeSformer(**TINY))
    frames = clip()
    unfolded = model(frames)["logits"].detach()  # gradients wanted: two products
    assert fold_temporal_projection(model) == 2
    with torch.no_grad():
        torch.testing.assert_close(model(frames)["logits"], unfolded, atol=1e-4, rtol=1e-4)
        model.blocks[0].temporal_fc.weight.mul_(2)  # a stale fold would not see this
        folded = model(frames)["logits"]
    assert (folded - unfolded).abs().max() > 1e-3
    torch.testing.assert_close(folded, model(frames)["logits"].detach(), atol=1e-4, rtol=1e-4)
    assert set(model.state_dict()) == set(TimeSformer(**TINY).state_dict())


def test_half_precision_by_to():
    model = strong(TimeSformer(**TINY, time_attention="cosine", cls_in_time=True), std=0.1)
    with torch.no_grad():
        expected = model(clip())["logits"]
        answer = model.to(torch.bfloat16)(clip().bfloat16())["logits"]
    assert answer.dtype == torch.bfloat16
    assert (answer.float() - expected).norm() / expected.norm() < 5e-2


def test_activation_checkpointing_gives_the_same_gradients():
    grads = []
    for flag in (False, True, "cheap"):
        model = strong(TimeSformer(**TINY, activation_checkpointing=flag)).train()
        model(clip())["logits"].square().sum().backward()
        grads.append(model.blocks[0].temporal_attn.qkv.weight.grad)
    torch.testing.assert_close(grads[0], grads[1])
    torch.testing.assert_close(grads[0], grads[2])
    with pytest.raises(
        UserError, match="activation_checkpointing is 'all', but must be one of True, cheap"
    ):
        TimeSformer(**TINY, activation_checkpointing="all")


def test_the_temporal_projection_folds_while_training_with_the_same_gradients(monkeypatch):
    grads = []
    for tokens_per_width in (1, 1e9):
        monkeypatch.setattr("marey.layers.transformer_block.FOLD_TOKENS", tokens_per_width)
        model = strong(TimeSformer(**TINY), std=0.1).train()
        model(clip())["logits"].square().sum().backward()
        grads.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in grads[0].items():
        torch.testing.assert_close(
            gradient, grads[1][name], rtol=1e-4, atol=1e-5 * float(gradient.abs().max() + 1)
        )


def test_features_are_what_the_head_sees():
    model = strong(TimeSformer(**TINY))
    features, outputs = model.features(clip()), model(clip())
    assert features["tokens"].shape == (2, 1 + 4 * 16, 32)
    torch.testing.assert_close(features["embedding"], outputs["embedding"])
    torch.testing.assert_close(model.head(features["embedding"]), outputs["logits"])


def test_stretched_embeddings_serve_other_clips_and_only_when_asked():
    model = strong(TimeSformer(**TINY, resize_embeddings="nearest"))
    assert model(clip(1, 6, 48))["logits"].shape == (1, 5)
    torch.testing.assert_close(
        model(clip())["logits"], strong(TimeSformer(**TINY))(clip())["logits"]
    )
    joint = TimeSformer(**TINY, position_embedding="joint", resize_embeddings="bicubic")
    assert joint(clip(1, 6, 48))["logits"].shape == (1, 5)


def test_nearest_stretching_equals_the_released_run_time_rule():
    transformers = pytest.importorskip("transformers", reason="the independent implementation")
    from transformers.models.timesformer.modeling_timesformer import TimesformerEmbeddings

    config = transformers.TimesformerConfig(
        image_size=32, patch_size=8, num_frames=4, hidden_size=32
    )
    theirs, ours = (
        TimesformerEmbeddings(config).eval(),
        strong(TimeSformer(**TINY, resize_embeddings="nearest")),
    )
    theirs.load_state_dict(
        {
            "cls_token": ours.cls_token,
            "position_embeddings": ours.pos_embed,
            "time_embeddings": ours.time_embed,
            "patch_embeddings.projection.weight": ours.patch_embed.proj.weight,
            "patch_embeddings.projection.bias": ours.patch_embed.proj.bias,
        }
    )
    frames = clip(2, 6, 48)
    expected = theirs(frames)  # place-major: 1 + (h*W + w)*T + t
    tokens = ours.embed(frames)
    reordered = tokens[:, 1:].unflatten(1, (6, 36)).transpose(1, 2).flatten(1, 2)
    torch.testing.assert_close(
        torch.cat((tokens[:, :1], reordered), 1), expected, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(1, 5, 3, 32, 32), "clip has 5 frames, but this model was built for 4"),
        (torch.zeros(1, 4, 3, 48, 32), "clip is 48x32 pixels, but this model was built for 32x32"),
        (
            torch.zeros(1, 3, 4, 32, 32),
            r"shape \(1, 3, 4, 32, 32\), but the model takes \(B, T, 3, H, W\)",
        ),
        (torch.zeros(1, 4, 3, 32, 32, dtype=torch.uint8), "normalised float pixels"),
    ],
)
def test_clips_that_do_not_fit_are_named(frames, message):
    with pytest.raises(UserError, match=message):
        TimeSformer(**TINY)(frames)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 30}, "image_size 30 is no multiple of patch_size 8; choose 24"),
        ({"attention": "axial"}, "attention is 'axial', but must be one of divided, joint, space"),
        ({"time_attention": "linear"}, "time_attention is 'linear'"),
        ({"attention": "joint", "time_attention": "cosine"}, "give both the same kind"),
        ({"position_embedding": "sine"}, "position_embedding is 'sine'"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        TimeSformer(**TINY | arguments)


@pytest.mark.parametrize("embedding", ["separable", "joint"])
def test_weights_stretched_to_another_clip_equal_stretching_at_run_time(embedding):
    source = strong(TimeSformer(**TINY, position_embedding=embedding, resize_embeddings="nearest"))
    target = TimeSformer(
        **TINY | {"num_frames": 6, "image_size": 48}, position_embedding=embedding
    ).eval()
    target.load_state_dict(stretched_state(source, target))
    torch.testing.assert_close(target(clip(2, 6, 48))["logits"], source(clip(2, 6, 48))["logits"])


def test_a_separable_embedding_becomes_a_joint_one_as_a_sum():
    source, target = (
        strong(TimeSformer(**TINY)),
        TimeSformer(**TINY, position_embedding="joint").eval(),
    )
    target.load_state_dict(stretched_state(source, target))
    torch.testing.assert_close(
        target(clip())["logits"], source(clip())["logits"], atol=1e-4, rtol=1e-4
    )


def test_space_attention_is_the_mean_over_frames_seen_alone():
    model = strong(TimeSformer(**TINY, attention="space"))
    alone = torch.stack([model.encode(clip()[:, t : t + 1])["tokens"] for t in range(4)]).mean(0)
    torch.testing.assert_close(model.encode(clip())["tokens"], alone, atol=1e-5, rtol=1e-5)
    assert set(model(clip(), return_attention=True)) == {"logits", "embedding", "attention_space"}
