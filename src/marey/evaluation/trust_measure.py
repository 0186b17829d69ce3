"""How far a model's answers can be trusted, measured on videos: `marey trust`.

    report = trust_report(predictor, index, far=videos, changes=[corruption("fog", 3)])

Every video goes the way that `marey predict` goes, so the numbers are those of its answers.

Legend: N videos, K classes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marey.corruptions import Corruption
from marey.datasets.index import DatasetIndex, Sample, subset
from marey.datasets.label_names import labels_as_classes
from marey.datasets.perturb_plan import Job
from marey.datasets.perturb_video import STORE_CRF, STORE_OPTIONS, perturbed_frames
from marey.datasets.seen import seen_in_training
from marey.errors import UserError, VideoError
from marey.inference.kept_results import KeptResults
from marey.inference.prediction import Prediction
from marey.metrics.accuracy import topk_correct
from marey.metrics.calibration import (
    brier_score,
    calibration_noise_floor,
    expected_calibration_error,
    reliability_curve,
)
from marey.metrics.conformal import fixed_top_k, set_measures
from marey.metrics.intervals import interval_unit, proportion_interval
from marey.metrics.selective import (
    aurc,
    auroc,
    coverage_at_accuracy,
    fpr_at_tpr,
    risk_coverage,
)
from marey.video.decode import open_video
from marey.video.encode import write_video

COVERAGE = 0.9
BASELINES = ("max_probability", "energy", "knn")
"""Scores shown beside the model's own."""
OWN_NEAR, OWN_FAR = "own score, near", "own score, far"

Predict = Callable[[str | Path], Prediction]
Tick = Callable[[str, int, int], None]
"""Called with (what is judged, videos done, videos in all)."""


@dataclass(kw_only=True)
class JudgedVideos:
    """What a model said of some videos, and how far it said to trust it."""

    videos: list[str]
    labels: list[str | None]
    groups: list[str | None]
    probs: Tensor
    """float64 (N, K)."""
    scores: dict[str, Tensor]
    """Name -> float64 (N,), larger for less known videos; `OWN_NEAR` and `OWN_FAR` are those that
    the model decides by."""
    unknown: Tensor
    """bool (N,): the answer was "unknown"."""
    warned: Tensor
    """bool (N,): a warning that the video looks damaged or unlike those of training; of models that
    have no such warning: unknown."""
    calibrated: Tensor
    """bool (N,): a probability was shown as calibrated."""
    sets: Tensor | None
    """bool (N, K), prediction sets of 90 % coverage; None where none are fitted."""
    unreadable: list[dict[str, str]] = field(default_factory=list)
    """[{"video", "error"}]."""

    def __len__(self) -> int:
        return len(self.videos)


def judge_videos(
    predict: Predict,
    class_names: Sequence[str],
    samples: Sequence[Sample],
    name_of: Callable[[Sample], str],
    *,
    change: Corruption | None = None,
    seed: int = 0,
    what: str = "videos",
    tick: Tick | None = None,
    kept: KeptResults | None = None,
) -> JudgedVideos:
    """Let a model answer videos, as they are or corrupted.

    Args:
        predict: video -> prediction, as `marey predict` does it.
        class_names: of the model.
        samples: whole video files.
        name_of: the name of a sample in the report, which also seeds its corruption.
        change: applied to a copy of each video, stored with next to no loss while it is judged.
        kept: what an earlier call was told and that was interrupted; new answers are added.

    Raises:
        UserError: if a sample is a stretch of a longer video, or none can be read.
    """
    found: list[tuple[Sample, dict[str, Any]]] = []
    unreadable = []
    changed = None if change is None else [change.name, change.severity, change.profile, seed]
    for place, sample in enumerate(samples):
        if (sample.row, sample.start_seconds, sample.end_seconds) != (None, None, None):
            raise UserError(
                f"{sample.path}: trust is measured on whole video files, not on stretches or "
                "packed rows; cut the file first"
            )
        try:
            judged = None if kept is None else kept.get(sample.path, changed=changed)
            if judged is None:
                prediction = _predicted(predict, sample, name_of(sample), change, seed)
                judged = _judged(prediction, class_names)
                if kept is not None:
                    kept.put(sample.path, judged, changed=changed)
            found.append((sample, judged))
        except VideoError as error:
            unreadable.append({"video": name_of(sample), "error": str(error)})
        if tick is not None:
            tick(what, place + 1, len(samples))
    if not found:
        first = unreadable[0]["error"] if unreadable else "there are none"
        raise UserError(f"none of the {len(samples)} {what} can be read (the first: {first})")
    judged_ones = [judged for _, judged in found]
    sets = [judged["set"] for judged in judged_ones]

    def flags(name: str) -> Tensor:
        return torch.tensor([judged[name] for judged in judged_ones])

    return JudgedVideos(
        videos=[name_of(sample) for sample, _ in found],
        labels=[sample.label for sample, _ in found],
        groups=[sample.group for sample, _ in found],
        probs=torch.tensor([judged["probs"] for judged in judged_ones], dtype=torch.double),
        scores=_shared([judged["scores"] for judged in judged_ones]),
        unknown=flags("unknown"),
        warned=flags("warned"),
        calibrated=flags("calibrated"),
        sets=None if None in sets else torch.tensor(sets),
        unreadable=unreadable,
    )


