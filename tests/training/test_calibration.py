"""The OOD detector: what it learns, and its threshold."""

from __future__ import annotations

import json

import pytest
import torch

from marey.metrics.calibration import ood_score
from marey.metrics.selective import auroc
from marey.training.calibration import fit_detector, fit_trust, threshold_of


def clusters(count: int, seed: int, centres: torch.Tensor) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(centres)
    embedding = centres[labels] + 0.3 * torch.randn(count, centres.shape[1], generator=generator)
    return {"embedding": embedding, "logits": 3 * embedding @ centres.T, "label": labels}


CENTRES = torch.eye(3, 8) * 2


def test_strangers_score_higher_than_new_samples_of_known_classes() -> None:
    calibration, tensors = fit_trust(clusters(300, 0, CENTRES), clusters(100, 1, CENTRES))
    known, strange = clusters(200, 2, CENTRES), clusters(200, 3, torch.eye(8)[5:] * 2)
    strange["logits"] = 3 * strange["embedding"] @ CENTRES.T
    scores = [
        ood_score(part["embedding"], part["logits"], calibration, tensors)
        for part in (known, strange)
    ]
    assert auroc(*scores) > 0.99
    threshold = calibration["ood"]["threshold"]
    assert (scores[0] > threshold).double().mean() < 0.12
    assert (scores[1] > threshold).double().mean() > 0.9


def test_the_calibration_is_json_and_the_tensors_are_small() -> None:
    calibration, tensors = fit_trust(clusters(1000, 0, CENTRES), clusters(100, 1, CENTRES))
    assert json.loads(json.dumps(calibration)) == calibration
    assert tensors["ood_bank"].shape == (512, 8)
    assert calibration["ood"]["fitted_on"] == 100


def test_fewer_samples_than_dimensions_are_enough() -> None:
    tensors = fit_detector(torch.randn(6, 40), torch.tensor([0, 0, 0, 1, 1, 1]))
    assert all(torch.isfinite(value.float()).all() for value in tensors.values())


def test_the_threshold_by_hand() -> None:
    scores = torch.arange(1.0, 100.0)  # 99 scores: (99 + 1) 0.95 = the 95th
    assert threshold_of(scores, 0.05) == 95.0


def test_too_few_scores_put_the_threshold_above_all_of_them() -> None:
    assert threshold_of(torch.tensor([1.0, 2.0, 3.0]), 0.05) == pytest.approx(
        3 + 0.5 * (2 / 3) ** 0.5
    )
