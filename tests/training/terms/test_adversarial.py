from __future__ import annotations

import pytest
import torch
from torch import nn

from marey.attacks.threat_models import STANDARD
from marey.errors import UserError
from marey.losses.multilabel import multilabel_loss
from marey.models.gat import GAT
from marey.training.config import TrainConfig, override
from marey.training.objective_config import AdversarialConfig
from marey.training.task import Objective
from marey.training.tasks.features import FeatureObjective
from marey.training.terms.adversarial import AdversarialTraining, perturb
from marey.training.terms.classification import MultilabelTerm
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling


class Counted(GAT):
    """Counts the videos that pass forward and the times gradients come back to the output."""

    forwards = backwards = 0

    def forward(self, *args, **kwargs):
        self.forwards += 1
        outputs = super().forward(*args, **kwargs)
        if outputs["logits"].requires_grad:
            outputs["logits"].register_hook(
                lambda gradient: setattr(self, "backwards", self.backwards + 1)
            )
        return outputs


class LabelTerm(nn.Module):
    def forward(self, outputs, batch):
        return nn.functional.cross_entropy(outputs["logits"], batch["label"])


class ClipClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, clip):
        return {"logits": self.head(clip.mean((1, 3, 4)))}


class ClipObjective(Objective):
    def call_model(self, model, batch, names, return_attention):
        return model(batch["clip"])


def plain():
    return FeatureObjective({"class": 1.0}, {"class": MultilabelTerm()})


def adversarial(objective, attention=None, **options):
    weights = {None: {}, "frobenius": {"attention": 0.001}, "js": {"attention": 0.01}}[attention]
    objective.weights |= {"adversarial": 1.0, **weights}
    config = AdversarialConfig(**options, **({"distance": attention} if attention else {}))
    objective.adversarial = AdversarialTraining(config, compare_attention=attention is not None)
    return objective


def setting(attention=None, dropout=0.0, **options):
    torch.manual_seed(0)
    model = Counted(
        num_classes=3,
        features={"rgb": 8, "audio": 4},
        windows=[None, 3],
        num_heads=2,
        hidden_dim=6,
        dropout=dropout,
    )
    batch = {
        "features": {"rgb": torch.randn(4, 7, 8), "audio": torch.randn(4, 7, 4)},
        "mask": torch.arange(7)[None] < torch.tensor([7, 5, 3, 1])[:, None],
        "targets": torch.randint(0, 2, (4, 3)).float(),
    }
    batch["ids"] = ["a", "b", "c", "d"]
    return model, batch, adversarial(plain(), attention, **options)


@pytest.mark.parametrize("attention", [None, "frobenius", "js"])
def test_a_step_costs_two_forward_and_two_backward_passes(attention):
    model, batch, objective = setting(attention)
    _, terms = objective(model, batch)
    objective.total(terms).backward()
    assert model.forwards == 2
    assert (
        model.backwards == 3
    )  # the clean loss twice (inputs, parameters), the adversarial loss once
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_terms_equal_algorithm_1_written_out():
    model, batch, objective = setting("frobenius")
    _, terms = objective(model, batch)
    inputs = {name: x.clone().requires_grad_() for name, x in batch["features"].items()}
    outputs = model(inputs, batch["mask"], return_attention=True)
    loss = multilabel_loss(outputs["logits"], batch["targets"])
    moved = {}
    for name, gradient in zip(
        inputs, torch.autograd.grad(loss, list(inputs.values())), strict=True
    ):
        norm = gradient.norm(dim=2, keepdim=True)
        moved[name] = inputs[name] + torch.where(
            norm > 0, 0.5 * gradient / norm, torch.zeros_like(gradient)
        )
    moved_outputs = model(moved, batch["mask"], return_attention=True)
    l_f = sum(
        (
            outputs["attention"][name][0]["global_map"].mean(1)
            - moved_outputs["attention"][name][0]["global_map"].mean(1)
        )
        .flatten(1)
        .norm(dim=1)
        .mean()
        for name in inputs
    )
    assert terms["class"].item() == pytest.approx(loss.item())
    expected = multilabel_loss(moved_outputs["logits"], batch["targets"]).item()
    assert terms["adversarial"].item() == pytest.approx(expected, abs=1e-5)
    assert terms["attention"].item() == pytest.approx(l_f.item(), abs=1e-5)


def test_dropout_is_the_same_in_both_passes():
    model, batch, objective = setting("frobenius", dropout=0.5, eps=1e-8)
    _, terms = objective(model, batch)
    assert terms["adversarial"].item() == pytest.approx(terms["class"].item(), abs=1e-5)
    assert terms["attention"].item() < 1e-4


def test_padding_does_not_change_the_terms():
    model, batch, objective = setting("js")
    _, terms = objective(model, batch)
    longer = {
        "features": {
            name: torch.cat([x, torch.randn(4, 5, x.shape[2])], 1)
            for name, x in batch["features"].items()
        },
        "mask": torch.cat([batch["mask"], torch.zeros(4, 5, dtype=torch.bool)], 1),
        "targets": batch["targets"],
        "ids": batch["ids"],
    }
    _, again = objective(model, longer)
    assert {name: term.item() for name, term in again.items()} == pytest.approx(
        {name: term.item() for name, term in terms.items()}, abs=1e-5
    )