def _judged(prediction: Prediction, class_names: Sequence[str]) -> dict[str, Any]:
    """Return what is measured of one answer, in JSON types."""
    unknown, inside = _unknown(prediction, class_names), None
    if prediction.has_set(COVERAGE):
        labels = prediction.set(COVERAGE)
        inside = [name in labels for name in class_names]
    return {
        "probs": _probabilities(prediction, class_names).tolist(),
        "scores": _scores(prediction),
        "unknown": unknown,
        "warned": unknown or bool(prediction.trust.get("warning")),
        "calibrated": bool(prediction.trust.get("calibrated")),
        "set": inside,
    }


def _predicted(
    predict: Predict, sample: Sample, name: str, change: Corruption | None, seed: int
) -> Prediction:
    if change is None:
        return predict(sample.path)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "changed.mp4"
        job = Job(
            source=str(sample.path),
            name=name,
            target=str(target),
            corruption=change,
            seed=seed,
            short_side=0,
        )
        with open_video(sample.path) as reader:
            frames = perturbed_frames(job, reader)
            write_video(target, frames, reader.fps, crf=STORE_CRF, options=STORE_OPTIONS)
        return predict(target)


def _probabilities(prediction: Prediction, class_names: Sequence[str]) -> Tensor:
    """Return (K,); an answer outside the classes ("no person") says nothing about any of them."""
    if tuple(prediction.class_names) != tuple(class_names):
        return torch.full((len(class_names),), 1 / len(class_names), dtype=torch.double)
    return prediction.probabilities.double()


def _unknown(prediction: Prediction, class_names: Sequence[str]) -> bool:
    outside = tuple(prediction.class_names) != tuple(class_names)
    return outside or bool(prediction.trust.get("unknown"))


def _scores(prediction: Prediction) -> dict[str, float]:
    trust = prediction.trust
    row = {"max_probability": -float(prediction.probabilities.max())}
    row |= {name: float(value) for name, value in prediction.scores.items()}
    if trust.get("near") is not None:
        row |= {OWN_NEAR: float(trust["near"]), OWN_FAR: float(trust["far"])}
    elif trust.get("ood_score") is not None:
        row |= {OWN_NEAR: float(trust["ood_score"]), OWN_FAR: float(trust["ood_score"])}
    return row


def _shared(rows: Sequence[dict[str, float]]) -> dict[str, Tensor]:
    """Return the scores that every video has."""
    shared = [name for name in rows[0] if all(name in row for row in rows)]
    return {name: torch.tensor([row[name] for row in rows], dtype=torch.double) for name in shared}


