"""The threat models of `marey robustness --attacks standard`, frozen: what an adversary may change,
what he knows, and the attacks that stand for him.

A robust accuracy belongs to a threat model: the share of clips that stay right under every attack
of it. The attacks of "L-inf, knows the model" and their settings are those of AutoAttack's standard
version (Croce and Hein, 2020), whose Square attack stands alone here because it knows less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """What an adversary may do, and how he is imitated."""

    name: str
    norm: str
    """What bounds the change, in words."""
    eps: float
    """The bound, in [0, 1] per value (for "L2": the length over the clip)."""
    knows: str
    """"the model" (gradients) or "answers" (logits of the clips that are asked about)."""
    max_queries: int | None
    """Answers per clip, the first and the last check among them; None is unbounded."""
    attacks: Mapping[str, Mapping[str, Any]]
    """Attack -> its options."""

    def options(self, attack: str) -> dict[str, Any]:
        """Return the options of one of its attacks."""
        return dict(self.attacks[attack])


def _frozen(**attacks: dict[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return MappingProxyType({name: MappingProxyType(found) for name, found in attacks.items()})


EPS = 8 / 255

STANDARD = (
    ThreatModel(
        name="linf-8",
        norm="L-inf, every value",
        eps=EPS,
        knows="the model",
        max_queries=None,
        attacks=_frozen(
            apgd_ce={"eps": EPS, "steps": 100, "restarts": 1},
            apgd_t={"eps": EPS, "steps": 100, "num_targets": 9},
            fab={"eps": EPS, "steps": 100, "num_targets": 9},
        ),
    ),
    ThreatModel(
        name="linf-8-answers",
        norm="L-inf, every value",
        eps=EPS,
        knows="answers",
        max_queries=5000,
        attacks=_frozen(
            square={"eps": EPS, "max_queries": 5000},
            geo_trap={"eps": EPS, "max_queries": 5000},
            motion_excited={"eps": EPS, "max_queries": 5000},
        ),
    ),
    ThreatModel(
        name="sparse-1",
        norm="one frame, any change of it",
        eps=1.0,
        knows="the model",
        max_queries=None,
        attacks=_frozen(sparse={"num_frames": 1, "steps": 100, "eps": 1.0}),
    ),
    ThreatModel(
        name="flicker-32",
        norm="one colour offset a frame",
        eps=32 / 255,
        knows="the model",
        max_queries=None,
        attacks=_frozen(flickering={"eps": 32 / 255, "steps": 200}),
    ),
)
"""The one table of threat models."""

QUICK_STEPS = 20
QUICK_TARGETS = 3
QUICK_QUERIES = 300


def quick(threat: ThreatModel) -> ThreatModel:
    """Return the same budget with fewer steps, targets and queries: for a first look, since an
    attack that is cut short overstates the robustness."""
    limits = {"steps": QUICK_STEPS, "num_targets": QUICK_TARGETS, "max_queries": QUICK_QUERIES}
    shorter: dict[str, dict[str, Any]] = {}
    for attack, options in threat.attacks.items():
        shorter[attack] = {
            key: min(value, limits[key]) if key in limits else value
            for key, value in options.items()
        }
    queries = None if threat.max_queries is None else min(threat.max_queries, QUICK_QUERIES)
    return replace(
        threat,
        name=f"{threat.name}-quick",
        max_queries=queries,
        attacks=_frozen(**shorter),
    )


SUITES: Mapping[str, tuple[ThreatModel, ...]] = MappingProxyType(
    {"standard": STANDARD, "quick": tuple(quick(threat) for threat in STANDARD)}
)
"""What `--attacks` takes beside names of attacks."""
