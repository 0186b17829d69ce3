"""Trust fitted from out-of-fold answers: what it finds, what it must not find, what is damaged."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from marey.errors import UserError
from marey.metrics.selective import auroc
from marey.metrics.trust import (
    DAMAGED,
    PARTS,
    SCORES,
    UNLIKE,
    UNTAUGHT,
    describe_trust,
    fit_trust,
    group_folds,
    joint_thresholds,
    judge,
    near_measures,
    raw_scores,
    ridge_head,
    set_of,
    spread,
    trust_damage,
)

K, D = 4, 12


def videos(num_groups: int, seed: int = 0, spread: float = 0.5) -> tuple[Tensor, Tensor, list[str]]:
    """Return embeddings (N, D), labels (N,) and groups: every group shows each class twice."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(K).repeat(2 * num_groups)
    groups = [f"group {row // (2 * K)}" for row in range(len(labels))]
    centres = 3 * torch.eye(K, D)
    noise = spread * torch.randn(len(labels), D, generator=generator)
    return centres[labels] + noise, labels, groups


def out_of_fold(embedding: Tensor, labels: Tensor, groups: list[str], scale: float = 1) -> Tensor:
    fold = group_folds(groups, seed=3)
    logits = torch.zeros(len(labels), K, dtype=torch.double)
    for number in fold.unique().tolist():
        train = fold != number
        logits[~train] = ridge_head(embedding[train], labels[train])(embedding[~train])
    return scale * logits


@pytest.fixture(scope="module")
def fitted() -> tuple[dict, dict]:
    embedding, labels, groups = videos(12)
    return fit_trust(out_of_fold(embedding, labels, groups), embedding, labels, groups)


def test_known_videos_pass_and_others_are_named_by_reason(fitted) -> None:
    calibration, tensors = fitted
    embedding, labels, _ = videos(12)
    head = ridge_head(embedding, labels)
    new, _, _ = videos(40, seed=1)
    judged = [judge(head(row[None]), row[None], calibration, tensors) for row in new]
    alarms = sum(found["unknown"] for found in judged) / len(judged)
    assert alarms <= 0.12  # 5 % in the mean over fits; this one rests on 96 videos

    far = 40 * torch.ones(1, D)
    assert judge(head(far), far, calibration, tensors)["reason"] == UNLIKE
    untaught = 3 * torch.eye(D)[8:9]
    assert judge(head(untaught), untaught, calibration, tensors)["reason"] in (UNTAUGHT, UNLIKE)
    one = torch.eye(K, D)[:1] * 3
    assert judge(head(one), one, calibration, tensors)["reason"] is None


def test_a_hidden_class_is_found_where_there_is_signal() -> None:
    embedding, labels, groups = videos(12)
    measures = near_measures(embedding, labels, group_folds(groups))
    assert measures is not None
    assert set(measures) == set(SCORES)
    assert measures["knn"]["auroc"] > 0.9


def test_without_signal_no_score_finds_a_hidden_class() -> None:
    embedding, labels, groups = videos(30)
    noise = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(5))
    measures = near_measures(noise, labels, group_folds(groups))
    assert measures is not None
    assert all(abs(values["auroc"] - 0.5) < 0.1 for values in measures.values())


def test_two_classes_have_no_near_case() -> None:
    assert near_measures(torch.randn(10, 3), torch.arange(10) % 2, torch.arange(10) % 5) is None


def test_the_temperature_is_kept_only_where_it_helps() -> None:
    embedding, labels, groups = videos(12, spread=1.5)
    logits = out_of_fold(embedding, labels, groups)
    sharp, _ = fit_trust(8 * logits, embedding, labels, groups)
    assert sharp["temperature"] > 2
    assert sharp["trust"]["calibration"]["nll"] < sharp["trust"]["calibration"]["nll_before"]
    honest = logits / sharp["temperature"] * 8
    again, _ = fit_trust(honest, embedding, labels, groups)
    measured = again["trust"]["calibration"]
    if "temperature" not in again:
        assert measured["ece"] == measured["ece_before"]
    else:
        assert measured["ece"] < measured["ece_before"]