def trust_report(
    predictor: Any,
    index: DatasetIndex,
    *,
    near: Sequence[Path] | None = None,
    far: Sequence[Path] | None = None,
    changes: Sequence[Corruption] = (),
    seed: int = 0,
    tick: Tick | None = None,
    kept: KeptResults | None = None,
) -> dict[str, Any]:
    """Let a model answer known, other and corrupted videos, and compute every number.

    Args:
        predictor: video -> prediction, with its `class_names`.
        index: labelled videos; those that the model was trained on are left out and counted, those
            whose label is no class of the model count as near.
        near: videos of other actions, filmed like the known ones.
        far: other footage.
        changes: corruptions of the known videos.
        seed: of the corruptions.
        tick: called after each video.
        kept: the answers of an earlier call that was interrupted; new ones are added.

    Returns:
        As `measure_trust`, "class_names", and "training_videos", the number left out.

    Raises:
        UserError: if no new video is of a known class, or near videos are named twice.
    """
    names = list(predictor.class_names)
    seen = seen_in_training(index, predictor.checkpoint.tensors)
    trained_on = frozenset() if seen is None else seen.positions
    if len(trained_on) == len(index):
        raise UserError(
            f"{index.root}: the model was trained on all {len(index)} of these videos; trust is "
            "measured on new ones"
        )
    index = subset(index, [row for row in range(len(index)) if row not in trained_on])
    known_samples, others = split_known(index, names)
    if others and near:
        raise UserError(
            f"{index.root}: {len(others)} videos have labels that are no class of the model "
            f"('{others[0].label}', ...), and --near names others; put them into one folder"
        )

    def judged(
        samples: Sequence[Sample], what: str, change: Corruption | None = None
    ) -> JudgedVideos:
        return judge_videos(
            predictor,
            names,
            samples,
            lambda sample: index.relative_path(sample) if sample.label else str(sample.path),
            change=change,
            seed=seed,
            what=what,
            tick=tick,
            kept=kept,
        )

    near_samples = others + [Sample(path=path, label=None) for path in near or ()]
    far_samples = [Sample(path=path, label=None) for path in far or ()]
    return {
        "class_names": names,
        "training_videos": len(trained_on),
        **measure_trust(
            judged(known_samples, "known videos"),
            names,
            near=judged(near_samples, "near videos") if near_samples else None,
            far=judged(far_samples, "far videos") if far_samples else None,
            corrupted={
                (change.name, change.severity): judged(
                    known_samples, f"{change.name}, severity {change.severity}", change
                )
                for change in changes
            },
        ),
    }


def split_known(
    index: DatasetIndex, class_names: Sequence[str]
) -> tuple[list[Sample], list[Sample]]:
    """Return the samples whose labels are classes of the model, in another form too, and the
    others: near ones.

    Raises:
        UserError: if a sample has no label, or none is of a known class.
    """
    unnamed = [sample for sample in index.samples if sample.label is None]
    if unnamed:
        raise UserError(f"{unnamed[0].path}: has no label; known videos need one")
    samples = labels_as_classes(index, class_names)[0].samples
    known = [sample for sample in samples if sample.label in class_names]
    if not known:
        labels = sorted({str(sample.label) for sample in index.samples})
        raise UserError(
            f"{index.root}: no label ({', '.join(labels[:8])}) is a class of the model "
            f"({', '.join(class_names[:8])}); give such videos to --near"
        )
    return known, [sample for sample in samples if sample.label not in class_names]


def measure_trust(
    known: JudgedVideos,
    class_names: Sequence[str],
    *,
    near: JudgedVideos | None = None,
    far: JudgedVideos | None = None,
    corrupted: Mapping[tuple[str, int], JudgedVideos] | None = None,
) -> dict[str, Any]:
    """Compute every number of the report from what the model said.

    Args:
        known: labelled videos of the model's classes that it was not trained on.
        near: videos of other actions.
        far: other footage.
        corrupted: (kind, severity) -> the known videos under it.

    Returns:
        JSON types: "known", "near", "far" (None where not measured), "corruptions": one row per
        kind and severity, and "severities": means over the kinds.
    """
    rows = [
        {"corruption": kind, "severity": severity, **_changed(known, part, class_names)}
        for (kind, severity), part in (corrupted or {}).items()
    ]
    return {
        "known": known_numbers(known, class_names),
        "near": None if near is None else unknown_numbers(known, near, OWN_NEAR),
        "far": None if far is None else unknown_numbers(known, far, OWN_FAR),
        "corruptions": rows,
        "severities": _by_severity(rows),
    }


