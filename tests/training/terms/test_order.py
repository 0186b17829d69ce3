from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.losses.order import guided_loss
from marey.metrics.order import chance_order_accuracy
from marey.models import create_model
from marey.order.permutations import make_permutation_set
from marey.recipes.direcformer import direcformer_jester, direcformer_kinetics400, direcformer_mini
from marey.recipes.mini import mini_order
from marey.training.config import ModelConfig, RunConfig, TrainConfig, override
from marey.training.data_config import DataConfig
from marey.training.loop import train
from marey.training.objective_config import ObjectiveConfig, OrderConfig
from marey.training.stages import build_stages
from marey.training.tasks import build_task
from marey.training.tasks.clip_evaluator import ClipsEvaluator
from marey.training.tasks.clips import ClipsObjective
from marey.training.terms.classification import ClassTerm
from marey.training.terms.order import (
    GuidedTerm,
    OrderMeasure,
    OrderTerm,
    PermutedClips,
    split_outputs,
)
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

T = 4
TINY = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 1.0}


def packed_clips(folder, num_clips=12):
    """A packed folder of squares moving right ("right") or left ("left"), 16 x 16 pixels."""
    frames = np.zeros((num_clips, T, 3, 16, 16), dtype=np.uint8)
    rows = ["path,label,split,group"]
    for clip in range(num_clips):
        for t in range(T):
            x = 3 * t if clip % 2 else 3 * (T - 1 - t)
            frames[clip, t, :, clip % 8 : clip % 8 + 4, x : x + 4] = 250
        rows.append(
            f"frames.npy#{clip},{'right' if clip % 2 else 'left'},"
            f"{'val' if clip >= 8 else 'train'},g{clip}"
        )
    folder.mkdir()
    np.save(folder / "frames.npy", frames)
    (folder / "packed.json").write_text('{"format": 1, "fps": 4.0}')
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def tiny_config(path, **objective):
    preprocess = Preprocess(
        sampling=ClipSampling(kind="equidistant", num_frames=T), short_side=16, image_size=16
    )
    return TrainConfig(
        model=ModelConfig(name="direcformer", arguments=dict(TINY)),
        data=DataConfig(path=str(path), preprocess=preprocess),
        objective=ObjectiveConfig(
            weights={"class": 1.0, "order": 1.0, "guided": 1.0},
            order=OrderConfig(**{"num_permutations": 6, **objective}),
        ),
        train=RunConfig(
            max_steps=2, batch_size=4, calibrate=False, tensorboard=False, device="cpu"
        ),
    )


def make_objective(weights=None, backwards=()):
    terms = {"class": ClassTerm(), "order": OrderTerm(), "guided": GuidedTerm()}
    return ClipsObjective(
        weights or {"class": 1.0, "order": 1.0, "guided": 1.0},
        terms,
        num_classes=2,
        permuted_clips=PermutedClips(make_permutation_set(6, T), ("left", "right"), backwards),
    )


def tiny_model(num_orders=6):
    torch.manual_seed(0)
    return create_model(
        "direcformer", num_classes=2, num_orders=num_orders, num_frames=T, image_size=16, **TINY
    )


def batch(B=4):
    clip = torch.randn(B, T, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return {"clip": clip, "label": torch.tensor([0, 1, 1, 0])[:B], "sample": torch.arange(B)}


def test_a_step_learns_class_order_and_guided_from_one_forward():
    calls = []
    model = tiny_model()
    model.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[0].shape[0]))
    outputs, terms = make_objective()(model, batch())
    assert calls == [8]
    assert list(terms) == ["class", "order", "guided"]
    assert outputs["logits"].shape == (4, 2)
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_terms_without_weight_are_left_out_and_save_the_permuted_pass():
    calls = []
    model = tiny_model()
    model.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[0].shape[0]))
    _, terms = make_objective({"class": 1.0})(model, batch())
    assert (calls, list(terms)) == ([4], ["class"])
    terms["class"].backward()
    assert all(
        parameter.grad is not None for parameter in model.parameters()
    )  # the order head too, with zeros


