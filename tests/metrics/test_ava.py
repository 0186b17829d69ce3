from __future__ import annotations

import json
import math

import numpy as np
import pytest

from marey.datasets.ava_format import rows_from_arrays
from marey.errors import UserError
from marey.metrics.ava import evaluate, evaluate_csv
from marey.metrics.ava_breakdown import breakdown
from marey.metrics.ava_evaluator import AvaEvaluator
from marey.metrics.average_precision import average_precision, match_detections


@pytest.fixture(scope="module")
def golden(shared_dir):
    return shared_dir / "reference" / "golden"


CASES = [
    ("activitynet_official@0.50", "ava_gt.csv", "ava_det.csv", {}),
    ("activitynet_official@0.75", "ava_gt.csv", "ava_det.csv", {"iou_threshold": 0.75}),
    ("activitynet_official@0.50_gt_minus_excluded", "ava_gt_noexcl.csv", "ava_det.csv", {}),
    (
        "activitynet_official@0.50_gt_minus_excluded",
        "ava_gt.csv",
        "ava_det.csv",
        {"excluded_csv": "ava_excluded.csv"},
    ),
    ("slowfast_no_exclusions@0.50", "ava_gt.csv", "ava_det.csv", {"behaviour": "slowfast"}),
    (
        "slowfast_with_exclusions@0.50",
        "ava_gt.csv",
        "ava_det.csv",
        {"behaviour": "slowfast", "excluded_csv": "ava_excluded.csv"},
    ),
    (
        "slowfast_no_exclusions_sorted@0.50",
        "ava_gt.csv",
        "ava_det_sorted.csv",
        {"behaviour": "slowfast"},
    ),
]


@pytest.mark.parametrize(("case", "truth", "detections", "options"), CASES)
def test_every_published_number_is_reproduced(golden, case, truth, detections, options):
    if "excluded_csv" in options:
        options = {**options, "excluded_csv": golden / options["excluded_csv"]}
    expected = json.loads((golden / "ava_expected.json").read_text())[case]
    scores = evaluate_csv(golden / truth, golden / detections, **options)
    for key, value in expected.items():
        if "/mAP" in key:
            assert scores["mAP"] == pytest.approx(value, abs=1e-9)
        elif value is None:
            assert math.isnan(scores["per_class"][key.split("IOU/", 1)[1]])
        else:
            assert scores["per_class"][key.split("IOU/", 1)[1]] == pytest.approx(value, abs=1e-9)


def test_a_label_map_file_equals_the_built_in_classes(golden):
    files = golden / "ava_gt.csv", golden / "ava_det.csv"
    assert (
        evaluate_csv(*files, label_map=golden / "ava_labelmap_v2.1_60classes.pbtxt")["mAP"]
        == evaluate_csv(*files)["mAP"]
    )


def test_average_precision_of_the_worked_example():
    assert average_precision(
        np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0], bool), 3
    ) == pytest.approx(5 / 9)
    assert average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0
    assert math.isnan(average_precision(np.array([0.5]), np.array([True]), 0))


def test_a_taken_box_makes_a_false_alarm_even_when_another_box_is_free():
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 0.9]])  # both detections overlap the first box most
    hit = match_detections(
        truth, np.zeros(2, int), np.array([[0, 0, 1, 0.99], [0, 0, 1, 0.98]]), np.zeros(2, int), 0.5
    )
    assert hit.tolist() == [True, False]


def brute_force_official(truth, detections, num_classes, threshold):
    """The official loops: per image keep the 50 best, per class match down the scores, then average
    precision."""
    scores = {c: [] for c in range(1, num_classes + 1)}
    hits = {c: [] for c in range(1, num_classes + 1)}
    for image in dict.fromkeys(detections.image.tolist()):
        rows = sorted(
            np.flatnonzero(detections.image == image).tolist(), key=lambda i: -detections.last[i]
        )[:50]
        for c in scores:
            boxes = [
                truth.boxes_xyxy_norm[i]
                for i in range(len(truth))
                if truth.image[i] == image and truth.class_ids[i] == c
            ]
            taken = [False] * len(boxes)
            for i in rows:
                if detections.class_ids[i] != c:
                    continue
                overlaps = [iou(detections.boxes_xyxy_norm[i], box) for box in boxes]
                best = max(range(len(boxes)), key=overlaps.__getitem__) if boxes else None
                is_hit = best is not None and overlaps[best] >= threshold and not taken[best]
                if is_hit:
                    taken[best] = True
                scores[c].append(detections.last[i])
                hits[c].append(is_hit)
    values = [
        average_precision(
            np.array(scores[c]), np.array(hits[c], bool), int((truth.class_ids == c).sum())
        )
        for c in scores
    ]
    return np.nanmean(values)


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def random_rows(generator, count, num_images, num_classes):
    low = generator.uniform(0, 0.5, (count, 2))
    boxes = np.hstack([low, low + generator.uniform(0.2, 0.5, (count, 2))])
    return rows_from_arrays(
        [(f"v{i}", 902.0) for i in range(num_images)],
        generator.integers(0, num_images, count),
        boxes,
        generator.integers(1, num_classes + 1, count),
        generator.permutation(count) / count,
    )


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75])
def test_the_vectorised_matching_equals_the_loops(threshold):
    generator = np.random.default_rng(3)
    truth, detections = (
        random_rows(generator, 60, 6, 3),
        random_rows(generator, 600, 6, 3),
    )  # about 100 an image
    ours = evaluate(truth, detections, {1: "a", 2: "b", 3: "c"}, iou_threshold=threshold)["mAP"]
    assert ours == pytest.approx(brute_force_official(truth, detections, 3, threshold), abs=1e-12)


