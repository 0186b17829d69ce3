"""Folder names are read as a model's classes where they are another form of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.label_names import labels_as_classes

CLASSES = ("walk", "run", "wave, point or signal", "fight: kick, punch or push", "shake hands")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("walk", "walk"),
        ("Walking", "walk"),
        ("running", "run"),
        ("wave1", "wave, point or signal"),
        ("Waving_2", "wave, point or signal"),
        ("kick", "fight: kick, punch or push"),
        ("shaking-hands", "shake hands"),
        ("jack", "jack"),
        ("crosswalk", "crosswalk"),
        ("sing", "sing"),
        ("3", "3"),
    ],
)
def test_forms_of_a_class(label: str, expected: str):
    index = DatasetIndex(
        samples=(Sample(path=Path("a.mp4"), label=label),),
        class_names=(label,),
        name="folders",
        root=Path(),
    )
    read, renamed = labels_as_classes(index, CLASSES)
    assert read.samples[0].label == expected
    assert renamed == ({} if label == expected else {label: expected})


def test_a_label_that_fits_two_classes_stays():
    index = DatasetIndex(
        samples=(Sample(path=Path("a.mp4"), label="jumping"),),
        class_names=("jumping",),
        name="folders",
        root=Path(),
    )
    assert labels_as_classes(index, ("jump", "hop, jump"))[1] == {}
