"""Trust measured on what a predictor says: numbers worked by hand, and what must not be counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from marey.corruptions import corruption
from marey.datasets.index import DatasetIndex, Sample
from marey.errors import UserError, VideoError
from marey.evaluation.trust_measure import (
    OWN_FAR,
    OWN_NEAR,
    judge_videos,
    measure_trust,
    split_known,
    trust_report,
)
from marey.evaluation.trust_page import card, page, summary
from marey.inference.prediction import Prediction
from marey.video.decode import open_video

CLASSES = ("push", "kick")


@dataclass
class Said:
    """What a predictor says of one video."""

    push: float
    near: float = 0.0
    far: float = 0.0
    warning: str | None = None


@dataclass
class FakePredictor:
    """Says what is written down for a video's name."""

    said: dict[str, Said]
    class_names: tuple[str, ...] = CLASSES
    checkpoint: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(tensors={}))

    def __call__(self, video: str | Path) -> Prediction:
        if Path(video).stem == "broken":
            raise VideoError(f"{video}: not a video")
        said = self.said[Path(video).stem]
        unknown = said.near > 1 or said.far > 1
        return Prediction(
            video=str(video),
            model="fake",
            class_names=CLASSES,
            probabilities=torch.tensor([said.push, 1 - said.push]),
            frame_seconds=(0.0,),
            trust={
                "calibrated": not unknown,
                "unknown": unknown,
                "near": said.near,
                "far": said.far,
                "warning": said.warning,
            },
            scores={"energy": said.far},
        )


def index_of(*entries: tuple[str, str | None]) -> DatasetIndex:
    samples = tuple(
        Sample(path=Path(f"/videos/{name}.mp4"), label=label) for name, label in entries
    )
    return DatasetIndex(samples=samples, class_names=CLASSES, name="test", root=Path("/videos"))


def test_the_numbers_of_known_near_and_far_videos_are_those_worked_by_hand() -> None:
    predictor = FakePredictor(
        {
            "a": Said(0.9, near=0.1, far=0.2),
            "b": Said(0.8, near=0.2, far=0.1),
            "c": Said(0.3, near=0.3, far=1.5),  # wrong and called unknown
            "d": Said(0.1, near=0.4, far=0.3),
            "n": Said(0.5, near=0.35, far=0.0),
            "f": Said(0.95, near=0.0, far=3.0, warning="looks damaged"),
        }
    )
    index = index_of(("a", "push"), ("b", "push"), ("c", "push"), ("d", "kick"), ("n", "hug"))
    report = trust_report(predictor, index, far=[Path("/videos/f.mp4")])

    known = report["known"]
    assert known["num_videos"] == 4
    assert known["accuracy"] == 0.75
    assert known["false_alarms"] == 0.25
    assert known["set"] is None
    # Confidences .9, .9, .8, .7; the last is wrong.
    assert known["aurc"] == pytest.approx((0 + 0 + 0 + 0.25) / 4)
    assert known["answers_at_95"]["coverage"] == 0.75

    near = report["near"]["scores"]
    assert near[OWN_NEAR]["auroc"] == 0.75
    assert near["max_probability"]["auroc"] == 1.0
    assert "knn" not in near
    assert report["near"]["flagged"] == 0.0
    assert report["near"]["shown_as_calibrated"] == 1.0
    assert report["far"]["scores"][OWN_FAR]["auroc"] == 1.0
    assert report["far"]["scores"]["max_probability"]["auroc"] == 0.0
    assert report["far"]["flagged"] == 1.0
    assert report["far"]["shown_as_calibrated"] == 0.0

    report |= {"model": "fake", "data": "<videos>", "command": "marey trust"}
    assert any("far (1 videos, other footage): AUROC 1.00" in line for line in summary(report))
    assert "&lt;videos&gt;" in page(report)
    assert "<script" not in page(report)
    assert any("known called unknown | 25.0%" in line for line in card(report))


def test_unreadable_videos_are_named_and_the_others_judged() -> None:
    predictor = FakePredictor({"a": Said(0.9)})
    samples = index_of(("broken", "push"), ("a", "push")).samples
    judged = judge_videos(predictor, CLASSES, samples, lambda sample: sample.path.stem)
    assert judged.videos == ["a"]
    assert judged.unreadable[0]["video"] == "broken"
    with pytest.raises(UserError, match="none of the 1 videos can be read"):
        judge_videos(predictor, CLASSES, samples[:1], lambda sample: sample.path.stem)


def test_another_form_of_a_class_is_known() -> None:
    known, near = split_known(index_of(("a", "Pushing"), ("b", "hug")), CLASSES)
    assert [sample.label for sample in known] == ["push"]
    assert [sample.label for sample in near] == ["hug"]


def test_stretches_and_wrong_data_are_refused_in_one_line() -> None:
    predictor = FakePredictor({"a": Said(0.9)})
    stretch = Sample(path=Path("a.mp4"), label="push", start_seconds=1.0)
    with pytest.raises(UserError, match="whole video files"):
        judge_videos(predictor, CLASSES, [stretch], str)
    with pytest.raises(UserError, match="give such videos to --near"):
        split_known(index_of(("a", "hug")), CLASSES)
    with pytest.raises(UserError, match="has no label"):
        split_known(index_of(("a", None)), CLASSES)
    with pytest.raises(UserError, match="put them into one folder"):
        trust_report(predictor, index_of(("a", "push"), ("b", "hug")), near=[Path("c.mp4")])


def test_a_corrupted_copy_is_judged_and_severities_are_means(day_and_night: Path) -> None:
    brightness = []

    def predict(video: str | Path) -> Prediction:
        with open_video(video) as reader:
            level = float(reader.frames_at([0]).frames.float().mean()) / 255
        brightness.append(level)
        warning = "looks damaged" if len(brightness) > 1 else None
        return FakePredictor({Path(video).stem: Said(0.9, far=level, warning=warning)})(video)

    sample = Sample(path=day_and_night, label="push")
    clean = judge_videos(predict, CLASSES, [sample], lambda _: "video")
    changed = {
        (kind, 5): judge_videos(
            predict, CLASSES, [sample], lambda _: "video", change=corruption(kind, 5)
        )
        for kind in ("brightness", "fog")
    }
    assert brightness[1] > brightness[0] + 0.05
    report = measure_trust(clean, CLASSES, corrupted=changed)
    assert [row["corruption"] for row in report["corruptions"]] == ["brightness", "fog"]
    assert report["severities"][0]["warned"] == 1.0
    assert report["severities"][0]["kinds"] == 2
    assert report["known"]["warned"] == 0.0
    mean = sum(row["scores"]["energy"]["auroc"] for row in report["corruptions"]) / 2
    assert report["severities"][0]["scores"]["energy"]["auroc"] == mean
