"""Which videos a classification run trains and validates on, and its clear errors."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
import torch

from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.split import check_classes, hold_out, limited
from marey.errors import UserError
from marey.training.config import TrainConfig, override
from marey.training.data import open_splits, preprocess_of
from marey.training.data_config import DataConfig
from marey.training.objective_config import ClassificationConfig
from marey.training.tasks import build_task
from marey.training.tasks.clip_evaluator import ClipsEvaluator
from marey.training.tasks.clips import ClipsObjective
from marey.training.terms.classification import ClassTerm, mix_clips


def index_of(rows: list[tuple[str, str | None]]) -> DatasetIndex:
    samples = tuple(
        Sample(path=Path(f"v{n}.mp4"), label=label, group=group)
        for n, (label, group) in enumerate(rows)
    )
    return DatasetIndex(
        samples=samples,
        class_names=tuple(sorted({label for label, _ in rows})),
        name="t",
        root=Path("data"),
    )


def manifest(folder: Path, rows: list[tuple[str, str, str]]) -> str:
    with (folder / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "split"), *rows])
    return str(folder / "manifest.csv")


def test_holding_out_takes_a_share_of_every_class_and_never_cuts_a_group() -> None:
    index = index_of([(label, f"{label}{n // 2}") for label in "ab" for n in range(20)])
    train, val = hold_out(index, 0.2, seed=0)
    assert val is not None
    assert Counter(sample.label for sample in val.samples) == {"a": 4, "b": 4}
    assert not {s.group for s in train.samples} & {s.group for s in val.samples}
    assert len(train) + len(val) == 40


def test_groups_that_span_classes_stay_whole() -> None:
    index = index_of([(label, f"scene{n}") for label in "abc" for n in range(10)])
    train, val = hold_out(index, 0.2, seed=1)
    assert val is not None
    assert not {s.group for s in train.samples} & {s.group for s in val.samples}
    assert Counter(s.label for s in val.samples) == {"a": 2, "b": 2, "c": 2}


def test_a_single_group_cannot_be_held_out() -> None:
    assert hold_out(index_of([("a", "g"), ("b", "g")]), 0.5, seed=0)[1] is None


def test_holding_out_follows_the_seed() -> None:
    index = index_of([("a", None)] * 30 + [("b", None)] * 30)
    first, again, other = (hold_out(index, 0.2, seed)[1] for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_limit_is_drawn_evenly_over_classes() -> None:
    index = index_of([("a", None)] * 50 + [("b", None)] * 5)
    chosen = limited(index, 8, seed=0)
    assert Counter(index.samples[place].label for place in chosen) == {"a": 4, "b": 4}
    assert chosen == sorted(chosen)


def test_the_test_split_is_never_trained_or_validated_on(tmp_path: Path) -> None:
    rows = [
        (f"{label}{n}.mp4", label, split)
        for label in "ab"
        for n, split in enumerate(["train"] * 5 + ["test"] * 5)
    ]
    train, val = open_splits(DataConfig(path=manifest(tmp_path, rows)), seed=0)
    assert val is not None
    assert {s.split for s in (*train.samples, *val.samples)} == {"train"}
    assert (len(train), len(val)) == (8, 2)


def test_a_validation_split_is_used_as_it_is(tmp_path: Path) -> None:
    rows = [
        (f"{label}{n}.mp4", label, split)
        for label in "ab"
        for n, split in enumerate(["train"] * 5 + ["val"] * 3)
    ]
    train, val = open_splits(DataConfig(path=manifest(tmp_path, rows)), seed=0)
    assert val is not None
    assert (len(train), len(val)) == (10, 6)


def test_one_class_is_an_error() -> None:
    with pytest.raises(
        UserError, match="all 2 training videos have the label 'a'; a classifier needs at least two"
    ):
        check_classes(index_of([("a", None), ("a", None)]), None)


def test_labels_absent_from_training_are_named() -> None:
    train, val = index_of([("a", None), ("b", None)]), index_of([("c", None), ("a", None)])
    with pytest.raises(
        UserError, match="validation has labels absent from training: c; add training videos"
    ):
        check_classes(train, val)


def test_no_data_no_preprocessing_and_unknown_kinds_are_errors() -> None:
    with pytest.raises(UserError, match="no data: give --data"):
        build_task(TrainConfig())
    with pytest.raises(UserError, match="no preprocessing: set data.preprocess"):
        preprocess_of(TrainConfig())
    with pytest.raises(
        UserError, match="objective.task should be 'clips', 'features' or 'detection'"
    ):
        override(TrainConfig(), ["objective.task=clip"])


class Fixed(torch.nn.Module):
    """Answers with the mean brightness as the logit of class 1."""

    def forward(self, clip: torch.Tensor) -> dict[str, torch.Tensor]:
        level = clip.mean((1, 2, 3, 4))
        return {"logits": torch.stack([torch.zeros_like(level), level], 1)}


def test_training_mixes_and_smooths_and_evaluation_does_not() -> None:
    objective = ClipsObjective(
        {"class": 1.0},
        {"class": ClassTerm()},
        num_classes=2,
        classification=ClassificationConfig(mixup_alpha=1.0, label_smoothing=0.2),
    )
    batch = {"clip": torch.randn(4, 2, 3, 4, 4), "label": torch.tensor([0, 1, 0, 1])}
    model = Fixed().eval()
    _, terms = objective(model, batch)
    expected = torch.nn.functional.cross_entropy(model(batch["clip"])["logits"], batch["label"])
    torch.testing.assert_close(terms["class"], expected)
    assert not torch.allclose(objective(model.train(), batch)[1]["class"], expected)


def test_mixing_follows_the_global_seed_and_its_probability() -> None:
    clip, targets = torch.randn(4, 2, 3, 8, 8), torch.eye(4)
    config = ClassificationConfig(mixup_alpha=1.0, cutmix_alpha=1.0)
    torch.manual_seed(0)
    first = mix_clips(clip, targets, config)
    torch.manual_seed(0)
    again = mix_clips(clip, targets, config)
    assert torch.equal(first[0], again[0])
    torch.testing.assert_close(first[1].sum(1), torch.ones(4))
    never = ClassificationConfig(mixup_alpha=1.0, mix_probability=0.0)
    assert mix_clips(clip, targets, never)[0] is clip


def test_evaluators_merge_without_duplicates_in_sample_order() -> None:
    def batch(samples: list[int]) -> dict[str, torch.Tensor]:
        return {"sample": torch.tensor(samples), "label": torch.tensor(samples) % 2}

    parts = []
    for samples in ([0, 2, 4], [1, 3, 0]):
        evaluator = ClipsEvaluator(("a", "b"))
        evaluator.update({"logits": torch.eye(2)[[0] * 3]}, batch(samples))
        parts.append(evaluator.state())
    merged = ClipsEvaluator(("a", "b"))
    merged.merge(parts)
    assert list(merged.rows) == [0, 1, 2, 3, 4]
    metrics = merged.compute()
    assert (metrics["top1"], metrics["mean_class_accuracy"], metrics["videos"]) == (0.6, 0.5, 5)


def test_an_evaluation_of_nothing_is_an_error() -> None:
    with pytest.raises(UserError, match="no validation video could be read"):
        ClipsEvaluator(("a", "b")).compute()
