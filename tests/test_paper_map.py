"""The paper map against the code it points to."""

from __future__ import annotations

import importlib.util
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
    assert maker.PAGE.read_text(encoding="utf-8") == maker.render(), "run: python docs/make_paper_map.py"


def test_commands_of_the_map_exist(maker: ModuleType) -> None:
    from marey.cli import build_app

    known = set(typer.main.get_command(build_app()).commands)
    used = {place.split()[2] for entries in maker.ENTRIES.values() for _, _, places in entries for place in places
            if place.startswith("$ marey ")}
    assert used <= known


def test_code_that_is_gone_is_an_error(maker: ModuleType) -> None:
    with pytest.raises(LookupError, match="no 'nothing' in it"):
        maker.line_of("models/timesformer.py:nothing")
    inner, outer = (maker.line_of(f"models/timesformer.py:{name}") for name in ("TimeSformer.forward", "TimeSformer"))
    assert inner > outer
