"""The paper map against the code it points to."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import typer

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_paper_map", DOCS / "make_paper_map.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_code_says(maker: ModuleType) -> None:
    assert maker.PAGE.read_text(encoding="utf-8") == maker.render(), (
        "run: python docs/make_paper_map.py"
    )


def test_commands_of_the_map_exist(maker: ModuleType) -> None:
    from marey.cli import build_app

    known = set(typer.main.get_command(build_app()).commands)
    used = {
        place.split()[2]
        for entries in maker.ENTRIES.values()
        for _, _, places in entries
        for place in places
        if place.startswith("$ marey ")
    }
    assert used <= known


def test_code_that_is_gone_is_an_error(maker: ModuleType) -> None:
    with pytest.raises(
        LookupError,
        match="models/timesformer.py:nothing: not there; the name is defined in no file",
    ):
        maker.find("models/timesformer.py:nothing")
    with pytest.raises(
        LookupError, match=r"gone.py:cells: not there; the name is defined in .*\.py, .*\.py"
    ):
        maker.find("models/gone.py:cells")


def test_a_method_is_found_inside_its_class(maker: ModuleType) -> None:
    path, method = maker.find("models/timesformer.py:TimeSformer.forward")
    _, owner = maker.find("models/timesformer.py:TimeSformer")
    assert path.name == "timesformer.py"
    assert owner.lineno < method.lineno <= owner.end_lineno


def test_code_that_moved_is_found_by_its_unique_name(maker: ModuleType) -> None:
    path, _ = maker.find("elsewhere.py:hamiltonian_path")
    assert path.parts[-2:] == ("order", "path.py")


def equations(maker: ModuleType) -> list[tuple[str, str]]:
    """(item, place) of every equation of the papers."""
    return [
        (item, place)
        for entries in maker.ENTRIES.values()
        for item, _, places in entries
        for place in places
        if item.startswith("Eq")
    ]


def test_every_equation_has_its_number_where_the_map_points(maker: ModuleType) -> None:
    missing = []
    for item, place in equations(maker):
        path, node = maker.find(place)
        lines = path.read_text(encoding="utf-8").splitlines()[node.lineno - 1 : node.end_lineno]
        found = " ".join(re.findall(r"Eqs?\. [\d, and-]+", "\n".join(lines)))
        numbers = re.findall(r"\d+", item)
        missing += [
            f"{item}: {place}" for number in numbers if not re.search(rf"\b{number}\b", found)
        ]
    assert not missing, "\n".join(missing)