def test_the_ordered_half_is_what_the_model_says_of_the_ordered_clips():
    model = tiny_model()
    outputs, _ = make_objective()(model, batch())
    assert torch.allclose(outputs["logits"], model(batch()["clip"])["logits"], atol=1e-5)


def test_permutations_of_a_step_come_from_the_global_generator():
    model, objective = tiny_model(), make_objective()
    values = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        values.append(float(objective(model, batch())[1]["order"].detach()))
    assert values[0] == values[1] != values[2]


def test_evaluation_shuffles_every_sample_alike_whatever_the_batch():
    model, objective = tiny_model().eval(), make_objective()
    whole, part = batch(), {key: value[2:] for key, value in batch().items()}
    with torch.no_grad():
        orders, again = (objective(model, clips)[0]["permuted"]["order"] for clips in (whole, part))
    assert torch.equal(orders[2:], again)
    assert (orders.sort(dim=1).values == torch.arange(T)).all()


def test_clips_played_backwards_are_turned_round_for_the_order_terms_alone():
    objective, clips = make_objective(backwards=["left"]), batch()
    turned = objective.permuted_clips.as_recorded(clips["clip"], clips["label"])
    assert torch.equal(turned[0], clips["clip"][0].flip(0))
    assert torch.equal(turned[1], clips["clip"][1])
    model = tiny_model()
    assert torch.allclose(
        objective(model, clips)[0]["logits"], make_objective()(model, clips)[0]["logits"], atol=1e-5
    )


def test_the_evaluator_reports_order_accuracy_beside_its_chance_level():
    model, objective = tiny_model().eval(), make_objective()
    evaluator = ClipsEvaluator(("left", "right"), [OrderMeasure()])
    with torch.no_grad():
        evaluator.update(objective(model, batch())[0], batch())
    metrics = evaluator.compute()
    assert metrics["order_accuracy_chance"] == chance_order_accuracy(T)
    assert (
        metrics["order_accuracy_low"] <= metrics["order_accuracy"] <= metrics["order_accuracy_high"]
    )
    assert 0 <= metrics["top1"] <= 1


def test_a_run_stores_its_permutations_and_is_evaluated_with_order_accuracy(tmp_path):
    from marey.checkpoints.load import load_checkpoint
    from marey.evaluation.evaluate import evaluate

    data = packed_clips(tmp_path / "data")
    train(tiny_config(data), tmp_path / "run", quiet=True)
    checkpoint = load_checkpoint(tmp_path / "run" / "last")
    assert torch.equal(checkpoint.tensors["permutations"], make_permutation_set(6, T))
    assert checkpoint.arguments["num_orders"] == 6
    report, _ = evaluate(tmp_path / "run", data)
    assert report["order"]["clips"] == 4
    assert "fewer than 50 clips" in report["order"]["text"]


def test_settings_that_do_not_fit_are_named(tmp_path):
    data = packed_clips(tmp_path / "data")
    with pytest.raises(UserError, match="unknown setting of 'objective.order': 'num_perms'"):
        override(tiny_config(data), ["objective.order.num_perms=3"])
    with pytest.raises(
        UserError, match="unknown loss term in objective.weights 'ordre'; did you mean 'order'"
    ):
        build_task(override(tiny_config(data), ["objective.weights.ordre=1"]))
    with pytest.raises(
        UserError, match=r"unknown class in objective.order.backwards 'lft'; did you mean 'left'"
    ):
        build_task(tiny_config(data, backwards=("lft",)))
    with pytest.raises(UserError, match="24 permutations asked for, but 4 frames have 23"):
        build_task(tiny_config(data, num_permutations=24))
    np.save(tmp_path / "eight.npy", make_permutation_set(5, 8).numpy())
    with pytest.raises(UserError, match="have 8 frames, but the model takes clips of 4"):
        build_task(tiny_config(data, permutation_file=str(tmp_path / "eight.npy")))


