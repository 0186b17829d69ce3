from __future__ import annotations

import pytest
import torch
from torch import nn

from marey.errors import UserError
from marey.losses.multilabel import MultilabelLoss
from marey.models.gat import GAT
from marey.training.task import Objective
from marey.training.terms.adversarial import AdversarialConfig, AdversarialObjective, perturb


class Counted(GAT):
    """Counts the videos that pass forward and the times gradients come back to the output."""

    forwards = backwards = 0

    def forward(self, *args, **kwargs):
        self.forwards += 1
        outputs = super().forward(*args, **kwargs)
        if outputs["logits"].requires_grad:
            outputs["logits"].register_hook(lambda gradient: setattr(self, "backwards", self.backwards + 1))
        return outputs


class Plain(Objective):
    def forward(self, model, batch):
        outputs = model(batch["features"], batch["mask"])
        return outputs, MultilabelLoss()(outputs, batch["targets"])


class ClipClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, clip):
        return {"logits": self.head(clip.mean((1, 3, 4)))}


class ClipObjective(Objective):
    def forward(self, model, batch):
        outputs = model(batch["clip"])
        return outputs, {"class": nn.functional.cross_entropy(outputs["logits"], batch["label"])}


def setting(attention=None, dropout=0.0, **options):
    torch.manual_seed(0)
    model = Counted(num_classes=3, features={"rgb": 8, "audio": 4}, windows=[None, 3], num_heads=2, hidden_dim=6,
                    dropout=dropout)
    batch = {"features": {"rgb": torch.randn(4, 7, 8), "audio": torch.randn(4, 7, 4)},
             "mask": torch.arange(7)[None] < torch.tensor([7, 5, 3, 1])[:, None],
             "targets": torch.randint(0, 2, (4, 3)).float()}
    config = AdversarialConfig(attention=attention, **options)
    return model, batch, AdversarialObjective(Plain({"class": 1.0}), config)


@pytest.mark.parametrize("attention", [None, "frobenius", "js"])
def test_a_step_costs_two_forward_and_two_backward_passes(attention):
    model, batch, objective = setting(attention)
    _, terms = objective(model, batch)
    objective.total(terms).backward()
    assert model.forwards == 2
    assert model.backwards == 3          # the clean loss twice (inputs, parameters), the adversarial loss once
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_weights_are_the_papers():
    for attention, beta in ((None, 0.0), ("frobenius", 0.001), ("js", 0.01)):
        assert setting(attention)[2].weights == {"class": 1.0, "adversarial": 1.0, "attention": beta}


def test_the_terms_equal_algorithm_1_written_out():
    model, batch, objective = setting("frobenius")
    _, terms = objective(model, batch)
    inputs = {name: x.clone().requires_grad_() for name, x in batch["features"].items()}
    outputs = model(inputs, batch["mask"], return_attention=True)
    loss = MultilabelLoss()(outputs, batch["targets"])["class"]
    moved = {}
    for name, gradient in zip(inputs, torch.autograd.grad(loss, list(inputs.values())), strict=True):
        norm = gradient.norm(dim=2, keepdim=True)
        moved[name] = inputs[name] + torch.where(norm > 0, 0.5 * gradient / norm, torch.zeros_like(gradient))
    adversarial = model(moved, batch["mask"], return_attention=True)
    l_f = sum((outputs["attention"][name][0]["global_map"].mean(1)
               - adversarial["attention"][name][0]["global_map"].mean(1)).flatten(1).norm(dim=1).mean()
              for name in inputs)
    assert terms["class"].item() == pytest.approx(loss.item())
    expected = MultilabelLoss()(adversarial, batch["targets"])["class"].item()
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
    longer = {"features": {name: torch.cat([x, torch.randn(4, 5, x.shape[2])], 1)
                           for name, x in batch["features"].items()},
              "mask": torch.cat([batch["mask"], torch.zeros(4, 5, dtype=torch.bool)], 1), "targets": batch["targets"]}
    _, again = objective(model, longer)
    assert {name: term.item() for name, term in again.items()} == pytest.approx(
        {name: term.item() for name, term in terms.items()}, abs=1e-5)


def test_evaluation_takes_one_forward_pass():
    model, batch, objective = setting("frobenius")
    with torch.no_grad():
        outputs, terms = objective(model.eval(), batch)
    assert model.forwards == 1
    assert set(terms) == {"class"}
    assert "attention" not in outputs


def test_clips_are_trained_adversarially_too():
    torch.manual_seed(0)
    objective = AdversarialObjective(ClipObjective({"class": 1.0}), AdversarialConfig(eps=1.0))
    batch = {"clip": torch.randn(2, 4, 3, 5, 5), "label": torch.tensor([0, 1])}
    _, terms = objective(ClipClassifier(), batch)
    assert terms["adversarial"] > terms["class"]


def test_an_attack_raises_the_loss_and_leaves_padding_and_gradients_alone():
    model, batch, _ = setting()
    attacked = perturb(Plain({"class": 1.0}), model.eval(), batch, eps=0.1)
    move = attacked["features"]["rgb"] - batch["features"]["rgb"]
    assert torch.allclose(move.norm(dim=2)[batch["mask"]], torch.tensor(0.1), atol=1e-5)
    assert (move[~batch["mask"]] == 0).all()
    assert all(p.grad is None for p in model.parameters())
    objective = Plain({"class": 1.0})
    assert objective(model, attacked)[1]["class"] > objective(model, batch)[1]["class"]


@pytest.mark.parametrize(("values", "message"), [({"epsilon": 1}, "did you mean 'eps'"), ({"eps": 0}, "eps above 0"),
                                                 ({"attention": "l2"}, "null, 'frobenius' or 'js'")])
def test_settings_that_have_no_meaning_are_named(values, message):
    with pytest.raises(UserError, match=message):
        AdversarialConfig.from_dict(values)


def test_a_batch_without_inputs_is_refused():
    model, _, objective = setting()
    with pytest.raises(UserError, match="moves the inputs clip, features, but a batch of this task has label"):
        objective(model, {"label": torch.zeros(1)})
