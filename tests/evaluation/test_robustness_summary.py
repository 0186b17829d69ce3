"""Which videos are measured, and the numbers of a run."""

from __future__ import annotations

from marey.datasets.index import DatasetIndex
from marey.evaluation.robustness_summary import choose_videos


def test_a_limit_takes_every_class_in_turn(data: DatasetIndex) -> None:
    chosen = choose_videos(data, None, 3)
    assert len(chosen) == 3
    assert {sample.label for sample in chosen.samples} == {"dark", "light"}