def one_image(boxes, classes, last=None):
    return rows_from_arrays(
        [("v", 902.0)], np.zeros(len(boxes), int), np.array(boxes), np.array(classes), last
    )


def test_only_fifty_detections_of_an_image_count_officially():
    truth = one_image([[0, 0, 0.5, 0.5]], [1])
    detections = one_image(
        [[0.6, 0.6, 0.9, 0.9]] * 50 + [[0, 0, 0.5, 0.5]],
        [2] * 50 + [1],
        np.r_[np.linspace(0.9, 0.5, 50), 0.1],
    )
    assert evaluate(truth, detections, {1: "a", 2: "b"})["mAP"] == 0
    assert evaluate(truth, detections, {1: "a", 2: "b"}, behaviour="slowfast")["mAP"] == 1
    assert (
        evaluate(truth, detections, {1: "a"})["mAP"] == 1
    )  # other classes are dropped before the limit


def test_merged_classes_count_a_person_once_with_the_best_score():
    truth = one_image([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]], [1, 2])
    detections = one_image(
        [[0, 0, 0.5, 0.5]] * 2 + [[0.5, 0.5, 1, 1]], [1, 2, 1], np.array([0.2, 0.9, 0.5])
    )
    scores = evaluate(truth, detections, {1: "a", 2: "b"}, merge_classes=True)
    assert (scores["mAP"], scores["num_truth"], scores["num_detections"]) == (1, 1, 2)


def test_class_without_truth_is_skipped_and_class_without_detection_counts_as_zero():
    truth = one_image([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]], [1, 2])
    scores = evaluate(truth, one_image([[0, 0, 0.5, 0.5]], [1]), {1: "a", 2: "b", 3: "c"})
    assert scores["mAP"] == 0.5
    assert math.isnan(scores["per_class"]["c"])


def test_no_detections_and_no_truth_stay_finite_or_say_nan():
    nothing = rows_from_arrays([("v", 902.0)], np.zeros(0), np.zeros((0, 4)), np.zeros(0))
    assert evaluate(one_image([[0, 0, 1, 1]], [1]), nothing, {1: "a"})["mAP"] == 0
    assert math.isnan(evaluate(nothing, nothing, {1: "a"})["mAP"])


def test_an_inverted_truth_box_is_named_with_file_and_line(tmp_path):
    truth, detections = tmp_path / "truth.csv", tmp_path / "detections.csv"
    truth.write_text("v,0902,.1,.1,.2,.2,1,0\nv,0902,.5,.1,.2,.2,1,0\n")
    detections.write_text("v,0902,.1,.1,.2,.2,1,.5\n")
    with pytest.raises(
        UserError, match=r"truth.csv:2: ground truth box \(0.5, 0.1, 0.2, 0.2\) has no area"
    ):
        evaluate_csv(truth, detections)


def test_unknown_behaviour_and_threshold_are_refused():
    rows = one_image([[0, 0, 1, 1]], [1])
    with pytest.raises(
        UserError, match="unknown AVA evaluator 'slowfats'; did you mean 'slowfast'"
    ):
        evaluate(rows, rows, {1: "a"}, behaviour="slowfats")
    with pytest.raises(UserError, match="iou_threshold must be in"):
        evaluate(rows, rows, {1: "a"}, iou_threshold=0)


def test_breakdown_has_equal_bins_and_sorts_classes_by_training_rows():
    generator = np.random.default_rng(0)
    truth = random_rows(generator, 80, 20, 2)
    parts = breakdown(truth, truth, {1: "a", 2: "b"}, training_counts={1: 50, 2: 7})
    assert [row["label"] for row in parts["class"]] == ["b", "a"]
    assert [row["boxes"] for row in parts["size"]] == [20, 20, 20, 20]
    assert sum(row["images"] for row in parts["persons"]) == len(set(truth.image.tolist()))


def test_the_training_evaluator_agrees_with_rows():
    evaluator = AvaEvaluator(["walk", "run"])
    box = np.array([[0.1, 0.1, 0.5, 0.9]])
    evaluator.add_image(box, np.array([[1, 0]]), box, np.array([[0.9, 0.2]]))
    evaluator.add_image(np.zeros((0, 4)), np.zeros((0, 2)), np.zeros((0, 4)), np.zeros((0, 2)))
    scores = evaluator.compute()
    assert scores["map"] == 1
    assert scores["localisation_50"] == scores["localisation_75"] == 1


def test_person_scores_rank_boxes_instead_of_the_best_class():
    evaluator = AvaEvaluator(["walk", "run"])
    truth, elsewhere = [0.1, 0.1, 0.5, 0.9], [0.6, 0.1, 0.9, 0.9]
    evaluator.add_image(
        np.array([truth]),
        np.array([[1, 0]]),
        np.array([truth, elsewhere]),
        np.array([[0.3, 0.3], [0.1, 0.4]]),
        np.array([0.6, 0.5]),
    )
    scores = evaluator.compute()
    assert scores["localisation_50"] == pytest.approx(0.5)  # the false box has the surest action
    assert scores["persons_50"] == scores["persons_75"] == 1


def test_a_person_with_one_box_per_class_is_one_detection_of_localisation():
    truth = np.array([[0.1, 0.1, 0.5, 0.9]])
    per_class = np.array([[[0.1, 0.1, 0.5, 0.9], [0.1, 0.1, 0.4, 0.9], [0.12, 0.1, 0.5, 0.8]]])
    evaluator = AvaEvaluator(["walk", "run", "sit"])
    for _ in range(3):
        evaluator.add_image(truth, np.array([[1, 0, 0]]), per_class, np.array([[0.9, 0.8, 0.7]]))
    scores = evaluator.compute()
    assert scores["localisation_50"] == scores["localisation_75"] == 1
