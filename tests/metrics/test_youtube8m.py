from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from marey.errors import UserError
from marey.metrics.youtube8m import (
    YouTube8MEvaluator,
    average_precision,
    best_and_worst_classes,
    paired_gap_difference,
    top_k_classes,
    youtube8m_metrics,
)

TOY_SCORES = np.array([[0.9, 0.1, 0.3, 0.05], [0.2, 0.8, 0.4, 0.6], [0.7, 0.25, 0.15, 0.35]])
TOY_LABELS = np.array([[1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0]])


def naive_average_precision(scores, labels, total):
    ranked = [
        label for _, label in sorted(zip(scores, labels, strict=True), key=lambda pair: -pair[0])
    ]
    return (
        sum(sum(ranked[: i + 1]) / (i + 1) for i, label in enumerate(ranked) if label) / total
        if total
        else 0.0
    )


def test_the_worked_example_with_all_four_classes_kept():
    found = youtube8m_metrics(TOY_SCORES, TOY_LABELS, top_k=4)
    assert (found["gap"], found["map"], found["perr"]) == pytest.approx(
        (0.65, 0.875, 0.5), abs=1e-12
    )
    assert found["hit_at_1"] == pytest.approx(1 / 3)


def test_the_worked_example_with_two_classes_kept():
    found = youtube8m_metrics(TOY_SCORES, TOY_LABELS, top_k=2)
    assert (found["gap"], found["map"]) == pytest.approx((0.375, 0.5), abs=1e-12)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 0.8055555555555556), ({"top_n": 2}, 0.5), ({"num_positives": 5}, 0.48333333333333334)],
)
def test_average_precision_worked_by_hand(options, expected):
    assert average_precision([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 1], **options) == pytest.approx(
        expected, abs=1e-12
    )


def test_average_precision_without_positives_is_zero():
    assert average_precision([0.9, 0.8], [0, 0]) == 0.0


def test_tied_scores_give_the_mean_over_all_their_orders():
    scores, labels = [0.9, 0.5, 0.5, 0.5, 0.5, 0.1], [0, 1, 0, 1, 0, 1]
    orders = [
        naive_average_precision(range(6, 0, -1), [labels[0], *order, labels[5]], 3)
        for order in itertools.permutations(labels[1:5])
    ]
    assert average_precision(scores, labels) == pytest.approx(np.mean(orders), abs=1e-12)


def test_metrics_equal_a_naive_count_on_random_scores():
    generator = np.random.default_rng(3)
    scores, labels = generator.random((30, 12)), (generator.random((30, 12)) < 0.2).astype(int)
    found = youtube8m_metrics(scores, labels, top_k=5)
    kept = [(scores[i, k], labels[i, k]) for i in range(30) for k in np.argsort(-scores[i])[:5]]
    assert found["gap"] == pytest.approx(
        naive_average_precision(*zip(*kept, strict=True), labels.sum()), abs=1e-12
    )
    per_class = []
    for k in range(12):
        rows = [i for i in range(30) if k in np.argsort(-scores[i])[:5]]
        if labels[:, k].any():
            per_class.append(
                naive_average_precision(scores[rows, k], labels[rows, k], labels[:, k].sum())
            )
    assert found["map"] == pytest.approx(np.mean(per_class), abs=1e-12)
    precision = [
        labels[i][np.argsort(-scores[i])[: labels[i].sum()]].mean() if labels[i].any() else 0
        for i in range(30)
    ]
    assert found["perr"] == pytest.approx(np.mean(precision), abs=1e-12)


def test_a_cut_through_a_tie_keeps_the_lower_class():
    assert top_k_classes(np.array([[0.5, 0.9, 0.5, 0.5], [0.1, 0.2, 0.3, 0.3]]), 2).tolist() == [
        [1, 0],
        [2, 3],
    ]


