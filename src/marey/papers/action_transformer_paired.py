"""Paired tests of `marey reproduce action_transformer`: lines of the tables on the same scenes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marey.datasets.ava_format import BoxRows, rows_from_arrays
from marey.files import atomic, write_json
from marey.metrics.ava_paired import Answers, paired_map_difference
from marey.papers.cells import ReproduceOptions

COLUMNS = ("image", "boxes_xyxy_norm", "class_ids", "last")


def answers_path(cache: Path, name: str, seed: int) -> Path:
    """Return where a line's answers lie."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", name.replace("+", "plus-")).strip("-").lower()
    return cache / "action_transformer" / "answers" / f"{slug}-seed{seed}.npz"


def store_answers(options: ReproduceOptions, name: str, seed: int, answers: Answers) -> None:
    """Keep truth and detections of one line and seed for the paired tests."""
    arrays: dict[str, np.ndarray] = {}
    for kind, rows in zip(("truth", "found"), answers, strict=True):
        arrays |= {f"{kind} {column}": getattr(rows, column) for column in COLUMNS}
        arrays[f"{kind} images"] = np.array(len(rows.keys))
    with atomic(answers_path(options.cache, name, seed)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_answers(cache: Path, name: str, seed: int) -> Answers:
    """Read what `store_answers` wrote."""
    with np.load(answers_path(cache, name, seed)) as arrays:

        def rows(kind: str) -> BoxRows:
            keys = [(f"image{i}", 0.0) for i in range(int(arrays[f"{kind} images"]))]
            columns = {column: arrays[f"{kind} {column}"] for column in COLUMNS}
            return rows_from_arrays(keys, **columns)

        return rows("truth"), rows("found")


def write_contrasts(
    out: Path,
    cache: Path,
    contrasts: Sequence[Mapping[str, Any]],
    seeds: Mapping[str, Sequence[int]],
) -> Path:
    """Write `contrasts.json`: for each planned pair of lines, the difference of their mAP in
    percent points.

    Args:
        contrasts: {"first", "second": names of lines, "question"}, written down before any run.
        seeds: name of line -> finished seeds; a pair is tested on the seeds that both have.
    """
    found = []
    for contrast in contrasts:
        first, second = contrast["first"], contrast["second"]
        common = [
            seed
            for seed in seeds.get(first, ())
            if seed in seeds.get(second, ())
            and all(answers_path(cache, name, seed).is_file() for name in (first, second))
        ]
        entry: dict[str, Any] = {**contrast, "seeds": common}
        if common:
            pairs = [[read_answers(cache, name, s) for s in common] for name in (first, second)]
            classes = np.unique(pairs[0][0][0].class_ids).tolist()
            tested = paired_map_difference(pairs[0], pairs[1], {k: str(k) for k in classes})
            scaled = {key: 100 * tested[key] for key in ("difference", "low", "high")}
            entry |= scaled | {"p": tested["p"], "scenes": tested["images"]}
            entry["per_seed"] = [100 * value for value in tested["per_seed"]]
        found.append(entry)
    path = out / "contrasts.json"
    write_json(
        path,
        {
            "unit": "mAP, percent points, first less second",
            "interval": "95 %, paired bootstrap over scenes, 2,000 samples, seeds held fixed",
            "planned": len(contrasts),
            "contrasts": found,
        },
    )
    return path
