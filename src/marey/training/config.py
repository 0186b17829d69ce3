"""The whole of a training run in one typed, frozen tree; recipes return it, `--set a.b=value` changes it."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from marey.errors import UserError, unknown_name
from marey.transforms.augment import Augment
from marey.transforms.preprocess import Preprocess

DEFAULT_LR = {"sgd": 0.005, "adamw": 3e-4, "adam": 1e-4}
"""Learning rate of each optimiser when `optim.lr` is not given (for batches of about 8 to 64 clips)."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which network, and where its weights start."""

    name: str | None = None
    """One of `marey.list_models()`; None takes the architecture of `init_from`."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the model; what the task infers (num_classes, ...) is filled in."""
    init_from: str | None = None
    """A checkpoint (bundled name, folder, "hf:...") whose weights are the start; parts of another shape start fresh."""
    freeze: tuple[str, ...] = ()
    """Parameters whose name starts with one of these do not train: ("patch_embed", "blocks.0"); "*": all but heads."""
    imagenet_stem: bool = False
    """Fill the EfficientNet-Lite0 of a fresh model's stem with ImageNet weights; `init_from` may replace them."""
    start: Literal["own", "glorot"] = "own"
    """How fresh weights are drawn: the architecture's rule, or wider, for narrow blocks (`initialise.widen_start`)."""
    activation_checkpointing: bool | Literal["cheap"] = False
    """Recompute activations in the backward pass: less memory, about a third more time, the same gradients."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which videos, and how they become clips."""

    path: str | None = None
    """Folder or manifest, as the data contract of docs/datasets.md describes; `--data` sets it."""
    dataset: str | None = None
    """Official layout by name; None recognises it from its files."""
    split_by: str | None = None
    """Regular expression that reads the split from file names."""
    val_fraction: float = 0.2
    """Share of the training videos held out for validation (whole groups, per class) where the data has no "val"."""
    limit: int | None = None
    """Train on at most this many videos, drawn per class at `train.seed`."""
    preprocess: Preprocess | None = None
    """Frames, size, mean and std; None takes those of the checkpoint in `model.init_from`."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """What one task's data needs beyond this; the task's builder checks the names."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser and schedule."""

    name: Literal["sgd", "adamw", "adam"] = "adamw"
    """Which optimiser."""
    lr: float | None = None
    """Highest learning rate; None takes `DEFAULT_LR[name]`."""
    momentum: float = 0.9
    """SGD's momentum."""
    nesterov: bool = False
    """Nesterov's form of SGD's momentum."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's and AdamW's decay rates."""
    weight_decay: float = 0.05
    """Weight decay; biases, norms, embeddings and tokens are spared unless `decay_all`."""
    decay_all: bool = False
    """Decay every parameter."""
    layer_decay: float = 1.0
    """Learning rate of block l is multiplied by layer_decay^(blocks - l); 1 treats all blocks alike."""
    head_lr_scale: float = 1.0
    """Learning rate of the heads (everything that is not stem, embedding or block) is multiplied by this."""
    schedule: Literal["constant", "step", "cosine", "linear", "onecycle", "plateau"] = "cosine"
    """How the rate changes; "plateau" follows the task's main metric at each evaluation."""
    warmup: float = 0.0
    """Linear warm-up: a share of all steps if below 1, else a number of steps."""
    warmup_start: float = 0.0
    """Rate at step 0 of the warm-up, as a share of `lr`."""
    milestones: tuple[float, ...] = ()
    """Schedule "step": epochs at which the rate is multiplied by `gamma`."""
    gamma: float = 0.1
    """Factor of schedules "step" and "plateau"."""
    final: float = 0.0
    """Schedules "cosine" and "linear": rate at the end, as a share of `lr`."""
    plateau_patience: int = 3
    """Evaluations without a better metric before "plateau" multiplies the rate by `gamma`."""
    clip_norm: float | None = None
    """Largest L2 norm of all gradients together; None does not clip."""

    @property
    def peak_lr(self) -> float:
        """The learning rate in force: `lr`, or the optimiser's default."""
        return DEFAULT_LR[self.name] if self.lr is None else self.lr


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What is minimised."""

    kind: str = "classification"
    """One of `marey.training.tasks.TASKS`: builds data, losses and evaluator."""
    weights: dict[str, float] = field(default_factory=lambda: {"class": 1.0})
    """Factor of each loss term by name."""
    label_smoothing: float = 0.0
    """Share of each target spread evenly over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """"balanced" weighs a class by the inverse of its number of training videos (mean weight 1 over videos)."""
    mixup_alpha: float = 0.0
    """Beta(alpha, alpha) of mixup; 0 is off."""
    cutmix_alpha: float = 0.0
    """Beta(alpha, alpha) of cutmix (one box for all frames); 0 is off. With both on, each step draws one of them."""
    mix_probability: float = 1.0
    """Share of steps that mix at all."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """What one task's losses need beyond this; the task's builder checks the names."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long, on what, and what is kept."""

    epochs: float = 10.0
    """Passes over the training videos."""
    max_steps: int | None = None
    """Stop after this many optimiser steps instead; schedules are laid over them."""
    batch_size: int = 16
    """Clips of one optimiser step, over all processes and accumulated parts together."""
    accumulate: int = 1
    """Parts a step is computed in, one after the other, to save memory; gradients are the same."""
    eval_batch_size: int | None = None
    """Clips of one forward pass in evaluation, per process; None is one part of `batch_size`."""
    eval_every: int | None = None
    """Evaluate every so many optimiser steps; None evaluates after every epoch."""
    save_every: int | None = None
    """Write the resume state every so many steps; None writes it after every evaluation."""
    log_every: int = 10
    """Write the losses every so many steps."""
    patience: int | None = None
    """Stop after this many evaluations without a better main metric; None runs to the end."""
    select: Literal["metric", "loss", "last"] = "metric"
    """Which evaluation becomes `best`: by the main metric (at a tie, the loss), by the loss, or always the latest. With
    few validation videos the metric mostly selects luck."""
    average: Literal["none", "ema", "swa"] = "none"
    """Weights that are evaluated and saved: the last, their exponential mean, or the mean of the late epochs."""
    ema_decay: float = 0.999
    """Decay of the exponential mean per step (smaller in the first steps, so that it can start)."""
    swa_start: float = 0.75
    """Share of all steps after which "swa" begins to average (once an epoch)."""
    balanced_sampler: bool = False
    """Draw classes equally often, with replacement."""
    head_warm_start: bool = False
    """Before the first step, fit the class head alone on the frozen embedding (logistic regression)."""
    seed: int = 0
    """Everything random follows from it."""
    workers: int = 0
    """Processes that decode videos; 0 decodes in the training process. The result does not depend on it."""
    threads: int | None = None
    """CPU threads of torch; None keeps what is set. Stored, and restored on resume."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; weights stay fp32."""
    device: Literal["auto", "cpu"] = "auto"
    """"auto" takes the accelerator there is."""
    unused_parameters: bool = False
    """Several processes: some parameters get no gradient in some steps (slower)."""
    shard: bool = False
    """Several processes: each holds a part of the weights, gradients and optimiser state (FSDP2); no resume state."""
    calibrate: bool = True
    """At the end, fit the temperature and the unknown-detector on held-out videos and store them."""
    tensorboard: bool = True
    """Write TensorBoard files, where tensorboard is installed."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole training run; saved as config.json in its folder and inside its checkpoints."""

    recipe: str = "custom"
    """Name of the recipe this came from."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: Augment | None = None
    """Training augmentation, made to end in `data.preprocess`; None trains on the evaluation crop."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        check_types(self)
        _check_ranges(self)
        if self.augment is not None and self.data.preprocess is not None:
            fitted = dataclasses.replace(self.augment, preprocess=self.data.preprocess)
            object.__setattr__(self, "augment", fitted)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration in JSON types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Build the configuration `to_dict` described; unknown keys are errors."""
        return _from_json(cls, values, "")


def _check_ranges(config: TrainConfig) -> None:
    optim, run, data, objective = config.optim, config.train, config.data, config.objective
    positive = {"optim.lr": optim.lr, "train.epochs": run.epochs, "train.max_steps": run.max_steps,
                "train.batch_size": run.batch_size, "train.accumulate": run.accumulate,
                "train.eval_every": run.eval_every, "train.save_every": run.save_every,
                "train.log_every": run.log_every, "train.patience": run.patience, "train.threads": run.threads,
                "train.eval_batch_size": run.eval_batch_size, "data.limit": data.limit,
                "optim.clip_norm": optim.clip_norm, "optim.layer_decay": optim.layer_decay}
    for key, value in positive.items():
        if value is not None and not value > 0:
            raise UserError(f"{key} must be above 0, got {value}")
    shares = {"data.val_fraction": data.val_fraction, "train.ema_decay": run.ema_decay,
              "train.swa_start": run.swa_start, "objective.label_smoothing": objective.label_smoothing,
              "objective.mix_probability": objective.mix_probability, "optim.momentum": optim.momentum,
              "optim.warmup_start": optim.warmup_start, "optim.final": optim.final}
    for key, value in shares.items():
        if not 0 <= value <= 1:
            raise UserError(f"{key} must be between 0 and 1, got {value}")
    zero_or_more = {"optim.weight_decay": optim.weight_decay, "optim.warmup": optim.warmup,
                    "train.workers": run.workers, "objective.mixup_alpha": objective.mixup_alpha,
                    "objective.cutmix_alpha": objective.cutmix_alpha, "optim.plateau_patience": optim.plateau_patience}
    for key, value in zero_or_more.items():
        if value < 0:
            raise UserError(f"{key} must be 0 or more, got {value}")
    if run.shard and run.average != "none":
        raise UserError(f"train.shard=true cannot average weights; set train.average=none, not {run.average}")
    if run.batch_size % run.accumulate:
        raise UserError(f"train.batch_size={run.batch_size} does not divide into train.accumulate={run.accumulate} "
                        "equal parts; choose a multiple")
    if optim.schedule == "step" and not optim.milestones:
        raise UserError("optim.schedule=step needs optim.milestones, the epochs at which the rate falls "
                        "(for example optim.milestones=[11,14])")


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """Return "key: old -> new" for every setting that differs between two configurations in JSON form."""
    found: list[str] = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += changed_settings(old, new, f"{where}{key}.")
        elif old != new:
            found.append(f"{where}{key}: {json.dumps(old)} -> {json.dumps(new)}")
    return found


# ---- typed access: `--set a.b=value`, and JSON ----------------------------------------------------------------------

def override(config: TrainConfig, assignments: Sequence[str]) -> TrainConfig:
    """Return `config` with `a.b=value` assignments applied; values are JSON, or a bare word for a string.

    The whole is checked once, after the last assignment, so that values that only fit together can change together.

    Raises:
        UserError: if an assignment has no "=", its key is unknown (the nearest is named), or its value has
            another type.
    """
    values = config.to_dict()
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals:
            raise UserError(f"--set takes key=value, got '{assignment}'")
        if key.startswith("data.preprocess.") and values["data"]["preprocess"] is None:
            values["data"]["preprocess"] = _preprocess_of(values["model"]["init_from"])
        _assign(TrainConfig, values, key.split("."), _parse(text.strip()), key)
    return TrainConfig.from_dict(values)


def _preprocess_of(checkpoint: str | None) -> dict[str, Any]:
    """Return the specification a few of whose values are about to change: the checkpoint's, or the default."""
    if checkpoint is None:
        return Preprocess().to_dict()
    from marey.checkpoints import load_checkpoint

    return (load_checkpoint(checkpoint).preprocess or Preprocess()).to_dict()


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"None": None, "True": True, "False": False}.get(text, text)


