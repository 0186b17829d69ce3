"""Optimisers with their parameter groups, learning-rate schedules, weight averages."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_swa_avg_fn

from marey.errors import UserError
from marey.training.config import OptimConfig, RunConfig

_BLOCK = re.compile(r"(?:^|\.)(?:blocks|layers|layer|stages)\.(\d+)\.")
FUSED_ON = ("cpu", "cuda")
"""Devices on which Adam's update is one kernel, one pass over the weights instead of about ten."""

_FIRST = re.compile(r"(?:^|\.)(?:stem|patch_embed|\w*embedding|\w*embeddings|cls_token|pos_embed|time_embed)(?:\.|$)")


def build_optimizer(model: nn.Module, config: OptimConfig, extra: nn.Module | None = None) -> torch.optim.Optimizer:
    """Build the optimiser; every group has its own "scale" of the learning rate and its own weight decay.

    Args:
        extra: a module whose parameters train along at the head's rate (losses with parameters of their own).

    Raises:
        UserError: if nothing is left to train.
    """
    groups = parameter_groups(model, config)
    if extra is not None and any(True for _ in extra.parameters()):
        groups.append({"params": list(extra.parameters()), "weight_decay": 0.0, "scale": config.head_lr_scale})
    if not any(group["params"] for group in groups):
        raise UserError("model.freeze leaves no parameter to train; freeze fewer parts")
    for group in groups:
        group["lr"] = config.peak_lr * group["scale"]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.peak_lr, momentum=config.momentum, nesterov=config.nesterov)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    fused = all(p.device.type in FUSED_ON and p.is_floating_point() for group in groups for p in group["params"])
    return kind(groups, lr=config.peak_lr, betas=config.betas, fused=fused)


def rate_warning(config: OptimConfig) -> str | None:
    """Return what to say when an Adam runs at SGD's rate: in the HMDB_simp study that cost 76 points of top-1."""
    if config.name == "sgd" or config.peak_lr <= 2e-3:
        return None
    return (f"optim.lr={config.peak_lr:g} is a rate for SGD; {config.name} usually needs 1e-5 to 1e-3 "
            "(TimeSformer with Adam: 17.6% at 0.0035, 89.6% at 0.0001; HMDB_simp study, Table 1)")


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Split the trainable parameters by depth (layer-wise decay) and by whether weight decay applies to them."""
    depth = 1 + max((layer for name, _ in model.named_parameters() if (layer := _block(name)) is not None), default=-1)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            spared = not config.decay_all and (parameter.ndim <= 1 or is_embedding(name))
            scale = rate_scale(name, depth, config)
            groups.setdefault((scale, 0.0 if spared else config.weight_decay), []).append(parameter)
    return [{"params": parameters, "weight_decay": decay, "scale": scale}
            for (scale, decay), parameters in groups.items()]


def rate_scale(name: str, depth: int, config: OptimConfig) -> float:
    """Return the factor of a parameter's learning rate: layer_decay^(depth - block), and the heads' own factor.

    The stem and the embeddings stand before block 0 (exponent depth + 1), the last block has exponent 1, and what
    comes after the blocks (final norm, heads) has exponent 0.
    """
    block = _block(name)
    if block is not None:
        return config.layer_decay ** (depth - block)
    if is_first(name):
        return config.layer_decay ** (depth + 1)
    return config.head_lr_scale


def _block(name: str) -> int | None:
    match = _BLOCK.search(name)
    return int(match.group(1)) if match and not is_first(name[: match.start()]) else None


def is_first(name: str) -> bool:
    """Return whether a parameter belongs to what comes before the blocks: stem, embeddings, tokens."""
    return _FIRST.search(name) is not None


def is_embedding(name: str) -> bool:
    """Return whether a parameter is a token or an embedding table rather than a matrix that multiplies."""
    return re.search(r"(cls_token|(pos|time)_embed|(position|time)_embedding|\bembeddings?$)", name) is not None


def freeze(model: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Stop the gradients of all parameters whose name starts with a prefix; "*" freezes all but the heads.

    Raises:
        UserError: if a prefix fits no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    depth = 1 + max((layer for name in names if (layer := _block(name)) is not None), default=-1)
    for prefix in prefixes:
        chosen = [name for name in names if (_is_backbone(name, depth) if prefix == "*" else _starts(name, prefix))]
        if not chosen:
            parts = sorted({name.split(".")[0] for name in names})
            raise UserError(f"model.freeze: no parameter starts with '{prefix}' (the model has: {', '.join(parts)})")
        for name in chosen:
            model.get_parameter(name).requires_grad_(False)


def _starts(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def _is_backbone(name: str, depth: int) -> bool:
    return _block(name) is not None or is_first(name) or (name.startswith("norm.") and depth > 0)


class Schedule:
    """The learning rate of every step as a share of the peak; only "plateau" has a state."""

    def __init__(self, config: OptimConfig, total_steps: int, steps_per_epoch: float) -> None:
        self.config, self.total_steps, self.steps_per_epoch = config, total_steps, steps_per_epoch
        self.warmup_steps = round(config.warmup * total_steps) if config.warmup < 1 else int(config.warmup)
        self.plateau: dict[str, Any] = {"factor": 1.0, "best": None, "bad": 0}

    def factor(self, step: int) -> float:
        """Return the share of the peak rate at step number `step` (0-based)."""
        if self.config.schedule == "onecycle":
            return one_cycle(step, self.total_steps, self.config.warmup or 0.3)
        if step < self.warmup_steps:
            start = self.config.warmup_start
            return start + (1 - start) * (step + 1) / (self.warmup_steps + 1)
        return self._after_warmup(step)

    def _after_warmup(self, step: int) -> float:
        config = self.config
        done = min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))
        if config.schedule == "step":
            epoch = step / self.steps_per_epoch
            return config.gamma ** sum(epoch >= milestone - 1e-9 for milestone in config.milestones)
        if config.schedule == "cosine":
            return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * done))
        if config.schedule == "linear":
            return config.final + (1 - config.final) * (1 - done)
        return self.plateau["factor"] if config.schedule == "plateau" else 1.0

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Set every group's rate for a step; returns the rate at scale 1."""
        rate = self.config.peak_lr * self.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        return rate

    def observe(self, metric: float, higher_is_better: bool) -> None:
        """Tell the "plateau" schedule the main metric of an evaluation."""
        state = self.plateau
        value = metric if higher_is_better else -metric
        if state["best"] is None or value > state["best"]:
            state.update(best=value, bad=0)
        else:
            state["bad"] += 1
            if state["bad"] > self.config.plateau_patience:
                state.update(factor=state["factor"] * self.config.gamma, bad=0)


