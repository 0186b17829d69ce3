"""Our checkpoint: a folder with `model.safetensors` and `config.json`, nothing pickled.

config.json   {"format": 1, "model", "arguments", "class_names", "preprocess",
                     "calibration", "extra", "storage"}
model.safetensors   the model's state dict; further tensors (permutations, label
                     embeddings, ...) under "extra."
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from marey.checkpoints.report import load_exactly
from marey.checkpoints.sources import CONFIG, WEIGHTS
from marey.errors import UserError
from marey.files import atomic_files, read_json, untrusted, weights_digest
from marey.models import MODELS, READ_ONLY, create_model, model_class
from marey.models.timesformer import TimeSformer
from marey.transforms.pose_clip import PoseSampling
from marey.transforms.preprocess import Preprocess

FORMAT = 1
EXTRA = "extra."
COUNTS_OF_LAYERS = ("depth", "num_layers", "layers", "units")
"""Arguments that count parts with weights of their own."""
STORAGES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""How weights of two or more axes are stored; they are always loaded as float32."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model with everything needed to use it."""

    model: nn.Module
    """In evaluation mode."""
    name: str
    """The architecture: a name of `marey.list_models()`, "external" for models of other
    libraries."""
    source: str
    """What it was loaded as: a bundled name, a folder, "hf:<id>"."""
    arguments: dict[str, Any]
    """What `create_model` takes."""
    class_names: list[str]
    """Name of each logit; "class 0", "class 1", ... where the checkpoint has none."""
    preprocess: Preprocess | None
    """How a video becomes the model's input; None for models that take no clips of pixels."""
    pose_sampling: PoseSampling | None = None
    """How tracks of keypoints become the input of a pose model; None for other models."""
    calibration: dict[str, Any] | None = None
    """{"calibrated": bool, "temperature": float where it helped, "trust": {...}}, see
    `marey.metrics.trust.fit_trust`; older checkpoints: {"temperature": float, "ood": {...}}."""
    extra: dict[str, Any] = field(default_factory=dict)
    """JSON values kept beside the weights."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Tensors kept beside the weights, e.g. "permutations" (P, T), "label_embeddings" (K, E)."""

    @property
    def task(self) -> str:
        """What the model reads: "clips", "poses", "features" or "detection"."""
        if self.pose_sampling is not None:
            return "poses"
        return str(getattr(self.model, "task", "clips"))

    @property
    def calibrated(self) -> bool:
        """Whether probabilities of the model's own classes were measured out of fold, and a
        temperature fitted where it helped."""
        stored = self.calibration or {}
        return bool(stored.get("calibrated", "temperature" in stored))

    @property
    def temperature(self) -> float:
        """Divides the logits before the softmax or sigmoid; 1 where none was fitted."""
        return float((self.calibration or {}).get("temperature", 1.0))

    @property
    def clip_preprocess(self) -> Preprocess:
        """How a video becomes the model's input.

        Raises:
            UserError: if the checkpoint does not say, because the model takes no clips.
        """
        if self.pose_sampling is not None:
            raise UserError(
                f"{self.source}: reads poses, not clips of pixels, which are needed here; use a "
                "model of pixels such as marey-mini-rgb (`marey corrupt` writes changed copies of "
                "videos that `marey predict` and `marey trust` answer with any model)"
            )
        if self.preprocess is None:
            raise UserError(
                f"{self.source}: does not say how a video becomes its input, so it takes no clips; "
                "use a checkpoint that does, such as marey-mini-rgb"
            )
        return self.preprocess


def architecture_name(model: nn.Module) -> str:
    """Return the name of `marey.list_models()` that builds this model.

    Raises:
        UserError: if the model's class is not registered.
    """
    for name, model_type in {**MODELS, **READ_ONLY}.items():
        if model_type is type(model):
            return name
    raise UserError(
        f"a {type(model).__name__} cannot be saved: it is not one of {', '.join(sorted(MODELS))}"
    )


def numbered_classes(model: nn.Module) -> list[str]:
    """Return "class 0", "class 1", ... for a model whose checkpoint names no classes."""
    return [
        f"class {index}" for index in range(getattr(model, "arguments", {}).get("num_classes") or 0)
    ]


