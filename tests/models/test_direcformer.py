"""DirecFormer: the paper's equations written as sums, and the released layout written naively, at
strong weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from marey.models import create_model
from marey.models.direcformer import DirecFormer

TINY = {
    "num_classes": 5,
    "num_orders": 7,
    "num_frames": 3,
    "image_size": 16,
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
}
T, N, D, HEADS = 3, 4, 16, 2


def strong(model, std: float = 0.25):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, std, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return model.eval()


def clip(batch: int = 2) -> Tensor:
    return torch.randn(batch, T, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def linear(state, name: str, values: Tensor) -> Tensor:
    return F.linear(values, state[name + ".weight"], state[name + ".bias"])


def layer_norm(state, name: str, values: Tensor) -> Tensor:
    return F.layer_norm(values, (D,), state[name + ".weight"], state[name + ".bias"], 1e-6)


def qkv(state, name: str, values: Tensor) -> Tensor:
    return linear(state, name + ".qkv", values).view(*values.shape[:-1], 3, HEADS, D // HEADS)


def cosine_mix(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """Σ cos(q / sqrt(D), k) v over a list, per head."""
    cosines = [F.cosine_similarity(query / D**0.5, key, dim=-1).unsqueeze(-1) for key in keys]
    return sum(cosine * value for cosine, value in zip(cosines, values, strict=True))


def paper_logits(state, video: Tensor) -> tuple[Tensor, Tensor]:
    """Equations 3-12 for one clip (T, 3, H, W), token by token; the class token is replicated and
    averaged in space."""
    z = {}
    for t in range(T):
        for s in range(N):
            top, left = s // 2 * 8, s % 2 * 8
            patch = video[t, :, top : top + 8, left : left + 8]
            alpha = (state["patch_embed.proj.weight"] * patch).sum((1, 2, 3)) + state[
                "patch_embed.proj.bias"
            ]
            z[s, t] = alpha + state["pos_embed"][0, 1 + s] + state["time_embed"][0, t]  # Eq. 3
    cls = state["cls_token"][0, 0] + state["pos_embed"][0, 0]
    for block in ("blocks.0", "blocks.1"):
        normed = {
            key: qkv(
                state, block + ".temporal_attn", layer_norm(state, block + ".temporal_norm1", value)
            )
            for key, value in [*z.items(), ((0, "cls"), cls)]
        }  # Eq. 4
        after_time = {}
        for s, t in z:
            looked_at = [normed[0, "cls"]] + [normed[s, other] for other in range(T)]  # Eq. 6
            mixed = cosine_mix(
                normed[s, t][0], [k[1] for k in looked_at], [v[2] for v in looked_at]
            )  # Eq. 7
            projected = linear(state, block + ".temporal_attn.proj", mixed.flatten())
            after_time[s, t] = z[s, t] + linear(state, block + ".temporal_fc", projected)
        normed = {
            key: qkv(state, block + ".attn", layer_norm(state, block + ".norm1", value))
            for key, value in [*after_time.items(), ((0, "cls"), cls)]
        }  # Eq. 8
        z, cls_per_frame = {}, []
        for t in range(T):
            looked_at = [normed[0, "cls"]] + [normed[s, t] for s in range(N)]  # Eq. 9
            for who in [(0, "cls")] + [(s, t) for s in range(N)]:
                mixed = cosine_mix(
                    normed[who][0], [k[1] for k in looked_at], [v[2] for v in looked_at]
                )  # Eq. 10
                projected = linear(state, block + ".attn.proj", mixed.flatten())
                if who == (0, "cls"):
                    cls_per_frame.append(projected)
                else:
                    z[who] = after_time[who] + projected
        cls = cls + torch.stack(cls_per_frame).mean(0)

        def mlp(value: Tensor, block: str = block) -> Tensor:  # Eq. 11
            hidden = F.gelu(
                linear(state, block + ".mlp.fc1", layer_norm(state, block + ".norm2", value))
            )
            return value + linear(state, block + ".mlp.fc2", hidden)

        z, cls = {key: mlp(value) for key, value in z.items()}, mlp(cls)
    return (
        linear(state, "head", layer_norm(state, "norm", cls)),
        linear(state, "order", layer_norm(state, "order_norm", cls)),
    )  # Eq. 12


def released_logits(state, videos: Tensor) -> tuple[Tensor, Tensor]:
    """The released network: (h w t) tokens, cosine over time on patches alone, softmax over space,
    one last norm."""
    B = len(videos)
    patches = F.conv2d(
        videos.flatten(0, 1),
        state["patch_embed.proj.weight"],
        state["patch_embed.proj.bias"],
        stride=8,
    )
    patches = patches.flatten(2).transpose(1, 2)
    tokens = torch.cat((state["cls_token"].expand(B * T, -1, -1), patches), 1) + state["pos_embed"]
    cls = tokens[:B, :1]
    places = (
        tokens[:, 1:].view(B, T, N, D).transpose(1, 2).reshape(B * N, T, D) + state["time_embed"]
    )
    x = torch.cat((cls, places.reshape(B, N * T, D)), 1)
    for block in ("blocks.0", "blocks.1"):
        xt = x[:, 1:].reshape(B * N, T, D)
        q, k, v = qkv(
            state, block + ".temporal_attn", layer_norm(state, block + ".temporal_norm1", xt)
        ).permute(2, 0, 3, 1, 4)
        q, k = q * (D // HEADS) ** -0.5, k * (D // HEADS) ** -0.5
        weights = (q / q.norm(dim=-1, keepdim=True)) @ (k / k.norm(dim=-1, keepdim=True)).transpose(
            -2, -1
        )
        out = linear(
            state, block + ".temporal_attn.proj", (weights @ v).transpose(1, 2).reshape(B * N, T, D)
        )
        xt = x[:, 1:] + linear(state, block + ".temporal_fc", out.reshape(B, N * T, D))
        cls = x[:, :1]
        xs = xt.view(B, N, T, D).transpose(1, 2).reshape(B * T, N, D)
        xs = torch.cat((cls.repeat(1, T, 1).reshape(B * T, 1, D), xs), 1)
        q, k, v = qkv(state, block + ".attn", layer_norm(state, block + ".norm1", xs)).permute(
            2, 0, 3, 1, 4
        )
        weights = (q @ k.transpose(-2, -1) * (D // HEADS) ** -0.5).softmax(-1)
        out = linear(
            state, block + ".attn.proj", (weights @ v).transpose(1, 2).reshape(B * T, N + 1, D)
        )
        out_cls = out[:, 0].view(B, T, D).mean(1, keepdim=True)
        out_patches = out[:, 1:].view(B, T, N, D).transpose(1, 2).reshape(B, N * T, D)
        x = torch.cat((cls, xt), 1) + torch.cat((out_cls, out_patches), 1)
        hidden = F.gelu(linear(state, block + ".mlp.fc1", layer_norm(state, block + ".norm2", x)))
        x = x + linear(state, block + ".mlp.fc2", hidden)
    feature = layer_norm(state, "norm", x)[:, 0]
    return linear(state, "head", feature), linear(state, "order", feature)


def test_logits_equal_the_equations_of_the_paper():
    model = strong(DirecFormer(**TINY))
    state = model.state_dict()
    outputs = model(clip())
    for index, video in enumerate(clip()):
        logits, order_logits = paper_logits(state, video)
        torch.testing.assert_close(outputs["logits"][index], logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            outputs["order_logits"][index], order_logits, atol=1e-4, rtol=1e-4
        )
    assert (model(clip().flip(1))["logits"] - outputs["logits"]).abs().max() > 0.1


def test_logits_equal_the_released_network():
    model = strong(
        DirecFormer(**TINY, space_attention="softmax", cls_in_time=False, shared_norm=True), std=0.4
    )
    logits, order_logits = released_logits(model.state_dict(), clip())
    outputs = model(clip())
    torch.testing.assert_close(outputs["logits"], logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs["order_logits"], order_logits, atol=1e-4, rtol=1e-4)
    assert (
        model(clip().flip(1))["logits"] - logits
    ).abs().max() > 0.05  # the temporal path matters


def test_sizes_of_the_released_model():
    with torch.device("meta"):
        model = create_model(
            "direcformer",
            num_classes=27,
            num_orders=31,
            cls_in_time=False,
            shared_norm=True,
            space_attention="softmax",
        )
    assert sum(parameter.numel() for parameter in model.parameters()) == 121_303_354
    assert len(model.state_dict()) == 251


def test_undivided_attention_is_equation_5_and_linear_in_tokens():
    model = strong(DirecFormer(**TINY, attention="joint"))
    outputs = model(clip(), return_attention=True)
    weights = outputs["attention_joint"][0]
    assert weights.shape == (2, HEADS, 1 + T * N, 1 + T * N)
    assert weights.min() < 0
    assert weights.abs().max() <= 1 + 1e-5
    torch.testing.assert_close(outputs["logits"], model(clip())["logits"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("time_embedding", [False, True])
def test_permuting_frames_permutes_the_first_maps_only_without_time_embeddings(time_embedding):
    model = strong(DirecFormer(**TINY))
    if not time_embedding:
        torch.nn.init.zeros_(model.time_embed)
    order = torch.tensor([2, 0, 1])
    before = model(clip(), return_attention=True)["attention_time"][0]
    after = model(clip()[:, order], return_attention=True)["attention_time"][0]
    same = torch.allclose(after[..., 1:], before[..., order, :][..., 1 + order], atol=1e-5)
    same_cls = torch.allclose(after[..., 0], before[..., order, 0], atol=1e-5)
    assert (same, same_cls) == ((True, True) if not time_embedding else (False, False))


def test_reversal_flips_both_axes_and_is_not_the_transpose():
    model = strong(DirecFormer(**TINY, cls_in_time=False))
    torch.nn.init.zeros_(model.time_embed)
    before = model(clip(), return_attention=True)["attention_time"][0]
    after = model(clip().flip(1), return_attention=True)["attention_time"][0]
    torch.testing.assert_close(after, before.flip(-1, -2), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(after, before.transpose(-1, -2), atol=1e-2)


def test_each_head_has_its_own_norm_unless_shared():
    separate, shared = DirecFormer(**TINY), DirecFormer(**TINY, shared_norm=True)
    assert hasattr(separate, "order_norm")
    assert not hasattr(shared, "order_norm")
    assert "order_logits" not in DirecFormer(**TINY | {"num_orders": 0})(clip())