def _assign(kind: Any, values: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    """Set one value in the JSON form of a dataclass, following its types."""
    hints, names = typing.get_type_hints(kind), [f.name for f in dataclasses.fields(kind)]
    if path[0] not in names:
        where = key.removesuffix(".".join(path))
        raise unknown_name("setting" if not where else f"setting of '{where.rstrip('.')}':", path[0], names)
    hint, inner = hints[path[0]], _dataclass_of(hints[path[0]])
    if len(path) == 1:
        _coerce(hint, value, key)
        values[path[0]] = value
    elif inner is not None:
        if values[path[0]] is None:
            values[path[0]] = json.loads(json.dumps(dataclasses.asdict(inner())))
        _assign(inner, values[path[0]], path[1:], value, key)
    elif typing.get_origin(hint) is dict:
        place = values[path[0]]
        for name in path[1:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = value
    else:
        raise UserError(f"setting '{key}': {path[0]} is a single value, it has no '{path[1]}'")


def _dataclass_of(hint: Any) -> Any:
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    return next((option for option in options if dataclasses.is_dataclass(option)), None)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _coerce(hint: Any, value: Any, key: str) -> Any:
    """Turn a JSON value into the field's type, or say what was expected."""
    inner = _dataclass_of(hint)
    if inner is not None and isinstance(value, Mapping):
        return _from_json(inner, value, key)
    fitting, result = _fit(hint, value)
    if not fitting:
        raise UserError(f"{key} takes {_spelled(hint)}, got {value!r}")
    return result


def _fit(hint: Any, value: Any) -> tuple[bool, Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True, value
    if _is_union(hint):
        return next(((True, result) for fits, result in (_fit(option, value) for option in args) if fits),
                    (False, value))
    if origin is Literal:
        return value in args, value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            value = [value]
        if args[-1] is not Ellipsis and len(args) != len(value):
            return False, value
        inner = [_fit(args[0] if args[-1] is Ellipsis else args[n], item) for n, item in enumerate(value)]
        return all(fits for fits, _ in inner), tuple(result for _, result in inner)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            return False, value
        items = {int(name) if args[0] is int else name: _fit(args[1], item) for name, item in value.items()}
        return all(fits for fits, _ in items.values()), {name: result for name, (_, result) in items.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return True, float(value)
    if hint is int and isinstance(value, bool):
        return False, value
    return isinstance(value, hint if hint is not None else type(None)), value


def _spelled(hint: Any) -> str:
    args = typing.get_args(hint)
    if _is_union(hint):
        return " or ".join(_spelled(option) for option in args)
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(str(option) for option in args)
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", type(None): "null"}
    if hint in words:
        return words[hint]
    if typing.get_origin(hint) is tuple:
        return f"a list like [{', '.join(_spelled(a) for a in args if a is not Ellipsis)}]"
    return "a JSON object" if typing.get_origin(hint) is dict else str(getattr(hint, "__name__", hint))


def _from_json(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    for name in values:
        if name not in names:
            raise unknown_name(f"setting of {where or 'the configuration'}:", name, names)
    return kind(**{name: _coerce(hints[name], value, f"{where}.{name}" if where else name)
                   for name, value in values.items()})


def check_types(node: Any, where: str = "") -> None:
    """Raise a UserError naming the first field of a dataclass tree whose value does not fit its declared type."""
    hints = typing.get_type_hints(type(node))
    for entry in dataclasses.fields(node):
        value, key = getattr(node, entry.name), f"{where}{entry.name}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check_types(value, f"{key}.")
        else:
            _coerce(hints[entry.name], value, key)
