"""The Tx unit: a person's query gathers from the whole clip by softmax attention."""

from __future__ import annotations

import math

import pytest
import torch

from marey.layers.tx import QueryPreprocessor, TxHead, TxUnit


def test_a_unit_is_the_formula_of_section_3_2_written_naively():
    torch.manual_seed(0)
    unit = TxUnit(memory_channels=6, dim=8, ffn=12, dropout=0.0)
    query, memory = torch.randn(3, 8), torch.randn(2, 5, 6)
    updated, weights = unit(query, memory, [1, 2])

    for person, clip in enumerate([0, 1, 1]):
        keys, values = unit.key(memory[clip]), unit.value(memory[clip])
        scores = torch.stack([query[person] @ key / math.sqrt(8) for key in keys])
        attention = scores.exp() / scores.exp().sum()
        torch.testing.assert_close(weights[person], attention)
        gathered = sum(weight * value for weight, value in zip(attention, values, strict=True))
        first = unit.norm_attention(query[person] + gathered)
        torch.testing.assert_close(updated[person], unit.norm_ffn(first + unit.ffn(first)))


def test_a_person_does_not_see_the_clip_of_another():
    torch.manual_seed(0)
    unit = TxUnit(6, 8, 12, 0.0)
    query, memory = torch.randn(2, 8), torch.randn(2, 5, 6)
    changed = memory.clone()
    changed[1] += 1
    before, after = unit(query, memory, [1, 1])[0], unit(query, changed, [1, 1])[0]
    torch.testing.assert_close(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


@pytest.mark.parametrize(("kind", "moves"), [("highres", True), ("lowres", False)])
def test_only_the_highres_query_knows_where_a_feature_is(kind, moves):
    torch.manual_seed(0)
    preprocess = QueryPreprocessor(4, 8, kind, 3)
    roi = torch.randn(1, 4, 7, 7)
    same = torch.allclose(preprocess(roi), preprocess(roi.flip(-1)), atol=1e-6)
    assert same is not moves


@pytest.mark.parametrize("operator", ["pool", "align"])
def test_the_head_returns_attention_over_the_map_for_every_layer(operator):
    torch.manual_seed(0)
    head = TxHead(
        10,
        dim=8,
        num_heads=2,
        num_layers=3,
        ffn=16,
        query_channels=4,
        location_channels=6,
        time_half_steps=1.0,
        dropout=0.0,
        roi_operator=operator,
    )
    boxes = [
        torch.tensor([[0.1, 0.1, 0.8, 0.9]]),
        torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.2, 0.2, 1.0, 1.0]]),
    ]
    described, attention = head(torch.randn(2, 10, 2, 4, 5), boxes)
    assert described.shape == (3, 16) == (3, head.out_channels)
    assert [tuple(weights.shape) for weights in attention] == [(3, 2, 2, 4, 5)] * 3
    for weights in attention:
        torch.testing.assert_close(weights.sum((2, 3, 4)), torch.ones(3, 2))