def one_cycle(step: int, total_steps: int, rise: float, first: float = 1 / 25, last: float = 1e-4) -> float:
    """Return one-cycle's share of the peak rate: up to 1 at the share `rise` of all steps, then down, both by cosine.

    Smith and Topin, "Super-Convergence", 2018, in the form of `torch.optim.lr_scheduler.OneCycleLR`; momentum is
    left alone. `first` is the share at step 0, `last` the share at the end of `first`.
    """
    peak = rise * total_steps - 1
    if step <= peak:
        return _cosine_between(first, 1.0, step / max(peak, 1e-9))
    return _cosine_between(1.0, first * last, min(1.0, (step - peak) / max(1e-9, total_steps - 1 - peak)))


def _cosine_between(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


class WeightAverage:
    """Exponential or stochastic average of the weights, kept beside the model; buffers are those of the model."""

    def __init__(self, model: nn.Module, config: RunConfig, total_steps: int) -> None:
        self.config, self.total_steps = config, total_steps
        average = self._decayed if config.average == "ema" else get_swa_avg_fn()
        self.module = AveragedModel(model, avg_fn=average)
        self.module.requires_grad_(False)

    def _decayed(self, averaged: torch.Tensor, current: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        decay = min(self.config.ema_decay, (1 + int(count)) / (10 + int(count)))
        return averaged + (1 - decay) * (current - averaged)

    def update(self, model: nn.Module, step: int, finishes_epoch: bool) -> None:
        """Take in the weights after a step: "ema" every step, "swa" at the end of each epoch of the late part."""
        late = step + 1 >= self.config.swa_start * self.total_steps
        if self.config.average == "ema" or (finishes_epoch and late) or step + 1 == self.total_steps:
            self.module.update_parameters(model)

    def weights_of(self, model: nn.Module) -> nn.Module:
        """Return the module to evaluate and save: the average, once it has begun, else the model."""
        return self.module.module if int(self.module.n_averaged) > 0 else model
