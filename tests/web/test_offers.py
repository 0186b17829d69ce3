"""Public names of models."""

from __future__ import annotations

import pytest

from marey.errors import UserError
from marey.web.offers import parse_offers


def test_names_hold_no_path_and_are_unique() -> None:
    offers = parse_offers(
        ["marey-mini", "/srv/secret/runs/mine/best", "/srv/other/mine/best", "ours=/srv/x", "a b/c"]
    )
    assert offers.names == ["marey-mini", "mine-best", "mine-best-2", "ours", "c"]
    assert offers.sources["mine-best-2"] == "/srv/other/mine/best"
    assert parse_offers(["hf:facebook/vivit", "hf:/srv/secret/x"]).names == [
        "hf:facebook/vivit",
        "x",
    ]
    assert parse_offers(["marey-mini", "marey-mini"]).names == ["marey-mini"]


@pytest.mark.parametrize("models", [["../x=/srv/x"], ["a=1", "a=2"], ["\x1b[2J=/srv/x"]])
def test_bad_names_are_refused(models: list[str]) -> None:
    with pytest.raises(UserError):
        parse_offers(models)
