"""The constants of every corruption at severities 1 to 5, one table per paper.

The same name means different strengths in different papers, so a strength is always
(profile, kind, severity):

* `rose`: Schiappa et al., "A Large-scale Robustness Analysis of Video Action Recognition Models",
  CVPR 2023 (UCF101-P, HMDB51-P, Kinetics400-P; the ROSE challenge). Numbers of the released code.
* `imagenet-c`: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
  Corruptions and Perturbations", ICLR 2019. Numbers of the released code at 224 x 224.
* `mini-kinetics-c`: Yi et al., "Benchmarking the Robustness of Spatial-Temporal Models Against
  Corruptions", NeurIPS 2021 (Mini Kinetics-C). Numbers of the released code.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from marey.errors import unknown_name

SEVERITIES = (1, 2, 3, 4, 5)

Strengths = tuple[dict[str, Any], ...]


def read_profiles(path: Path) -> dict[str, dict[str, Strengths]]:
    """Read columns of five values a kind, and return five dictionaries of its arguments."""
    profiles = tomllib.loads(path.read_text(encoding="utf-8"))
    found: dict[str, dict[str, Strengths]] = {}
    for profile, kinds in profiles.items():
        found[profile] = {}
        for kind, columns in kinds.items():
            rows = zip(*columns.values(), strict=True)  # severity 1 first
            found[profile][kind] = tuple(dict(zip(columns, row, strict=True)) for row in rows)
    return found


PROFILES = read_profiles(Path(__file__).with_name("profiles.toml"))
"""Profile -> kind -> the arguments of the kind's function at severities 1 to 5."""


def source_profile(kind: str, profile: str) -> str:
    """Return the profile whose constants `kind` takes when `profile` is asked for.

    A kind that the profile's paper does not have takes the numbers of the first other paper that
    has it.

    Raises:
        UserError: if the profile or the kind is unknown.
    """
    if profile not in PROFILES:
        raise unknown_name("corruption profile", profile, PROFILES)
    for candidate in (profile, *PROFILES):
        if kind in PROFILES[candidate]:
            return candidate
    raise unknown_name("corruption", kind, {name for table in PROFILES.values() for name in table})