def test_confidence_without_knowledge_is_not_called_calibrated() -> None:
    embedding, labels, groups = videos(12)
    generator = torch.Generator().manual_seed(0)
    logits = 10 * torch.randn(len(labels), K, generator=generator)
    calibration, _ = fit_trust(logits, embedding, labels, groups)
    assert calibration["temperature"] > 2  # as flat as it may get


def test_too_few_videos_or_groups_are_said() -> None:
    embedding, labels, groups = videos(4)
    calibration, tensors = fit_trust(torch.randn(32, K), embedding, labels, groups)
    assert calibration["calibrated"] is False
    assert calibration["trust"]["reason"].startswith("not calibrated: 32 videos")
    assert "temperature" not in calibration
    assert tensors == {}
    embedding, labels, _ = videos(12)
    calibration, _ = fit_trust(torch.randn(96, K), embedding, labels, ["a", "b"] * 48)
    assert calibration["trust"]["reason"].startswith("not calibrated: 2 groups")


def test_other_footage_chooses_the_far_score(fitted) -> None:
    embedding, labels, groups = videos(12)
    logits = out_of_fold(embedding, labels, groups)
    other = 5 + torch.randn(30, D, generator=torch.Generator().manual_seed(2))
    far = (ridge_head(embedding, labels)(other), other)
    calibration, tensors = fit_trust(logits, embedding, labels, groups, far=far)
    unknown = calibration["trust"]["unknown"]
    assert unknown["far"][unknown["far_score"]]["auroc"] > 0.95
    assert unknown["false_alarm_rate"] <= 0.05
    assert (
        auroc(raw_scores(logits, embedding, tensors)["knn"], raw_scores(*far, tensors)["knn"]) > 0.9
    )


def test_sets_are_fitted_and_hold_the_first_answer(fitted) -> None:
    calibration, _ = fitted
    inside = set_of(torch.tensor([0.1, 0.6, 0.2, 0.1]), calibration, 0.9)
    assert inside is not None
    assert bool(inside[1])
    assert set_of(torch.tensor([0.5, 0.5]), calibration, 0.5) is None
    # RAPS: each rank after the first costs the penalty, so the same threshold holds fewer classes.
    sizes = []
    for penalty in (0.0, 0.3):
        stored = {"trust": {"set": {"thresholds": {"0.9": 0.9}, "penalty": penalty}}}
        sizes.append(int(set_of(torch.tensor([0.1, 0.6, 0.2, 0.1]), stored, 0.9).sum()))
    assert sizes == [3, 1]
    assert set_of(torch.tensor([0.5, 0.5]), None, 0.9) is None


def test_the_calibration_is_json(fitted) -> None:
    calibration, tensors = fitted
    assert json.loads(json.dumps(calibration)) == calibration
    assert set(tensors) == set(PARTS)
    assert "false alarms" in describe_trust(calibration)


def test_nan_logits_are_an_error() -> None:
    embedding, labels, groups = videos(12)
    logits = out_of_fold(embedding, labels, groups)
    logits[3, 1] = float("nan")
    with pytest.raises(UserError, match="NaN or infinite logits"):
        fit_trust(logits, embedding, labels, groups)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_or_damaged_tensor_is_said(fitted, part: str) -> None:
    calibration, tensors = fitted
    assert trust_damage(calibration, tensors) is None
    assert trust_damage({"temperature": 1.0}, {}) is None
    missing = {name: value for name, value in tensors.items() if name != part}
    assert "damaged" in str(trust_damage(calibration, missing))
    broken = {**tensors, part: tensors[part] * float("nan")}
    assert "damaged" in str(trust_damage(calibration, broken))


def test_damaged_json_is_said(fitted) -> None:
    calibration, tensors = fitted
    for trust in (None, 3, {}, {"num_videos": 96, "reason": None}):
        if trust is not None:
            assert "damaged" in str(trust_damage({"trust": trust}, tensors))
    unknown = {**calibration["trust"]["unknown"], "near_score": "nothing"}
    stored = {**calibration["trust"], "unknown": unknown}
    assert "damaged" in str(trust_damage({"trust": stored}, tensors))


