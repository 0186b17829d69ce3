"""The models a server offers, under names that say nothing of where they lie."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from marey.checkpoints.sources import find_source
from marey.errors import UserError

GENERIC = ("best", "last", "model", "checkpoint", "out")
"""Folder names that say nothing; the folder above is named with them."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:-]{0,60}")


REPORT = "report.html"
"""What `marey teach` and others write beside a model."""
TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Report:
    """A page about a model that visitors may open."""

    path: Path
    title: str
    model: str | None
    """Public name of the model whose folder it lies in; None for one given with `--report`."""


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


def check_sources(offers: Offers) -> None:
    """Raise where a name of a model leads nowhere; nothing is loaded for it, not even torch.

    Raises:
        UserError: naming the first such `--model`.
    """
    for source in offers.sources.values():
        try:
            find_source(source)
        except UserError as error:
            said = str(error).removeprefix(f"{source}: ")
            raise UserError(f"--model {source}: {said}") from error


def public_name(source: str) -> str:
    """Return a name for a model that is not its path."""
    if source.startswith(("hf:", "torchvision:")) and not PurePath(source.partition(":")[2]).root:
        return source
    parts = [part for part in PurePath(source.removeprefix("hf:")).parts if part not in ("/", "..")]
    kept = parts[-2:] if len(parts) > 1 and parts[-1] in GENERIC else parts[-1:]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(kept)).strip("-.")
    return name or "model"


def find_reports(offers: Offers, given: Sequence[str | Path] = ()) -> list[Report]:
    """Return the pages about models: `report.html` in their folders, then those given.

    Raises:
        UserError: if a given one is no readable HTML file.
    """
    reports = [
        Report(path=Path(source) / REPORT, title=f"Report of {name}", model=name)
        for name, source in offers.sources.items()
        if (Path(source) / REPORT).is_file()
    ]
    for each in given:
        path = Path(each)
        if path.suffix.lower() not in (".html", ".htm"):
            raise UserError(f"--report {each}: is no HTML page; give the report.html of a command")
        try:
            head = path.read_text(encoding="utf-8", errors="replace")[:10_000]
        except OSError as error:
            raise UserError(f"--report {each}: cannot be read ({error.strerror})") from error
        reports.append(Report(path=path, title=_title(head) or path.stem, model=None))
    return reports


def _title(page: str) -> str:
    """Return the title of an HTML page as plain text of one line; empty where it has none."""
    found = TITLE.search(page)
    return " ".join(html.unescape(found[1]).split())[:120] if found else ""
