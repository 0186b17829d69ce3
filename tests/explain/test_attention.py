"""Attention maps against a roll-out written with whole matrices."""

from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.explain.attention import attention_map, lay_over
from marey.models import create_model

T, N = 3, 4


def outputs_of(**arguments: object) -> dict[str, object]:
    torch.manual_seed(0)
    model = create_model(
        "timesformer",
        num_classes=2,
        num_frames=T,
        image_size=32,
        patch_size=16,
        embed_dim=16,
        depth=2,
        num_heads=2,
        **arguments,
    ).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    with torch.inference_mode():
        return model(torch.randn(2, T, 3, 32, 32), return_attention=True)


def token(t: int, s: int) -> int:
    return 1 + t * N + s


@pytest.mark.parametrize("arguments", [{}, {"time_attention": "cosine", "cls_in_time": True}])
def test_divided_rollout_equals_whole_matrices(arguments: dict[str, object]) -> None:
    outputs = outputs_of(**arguments)
    expected = []
    for b in range(2):
        row = torch.zeros(1 + T * N)
        row[0] = 1
        for time, space in zip(
            outputs["attention_time"][::-1], outputs["attention_space"][::-1], strict=True
        ):
            A = torch.zeros(1 + T * N, 1 + T * N)
            for t in range(T):
                w = space[b, t].abs().mean(0)
                w = w / w.sum(-1, keepdim=True)
                places = [0] + [token(t, s) for s in range(N)]
                for i, place in enumerate(places):
                    for j, other in enumerate(places):
                        A[place, other] += w[i, j] / (T if place == 0 else 1)
            row = 0.5 * row + 0.5 * row @ A
            B = torch.zeros_like(A)
            B[0, 0] = 1
            for s in range(N):
                w = time[b, s].abs().mean(0)
                w = w / w.sum(-1, keepdim=True)
                for t in range(T):
                    for u in range(T):
                        B[token(t, s), token(u, s)] = w[t, w.shape[1] - T + u]
                    if w.shape[1] > T:
                        B[token(t, s), 0] = w[t, 0]
            half = torch.cat([row[:1], 0.5 * row[1:]])
            moved = torch.cat([torch.zeros(1), row[1:]]) @ B
            row = half + 0.5 * moved
        expected.append(row[1:].view(T, 2, 2))
    assert torch.allclose(attention_map(outputs, T), torch.stack(expected), atol=1e-6)


def test_joint_rollout_equals_whole_matrices() -> None:
    outputs = outputs_of(attention="joint")
    row = torch.eye(1 + T * N)[:1].repeat(2, 1)
    for weights in outputs["attention_joint"][::-1]:
        row = 0.5 * row + 0.5 * torch.einsum("bl,blm->bm", row, weights.mean(1))
    assert torch.allclose(attention_map(outputs, T), row[:, 1:].view(2, T, 2, 2), atol=1e-6)


def test_one_head_of_the_last_layer_is_the_attention_itself() -> None:
    outputs = outputs_of()
    found = attention_map(outputs, T, kind="last", head=1)
    assert torch.equal(found, outputs["attention_space"][-1][:, :, 1, 0, 1:].view(2, T, 2, 2))


def test_a_tubelet_gives_its_value_to_its_frames() -> None:
    weights = torch.rand(1, 1, 9, 9)  # class token, 2 tubelets of 2 x 2 patches
    found = attention_map({"attention_joint": [weights]}, 4, kind="last")
    assert found.shape == (1, 4, 2, 2)
    assert torch.equal(found[0, 0], found[0, 1])
    assert not torch.equal(found[0, 1], found[0, 2])


def test_what_matters_keeps_its_colour() -> None:
    frames = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    frames[:, 0] = 200
    tinted = lay_over(frames, torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    assert tinted.dtype == torch.uint8
    assert tinted[0, 0, 0, 0] > tinted[0, 0, 7, 7]
    assert torch.equal(lay_over(frames, torch.rand(1, 2, 2), strength=0.0), frames)


def test_mistakes_are_named() -> None:
    outputs = outputs_of()
    with pytest.raises(UserError, match="gives no attention; use gradient relevance"):
        attention_map({"logits": torch.zeros(1)}, T)
    with pytest.raises(UserError, match="unknown attention map 'roll'; did you mean 'rollout'"):
        attention_map(outputs, T, kind="roll")
    with pytest.raises(UserError, match="layer 5 does not exist; the model has layers 0 to 1"):
        attention_map(outputs, T, kind="last", layer=5)
    with pytest.raises(UserError, match="head 2 does not exist"):
        attention_map(outputs, T, kind="last", head=2)
