"""Trust at the end of training: distances to training clips, everything else from validation."""

from __future__ import annotations

import torch
from torch import nn

from marey.metrics.trust import judge
from marey.training.calibration import calibration_keys, embed, fit_run

CENTRES = torch.eye(3, 8) * 2


def clusters(count: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CENTRES)
    embedding = CENTRES[labels] + 0.3 * torch.randn(count, 8, generator=generator)
    return {
        "embedding": embedding,
        "logits": 3 * embedding @ CENTRES.T,
        "label": labels,
        "sample": torch.arange(count),
    }


def test_strangers_are_unknown_and_new_samples_of_known_classes_are_not() -> None:
    calibration, tensors = fit_run(clusters(300, 0), clusters(100, 1))
    known, strange = clusters(200, 2), torch.eye(8)[5:].repeat(20, 1) * 2
    alarms = [
        judge(logits[None], embedding[None], calibration, tensors)["unknown"]
        for logits, embedding in zip(known["logits"], known["embedding"], strict=True)
    ]
    assert sum(alarms) / 200 < 0.12
    found = [
        judge((3 * row @ CENTRES.T)[None], row[None], calibration, tensors)["unknown"]
        for row in strange
    ]
    assert sum(found) / len(found) > 0.9


def test_few_validation_videos_or_groups_fit_nothing() -> None:
    calibration, tensors = fit_run(clusters(300, 0), clusters(12, 1))
    assert calibration["trust"]["reason"].startswith("not calibrated: 12 videos")
    assert tensors == {}
    groups = ["one scene"] * 100
    calibration, _ = fit_run(clusters(300, 0), clusters(100, 1), groups)
    assert calibration["trust"]["reason"].startswith("not calibrated: 1 groups")


def test_what_decides_is_embedded_where_the_model_names_it() -> None:
    class Model(nn.Module):
        def forward(self, clip: torch.Tensor) -> dict[str, torch.Tensor]:
            rows = len(clip)
            return {
                "logits": torch.zeros(rows, 2),
                "embedding": torch.zeros(rows, 3),
                "deciding_embedding": torch.ones(rows, 5),
            }

    batch = {
        "clip": torch.zeros(2, 4, 3, 8, 8),
        "label": torch.tensor([0, 1]),
        "sample": torch.tensor([0, 1]),
    }
    found = embed(Model(), [batch, {"unreadable": []}], torch.device("cpu"))
    assert found["embedding"].tolist() == torch.ones(2, 5).tolist()


def test_at_most_2000_training_clips_are_drawn() -> None:
    assert len(calibration_keys(3000)) == 2000
    assert sorted(calibration_keys(3)) == [(0, 0), (0, 1), (0, 2)]