def test_evaluation_takes_one_forward_pass():
    model, batch, objective = setting("frobenius")
    with torch.no_grad():
        outputs, terms = objective(model.eval(), batch)
    assert model.forwards == 1
    assert set(terms) == {"class"}
    assert "attention" not in outputs


def test_clips_are_trained_adversarially_too():
    torch.manual_seed(0)
    objective = adversarial(ClipObjective({"class": 1.0}, {"class": LabelTerm()}), eps=1.0)
    batch = {"clip": torch.randn(2, 4, 3, 5, 5), "label": torch.tensor([0, 1])}
    _, terms = objective(ClipClassifier(), batch)
    assert terms["adversarial"] > terms["class"]


def test_an_attack_raises_the_loss_and_leaves_padding_and_gradients_alone():
    model, batch, _ = setting()
    attacked = perturb(plain(), model.eval(), batch, eps=0.1)
    move = attacked["features"]["rgb"] - batch["features"]["rgb"]
    assert torch.allclose(move.norm(dim=2)[batch["mask"]], torch.tensor(0.1), atol=1e-5)
    assert (move[~batch["mask"]] == 0).all()
    assert all(p.grad is None for p in model.parameters())
    objective = plain()
    assert objective(model, attacked)[1]["class"] > objective(model, batch)[1]["class"]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epsilon=1", "did you mean 'eps'"),
        ("eps=0", "eps should be greater than 0"),
        ("distance=l2", "distance should be 'frobenius' or 'js'"),
    ],
)
def test_settings_that_have_no_meaning_are_named(assignment, message):
    with pytest.raises(UserError, match=message):
        override(TrainConfig(), [f"objective.adversarial.{assignment}"])


def test_a_batch_without_inputs_is_refused():
    objective = adversarial(ClipObjective({"class": 1.0}, {"class": LabelTerm()}))
    with pytest.raises(
        UserError, match="perturbs the inputs clip, features, but a batch of this task has label"
    ):
        objective(ClipClassifier(), {"label": torch.zeros(1)})


def lengths(batch, moved):
    return {
        name: (moved["features"][name] - x).norm(dim=2) for name, x in batch["features"].items()
    }


def test_several_steps_stay_within_the_radius_and_raise_the_loss_further():
    model, batch, _ = setting()
    model.eval()
    objective = plain()

    def loss(one):
        with torch.no_grad():
            return float(objective(model, one)[1]["class"])

    single = perturb(objective, model, batch, 0.5, relative=True)
    several = perturb(objective, model, batch, 0.5, relative=True, steps=10)
    for name, radius in lengths(batch, single).items():
        assert (lengths(batch, several)[name] <= radius + 1e-5).all()
        assert (lengths(batch, several)[name][~batch["mask"]] == 0).all()
    assert loss(batch) < loss(single) <= loss(several) + 1e-4
    assert not any(p.grad is not None for p in model.parameters())


def test_local_maps_are_regularised_on_request():
    model, batch, objective = setting("frobenius")
    _, only_global = objective(model, batch)
    model, batch, objective = setting("frobenius", levels="global+local")
    _, both = objective(model, batch)
    assert both["attention"].item() > only_global["attention"].item()


def test_linf_training_stays_in_the_box_of_the_tested_threat_model():
    """The perturbed clips that the model sees are within eps of the pixels, whatever the scale."""
    torch.manual_seed(0)
    preprocess = Preprocess(
        sampling=ClipSampling(num_frames=3), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.5)
    )
    seen = []

    class Watching(ClipClassifier):
        def forward(self, clip):
            seen.append(clip.detach())
            return super().forward(clip)

    objective = ClipObjective({"class": 1.0, "adversarial": 1.0}, {"class": LabelTerm()})
    eps = STANDARD[0].eps
    objective.adversarial = AdversarialTraining(
        AdversarialConfig(norm="linf", eps=eps, steps=3),
        compare_attention=False,
        preprocess=preprocess,
    )
    pixels = torch.randint(0, 256, (2, 3, 3, 4, 4), dtype=torch.uint8)
    clip = preprocess.normalise(pixels)
    model = Watching().train()
    _, terms = objective(model, {"clip": clip, "label": torch.tensor([0, 1])})
    assert terms["adversarial"] > terms["class"]
    assert len(seen) == 1 + 3 + 1
    std = torch.tensor(preprocess.std).view(1, 1, 3, 1, 1)
    moved = (seen[-1] - clip).abs() * std
    assert moved.max() <= eps + 1e-6
    assert moved.max() >= 0.9 * eps
    shown = seen[-1] * std + torch.tensor(preprocess.mean).view(1, 1, 3, 1, 1)
    assert shown.min() >= -1e-6
    assert shown.max() <= 1 + 1e-6


def test_linf_training_needs_clips_of_pixels():
    with pytest.raises(UserError, match="does not read clips"):
        AdversarialTraining(AdversarialConfig(norm="linf", eps=0.03), compare_attention=False)
    with pytest.raises(ValueError, match="change of pixel values"):
        AdversarialConfig(norm="linf", eps=8.0)
