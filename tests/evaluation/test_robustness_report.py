"""The robustness report as a page."""

from __future__ import annotations

from marey.evaluation.robustness_report import short_names


def test_models_are_named_by_the_shortest_endings_that_differ() -> None:
    assert short_names(["runs/a/best", "runs/b/best"]) == {"runs/a/best": "a", "runs/b/best": "b"}
    assert short_names(["runs/a/best"]) == {"runs/a/best": "best"}
