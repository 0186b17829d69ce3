"""Directed attention (DirecFormer, Eqs. 5-10): hand-worked cosines, naive sums, both sides of the
associativity."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from marey.errors import UserError
from marey.layers.directed_attention import DirectedAttention, directed_attention, directed_weights


def test_values_worked_by_hand():
    query = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    key = torch.tensor([[2.0, 0.0], [0.0, -5.0]])
    expected = torch.tensor([[0.6, -0.8], [1.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(directed_weights(query, key), expected)


def test_a_zero_token_gives_zero_and_finite_gradients():
    query, key = torch.zeros(2, 8, requires_grad=True), torch.randn(3, 8)
    weights = directed_weights(query, key)
    weights.sum().backward()
    assert torch.equal(weights, torch.zeros(2, 3))
    assert torch.isfinite(query.grad).all()


def test_equals_cosine_similarity_of_pytorch_and_stays_in_range():
    torch.manual_seed(0)
    query, key = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 7, 8)
    weights = directed_weights(query, key)
    expected = F.cosine_similarity(query.unsqueeze(-2), key.unsqueeze(-3), dim=-1)
    torch.testing.assert_close(weights, expected)
    assert weights.min() < 0
    assert weights.abs().max() <= 1 + 1e-6


def test_scale_does_not_matter_and_direction_does():
    torch.manual_seed(0)
    query, key = torch.randn(5, 8), torch.randn(5, 8)
    torch.testing.assert_close(
        directed_weights(query * 8**-0.5, key * 3), directed_weights(query, key)
    )
    torch.testing.assert_close(directed_weights(-query, key), -directed_weights(query, key))
    assert not torch.allclose(directed_weights(query, key), directed_weights(query, key).T)


@pytest.mark.parametrize("lengths", [(8, 8), (8, 9), (50, 197)])
def test_both_sides_of_the_product_are_equal_forward_and_gradient(lengths):
    torch.manual_seed(0)
    answers = []
    tensors = [torch.randn(2, 3, L, 16) for L in (lengths[0], lengths[1], lengths[1])]
    upstream = torch.randn(2, 3, lengths[0], 16)
    for linear in (False, True, None):
        query, key, value = (tensor.clone().requires_grad_() for tensor in tensors)
        out = directed_attention(query, key, value, linear=linear)
        out.backward(upstream)
        answers.append((out.detach(), query.grad, key.grad, value.grad))
    for other in answers[1:]:
        for ours, theirs in zip(answers[0], other, strict=True):
            assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, ours.abs().max().item())


def test_both_sides_are_equal_in_bfloat16_to_two_percent():
    torch.manual_seed(0)
    tensors = [torch.randn(2, 3, 64, 32) for _ in range(3)]
    reference = directed_attention(*tensors)
    for linear in (False, True):
        inputs = [tensor.bfloat16().requires_grad_() for tensor in tensors]
        out = directed_attention(*inputs, linear=linear)
        out.sum().backward()
        assert (out.float() - reference).norm() / reference.norm() < 2e-2
        exact = [tensor.bfloat16().float().requires_grad_() for tensor in tensors]
        directed_attention(*exact).sum().backward()
        for ours, theirs in zip(inputs, exact, strict=True):
            assert (ours.grad.float() - theirs.grad).norm() / theirs.grad.norm() < 2e-2


def test_the_cheaper_side_never_builds_the_map():
    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.elements = max(self.elements, out.numel())
            return out

    long = [torch.randn(1, 1, 500, 8) for _ in range(3)]
    with Largest() as seen:
        directed_attention(*long)
    assert seen.elements == 500 * 8
    with Largest() as seen:
        directed_attention(*long, linear=False)
    assert seen.elements == 500 * 500


@pytest.mark.parametrize("cls_as_key", [False, True])
def test_over_time_equals_equations_6_and_7_written_as_sums(cls_as_key):
    torch.manual_seed(0)
    T, N, D, heads = 3, 2, 8, 2
    d = D // heads
    attention = DirectedAttention(D, heads)
    tokens = torch.randn(1, 1 + T * N, D)
    out, weights = attention.over_time(tokens, T, cls_as_key=cls_as_key, return_weights=True)
    q, k, v = attention.qkv(tokens)[0].view(-1, 3, heads, d).unbind(1)

    def at(s, t):
        return 1 + t * N + s

    for s in range(N):
        for t in range(T):
            for head in range(heads):
                keys = ([0] if cls_as_key else []) + [at(s, other) for other in range(T)]
                a = [
                    F.cosine_similarity(q[at(s, t), head] / D**0.5, k[j, head], dim=0) for j in keys
                ]
                mixed = sum(weight * v[j, head] for weight, j in zip(a, keys, strict=True))
                torch.testing.assert_close(weights[0, s, head, t], torch.stack(a))
                torch.testing.assert_close(out[0, at(s, t) - 1, head * d : (head + 1) * d], mixed)


def test_asking_for_weights_changes_nothing_else():
    torch.manual_seed(0)
    attention = DirectedAttention(32, 2)
    tokens = torch.randn(2, 1 + 4 * 9, 32)
    torch.testing.assert_close(
        attention.over_time(tokens, 4, cls_as_key=True)[0],
        attention.over_time(tokens, 4, cls_as_key=True, return_weights=True)[0],
    )
    torch.testing.assert_close(
        attention.over_space(tokens, 4)[0], attention.over_space(tokens, 4, return_weights=True)[0]
    )


def test_permuting_frames_permutes_both_axes_of_the_weights_and_leaves_the_class_column():
    torch.manual_seed(0)
    B, T, N, D = 1, 5, 3, 16
    attention = DirectedAttention(D, 2)
    tokens = torch.randn(B, 1 + T * N, D)
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = torch.cat(
        (tokens[:, :1], tokens[:, 1:].view(B, T, N, D)[:, order].reshape(B, T * N, D)), 1
    )
    before = attention.over_time(tokens, T, cls_as_key=True, return_weights=True)[1]
    after = attention.over_time(shuffled, T, cls_as_key=True, return_weights=True)[1]
    torch.testing.assert_close(after[..., 1:], before[..., order, :][..., 1 + order])
    torch.testing.assert_close(after[..., 0], before[..., order, 0])


def test_attention_dropout_while_training_drops_weights():
    torch.manual_seed(0)
    attention = DirectedAttention(16, 2, attention_dropout=0.5)
    tokens = torch.randn(1, 50, 16)
    assert not torch.equal(attention(tokens)[0], attention(tokens)[0])
    attention.eval()
    torch.testing.assert_close(attention(tokens)[0], attention(tokens, return_weights=True)[0])


def test_widths_that_differ_are_named():
    with pytest.raises(UserError, match="query has head_dim 4, but key has 8"):
        directed_weights(torch.zeros(2, 4), torch.zeros(2, 8))
