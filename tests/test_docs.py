"""What the documentation says about files is true: links lead somewhere, rooms and files exist."""

from __future__ import annotations

import dataclasses
import importlib
import re
import typing
from pathlib import Path

import pytest

from marey.training.config import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "marey"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = {
    path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    missing = [target for target in local if not (page.parent / target).exists()]
    assert not missing, missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_module_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8").partition("## Old paths")[0]
    names = set(re.findall(r"`((?:marey/)?[a-z0-9_]+(?:/[a-z0-9_]+)*/[a-z0-9_]+\.py)`", text))
    places = [ROOT, ROOT / "src", PACKAGE]
    missing = [
        name for name in sorted(names) if not any((place / name).is_file() for place in places)
    ]
    assert not missing, missing


@pytest.mark.parametrize("name", ["README.md", "docs/architecture.md"])
def test_every_room_is_described(name: str) -> None:
    described = set(re.findall(r"\b([a-z_]+)/", (ROOT / name).read_text(encoding="utf-8")))
    assert described >= ROOMS, ROOMS - described


def test_the_new_places_of_old_paths_exist() -> None:
    rows = re.findall(
        r"^\| (`.*?) \| (.*) \|$", ARCHITECTURE.split("## Old paths")[1], flags=re.MULTILINE
    )
    assert len(rows) > 30
    new = {name for _, now in rows for name in re.findall(r"`([a-z0-9_/]+(?:\.py|/))`", now)}
    missing = [
        name for name in sorted(new) if not (PACKAGE / name).exists() and not (ROOT / name).exists()
    ]
    assert not missing, missing


@pytest.mark.parametrize(
    "heading", ["A video through", "A configuration through", "A data set through"]
)
def test_a_walk_has_ten_lines(heading: str) -> None:
    section = ARCHITECTURE.split(f"## {heading}")[1].split("\n## ")[0]
    assert re.findall(r"^(\d+)\. ", section, flags=re.MULTILINE) == [str(n) for n in range(1, 11)]


def resolve(name: str) -> object:
    """Return what a dotted name of the package stands for; AttributeError if nothing."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise AttributeError(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_name_of_the_package_on_a_page_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"`(marey(?:\.[A-Za-z_][A-Za-z_0-9]*)+)", text)) - {"marey.json"}
    for module, imported in re.findall(
        r"^from (marey[\w.]*) import (.+)$", text, flags=re.MULTILINE
    ):
        names |= {f"{module}.{name.strip()}" for name in imported.split("#")[0].split(",")}
    missing = []
    for name in sorted(names):
        try:
            resolve(name)
        except AttributeError:
            missing.append(name)
    assert not missing, missing


def names_a_setting(key: str) -> bool:
    """Tell whether "optim.lr" leads to a setting of `TrainConfig`; below a dict every key may
    stand."""
    kind: object = TrainConfig
    for part in key.split("."):
        members = [kind, *typing.get_args(kind)]
        owner = next((member for member in members if dataclasses.is_dataclass(member)), None)
        if owner is None:
            return any(typing.get_origin(member) is dict or member is dict for member in members)
        hints = typing.get_type_hints(owner)
        if part not in hints:
            return False
        kind = hints[part]
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_setting_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"--set ['\"]?([a-z_]+(?:\.[a-z_0-9]+)+)=", text))
    groups = "|".join(field.name for field in dataclasses.fields(TrainConfig))
    quoted = re.findall(rf"`((?:{groups})(?:\.[a-z_0-9]+)+)[=`]", text)
    names |= {name for name in quoted if not name.endswith((".py", ".csv", ".safetensors"))}
    missing = [name for name in sorted(names) if not names_a_setting(name)]
    assert not missing, missing


def test_a_setting_that_does_not_exist_is_noticed() -> None:
    assert names_a_setting("model.arguments.anything")
    assert names_a_setting("augment.corruption")
    assert not names_a_setting("optim.lrr")
    assert not names_a_setting("objective.arguments.boxes")