def save_checkpoint(
    folder: str | Path,
    model: nn.Module,
    *,
    class_names: Sequence[str] | None,
    preprocess: Preprocess | PoseSampling | None,
    calibration: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
    tensors: dict[str, Tensor] | None = None,
    storage: str = "float32",
) -> None:
    """Write a checkpoint folder; both files are written under temporary names first, so a failure
    keeps the old ones.

    Args:
        folder: made if absent; other files in it stay.
        model: a registered model, with its `arguments`.
        class_names: name of each logit.
        preprocess: how a video, or with poses a track, becomes the model's input.
        calibration, extra: JSON values.
        tensors: further tensors, stored as they are.
        storage: "float32", or "float16" or "bfloat16" for half the size (matrices only; vectors and
            statistics stay).

    Raises:
        UserError: if the model is not registered, the class names do not match its logits, a value
            does not fit the storage, or the disk is full.
    """
    if storage not in STORAGES:
        raise UserError(f"storage is '{storage}', but must be one of {', '.join(STORAGES)}")
    config = {
        "format": FORMAT,
        "model": architecture_name(model),
        "arguments": model.arguments,
        "class_names": None if class_names is None else list(class_names),
        "preprocess": preprocess.to_dict() if preprocess is not None else None,
        "calibration": calibration,
        "extra": extra or {},
        "storage": storage,
    }
    num_classes = model.arguments.get("num_classes")
    if class_names is not None and num_classes and len(class_names) != num_classes:
        raise UserError(
            f"{len(class_names)} class names for a model of {num_classes} classes; give one per "
            "logit"
        )
    stored = {
        name: _stored(name, tensor, STORAGES[storage])
        for name, tensor in model.state_dict().items()
    }
    stored |= {
        EXTRA + name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in (tensors or {}).items()
    }
    config["weights_digest"] = weights_digest(stored)
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    # The weights carry the configuration too: a kill between the two renames leaves new weights
    # beside the old config.json, and they are then read with their own.
    metadata = {"format": "pt", "config": text}
    with atomic_files(Path(folder) / WEIGHTS, Path(folder) / CONFIG) as (weights_file, config_file):
        save_file(stored, weights_file, metadata=metadata)
        sort_metadata(weights_file)
        config_file.write_text(text, encoding="utf-8")


def sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in the order of its names: the library writes them in
    any order, and the same weights would have other bytes each time.

    The header is 8 bytes with its length and JSON of that length, filled up with blanks.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(length))


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu()
    # Vectors (norms, biases, running statistics) stay in fp32: they are small and sensitive.
    if tensor.is_floating_point() and tensor.ndim >= 2:
        stored = tensor.to(dtype)
        if not bool(torch.isfinite(stored).all()) and bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"'{name}' has values beyond the range of {dtype}; save with storage='float32'"
            )
        tensor = stored
    return tensor.contiguous().clone()


def load_folder(folder: str | Path, source: str | None = None) -> Checkpoint:
    """Read a checkpoint folder; every tensor must match the model, and float weights are returned
    as float32.

    Args:
        folder: with `model.safetensors` and `config.json`.
        source: the checkpoint's name in messages; None takes the folder's path.

    Raises:
        UserError: if a file is missing, unreadable, of another format, or does not fit its own
            arguments.
    """
    folder = Path(folder)
    config = read_json(
        folder / CONFIG, remedy=f"a checkpoint is a folder with {CONFIG} and {WEIGHTS}"
    )
    with untrusted(folder / CONFIG, "a checkpoint's configuration"):
        return _load(folder, config, source)


def _load(folder: Path, config: dict[str, Any], source: str | None) -> Checkpoint:
    """Read the weights that a configuration describes."""
    stored_tensors, embedded = read_with_config(folder / WEIGHTS)
    config = _of_these_weights(config, embedded, stored_tensors, folder)
    if config.get("format") != FORMAT or "model" not in config:
        raise UserError(
            f"{folder / CONFIG}: expected a marey checkpoint of format {FORMAT}, got format "
            f"{config.get('format')!r}; bring other files in with `marey convert`"
        )
    state = {
        key: tensor.float() if tensor.is_floating_point() and not key.startswith(EXTRA) else tensor
        for key, tensor in stored_tensors.items()
    }
    _check_numbers(state, folder / WEIGHTS)
    _check_sizes(config.get("arguments", {}), state, folder / CONFIG)
    tensors = {
        key.removeprefix(EXTRA): state.pop(key) for key in list(state) if key.startswith(EXTRA)
    }
    model = build_and_fill(config["model"], config.get("arguments", {}), state, folder / WEIGHTS)
    preprocess, pose_sampling = None, None
    if (stored := config.get("preprocess")) is not None:
        if stored.get("kind") == "pose":
            pose_sampling = PoseSampling.from_dict(stored)
        else:
            preprocess = Preprocess.from_dict(stored)
    class_names = config.get("class_names")
    _check_types(config, folder / CONFIG)
    return Checkpoint(
        model=model.eval(),
        name=config["model"],
        source=source or str(folder),
        arguments=config.get("arguments", {}),
        preprocess=preprocess,
        pose_sampling=pose_sampling,
        class_names=numbered_classes(model) if class_names is None else class_names,
        calibration=config.get("calibration"),
        extra=config.get("extra") or {},
        tensors=tensors,
    )


