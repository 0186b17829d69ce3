"""The models a server offers, under names that say nothing of where they lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from marey.errors import UserError

GENERIC = ("best", "last", "model", "checkpoint", "out")
"""Folder names that say nothing; the folder above is named with them."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:-]{0,60}")


@dataclass
class Offers:
    """Models by their public names, the default first."""

    sources: dict[str, str]
    """Public name -> what it is loaded from: a bundled name, a folder, "hf:..."."""
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Public name -> what is known of it: "classes", "kind"; filled when it has been loaded."""

    @property
    def names(self) -> list[str]:
        """Public names, the default first."""
        return list(self.sources)

    def classes(self, name: str) -> list[str] | None:
        """Return what a model knows; None before it has been loaded."""
        return self.about.get(name, {}).get("classes")


def parse_offers(models: Sequence[str]) -> Offers:
    """Return the models of `--model`, each SOURCE or NAME=SOURCE.

    A folder is named after itself, "runs/mine/best" as "mine-best"; a second model of a name gets a
    number.

    Raises:
        UserError: if a given name is none, or given twice.

    >>> parse_offers(["marey-mini", "runs/mine/best", "ours=/srv/models/7"]).names
    ['marey-mini', 'mine-best', 'ours']
    """
    sources: dict[str, str] = {}
    for given in models:
        name, equals, source = given.partition("=")
        if equals:
            if not NAME.fullmatch(name):
                raise UserError(
                    f"--model {given}: '{name}' is no name for a model; use up to 60 letters, "
                    "digits, '.', '-' and '_'"
                )
            if name in sources:
                raise UserError(f"--model {given}: the name '{name}' is given twice")
        else:
            source, name = given, public_name(given)
            if source in sources.values():
                continue
        number, free = 2, name
        while free in sources:
            number, free = number + 1, f"{name}-{number}"
        sources[free] = source
    return Offers(sources)


def public_name(source: str) -> str:
    """Return a name for a model that is not its path."""
    if source.startswith(("hf:", "torchvision:")) and not PurePath(source.partition(":")[2]).root:
        return source
    parts = [part for part in PurePath(source.removeprefix("hf:")).parts if part not in ("/", "..")]
    kept = parts[-2:] if len(parts) > 1 and parts[-1] in GENERIC else parts[-1:]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(kept)).strip("-.")
    return name or "model"