def test_batches_ranks_and_one_array_give_the_same_numbers():
    generator = np.random.default_rng(0)
    scores, labels = generator.random((50, 30)).astype(np.float32), generator.random((50, 30)) < 0.1
    whole = youtube8m_metrics(scores, labels)
    ranks = [YouTube8MEvaluator(30), YouTube8MEvaluator(30)]
    for start in range(0, 50, 7):
        ranks[(start // 7) % 2].update(scores[start : start + 7], labels[start : start + 7])
    assert ranks[0].merge([ranks[1].state()]).compute() == pytest.approx(whole, abs=1e-12)


def test_scores_keep_the_callers_type():
    scores = np.array([[0.5, 0.5001]])
    assert youtube8m_metrics(scores, [[0, 1]])["gap"] == 1.0
    assert (
        youtube8m_metrics(scores.astype(np.float16), [[0, 1]])["gap"] == 0.75
    )  # a tie in half precision


def test_five_partitions_have_a_mean_and_a_spread():
    generator = np.random.default_rng(0)
    evaluator = YouTube8MEvaluator(6)
    evaluator.update(scores := generator.random((25, 6)), labels := generator.random((25, 6)) < 0.3)
    parts = [
        youtube8m_metrics(scores[i : i + 5], labels[i : i + 5])["gap"] for i in range(0, 25, 5)
    ]
    found = evaluator.partitions(5)["gap"]
    assert found["mean"] == pytest.approx(np.mean(parts))
    assert found["std"] == pytest.approx(np.std(parts, ddof=1))


def test_best_and_worst_classes_are_ranked_by_gain():
    found = best_and_worst_classes(
        {0: 0.9, 1: 0.2, 2: 0.5}, {0: 0.5, 1: 0.3, 2: 0.5}, names=["a", "b", "c"], count=1
    )
    assert [row["class"] for row in (*found["best"], *found["worst"])] == ["a", "b"]


def test_a_nan_score_is_refused_with_its_row_and_class():
    with pytest.raises(UserError, match="video 1, class 0 is nan"):
        youtube8m_metrics([[0.1, 0.2], [np.nan, 0.3]], [[0, 1], [1, 0]])


def test_an_empty_evaluator_is_an_error():
    with pytest.raises(UserError, match="no video was evaluated"):
        YouTube8MEvaluator(3).compute()


@pytest.mark.parametrize(
    "case",
    [
        "A_distinct",
        "A_batched4",
        "A_topk5",
        "A_topn10",
        "B_zero_label_rows",
        "C_8classes",
        "D_zero_scores",
        "E_ties",
    ],
)
def test_the_official_evaluators_numbers(case, shared_dir):
    folder = shared_dir / "reference" / "golden"
    expected = json.loads((folder / "yt8m_expected.json").read_text())[case]
    arrays = np.load(folder / "yt8m_inputs.npz")
    scores, labels = arrays[f"{case}__pred"], arrays[f"{case}__label"]
    options = expected["options"]
    evaluator = YouTube8MEvaluator(scores.shape[1], options["top_k"], options["top_n"])
    for part in np.array_split(np.arange(len(scores)), options["batches"]):
        evaluator.update(scores[part], labels[part])
    found = evaluator.compute()
    # With ties the official answer is one draw of a shuffle and of an unordered cut at 20; ours is
    # a mean over orders.
    tolerance = {"D_zero_scores": 5e-3, "E_ties": 0.015}.get(case, 1e-9)
    for ours, theirs in (
        ("gap", "gap"),
        ("map", "map"),
        ("perr", "perr"),
        ("hit_at_1", "hit_at_one"),
    ):
        assert found[ours] == pytest.approx(expected[theirs], abs=tolerance), ours
    if tolerance < 1e-6:
        assert list(evaluator.per_class_average_precision().values()) == pytest.approx(
            expected["aps"], abs=1e-9
        )


def test_videos_without_any_label_are_refused():
    with pytest.raises(UserError, match="none of the 3 videos has a label"):
        youtube8m_metrics(TOY_SCORES, np.zeros_like(TOY_LABELS))
    some = np.array([[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0]])
    assert youtube8m_metrics(TOY_SCORES, some)["num_videos"] == 3


def test_numbers_may_choose_videos_several_times():
    evaluator = YouTube8MEvaluator(4)
    evaluator.update(TOY_SCORES, TOY_LABELS)
    twice = YouTube8MEvaluator(4)
    rows = np.array([2, 0, 2])
    twice.update(TOY_SCORES[rows], TOY_LABELS[rows])
    assert evaluator.compute(rows) == twice.compute()


def paired(strength, seeds=2, videos=60):
    """Evaluators of two kinds of models; `strength` is how much more the first ones know."""
    generator = np.random.default_rng(0)
    labels = (generator.random((videos, 6)) < 0.3).astype(int)
    labels[:, 0] |= labels.sum(1) == 0
    found = []
    for more in (strength, 0.0):
        models = []
        for _ in range(seeds):
            evaluator = YouTube8MEvaluator(6)
            evaluator.update(generator.random(labels.shape) + (0.3 + more) * labels, labels)
            models.append(evaluator)
        found.append(models)
    return found


def test_models_of_equal_strength_do_not_differ():
    found = paired_gap_difference(*paired(0.0), repeats=200)
    assert found["low"] < 0 < found["high"]
    assert found["p_value"] > 0.05


def test_a_stronger_model_is_told_apart():
    found = paired_gap_difference(*paired(0.5), repeats=200)
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert found["p_value"] < 0.02
    same = paired(0.5)[0]
    nothing = paired_gap_difference(same, same, repeats=50)
    assert (nothing["difference"], nothing["p_value"]) == (0.0, 1.0)


def test_paired_models_must_have_the_same_videos():
    ours, _ = paired(0.0)
    with pytest.raises(UserError, match="must have answered the same videos"):
        paired_gap_difference(ours, paired(0.0, videos=50)[1])