def _of_these_weights(
    config: dict[str, Any],
    embedded: dict[str, Any] | None,
    tensors: dict[str, Tensor],
    folder: Path,
) -> dict[str, Any]:
    """Return the configuration these weights were written with.

    Raises:
        UserError: if the weights are neither those of config.json nor of their own header.
    """
    if config.get("weights_digest") is None:
        return config
    digest = weights_digest(tensors)
    if config["weights_digest"] == digest:
        return config
    if embedded is not None and embedded.get("weights_digest") == digest:
        return embedded
    raise UserError(
        f"{folder / WEIGHTS}: not the weights that {CONFIG} was written with (digest {digest}, "
        f"expected {config['weights_digest']}); they are damaged or of another model, copy the "
        "folder again"
    )


def _check_numbers(state: dict[str, Tensor], path: Path) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"{path}: '{name}' holds NaN or infinite values; the weights are damaged or "
                "training diverged, take another checkpoint"
            )


def _check_sizes(arguments: Any, state: dict[str, Tensor], path: Path) -> None:
    """Refuse sizes that the weights cannot have, before anything is built of them.

    A count of layers is at most the number of tensors; no size exceeds a hundred times the longest
    axis of a tensor.
    """
    if not isinstance(arguments, dict):
        raise UserError(f"{path}: 'arguments' is {type(arguments).__name__}, expected an object")
    longest = max((size for tensor in state.values() for size in tensor.shape), default=1)
    for name, value in arguments.items():
        for number in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(number, dict):
                _check_sizes(number, state, path)
            if not isinstance(number, int) or isinstance(number, bool):
                continue
            most = len(state) if name in COUNTS_OF_LAYERS else max(1000, 100 * longest)
            if not 0 <= number <= most:
                raise UserError(
                    f"{path}: {name} is {number}, but the weights have {len(state)} tensors with "
                    f"axes up to {longest}; the file is damaged, copy it again"
                )


def _check_types(config: dict[str, Any], path: Path) -> None:
    names = config.get("class_names")
    if names is not None and not (
        isinstance(names, list) and all(isinstance(name, str) for name in names)
    ):
        raise UserError(f"{path}: 'class_names' is a list of names, one per logit")
    for key in ("calibration", "extra"):
        if config.get(key) is not None and not isinstance(config[key], dict):
            raise UserError(f"{path}: '{key}' is an object, got {type(config[key]).__name__}")
    count = (config.get("arguments") or {}).get("num_classes")
    if names is not None and isinstance(count, int) and count and len(names) != count:
        raise UserError(f"{path}: {len(names)} class names for {count} classes; one per logit")
    temperature = (config.get("calibration") or {}).get("temperature", 1.0)
    if not isinstance(temperature, (int, float)) or not 0 < temperature < float("inf"):
        raise UserError(f"{path}: the temperature is a number above 0, got {temperature!r}")


def build_and_fill(
    architecture: str, arguments: dict[str, Any], state: dict[str, Tensor], source: str | Path
) -> nn.Module:
    """Build a registered model and fill it exactly; TimeSformer's family is built without drawing
    weights first."""
    if issubclass(model_class(architecture), TimeSformer):
        # On the meta device no weights are drawn; the file's tensors then become the parameters
        # themselves.
        with torch.device("meta"):
            model = create_model(architecture, **arguments)
        load_exactly(model, state, source, assign=True)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        return model
    model = create_model(architecture, **arguments)
    load_exactly(model, state, source)
    return model


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file into new, aligned memory, so that sums round as they did before
    saving.

    Raises:
        UserError: if the file is absent or damaged.
    """
    return read_with_config(path)[0]


def read_with_config(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read a safetensors file as `read_tensors`, and the configuration in its header, if there is
    one."""
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; a checkpoint is a folder with {CONFIG} and {WEIGHTS}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
            text = (file.metadata() or {}).get("config")
        embedded = json.loads(text) if text else None
        return tensors, embedded if isinstance(embedded, dict) else None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({error}); it is truncated or damaged, "
            "copy it again"
        ) from error
