from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from marey.models.sevitar import SeViTAR
from marey.papers.sevitar_heads import (
    HIDDEN,
    AdamW,
    HeadRow,
    Problem,
    Setting,
    apply_heads,
    derangement,
    in_their_span,
    initial,
    layer_widths,
    num_parameters,
    row_vectors,
    stages_of,
    train_heads,
)

MEANING = F.normalize(torch.randn(4, 12, generator=torch.Generator().manual_seed(5)), dim=1)


def problem(models=2, seeds=(0, 10), noise=0.3, **changes):
    """Four classes around four corners, 80 videos, every model sees the first 60."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 4
    z = 2 * torch.eye(4).repeat(1, 4)[labels] + noise * torch.randn(80, 16, generator=generator)
    given = {
        "z": z.expand(models, -1, -1),
        "labels": labels,
        "train_rows": [torch.arange(60)] * models,
        "num_classes": 4,
        "vectors": MEANING.expand(models, -1, -1),
        "settings": [Setting(0.01, 0.01, 0.0)] * models,
        "seeds": seeds,
    }
    return Problem(**given | changes)


def row(kind="concat", **changes):
    return HeadRow(name="row", kind=kind, **changes)


def test_the_concatenated_head_is_sevitar_s():
    weights = initial(layer_widths("concat", 48, 5, 12), [3])
    model = SeViTAR(
        num_classes=5,
        num_frames=2,
        image_size=32,
        embed_dim=48,
        depth=1,
        num_heads=4,
        label_dim=12,
        label_hidden=(HIDDEN,),
        class_hidden=(HIDDEN,),
    ).eval()
    names = {
        "semantic.0": "semantic_mlp.0",
        "semantic.1": "semantic_mlp.3",
        "class.0": "class_mlp.0",
        "class.1": "class_mlp.3",
    }
    state = model.state_dict()
    for ours, theirs in names.items():
        state[f"{theirs}.weight"] = weights[f"{ours}.weight"][0].T
        state[f"{theirs}.bias"] = weights[f"{ours}.bias"][0, 0]
    model.load_state_dict(state)
    cls = torch.randn(7, 48)
    with torch.inference_mode():
        expected = model.forward_head(cls)
        found = apply_heads(weights, model.norm(cls)[None])
    assert torch.allclose(found.logits[0], expected["logits"], atol=1e-5)
    assert torch.allclose(found.label_embedding[0], expected["label_embedding"], atol=1e-5)


def test_the_mlp_has_the_parameters_of_the_concatenated_head():
    ours, theirs = (num_parameters(layer_widths(kind, 64, 6, 384)) for kind in ("mlp", "concat"))
    assert abs(ours - theirs) / theirs < 0.01


@pytest.mark.parametrize(
    ("kind", "vectors"), [("linear", "none"), ("mlp", "none"), ("concat", "meaning")]
)
def test_every_head_learns_classes_that_are_apart_and_nothing_in_noise(kind, vectors):
    given = problem()
    weights = train_heads(row(kind, vectors=vectors), given, 60)
    right = apply_heads(weights, given.z).logits.argmax(2) == given.labels
    assert right[:, 60:].double().mean() > 0.9

    noise = torch.randn(80, 16, generator=torch.Generator().manual_seed(1))
    given = problem(z=noise.expand(2, -1, -1))
    weights = train_heads(row(kind, vectors=vectors), given, 60)
    right = apply_heads(weights, given.z).logits.argmax(2) == given.labels
    assert right[:, 60:].double().mean() < 0.6


def test_models_that_train_together_are_those_that_train_alone():
    settings = [Setting(1e-3, 0.01, 0.0), Setting(4e-3, 1.0, 0.0)]
    both = train_heads(row(vectors="meaning"), problem(settings=settings), 8)
    for number, seed in enumerate((0, 10)):
        alone = problem(1, (seed,), settings=settings[number : number + 1])
        single = train_heads(row(vectors="meaning"), alone, 8)
        for name, value in single.items():
            assert torch.allclose(both[name][number], value[0], atol=1e-5), name


def test_the_optimiser_is_adamw():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, 3, 2, generator=generator)
    theirs = torch.nn.Parameter(start.clone())
    reference = torch.optim.AdamW([theirs], 0.01, weight_decay=0.1)
    ours = AdamW({"a.weight": start}, torch.full((1, 1, 1), 0.1))
    for _ in range(5):
        gradient = torch.randn(1, 3, 2, generator=generator)
        theirs.grad = gradient
        reference.step()
        found = ours.step({"a.weight": gradient}, torch.full((1, 1, 1), 0.01))
    assert torch.allclose(found["a.weight"], theirs, atol=1e-6)


def test_the_label_loss_brings_the_embedding_to_the_names_and_its_absence_does_not():
    given = problem()
    near = []
    for vectors in ("meaning", "none"):
        weights = train_heads(row(vectors=vectors), given, 80)
        embedding = apply_heads(weights, given.z).label_embedding[:, 60:]
        cosine = F.normalize(embedding, dim=2) @ MEANING.T
        near.append((cosine.argmax(2) == given.labels[60:]).double().mean())
    assert near[0] > 0.9
    assert near[1] < 0.7


def test_a_staged_classifier_does_not_move_the_semantic_mlp():
    staged = stages_of(row(vectors="meaning", staged=True), ["semantic.0", "class.1"], 10)
    assert [(stage.steps, stage.losses, stage.layers) for stage in staged] == [
        (5, ("label",), ("semantic.0",)),
        (5, ("class",), ("class.1",)),
    ]
    given = problem()
    changed = problem(labels=(given.labels + 1) % 4, vectors=MEANING.roll(1, 0).expand(2, -1, -1))
    # Other classes under the same vectors: the semantic MLP sees the same targets.
    one, other = (train_heads(row(vectors="meaning", staged=True), p, 10) for p in (given, changed))
    assert torch.allclose(one["semantic.1.weight"], other["semantic.1.weight"])
    assert not torch.allclose(one["class.1.weight"], other["class.1.weight"])


def test_joint_and_staged_have_the_same_steps_and_sum_of_rates():
    def rates(stages):
        return [
            0.5 + 0.5 * math.cos(math.pi * step / stage.steps)
            for stage in stages
            for step in range(stage.steps)
        ]

    layers = ["semantic.0", "class.0"]
    joint, staged = (
        rates(stages_of(row(vectors="meaning", staged=value), layers, 200))
        for value in (False, True)
    )
    assert len(joint) == len(staged) == 200
    assert sum(joint) == pytest.approx(sum(staged), rel=0.01)


def test_controls_have_other_vectors_for_every_name():
    words = torch.eye(4)
    assert torch.equal(row_vectors(row(vectors="meaning"), MEANING, words, 0), MEANING)
    assert torch.equal(row_vectors(row(vectors="words"), MEANING, words, 0), words)
    assert not row_vectors(row(), MEANING, words, 0).any()
    permuted = row_vectors(row(vectors="permuted"), MEANING, words, 3)
    assert torch.equal(permuted.sort(0).values, MEANING.sort(0).values)
    assert not (permuted == MEANING).all(1).any()
    first, second = (row_vectors(row(vectors="random"), MEANING, words, seed) for seed in (0, 1))
    assert torch.allclose(first.norm(dim=1), torch.ones(4))
    assert not torch.allclose(first, second)
    assert derangement(2, torch.Generator().manual_seed(0)).tolist() == [1, 0]


def test_label_vectors_keep_their_distances_in_their_span():
    short = in_their_span(MEANING)
    assert short.shape == (4, 4)
    assert torch.allclose(short @ short.T, MEANING @ MEANING.T, atol=1e-5)
    assert not in_their_span(torch.zeros(4, 12)).any()
    flat = F.normalize(MEANING[:, :2], dim=1)
    assert torch.allclose(in_their_span(flat) @ in_their_span(flat).T, flat @ flat.T, atol=1e-5)
