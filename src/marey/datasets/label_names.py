"""Labels of a folder read as a model's classes: "walking" and "walk2" as "walk", "kick" as
"fight: kick, punch or push"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from marey.datasets.index import DatasetIndex


def labels_as_classes(
    index: DatasetIndex, class_names: Sequence[str]
) -> tuple[DatasetIndex, dict[str, str]]:
    """Return the index with every label that is another form of exactly one class under that
    class's name, and {label: class} of those that were renamed.

    Another form: in capitals, with `_` or `-` for spaces, with a number behind it, in -ing, or one
    of the actions that a class lists. Labels that are a class, or none, stay as they are.
    """
    renamed: dict[str, str] = {}
    for label in sorted({str(sample.label) for sample in index.samples} - set(class_names)):
        fitting = [name for name in class_names if _forms(label) & _listed(name)]
        if len(fitting) == 1:
            renamed[label] = fitting[0]
    if not renamed:
        return index, {}
    samples = tuple(
        replace(sample, label=renamed.get(str(sample.label), sample.label))
        for sample in index.samples
    )
    return replace(index, samples=samples), renamed


def _listed(class_name: str) -> set[str]:
    """Return the class in lower case and the actions it lists.

    >>> sorted(_listed("wave, point or signal"))
    ['point', 'signal', 'wave', 'wave, point or signal']
    """
    name = class_name.lower()
    return {name, *filter(None, (part.strip() for part in re.split(r"[:,/]| or ", name)))}


def _forms(label: str) -> set[str]:
    """Return the forms a class may have that a label stands for.

    >>> sorted(_forms("Running_2")), sorted(_forms("waving"))
    (['run', 'runn', 'runne', 'running'], ['wav', 'wave', 'waving'])
    """
    name = re.sub(r"[_\-\s]+", " ", label.lower()).strip()
    name = re.sub(r"\s*\d+$", "", name) or name
    first, _, rest = name.partition(" ")
    forms = {first}
    if first.endswith("ing") and len(first) > 5:
        stem = first.removesuffix("ing")
        forms |= {stem, stem + "e"}
        if stem[-1] == stem[-2]:
            forms.add(stem[:-1])
    return {f"{form} {rest}".strip() for form in forms}
