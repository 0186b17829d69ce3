"""The whole of a training run in one typed, frozen tree; recipes return it, `--set a.b=value`
changes it."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Literal

from pydantic import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError, unknown_name
from marey.files import untrusted
from marey.training.data_config import DataConfig
from marey.training.migrate import migrate
from marey.training.objective_config import ObjectiveConfig
from marey.training.settings import CHECKED, Several, Share
from marey.transforms.augment import Augment
from marey.transforms.preprocess import Preprocess

DEFAULT_LR = {"sgd": 0.005, "adamw": 3e-4, "adam": 1e-4}
"""Learning rate of each optimiser when `optim.lr` is not given (for batches of about 8 to 64
clips)."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ModelConfig:
    """Which network, and the weights it starts from."""

    name: str | None = None
    """One of `marey.list_models()`; None takes the architecture of `init_from`."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the model; what the task infers (num_classes, ...) is filled in."""
    init_from: str | None = None
    """A checkpoint (bundled name, folder, "hf:...") whose weights are the start; parts of another
    shape start fresh. With `name="probe"` an encoder, as `marey teach --encoder` takes it, under a
    fresh linear head. An image ViT ("vit": the public ViT-B/16 of ImageNet; a folder or "hf:...")
    starts a model of TimeSformer's family."""
    freeze: Several[str] = ()
    """Parameters whose name starts with one of these do not train: ("patch_embed", "blocks.0");
    "*": all but heads."""
    imagenet_stem: bool = False
    """Fill the EfficientNet-Lite0 of a fresh model's stem with ImageNet weights; `init_from` may
    replace them."""
    start: Literal["own", "glorot"] = "own"
    """How fresh weights are drawn: the architecture's rule, or wider, for narrow blocks
    (`initialise.widen_start`)."""
    activation_checkpointing: Literal[False, True, "cheap"] = False
    """Recompute activations in the backward pass: less memory, about a third more time, the same
    gradients."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class OptimConfig:
    """Optimiser and schedule."""

    name: Literal["sgd", "adamw", "adam"] = "adamw"
    """Which optimiser."""
    lr: PositiveFloat | None = None
    """Highest learning rate; None takes `DEFAULT_LR[name]`."""
    momentum: Share = 0.9
    """SGD's momentum."""
    weight_decay: NonNegativeFloat = 0.05
    """Weight decay; biases, norms, embeddings and tokens are spared unless `decay_all`."""
    decay_all: bool = False
    """Decay every parameter."""
    layer_decay: PositiveFloat = 1.0
    """Learning rate of block l is multiplied by layer_decay^(blocks - l); 1 treats all blocks
    alike."""
    schedule: Literal["constant", "step", "cosine", "linear", "onecycle", "plateau"] = "cosine"
    """How the rate changes; "plateau" follows the task's main metric at each evaluation."""
    warmup: NonNegativeFloat = 0.0
    """Linear warm-up: a share of all steps if below 1, else a number of steps."""
    warmup_start: Share = 0.0
    """Rate at step 0 of the warm-up, as a share of `lr`."""
    milestones: Several[float] = ()
    """Schedule "step": epochs at which the rate is multiplied by `gamma`."""
    gamma: float = 0.1
    """Factor of schedules "step" and "plateau"."""
    plateau_patience: NonNegativeInt = 3
    """Evaluations without a better metric before "plateau" multiplies the rate by `gamma`."""
    clip_norm: PositiveFloat | None = None
    """Largest L2 norm of all gradients together; None does not clip."""

    @property
    def peak_lr(self) -> float:
        """The learning rate in force: `lr`, or the optimiser's default."""
        return DEFAULT_LR[self.name] if self.lr is None else self.lr


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class RunConfig:
    """Length of the run, evaluation, devices, and what is saved."""

    epochs: PositiveFloat = 10.0
    """Passes over the training videos."""
    max_steps: PositiveInt | None = None
    """Stop after this many optimiser steps instead; schedules are laid over them."""
    batch_size: PositiveInt = 16
    """Clips of one optimiser step, over all processes and accumulated parts together."""
    accumulate: PositiveInt = 1
    """Parts a step is computed in, one after the other, to save memory; gradients are the same."""
    eval_batch_size: PositiveInt | None = None
    """Clips of one forward pass in evaluation, per process; None is one part of `batch_size`."""
    eval_every: PositiveInt | None = None
    """Evaluate every so many optimiser steps; None evaluates after every epoch."""
    save_every: PositiveInt | None = None
    """Write the resume state every so many steps; None writes it after every evaluation."""
    log_every: PositiveInt = 10
    """Write the losses every so many steps."""
    patience: PositiveInt | None = None
    """Stop after this many evaluations without a better main metric; None runs to the end."""
    select: Literal["metric", "loss", "last"] = "metric"
    """Which evaluation becomes `best`: by the main metric (at a tie, the loss), by the loss, or
    always the latest. With few validation videos the highest metric is mostly chance."""
    average: Literal["none", "ema", "swa"] = "none"
    """Weights that are evaluated and saved: the last, their exponential mean, or the mean of the
    late epochs."""
    ema_decay: Share = 0.999
    """Decay of the exponential mean per step (smaller in the first steps, so that it can start)."""
    swa_start: Share = 0.75
    """Share of all steps after which "swa" begins to average (once an epoch)."""
    balanced_sampler: bool = False
    """Draw classes equally often, with replacement."""
    linear_probe: bool = False
    """Before the first step, fit the class head alone on the frozen embedding (logistic
    regression)."""
    seed: int = 0
    """Seed of everything random: initial weights, order and augmentation of clips, dropout."""
    workers: NonNegativeInt = 0
    """Processes that decode videos; 0 decodes in the training process. The result does not depend
    on it."""
    threads: PositiveInt | None = None
    """CPU threads of torch; None keeps what is set. Stored, and restored on resume."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; weights stay fp32."""
    device: Literal["auto", "cpu"] = "auto"
    """"auto" takes the accelerator there is."""
    unused_parameters: bool = False
    """Several processes: some parameters get no gradient in some steps (slower)."""
    shard: bool = False
    """Several processes: each holds a part of the weights, gradients and optimiser state (FSDP2);
    no resume state."""
    calibrate: bool = True
    """At the end, fit the temperature and the OOD detector on held-out videos and store them."""
    tensorboard: bool = True
    """Write TensorBoard files, where tensorboard is installed."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class TrainConfig:
    """A whole training run; saved as config.json in its folder and inside its checkpoints."""

    recipe: str = "custom"
    """Name of the recipe this came from."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: Augment | None = None
    """Training augmentation, made to end in `data.preprocess`; None trains on the evaluation
    crop."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        _check_together(self)
        if self.augment is not None and self.data.preprocess is not None:
            fitted = dataclasses.replace(self.augment, preprocess=self.data.preprocess)
            object.__setattr__(self, "augment", fitted)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration in JSON types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Build the configuration that `to_dict` described, also by an older version (see
        `migrate`).

        Raises:
            UserError: if a key is unknown (the nearest is named), or a value has another type or
                range.
        """
        with untrusted("the settings", "a configuration"):
            return _checked(migrate(values))