def known_numbers(judged: JudgedVideos, class_names: Sequence[str]) -> dict[str, Any]:
    """Return accuracy, calibration, sets, false alarms and the risk-coverage curve, JSON types."""
    labels = _targets(judged, class_names)
    right = topk_correct(judged.probs, labels, 1)
    confidence = judged.probs.max(1).values
    coverage, risk = risk_coverage(confidence, right)
    steps = torch.linspace(0, len(risk) - 1, min(50, len(risk))).round().long()
    return {
        "num_videos": len(judged),
        "num_groups": len(set(judged.groups)),
        "interval": "95% over " + interval_unit(judged.groups),
        "accuracy": float(right.double().mean()),
        "accuracy_interval": list(proportion_interval(right, judged.groups)),
        "ece": expected_calibration_error(judged.probs, labels),
        "ece_noise_floor": calibration_noise_floor(confidence),
        "brier": brier_score(judged.probs, labels),
        "aurc": aurc(confidence, right),
        "aurc_of_scores": {
            name: aurc(-values, right)
            for name, values in judged.scores.items()
            if name in (*BASELINES, OWN_NEAR)
        },
        "answers_at_95": coverage_at_accuracy(confidence, right, 0.95),
        "reliability": reliability_curve(confidence, right, groups=_groups(judged)),
        "risk_coverage": [
            [float(coverage[step]), float(risk[step])] for step in steps.unique().tolist()
        ],
        "set": _set_numbers(judged, labels),
        "false_alarms": float(judged.unknown.double().mean()),
        "false_alarm_interval": list(proportion_interval(judged.unknown, judged.groups)),
        "warned": float(judged.warned.double().mean()),
        "warned_interval": list(proportion_interval(judged.warned, judged.groups)),
        "unreadable": judged.unreadable,
    }


def unknown_numbers(known: JudgedVideos, other: JudgedVideos, own: str) -> dict[str, Any]:
    """Return how well each score tells other videos from known ones, and what was flagged."""
    names = [own, *BASELINES]
    return {
        "num_videos": len(other),
        "scores": {
            name: {
                "auroc": auroc(known.scores[name], other.scores[name]),
                "fpr95": fpr_at_tpr(known.scores[name], other.scores[name]),
            }
            for name in names
            if name in known.scores and name in other.scores
        },
        "own": own,
        "flagged": float(other.unknown.double().mean()),
        "flagged_interval": list(proportion_interval(other.unknown, other.groups)),
        "shown_as_calibrated": float((other.calibrated & ~other.unknown).double().mean()),
        "unreadable": other.unreadable,
    }


def _changed(known: JudgedVideos, part: JudgedVideos, class_names: Sequence[str]) -> dict[str, Any]:
    labels = _targets(part, class_names)
    right = topk_correct(part.probs, labels, 1)
    return {
        "accuracy": float(right.double().mean()),
        "ece": expected_calibration_error(part.probs, labels),
        "ece_noise_floor": calibration_noise_floor(part.probs.max(1).values, draws=200),
        "set": _set_numbers(part, labels),
        "warned": float(part.warned.double().mean()),
        "wrong_and_not_warned": float((~right & ~part.warned).double().mean()),
        **{
            key: value
            for key, value in unknown_numbers(known, part, OWN_FAR).items()
            if key in ("num_videos", "scores", "flagged", "unreadable")
        },
    }


def _by_severity(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the means over the kinds of each severity."""
    table = []
    for severity in sorted({row["severity"] for row in rows}):
        mine = [row for row in rows if row["severity"] == severity]
        entry: dict[str, Any] = {"severity": severity, "kinds": len(mine)}
        for name in ("accuracy", "ece", "ece_noise_floor", "warned", "flagged"):
            entry[name] = sum(row[name] for row in mine) / len(mine)
        entry["set"] = None
        if all(row["set"] is not None for row in mine):
            entry["set"] = {
                name: sum(row["set"][name] for row in mine) / len(mine)
                for name in ("coverage", "mean_size")
            }
        entry["scores"] = {
            name: {
                key: sum(row["scores"][name][key] for row in mine) / len(mine)
                for key in ("auroc", "fpr95")
            }
            for name in mine[0]["scores"]
        }
        table.append(entry)
    return table


def _set_numbers(judged: JudgedVideos, labels: Tensor) -> dict[str, Any] | None:
    if judged.sets is None:
        return None
    found = set_measures(judged.sets, labels)
    found["asked"] = COVERAGE
    found["fixed_top_k"] = fixed_top_k(judged.probs, labels, found["coverage"])
    return found


def _targets(judged: JudgedVideos, class_names: Sequence[str]) -> Tensor:
    names = list(class_names)
    return torch.tensor([names.index(str(label)) for label in judged.labels])


def _groups(judged: JudgedVideos) -> list[str | None] | None:
    return None if None in judged.groups else judged.groups
