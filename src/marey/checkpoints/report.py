"""Fill a model from a state dict, and report what happened to every name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from marey.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Which tensors of a checkpoint and of a model matched."""

    matched: tuple[str, ...]
    """Names in both, with equal shapes: filled."""
    missing: tuple[str, ...]
    """Names the model has and the checkpoint lacks: left at their fresh values."""
    unexpected: tuple[str, ...]
    """Names the checkpoint has and the model lacks: not used."""
    mismatched: tuple[str, ...] = ()
    """"name: shape in the checkpoint, shape in the model": not used."""

    def summary(self) -> str:
        """Return one line with the counts and the first names of each kind."""
        parts = [f"{len(self.matched)} matched"]
        for kind in ("missing", "unexpected", "mismatched"):
            names = getattr(self, kind)
            if names:
                more = f" and {len(names) - 4} more" if len(names) > 4 else ""
                parts.append(f"{len(names)} {kind} ({', '.join(names[:4])}{more})")
        return ", ".join(parts)


def load_exactly(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str | Path,
    *,
    allow_missing: Iterable[str] = (),
    allow_unexpected: Iterable[str] = (),
    assign: bool = False,
) -> LoadReport:
    """Fill a model; a name missing, left over or of another shape is an error unless allowed by its
    prefix.

    Args:
        model: the model to fill.
        state: name -> tensor, by the model's names.
        source: the file, for messages.
        allow_missing: prefixes of names that may keep their fresh values.
        allow_unexpected: prefixes of names that may be left over, or have another shape.
        assign: take the tensors themselves instead of copying.

    Returns:
        The report, with what was allowed.

    Raises:
        UserError: with the report's summary, if anything else does not fit.
    """
    wanted = model.state_dict()
    allow_missing, allow_unexpected = tuple(allow_missing), tuple(allow_unexpected)
    same_shape = [
        name for name in wanted if name in state and wanted[name].shape == state[name].shape
    ]
    other_shape = [
        name for name in wanted if name in state and wanted[name].shape != state[name].shape
    ]
    report = LoadReport(
        matched=tuple(same_shape),
        missing=tuple(name for name in wanted if name not in state),
        unexpected=tuple(name for name in state if name not in wanted),
        mismatched=tuple(
            f"{name}: {tuple(state[name].shape)} in the file, {tuple(wanted[name].shape)} in the "
            "model"
            for name in other_shape
        ),
    )
    wrong = (
        [name for name in report.missing if not name.startswith(allow_missing or ("\0",))]
        + [name for name in report.unexpected if not name.startswith(allow_unexpected or ("\0",))]
        + [name for name in other_shape if not name.startswith(allow_unexpected or ("\0",))]
    )
    if wrong:
        raise UserError(
            f"{source}: the weights do not fit a {type(model).__name__} built with these "
            f"arguments: {report.summary()}; give the arguments the file was trained with"
        )
    model.load_state_dict({name: state[name] for name in same_shape}, strict=False, assign=assign)
    return report
