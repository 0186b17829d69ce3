"""The page of `marey evaluate`."""

from __future__ import annotations

import torch

from marey.evaluation.classification import Predictions, report_of
from marey.evaluation.page import occurring, page


def test_the_page_shows_classes_that_occur_and_what_was_called_unknown() -> None:
    probs = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]])
    answers = Predictions(
        videos=["a.mp4", "b.mp4"],
        labels=[0, 1],
        groups=["a", "b"],
        class_names=["walk", "run", "jump"],
        logits=probs.clamp_min(1e-6).log(),
        probs=probs,
        ood=None,
        unreadable=[],
        seen=None,
    )
    report = {"model": "m", **report_of(answers)}
    plain = page(report, answers, root=None)
    assert "No video shows: jump." in plain
    assert "<th>jump</th>" not in plain
    assert "<td>jump</td>" not in plain
    assert "alled unknown" not in plain

    report["unknown"] = {"num_videos": 1, "text": "called unknown: 1 of 2 videos"}
    report["nobody"] = {"num_videos": 0, "text": "nobody was found in 0 of 2 videos"}
    said = page(report, answers, root=None)
    assert "<p>Called unknown: 1 of 2 videos.</p>" in said
    assert "obody was found" not in said


def test_a_class_that_is_only_answered_stays_in_the_confusion() -> None:
    confusion = {"classes": ["a", "b", "c"], "counts": [[1, 0, 2], [0, 0, 0], [0, 0, 0]]}
    assert occurring(confusion) == {"classes": ["a", "c"], "counts": [[1, 2], [0, 0]]}
