"""The models that a benchmark compares: ours, `hf:`, `torchvision:`, or any Python callable, behind
one interface."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError, unknown_name
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

_CALLABLE = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
PLAIN = Preprocess(
    sampling=ClipSampling(kind="uniform", num_frames=8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)
"""What a bare callable is given: eight frames spread over the video, 224 x 224, RGB in [0, 1]."""


class Logits(nn.Module):
    """A callable that returns logits alone, as a model that returns a dict.

    Args:
        function: clips, float (B, T, 3, S, S) -> logits (B, K), or a dict with "logits".
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, clips: Tensor, **options: Any) -> dict[str, Any]:
        """Return {"logits": (B, K), ...}."""
        outputs = self.function(clips, **options)
        return outputs if isinstance(outputs, dict) else {"logits": outputs}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One model of a comparison."""

    name: str
    """What the user called it."""
    model: nn.Module
    """Normalised clips, float (B, T, 3, S, S) -> dict with "logits" (B, K); in eval mode."""
    preprocess: Preprocess
    """Sampling, size and normalisation of its input."""
    data_class_of: Tensor
    """int64, (K,): the data set's class of each logit, -1 where the data set has none."""
    logit_of: Tensor
    """int64, (classes of the data set,): the logit of each class, -1 where the model has none."""
    temperature: float = 1.0
    """Divides the logits before the softmax, as stored in the checkpoint."""
    has_gradients: bool = True
    """Whether gradients reach its input: a network, not a bare function."""
    device: str = "cpu"
    """Where the model runs."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Of its checkpoint; they say what it was trained on."""


def is_function(source: str) -> bool:
    """Return whether a model's name is "module:function"."""
    is_callable = _CALLABLE.match(source) and not source.startswith(("hf:", "torchvision:"))
    return bool(is_callable) and not os.path.exists(source)


def load_candidate(source: str, class_names: Sequence[str], device: str = "cpu") -> Candidate:
    """Load a model and match its classes with the data set's by name.

    Args:
        source: a bundled name, a checkpoint folder, "hf:...", "torchvision:...", or
            "module:function". The function either takes clips, float (B, T, 3, 224, 224) in [0, 1],
            and returns logits in the order of the data set's classes, or takes nothing and returns
            a model, or (model, Preprocess), or (model, Preprocess, class names).
        class_names: classes of the data set that have videos.
        device: where the model runs.

    Raises:
        UserError: if the model cannot be loaded, or does not know one of the classes.
    """
    if is_function(source):
        function, preprocess, names = _from_callable(source)
        has_gradients = isinstance(function, nn.Module)
        model, temperature = Logits(function), 1.0
        tensors: Mapping[str, Tensor] = {}
    else:
        checkpoint = load_checkpoint(source)
        preprocess, names, has_gradients = checkpoint.clip_preprocess, checkpoint.class_names, True
        model, temperature = checkpoint.model, checkpoint.temperature
        tensors = checkpoint.tensors
    data_class_of, logit_of = match_classes(source, names or class_names, class_names)
    return Candidate(
        name=source,
        model=model.to(device).eval(),
        preprocess=preprocess,
        data_class_of=data_class_of,
        logit_of=logit_of,
        temperature=temperature,
        has_gradients=has_gradients,
        device=device,
        tensors=tensors,
    )


def _from_callable(source: str) -> tuple[Any, Preprocess, Sequence[str] | None]:
    module_name, attribute = source.split(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{source}: no module '{error.name}'; a model is a name, a folder, hf:, torchvision:, "
            "or module:function importable from here"
        ) from error
    if not hasattr(module, attribute):
        raise unknown_name(
            f"attribute of module {module_name}",
            attribute,
            [name for name in vars(module) if not name.startswith("_")] or ["nothing"],
        )
    function = getattr(module, attribute)
    required = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if isinstance(function, nn.Module) or required:
        return function, PLAIN, None
    made = function()
    parts = made if isinstance(made, tuple) else (made,)
    return parts[0], parts[1] if len(parts) > 1 else PLAIN, parts[2] if len(parts) > 2 else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def match_classes(
    source: str, model_names: Sequence[str], class_names: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Match classes by name, spelling (case, spaces, underscores) aside.

    Returns:
        data_class_of (K,) and logit_of (classes,), see `Candidate`.

    Raises:
        UserError: if the model does not know a class of the data set.
    """
    index_of = {_plain(name): i for i, name in enumerate(model_names)}
    data_class_of = torch.full((len(model_names),), -1)
    logit_of = torch.full((len(class_names),), -1)
    for i, name in enumerate(class_names):
        if _plain(name) not in index_of:
            raise UserError(
                f"{source}: does not know the class '{name}' of the data set (it knows "
                f"{', '.join(list(model_names)[:8])}{', ...' if len(model_names) > 8 else ''}); "
                "measure a model that was trained on these classes"
            )
        data_class_of[index_of[_plain(name)]] = i
        logit_of[i] = index_of[_plain(name)]
    return data_class_of, logit_of
