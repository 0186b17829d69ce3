"""Optimiser groups, schedules by hand values, averages."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from marey.errors import UserError
from marey.models import create_model
from marey.training.config import OptimConfig, RunConfig
from marey.training.optim import (
    Schedule,
    WeightAverage,
    build_optimizer,
    freeze,
    one_cycle,
    parameter_groups,
    rate_warning,
)


def tiny() -> nn.Module:
    return create_model("timesformer", num_classes=3, num_frames=2, image_size=8, patch_size=4, embed_dim=8, depth=2,
                        num_heads=2)


def group_of(model: nn.Module, name: str, config: OptimConfig) -> dict:
    parameter = model.get_parameter(name)
    return next(group for group in parameter_groups(model, config) if any(p is parameter for p in group["params"]))


def factors(config: OptimConfig, steps: int, per_epoch: float = 1) -> list[float]:
    schedule = Schedule(config, steps, per_epoch)
    return [schedule.factor(step) for step in range(steps)]


def test_layer_decay_by_hand() -> None:
    model, config = tiny(), OptimConfig(layer_decay=0.5, head_lr_scale=3.0)
    names = ("patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight", "blocks.1.mlp.fc1.weight",
             "head.weight")
    scales = {name: group_of(model, name, config)["scale"] for name in names}
    assert scales == {"patch_embed.proj.weight": 0.125, "pos_embed": 0.125, "blocks.0.attn.qkv.weight": 0.25,
                      "blocks.1.mlp.fc1.weight": 0.5, "head.weight": 3.0}


def test_biases_norms_and_tokens_do_not_decay() -> None:
    model, config = tiny(), OptimConfig(weight_decay=0.1)
    assert group_of(model, "head.weight", config)["weight_decay"] == 0.1
    for name in ("head.bias", "norm.weight", "cls_token", "pos_embed", "time_embed"):
        assert group_of(model, name, config)["weight_decay"] == 0.0
    everything = OptimConfig(weight_decay=0.1, decay_all=True)
    assert group_of(model, "head.bias", everything)["weight_decay"] == 0.1


def test_every_trainable_parameter_is_in_one_group() -> None:
    model = tiny()
    freeze(model, ("patch_embed", "blocks.0"))
    inside = [p for group in parameter_groups(model, OptimConfig(layer_decay=0.7)) for p in group["params"]]
    assert len(inside) == len({id(p) for p in inside})
    assert {id(p) for p in inside} == {id(p) for p in model.parameters() if p.requires_grad}


def test_freezing_all_but_the_heads() -> None:
    model = tiny()
    freeze(model, ("*",))
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]


def test_freezing_what_is_not_there_is_an_error() -> None:
    with pytest.raises(UserError, match=r"no parameter starts with 'stem' \(the model has: blocks, cls_token, head"):
        freeze(tiny(), ("stem",))


def test_freezing_everything_is_an_error() -> None:
    model = tiny()
    freeze(model, ("*", "head"))
    with pytest.raises(UserError, match="leaves no parameter to train"):
        build_optimizer(model, OptimConfig())


def test_the_step_schedule_falls_at_its_epochs() -> None:
    config = OptimConfig(schedule="step", milestones=(2, 3), gamma=0.1)
    assert factors(config, 8, per_epoch=2) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_with_warm_up_by_hand() -> None:
    values = factors(OptimConfig(schedule="cosine", warmup=3, warmup_start=0.1, final=0.2), 11)
    assert values[:3] == pytest.approx([0.325, 0.55, 0.775])
    assert values[3] == 1.0
    assert values[7] == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert values[10] > 0.2


def test_a_warm_up_below_one_is_a_share_of_all_steps() -> None:
    assert Schedule(OptimConfig(warmup=0.1), 200, 1).warmup_steps == 20
    assert Schedule(OptimConfig(warmup=15), 200, 1).warmup_steps == 15


def test_linear_falls_evenly() -> None:
    assert factors(OptimConfig(schedule="linear"), 4) == pytest.approx([1, 0.75, 0.5, 0.25])


def test_one_cycle_equals_torch() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=20, cycle_momentum=False)
    for step in range(20):
        assert one_cycle(step, 20, 0.3) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-5), step
        optimizer.step()
        theirs.step() if step < 19 else None


def test_plateau_follows_the_metric() -> None:
    schedule = Schedule(OptimConfig(schedule="plateau", gamma=0.5, plateau_patience=1), 100, 1)
    seen = []
    for metric in (0.5, 0.4, 0.5, 0.6, 0.1, 0.1, 0.1, 0.1):
        schedule.observe(metric, higher_is_better=True)
        seen.append(schedule.factor(0))
    assert seen == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_plateau_knows_metrics_that_fall() -> None:
    schedule = Schedule(OptimConfig(schedule="plateau", gamma=0.5, plateau_patience=0), 100, 1)
    for metric in (0.5, 0.4, 0.3):
        schedule.observe(metric, higher_is_better=False)
    assert schedule.factor(0) == 1


def test_group_rates_are_the_schedules_times_their_scale() -> None:
    model, config = tiny(), OptimConfig(lr=0.1, name="sgd", layer_decay=0.5, schedule="constant")
    optimizer = build_optimizer(model, config)
    Schedule(config, 10, 1).apply(optimizer, 0)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == pytest.approx([0.0125, 0.025, 0.05, 0.1])


def test_adam_at_the_rate_of_sgd_is_warned_about() -> None:
    assert "is a rate for SGD; adam usually needs" in str(rate_warning(OptimConfig(name="adam", lr=0.0035)))
    assert rate_warning(OptimConfig(name="sgd", lr=0.0035)) is None
    assert rate_warning(OptimConfig(name="adam")) is None


def test_the_exponential_average_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, RunConfig(average="ema", ema_decay=0.5), total_steps=10)
    for step, value in enumerate((1.0, 2.0, 3.0)):
        nn.init.constant_(model.weight, value)
        average.update(model, step, finishes_epoch=False)
    # first copy 1; decays 2/11 and 3/12 while young: 1 + 9/11 (2 - 1), then + 9/12 of the way to 3
    second = 1 + 9 / 11
    assert average.weights_of(model).weight.item() == pytest.approx(second + 0.75 * (3 - second))       # type: ignore[union-attr]


def test_the_late_average_takes_epoch_ends_only() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, RunConfig(average="swa", swa_start=0.5), total_steps=8)
    for step in range(8):
        nn.init.constant_(model.weight, float(step))
        average.update(model, step, finishes_epoch=step % 2 == 1)
        if step < 3:
            assert average.weights_of(model) is model
    assert average.weights_of(model).weight.item() == pytest.approx((3 + 5 + 7) / 3)                     # type: ignore[union-attr]