def _check_together(config: TrainConfig) -> None:
    """Check the settings that depend on each other."""
    optim, run = config.optim, config.train
    if run.shard and run.average != "none":
        raise UserError(
            f"train.shard=true cannot average weights; set train.average=none, not {run.average}"
        )
    if run.batch_size % run.accumulate:
        raise UserError(
            f"train.batch_size={run.batch_size} does not divide into "
            f"train.accumulate={run.accumulate} equal parts; choose a multiple"
        )
    if optim.schedule == "step" and not optim.milestones:
        raise UserError(
            "optim.schedule=step needs optim.milestones, the epochs at which the rate falls "
            "(for example optim.milestones=[11,14])"
        )


def changed_settings(
    before: Mapping[str, Any], now: Mapping[str, Any], where: str = ""
) -> list[str]:
    """Return "key: old -> new" for every setting that differs between two configurations in JSON
    form."""
    found: list[str] = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += changed_settings(old, new, f"{where}{key}.")
        elif old != new:
            found.append(f"{where}{key}: {json.dumps(old)} -> {json.dumps(new)}")
    return found


# ---- `--set a.b=value`
# ------------------------------------------------------------------------------


def override(config: TrainConfig, assignments: Sequence[str]) -> TrainConfig:
    """Return `config` with `a.b=value` assignments applied; values are JSON, or a bare word for a
    string.

    The whole is checked once, after the last assignment, so that values that only fit together can
    change together.

    Raises:
        UserError: if an assignment has no "=", its key is unknown (the nearest is named), or its
            value has another type.
    """
    values = config.to_dict()
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise UserError(f"--set takes key=value, got '{assignment}'")
        if key.startswith("data.preprocess.") and values["data"]["preprocess"] is None:
            values["data"]["preprocess"] = _preprocess_of(values["model"]["init_from"])
        *path, name = key.split(".")
        node = values
        for depth, part in enumerate(path):
            if (
                node.get(part) is None
            ):  # not set: a group that is checked with its other values' defaults
                node[part] = {}
            node = node[part]
            if not isinstance(node, dict):
                single = ".".join(path[: depth + 1])
                raise UserError(
                    f"setting '{key}': {single} is a single value, it has no "
                    f"'{[*path, name][depth + 1]}'"
                )
        node[name] = _parse(text)
    if values["augment"] is not None and values["data"]["preprocess"] is not None:
        # Training clips end in the data's preprocessing: sizes are checked against that one.
        values["augment"]["preprocess"] = values["data"]["preprocess"]
    return _checked(values)