def test_recipes_hold_the_papers_settings():
    jester, kinetics = direcformer_jester(), direcformer_kinetics400()
    assert (jester.optim.name, jester.optim.lr, jester.optim.milestones) == ("sgd", 0.005, (11, 14))
    assert jester.data.preprocess.sampling.kind == "segments"
    assert (jester.augment.flip, jester.data.preprocess.crops) == (0.0, 3)
    assert kinetics.data.preprocess.sampling.stride_frames == 32
    assert kinetics.augment.preprocess == kinetics.data.preprocess
    for recipe in (jester, kinetics, direcformer_mini(), mini_order()):
        paper = recipe in (jester, kinetics)
        assert recipe.objective.weights == {
            "class": 1.0,
            "order": 1.0,
            "guided": 1.0 if paper else 10.0,
        }
        assert recipe.objective.order.rule == ("closest" if paper else "farthest")
        assert TrainConfig.from_dict(recipe.to_dict()) == recipe
    assert replace(jester, train=jester.train).recipe == "direcformer_jester"


def outputs_of_both_halves(B=3):
    generator = torch.Generator().manual_seed(5)
    outputs = {
        "logits": torch.randn(2 * B, 2, generator=generator, requires_grad=True),
        "order_logits": torch.randn(2 * B, 6, generator=generator, requires_grad=True),
        "attention_time": [
            torch.randn(2 * B, 2, 2, T, T + 1, generator=generator, requires_grad=True)
        ],
    }
    targets = {
        "permutation_index": torch.tensor([5, 0, 1]),
        "order": make_permutation_set(6, T)[[5, 0, 1]],
    }
    return outputs, targets


def test_order_and_guided_come_from_the_permuted_half():
    outputs, targets = outputs_of_both_halves()
    halves = split_outputs(outputs, 3)
    assert torch.equal(halves["logits"], outputs["logits"][:3])
    order = torch.nn.functional.cross_entropy(
        outputs["order_logits"][3:], targets["permutation_index"]
    )
    assert torch.equal(OrderTerm()(halves, targets), order)
    guided = guided_loss([outputs["attention_time"][0][3:]], targets["order"], mask_diagonal=True)
    assert torch.equal(GuidedTerm(mask_diagonal=True)(halves, targets), guided)


def test_terms_not_computed_leave_their_heads_a_gradient_of_zero():
    model = tiny_model()
    _, terms = make_objective({"class": 1.0, "guided": 1.0})(model, batch())
    assert list(terms) == ["class", "guided"]
    terms["class"].backward()
    assert (model.order.weight.grad == 0).all()


def test_the_total_is_the_weighted_sum_of_equation_14():
    objective = make_objective({"class": 1.0, "order": 0.5, "guided": 2.0})
    terms = {"class": torch.tensor(2.0), "order": torch.tensor(3.0), "guided": torch.tensor(-1.0)}
    assert float(objective.total(terms)) == 1.5
    with pytest.raises(UserError, match="unknown loss term .* 'orders'; did you mean 'order'"):
        objective.total({"orders": torch.tensor(1.0)})


def test_the_order_terms_wait_for_their_start_and_draw_the_same_dropout_until_then():
    weights = {"class": 1.0, "order": 1.0, "guided": 1.0}
    config = ObjectiveConfig(weights=weights, start={"order": 0.5, "guided": 0.5})
    objective, model, calls = make_objective(weights), tiny_model(), []
    objective.stages, objective.total_steps = build_stages(config), 4
    model.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[0].shape[0]))
    found, drawn = [], []
    for objective.step in range(4):
        torch.manual_seed(objective.step)
        found.append(list(objective(model, batch())[1]))
        drawn.append(float(torch.rand(())))
    assert found == [["class"]] * 2 + [["class", "order", "guided"]] * 2
    assert calls == [4, 4, 8, 8]
    objective.stages = ()
    for step, number in enumerate(drawn):
        torch.manual_seed(step)
        objective(model, batch())
        assert float(torch.rand(())) == number
