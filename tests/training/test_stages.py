"""Which terms count, and which parameters learn, in which part of a run."""

from __future__ import annotations

import pytest

from marey.errors import UserError
from marey.training.config import TrainConfig, override
from marey.training.objective_config import LabelConfig, ObjectiveConfig
from marey.training.stages import build_stages, stage_at

ALL = {"class": 1.0, "order": 0.1, "guided": 0.2, "label": 0.5}


def test_without_a_start_all_terms_count_from_the_first_step_on() -> None:
    stages = build_stages(ObjectiveConfig(weights=ALL))
    assert [(stage.start, stage.terms, stage.trains) for stage in stages] == [
        (0.0, frozenset(ALL), None)
    ]


def test_a_term_begins_after_its_share_of_the_steps() -> None:
    stages = build_stages(
        ObjectiveConfig(weights=ALL, start={"order": 0.8, "guided": 0.8, "label": 0.25})
    )
    terms = [stage_at(stages, step, 20).terms for step in range(20)]
    assert terms[:5] == [frozenset({"class"})] * 5
    assert terms[5:16] == [frozenset({"class", "label"})] * 11
    assert terms[16:] == [frozenset(ALL)] * 4


def test_a_term_of_weight_zero_never_counts() -> None:
    assert build_stages(ObjectiveConfig(weights={"class": 1.0, "order": 0.0}))[0].terms == {"class"}


def test_the_papers_stages_follow_each_other() -> None:
    config = ObjectiveConfig(
        weights={"class": 1.0, "label": 1.0}, label=LabelConfig(stage_shares=(0.5, 0.25, 0.25))
    )
    stages = build_stages(config)
    assert [stage_at(stages, step, 8).start for step in range(8)] == [0.0] * 4 + [0.5] * 2 + [
        0.75
    ] * 2
    assert [set(stage.terms) for stage in stages] == [{"class"}, {"label"}, {"class"}]
    names = ("blocks.0.attn.weight", "semantic_mlp.0.weight", "class_mlp.0.weight")
    assert [
        [stage.trains is not None and stage.trains(name) for name in names] for stage in stages
    ] == [[True, False, True], [False, True, False], [False, False, True]]


def test_a_start_within_the_papers_stages_divides_them() -> None:
    config = ObjectiveConfig(
        weights=ALL, start={"order": 0.3}, label=LabelConfig(stage_shares=(0.5, 0.25, 0.25))
    )
    assert [(stage.start, set(stage.terms)) for stage in build_stages(config)] == [
        (0.0, {"class", "guided"}),
        (0.3, {"class", "guided", "order"}),
        (0.5, {"label"}),
        (0.75, {"class"}),
    ]


def test_the_start_of_a_term_without_weight_is_a_mistake() -> None:
    with pytest.raises(
        UserError, match="objective.start names the term 'order', which has no weight"
    ):
        override(TrainConfig(), ["objective.start.order=0.5"])
