"""Attentive pooling, adapters and fine-tuning learn what is there, and train what they should."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from marey.errors import UserError
from marey.models.external_encoder import ExternalEncoder
from marey.models.probe import Probe
from marey.teaching.networks import (
    TrainingPlan,
    builder,
    cross_validate_network,
    probe_logits,
    tokens_of,
    train_probe,
)

SMALL = {"num_frames": 2, "image_size": 32, "grid": 1}
QUICK = TrainingPlan(epochs=12, lr=5e-3, batch_size=8)


def tiny_videomae() -> ExternalEncoder:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        image_size=16,
        patch_size=8,
        num_frames=2,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    return ExternalEncoder("transformers", config.to_dict())


def bright_and_dark() -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(8) % 2
    clips = torch.randn(8, 2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 0.2
    return clips + (2.0 * labels - 1)[:, None, None, None, None], labels


def test_attentive_pooling_finds_the_token_that_tells():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 2
    tokens = torch.randn(24, 5, 192, generator=generator)
    tokens[:, 3, :8] += 6 * (2.0 * labels - 1)[:, None]  # the place of the token does not help
    vectors = torch.randn(24, 6, generator=generator) * 100 + 50
    probe = Probe("frame_statistics", SMALL, 2, vectors={"poses": 6}, pooler={"dim": 192})
    before = {name: value.clone() for name, value in probe.encoder.state_dict().items()}
    folds = torch.arange(24) // 8
    logits = cross_validate_network(
        builder(probe),
        "attentive",
        tokens_of(tokens.half()),
        vectors,
        labels,
        folds,
        plan=QUICK,
        device="cpu",
    )
    assert float((logits.argmax(1) == labels).double().mean()) > 0.85
    for name, value in probe.encoder.state_dict().items():
        assert_close(value, before[name], atol=0, rtol=0)


def test_the_scaling_of_vectors_is_folded_into_the_head():
    labels = torch.arange(12) % 2
    vectors = 1000 + 50 * torch.randn(12, 4) + 400 * labels[:, None]
    tokens = torch.zeros(12, 2, 192)
    probe = Probe("frame_statistics", SMALL, 2, vectors={"poses": 4}, pooler={"dim": 192})
    batch_of = tokens_of(tokens)
    rows = list(range(12))
    plan = TrainingPlan(epochs=60, lr=5e-2)
    trained = train_probe(
        probe, "attentive", batch_of, vectors, labels, rows, plan=plan, device="cpu"
    )
    answers = probe_logits(trained, "attentive", batch_of, vectors, rows).argmax(1)
    assert_close(answers, labels)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_transformer_is_fine_tuned(method):
    if method == "lora":
        pytest.importorskip("peft", reason="adapters need the extra 'lora'")
    encoder = tiny_videomae()
    clips, labels = bright_and_dark()
    probe = Probe("external", encoder.arguments, 2)
    names = set(probe.state_dict())
    before = {name: value.clone() for name, value in probe.encoder.state_dict().items()}
    rows = list(range(8))
    batch_of = tokens_of(clips)
    trained = train_probe(probe, method, batch_of, None, labels, rows, plan=QUICK, device="cpu")
    assert set(trained.state_dict()) == names  # adapters are merged
    assert_close(probe_logits(trained, method, batch_of, None, rows).argmax(1), labels)
    changed = [
        name
        for name, value in trained.encoder.state_dict().items()
        if float((value - before[name]).abs().max()) > 1e-6
    ]
    assert any("attention" in name for name in changed)
    assert not any(parameter.requires_grad for parameter in trained.parameters())


def test_adapters_need_a_transformer():
    probe = Probe("frame_statistics", SMALL, 2)
    with pytest.raises(UserError, match="adapts the attention of a transformer"):
        train_probe(
            probe,
            "lora",
            tokens_of(torch.zeros(2, 2, 3, 32, 32)),
            None,
            torch.tensor([0, 1]),
            [0, 1],
            plan=QUICK,
            device="cpu",
        )
