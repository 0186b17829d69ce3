"""Calibration error, temperature and the OOD detector's pure functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from marey.errors import UserError
from marey.metrics.calibration import (
    brier_score,
    calibration_error,
    calibration_noise_floor,
    cosine_knn,
    expected_calibration_error,
    fit_temperature,
    ood_features,
    ood_score,
    reliability_curve,
)


def test_the_calibration_error_by_hand() -> None:
    probs = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    labels = torch.tensor([0, 0, 0, 1])  # bins: 1 against .9, .5 against .6
    assert expected_calibration_error(probs, labels, 10) == pytest.approx(
        0.5 * 0.1 + 0.5 * 0.1, abs=1e-6
    )


def test_honest_probabilities_have_no_calibration_error() -> None:
    assert expected_calibration_error(torch.tensor([[1.0, 0.0]]), torch.tensor([0])) == 0.0


def test_the_temperature_undoes_a_known_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature(3 * logits, labels) == pytest.approx(3.0, rel=0.1)


def test_the_temperature_is_where_the_loss_is_least() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(60, 4, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    best = fit_temperature(logits, labels, prior_deviation=None)
    losses = [F.cross_entropy(logits / (best * factor), labels) for factor in (0.9, 1.0, 1.1)]
    assert losses[1] <= min(losses[0], losses[2])


def test_a_handful_of_samples_moves_the_temperature_little() -> None:
    logits, labels = torch.tensor([[0.01, 0.0], [0.0, 0.01]]), torch.tensor([0, 1])
    assert fit_temperature(logits, labels, prior_deviation=None) == pytest.approx(0.0498, rel=0.01)
    assert fit_temperature(logits, labels) > 0.9


def test_no_samples_give_temperature_one() -> None:
    assert fit_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)) == 1.0


TENSORS = {
    "ood_bank": torch.eye(2),
    "ood_means": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
    "ood_whitening": torch.eye(2),
    "ood_mean": torch.zeros(2),
    "ood_neighbours": torch.tensor(1),
}
CALIBRATION = {
    "ood": {
        "centre": [0.0, 0.0, 0.0],
        "spread": [1.0, 2.0, 1.0],
        "weights": [1.0, 1.0, 0.0],
        "threshold": 1.0,
    }
}


def test_the_raw_ood_scores_worked_by_hand() -> None:
    raw = ood_features(
        torch.tensor([[2.0, 0.0], [-1.0, -1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]]), TENSORS
    )
    assert raw[0].tolist() == pytest.approx([0.0, 1.0, -0.6931472])
    assert raw[1].tolist() == pytest.approx([1 + 0.5**0.5, 5**0.5, -1.6931472])


def test_the_distance_to_the_nearest_rows_knows_no_length() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    new = torch.tensor([[3.0, 0.0], [0.0, 0.5]])
    assert cosine_knn(new, bank, 1).tolist() == pytest.approx([0.0, 0.0])
    assert cosine_knn(new, bank, 2).tolist() == pytest.approx([1.0, 1.0])
    assert cosine_knn(new, bank, 9).tolist() == pytest.approx([2.0, 1.0])  # the farthest of all


def test_the_score_is_the_weighted_mean_in_standard_deviations() -> None:
    score = ood_score(
        torch.tensor([[2.0, 0.0], [-1.0, -1.0]]), torch.zeros(2, 2), CALIBRATION, TENSORS
    )
    assert score.tolist() == pytest.approx([0.25, (1 + 0.5**0.5 + 5**0.5 / 2) / 2])


def test_a_checkpoint_without_detector_is_an_error() -> None:
    with pytest.raises(UserError, match=r"no OOD detector; train it with train\.calibrate=true"):
        ood_score(torch.zeros(1, 2), torch.zeros(1, 2), {"temperature": 1.0}, {})


def test_an_embedding_of_another_width_is_an_error() -> None:
    with pytest.raises(
        UserError, match="embedding has 3 numbers but the OOD detector was fitted on 2"
    ):
        ood_score(torch.zeros(1, 3), torch.zeros(1, 2), CALIBRATION, TENSORS)


def test_the_brier_score_by_hand() -> None:
    probs = torch.tensor([[0.8, 0.2], [0.4, 0.6]])
    assert brier_score(probs, torch.tensor([0, 0])) == pytest.approx((0.08 + 0.72) / 2)
    assert brier_score(torch.full((3, 4), 0.25), torch.tensor([0, 1, 2])) == pytest.approx(0.75)


def test_the_noise_floor_is_where_honest_answers_stay() -> None:
    generator = torch.Generator().manual_seed(3)
    confidence = 0.5 + 0.5 * torch.rand(60, generator=generator)
    floor = calibration_noise_floor(confidence)
    honest = [
        calibration_error(confidence, torch.rand(60, generator=generator) < confidence)
        for _ in range(300)
    ]
    below = sum(error <= floor for error in honest) / 300
    assert 0.9 <= below <= 0.99
    # Answers that are right half as often as they say lie above it.
    wrong = torch.rand(60, generator=generator) < confidence / 2
    assert calibration_error(confidence, wrong) > floor


def test_the_noise_floor_falls_with_the_number_of_videos() -> None:
    confidence = torch.linspace(0.5, 1, 50)
    assert calibration_noise_floor(confidence.repeat(16)) < calibration_noise_floor(confidence) / 2


def test_the_reliability_curve_by_hand() -> None:
    rows = reliability_curve(torch.tensor([0.95, 0.91, 0.3]), torch.tensor([True, False, True]))
    assert [row["videos"] for row in rows] == [1, 2]
    assert rows[1]["accuracy"] == 0.5
    assert rows[1]["confidence"] == pytest.approx(0.93)
    assert rows[1]["low"] < 0.1
    assert rows[1]["high"] > 0.9