def _preprocess_of(checkpoint: str | None) -> dict[str, Any]:
    """Return the specification a few of whose values are about to change: the checkpoint's, or the
    default."""
    found = None if checkpoint is None else load_checkpoint(checkpoint).preprocess
    return (found or Preprocess()).to_dict()


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {"None": None, "True": True, "False": False}.get(text, text)


# ---- checking
# ------------------------------------------------------------------------------

SCHEMA = TypeAdapter(TrainConfig)
"""Reads a whole configuration from JSON and checks it."""


def _checked(values: Mapping[str, Any]) -> TrainConfig:
    """Build the configuration from JSON types; a mistake becomes one line."""
    try:
        return SCHEMA.validate_json(json.dumps(values))
    except ValidationError as error:
        raise _in_one_line(error) from None
    except (RecursionError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"the settings cannot be read ({error}); write them again") from error


def _in_one_line(error: ValidationError) -> UserError:
    """Return the first mistake pydantic found: the setting, what it takes, what it got."""
    first = error.errors()[0]
    *path, name = first["loc"] or ("",)
    if first["type"] == "value_error":  # raised by a __post_init__, already one line
        return UserError(str(first["ctx"]["error"]))
    if first["type"] == "unexpected_keyword_argument":
        where = f" of '{'.'.join(map(str, path))}':" if path else ""
        return unknown_name(f"setting{where}", str(name), _names_below(path))
    key = ".".join(map(str, first["loc"]))
    message = first["msg"].replace("Input should", "should", 1)
    return UserError(f"{key} {message}, got {first['input']!r}")


def _names_below(path: Sequence[int | str]) -> list[str]:
    """Return the setting names of the class at a path of the tree."""
    kind: Any = TrainConfig
    for name in path:
        hint = typing.get_type_hints(kind)[str(name)]
        kind = next(
            option for option in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(option)
        )
    return [entry.name for entry in dataclasses.fields(kind)]
