"""Softmax attention: equal to PyTorch's own, with and without weights, over time and over space."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from marey.errors import UserError
from marey.layers.attention import SoftmaxAttention, softmax_weights
from marey.layers.directed_attention import DirectedAttention


def test_a_value_worked_by_hand():
    query = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    key = torch.tensor([[0.0, 0.0, 0.0, 0.0], [2 * torch.log(torch.tensor(3.0)), 0.0, 0.0, 0.0]])
    torch.testing.assert_close(
        softmax_weights(query, key), torch.tensor([[0.25, 0.75]])
    )  # exp(log 3) = 3 against 1


def test_equals_multihead_attention_of_pytorch():
    torch.manual_seed(0)
    ours, theirs = SoftmaxAttention(32, 4), nn.MultiheadAttention(32, 4, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.proj.weight,
            "out_proj.bias": ours.proj.bias,
        }
    )
    tokens = torch.randn(2, 7, 32)
    expected, expected_weights = theirs(tokens, tokens, tokens, average_attn_weights=False)
    out, weights = ours(tokens, return_weights=True)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weights, expected_weights)
    torch.testing.assert_close(ours(tokens)[0], expected)


@pytest.mark.parametrize("cls_as_key", [False, True])
def test_over_time_is_attention_within_each_patch_position(cls_as_key):
    torch.manual_seed(0)
    B, T, N, D = 2, 3, 4, 16
    attention = SoftmaxAttention(D, 2)
    tokens = torch.randn(B, 1 + T * N, D)
    out, weights = attention.over_time(tokens, T, cls_as_key=cls_as_key, return_weights=True)
    fused, none = attention.over_time(tokens, T, cls_as_key=cls_as_key)
    assert none is None
    torch.testing.assert_close(out, fused)
    patches = tokens[:, 1:].view(B, T, N, D)
    for place in range(N):
        sequence = (
            torch.cat((tokens[:, :1], patches[:, :, place]), 1)
            if cls_as_key
            else patches[:, :, place]
        )
        q, k, v = attention.qkv(sequence).view(B, -1, 3, 2, 8).permute(2, 0, 3, 1, 4)
        expected_weights = softmax_weights(q[:, :, int(cls_as_key) :], k)
        expected = (expected_weights @ v).transpose(1, 2).reshape(B, T, D)
        torch.testing.assert_close(out.view(B, T, N, D)[:, :, place], expected)
        torch.testing.assert_close(weights[:, place], expected_weights)


def test_over_space_is_attention_within_each_frame_and_averages_the_class_token():
    torch.manual_seed(0)
    B, T, N, D = 2, 3, 4, 16
    attention = SoftmaxAttention(D, 2)
    tokens = torch.randn(B, 1 + T * N, D)
    out, weights = attention.over_space(tokens, T, return_weights=True)
    assert weights.shape == (B, T, 2, 1 + N, 1 + N)
    frames = [
        attention(torch.cat((tokens[:, :1], tokens[:, 1 + t * N : 1 + (t + 1) * N]), 1))[0]
        for t in range(T)
    ]
    torch.testing.assert_close(out[:, 0], torch.stack([frame[:, 0] for frame in frames]).mean(0))
    torch.testing.assert_close(out[:, 1:], torch.cat([frame[:, 1:] for frame in frames], 1))


def test_weights_are_differentiable():
    attention = SoftmaxAttention(16, 2)
    tokens = torch.randn(1, 9, 16, requires_grad=True)
    attention.over_time(tokens, 4, cls_as_key=False, return_weights=True)[1][
        ..., 0
    ].sum().backward()
    assert tokens.grad.abs().sum() > 0


def test_dropout_on_weights_only_while_training():
    torch.manual_seed(0)
    attention = SoftmaxAttention(16, 2, attention_dropout=0.5)
    tokens = torch.randn(1, 6, 16)
    assert not torch.equal(attention(tokens)[0], attention(tokens)[0])
    attention.eval()
    assert torch.equal(attention(tokens)[0], attention(tokens)[0])


def test_heads_that_do_not_divide_the_width_are_named():
    with pytest.raises(UserError, match="embed_dim 10 is no multiple of num_heads 4"):
        SoftmaxAttention(10, 4)


@pytest.mark.parametrize("kind", [SoftmaxAttention, DirectedAttention])
@pytest.mark.parametrize("return_weights", [False, True])
def test_tokens_that_are_not_visible_change_nothing(kind, return_weights):
    torch.manual_seed(0)
    attention = kind(8, 2).eval()
    tokens, visible = torch.randn(2, 1 + 3 * 4, 8), torch.ones(2, 3 * 4, dtype=torch.bool)
    visible[0, 5] = visible[1, 0] = visible[1, 11] = False
    other = tokens.clone()
    other[:, 1:][~visible] = 7.0
    for way in ("over_time", "over_space"):
        options = {"cls_as_key": True} if way == "over_time" else {}
        first, weights = getattr(attention, way)(
            tokens, 3, visible=visible, return_weights=return_weights, **options
        )
        second, _ = getattr(attention, way)(other, 3, visible=visible, **options)
        seen = visible if way == "over_time" else torch.cat((torch.ones(2, 1) > 0, visible), 1)
        torch.testing.assert_close(first[seen], second[seen])
        if weights is not None and way == "over_time":  # token 5: frame 1, place 1
            assert (weights[0, 1, :, :, 1 + 1] == 0).all()


def test_all_visible_is_as_without_a_mask_and_none_visible_is_finite():
    torch.manual_seed(0)
    for kind in (SoftmaxAttention, DirectedAttention):
        attention, tokens = kind(8, 2).eval(), torch.randn(2, 1 + 3 * 4, 8)
        every = torch.ones(2, 12, dtype=torch.bool)
        for weights in (False, True):
            plain = attention.over_time(tokens, 3, cls_as_key=False, return_weights=weights)[0]
            masked = attention.over_time(
                tokens, 3, cls_as_key=False, visible=every, return_weights=weights
            )[0]
            torch.testing.assert_close(plain, masked)
        nothing = attention.over_time(tokens, 3, cls_as_key=False, visible=~every)[0]
        assert torch.isfinite(nothing).all()