def test_an_embedding_of_another_size_is_an_error(fitted) -> None:
    calibration, tensors = fitted
    with pytest.raises(UserError, match="has 3 numbers but trust was fitted on 12"):
        judge(torch.zeros(1, K), torch.zeros(1, 3), calibration, tensors)


def test_joint_thresholds_let_at_most_five_percent_through_together() -> None:
    scores = torch.rand(400, 3, generator=torch.Generator().manual_seed(0))
    limits, rate = joint_thresholds(scores)
    above = (scores > torch.tensor(limits)).any(1)
    assert rate == pytest.approx(float(above.double().mean()))
    assert 0.03 < rate <= 0.05
    already = scores[:, 0] > 0.97
    limits_with, rate_with = joint_thresholds(scores[:, 1:], already)
    assert rate_with <= 0.05
    assert limits_with[0] > joint_thresholds(scores[:, 1:])[0][0]


def test_thresholds_that_are_a_bound_hold_for_new_videos() -> None:
    """60 videos of 10 groups, three scores, intraclass correlation 0.2: the conformal rank of one
    score, used for all three, lets 6 % through."""
    generator = torch.Generator().manual_seed(0)

    def draw(groups: int) -> torch.Tensor:
        def normal(count: int) -> torch.Tensor:
            shared = torch.randn(count, 1, generator=generator)
            own = torch.randn(count, 3, generator=generator)
            return 0.5**0.5 * (shared + own)

        return 0.2**0.5 * normal(groups).repeat_interleave(6, 0) + 0.8**0.5 * normal(6 * groups)

    def rate(at_most: bool) -> float:
        rates = []
        for _ in range(500):
            limits, _ = joint_thresholds(draw(10), at_most=at_most)
            rates.append(float((draw(20) > torch.tensor(limits)).any(1).double().mean()))
        return sum(rates) / len(rates)

    assert 0.035 < rate(True) <= 0.05
    assert 0.053 < rate(False) < 0.07


def test_a_damaged_video_of_a_known_action_is_warned_of(fitted) -> None:
    calibration, tensors = fitted
    embedding, labels, _ = videos(12)
    head = ridge_head(embedding, labels)
    new, _, _ = videos(40, seed=1)
    warned = [judge(head(row[None]), row[None], calibration, tensors)["warning"] for row in new]
    assert sum(entry is not None for entry in warned) / len(warned) <= 0.12
    noisy = new[:20] + 3 * torch.randn(20, D, generator=torch.Generator().manual_seed(5))
    found = [judge(head(row[None]), row[None], calibration, tensors)["warning"] for row in noisy]
    assert found.count(DAMAGED) >= 15


def test_sets_are_measured_with_thresholds_of_other_folds(fitted) -> None:
    measured = fitted[0]["trust"]["set"]["measured"]
    assert 0.8 <= measured["coverage"] <= 1
    assert len(measured["per_class"]) == K


def test_blocks_of_any_width_weigh_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(200, 100, generator=generator).double()
    scaled = values / spread(values, [90, 10])
    weights = [float((part**2).sum(1).mean()) for part in (scaled[:, :90], scaled[:, 90:])]
    assert weights[0] == pytest.approx(weights[1], rel=0.02)
    assert torch.equal(spread(values, [100]), spread(values))


def test_of_equal_far_scores_the_distance_from_the_training_space_is_taken() -> None:
    embedding, labels, groups = videos(12)
    wide = torch.cat([embedding, 0.1 * torch.randn(len(labels), 200)], dim=1)
    logits = out_of_fold(wide, labels, groups)
    far = (torch.zeros(20, K).double(), 40 * torch.ones(20, 212))
    calibration, _ = fit_trust(logits, wide, labels, groups, far=far)
    unknown = calibration["trust"]["unknown"]
    assert unknown["far"]["mahalanobis"]["auroc"] == unknown["far"]["residual"]["auroc"] == 1
    assert unknown["far_score"] == "residual"
