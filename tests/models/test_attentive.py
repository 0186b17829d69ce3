"""The attentive pooler and the probe that carries it."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from marey.errors import UserError
from marey.models.attentive import AttentivePooler
from marey.models.probe import Probe

SMALL = {"num_frames": 2, "image_size": 32, "grid": 1}


def test_without_blocks_the_order_of_tokens_does_not_count():
    torch.manual_seed(0)
    pooler = AttentivePooler(24).eval()
    tokens = torch.randn(3, 7, 24)
    assert pooler(tokens).shape == (3, 24)
    assert_close(pooler(tokens.flip(1)), pooler(tokens), atol=1e-5, rtol=1e-5)


def test_a_small_transformer_learns_positions():
    torch.manual_seed(0)
    pooler = AttentivePooler(16, blocks=1, num_tokens=4).eval()
    tokens = torch.randn(2, 4, 16)
    assert_close(pooler(tokens.flip(1)), pooler(tokens), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        pooler.positions.normal_()
    assert float((pooler(tokens.flip(1)) - pooler(tokens)).abs().max()) > 1e-3


def test_pooling_is_attention_and_a_residual_mlp():
    torch.manual_seed(0)
    pooler = AttentivePooler(8).eval()
    tokens = torch.randn(1, 5, 8)
    normed = pooler.norm_tokens(tokens)[0]
    query, key, value = pooler.attention.in_proj_weight.chunk(3)
    scores = (pooler.query[0] @ query.T) @ (normed @ key.T).T / 8**0.5
    seen = scores.softmax(-1) @ (normed @ value.T) @ pooler.attention.out_proj.weight.T
    pooled = pooler.query[0] + seen
    expected = pooled + pooler.mlp(pooler.norm(pooled))
    assert_close(pooler(tokens), expected, atol=1e-5, rtol=1e-5)


def test_a_probe_pools_tokens_and_shows_what_it_rests_on():
    probe = Probe("frame_statistics", SMALL, 3, vectors={"poses": 4}, pooler={"dim": 192}).eval()
    again = Probe(**probe.arguments).eval()
    again.load_state_dict(probe.state_dict())
    clip, vectors = torch.randn(2, 2, 3, 32, 32), torch.randn(2, 4)
    outputs = again(clip, vectors)
    assert outputs["embedding"].shape == (2, 192 + 4)
    assert outputs["deciding_embedding"].shape == (2, probe.encoder.embed_dim + 4)
    assert_close(outputs["logits"], probe(clip, vectors)["logits"])
    with pytest.raises(UserError, match="reads poses of the video"):
        again(clip)


def test_older_checkpoints_name_the_pose_vector_by_its_width():
    probe = Probe(None, {}, 2, pose_dim=5)
    assert probe.vectors == {"poses": 5}
    assert probe(torch.zeros(1, 8, 3, 4, 4), torch.ones(1, 5))["logits"].shape == (1, 2)
