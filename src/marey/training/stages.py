"""The schedule of the loss terms: which of them count in which part of a run, and which parameters
learn then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from marey.training.objective_config import ObjectiveConfig


def learns_backbone(name: str) -> bool:
    """SeViTAR's first stage: the backbone, and the class MLP that teaches it.

    The class MLP sees a label embedding that is not trained yet; the paper does not say what the
    backbone learned from.
    """
    return not name.startswith("semantic_mlp.")


def learns_semantic_mlp(name: str) -> bool:
    """SeViTAR's second stage."""
    return name.startswith("semantic_mlp.")


def learns_class_mlp(name: str) -> bool:
    """SeViTAR's third stage."""
    return name.startswith("class_mlp.")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a run, up to the start of the next one."""

    start: float
    """Share of the steps before it."""
    terms: frozenset[str]
    """Terms that count."""
    learns: Callable[[str], bool] | None = None
    """Whether the parameter of a name learns; None: all do that are not frozen."""


def build_stages(config: ObjectiveConfig) -> tuple[Stage, ...]:
    """Return the stages that `objective.start` and `objective.label.stage_shares` describe, in
    order.

    With `stage_shares`, the terms of the first stage are all but "label", that of the second is
    "label" alone, and that of the third "class" alone (SeViTAR, section 3.2: backbone, then
    semantic MLP, then classifier).
    """
    weighed = frozenset(name for name, weight in config.weights.items() if weight)
    parts = [Stage(start=0.0, terms=weighed)]
    if config.label.stage_shares is not None:
        first, second, _ = config.label.stage_shares
        parts = [
            Stage(start=0.0, terms=weighed - {"label"}, learns=learns_backbone),
            Stage(start=first, terms=weighed & {"label"}, learns=learns_semantic_mlp),
            Stage(start=first + second, terms=weighed & {"class"}, learns=learns_class_mlp),
        ]

    stages = []
    for start in sorted({part.start for part in parts} | {0.0, *config.start.values()}):
        part = stage_at(parts, start)
        begun = frozenset(name for name in part.terms if config.start.get(name, 0.0) <= start)
        stages.append(Stage(start=start, terms=begun, learns=part.learns))
    return tuple(stages)


def stage_at(stages: Sequence[Stage], step: float, total_steps: int = 1) -> Stage:
    """Return the stage a step belongs to, of stages in order of their start."""
    return [stage for stage in stages if stage.start * total_steps <= step][-1]
