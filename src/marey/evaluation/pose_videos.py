"""A pose model on labelled videos: people are found in each, and a video in which nobody is found
is answered wrongly. Of a label that is none of its actions "unknown" is the right answer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from marey.checkpoints.folder import Checkpoint
from marey.datasets.index import DatasetIndex
from marey.errors import UserError
from marey.evaluation.classification import Predictions, check_labels, report_of
from marey.features.cache import FeatureCache
from marey.features.pose_cache import cached_poses
from marey.inference.answers import Tick
from marey.inference.poses import POSE_FPS, PosePredictor
from marey.inference.prediction import NO_PERSON
from marey.metrics.intervals import proportion_interval


def score_pose_videos(
    predictor: PosePredictor, index: DatasetIndex, *, tick: Tick | None = None
) -> tuple[Predictions, dict[str, Any]]:
    """Answer every video of an index, and compute the report.

    The people of a video are kept in the user's feature cache, so that a second run is quick and an
    interrupted one goes on.

    Returns:
        The answers, over the model's actions and `NO_PERSON`; and the report: "top1" counts the
        action that is named, also where the video is called unknown, and "unknown" says what is
        left when those are taken as not answered. Videos of other labels are not among the answers;
        "others" says how many of them are called unknown.

    Raises:
        UserError: if no label is one of the model's actions, or no video of those can be read.
    """
    checkpoint: Checkpoint = predictor.checkpoint
    names = [*predictor.class_names, NO_PERSON]
    if not any(sample.label in predictor.class_names for sample in index.samples):
        check_labels(
            (sample.label for sample in index.samples),
            predictor.class_names,
            model=predictor.name,
            remedy="teach them with 'marey teach'",
        )
    cache = FeatureCache()
    others: list[tuple[str, str, str | None]] = []
    videos, labels, groups, rows, unknown, unreadable = [], [], [], [], [], []
    for done, sample in enumerate(index.samples, start=1):
        name = index.relative_path(sample)
        try:
            found = cached_poses(
                sample.path,
                cache,
                fps=POSE_FPS,
                finder=predictor.finder,
                start_seconds=sample.start_seconds,
                end_seconds=sample.end_seconds,
            )
        except UserError as error:
            unreadable.append({"video": name, "error": str(error)})
        else:
            answer = predictor.answer(found)
            if sample.label not in predictor.class_names:
                said = "unknown" if answer.unknown else "named"
                said = said if answer.somebody else NO_PERSON
                others.append((str(sample.label), said, sample.group))
            else:
                nobody = torch.eye(len(names))[-1]
                rows.append(F.pad(answer.probabilities, (0, 1)) if answer.somebody else nobody)
                unknown.append(bool(answer.somebody and answer.unknown))
                videos.append(name)
                labels.append(names.index(str(sample.label)))
                groups.append(sample.group)
        if tick is not None:
            tick(done, len(index))
    if not videos:
        raise UserError(
            f"{index.root}: none of its {len(index)} videos can be read (the first: "
            f"{unreadable[0]['error']})"
        )
    probs = torch.stack(rows)
    answers = Predictions(
        videos=videos,
        labels=labels,
        groups=groups,
        logits=probs.clamp_min(1e-12).log(),
        probs=probs,
        class_names=names,
        unreadable=unreadable,
    )
    return answers, {
        **report_of(answers),
        "nobody": _nobody(probs),
        "unknown": _unknown(answers, torch.tensor(unknown)),
        **({"others": _others(others)} if others else {}),
        "calibration": checkpoint.calibration,
        "arguments": checkpoint.arguments,
        "config": checkpoint.extra.get("config"),
    }


def _others(answers: list[tuple[str, str, str | None]]) -> dict[str, Any]:
    """Return how many videos of labels that the model has no class for it names all the same.

    Args:
        answers: of each the label; "unknown", `NO_PERSON` or "named"; and the group.
    """
    said, groups = [answer for _, answer, _ in answers], [group for *_, group in answers]
    unknown, nobody, total = said.count("unknown"), said.count(NO_PERSON), len(said)
    low, high = proportion_interval(torch.tensor([answer == "unknown" for answer in said]), groups)
    labels = sorted({label for label, *_ in answers})
    text = (
        f"labels the model has no class for ({', '.join(labels[:10])}"
        f"{', ...' if len(labels) > 10 else ''}): {unknown} of {total} videos called unknown "
        f"[{low:.3f}, {high:.3f}], {said.count('named')} named"
    )
    return {
        "labels": labels,
        "num_videos": total,
        "called_unknown": unknown,
        "interval": [low, high],
        "nobody": nobody,
        "text": text + (f", nobody found in {nobody}" if nobody else ""),
    }


def _nobody(probs: torch.Tensor) -> dict[str, Any]:
    """Return in how many videos nobody was found."""
    count = int((probs.argmax(1) == probs.shape[1] - 1).sum())
    return {
        "num_videos": count,
        "text": f"nobody was found in {count} of {len(probs)} videos"
        + ("; they count as wrong" if count else ""),
    }


def _unknown(answers: Predictions, unknown: torch.Tensor) -> dict[str, Any]:
    """Return how many videos were called unknown, and the accuracy on the others and on all."""
    right = answers.probs.argmax(1) == torch.tensor(answers.labels)
    kept = ~unknown
    count, total = int(unknown.sum()), len(unknown)
    strict = (right & kept).double().mean().item()
    text = f"called unknown: {count} of {total} videos; counted as wrong, top-1 is {strict:.3f}"
    rest = None
    if bool(kept.any()):
        groups = [g for g, keep in zip(answers.groups, kept.tolist(), strict=True) if keep]
        low, high = proportion_interval(right[kept], groups)
        top1 = right[kept].double().mean().item()
        rest = {"top1": top1, "top1_interval": [low, high], "num_videos": len(groups)}
        text += f", and of the others {top1:.3f} [{low:.3f}, {high:.3f}]"
    return {
        "num_videos": count,
        "top1_counting_unknown_as_wrong": strict,
        "rest": rest,
        "text": text,
    }
