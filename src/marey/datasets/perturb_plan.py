"""What a perturbed copy of a data set holds: one job per video and corruption, each with its own
seed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from marey.corruptions import PROFILES, Corruption, corruption
from marey.datasets.index import DatasetIndex, Sample
from marey.errors import UserError, unknown_name

ROSE_RANDOM = "random"
"""Corruption name that draws one kind and severity per video, as the ROSE challenge's sets have
it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One video to write."""

    source: str
    """Video file or folder of frames."""
    name: str
    """Path of the video below the data set's root, which also seeds its randomness."""
    target: str
    """File to write."""
    corruption: Corruption
    """What changes it."""
    seed: int
    """Seed of the copy."""
    short_side: int
    """Pixels of the shorter side, 0 keeps the source's."""
    spans: tuple[tuple[float, float], ...] | None = None
    """Stretches [start, end) in seconds that are changed; None: the whole video."""


def video_seed(seed: int, name: str, kind: str, severity: int) -> int:
    """Return the seed of one video's randomness, in [0, 2**63)."""
    digest = hashlib.sha256(f"{seed}/{name}/{kind}/{severity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw_corruption(
    name: str, severities: Sequence[int], profile: str = "rose", seed: int = 0
) -> Corruption:
    """Return the one kind, of those that the profile has, and the one severity that a video's name
    draws.

    Raises:
        UserError: if the profile or a severity is unknown.
    """
    if profile not in PROFILES:
        raise unknown_name("corruption profile", profile, PROFILES)
    kinds, number = sorted(PROFILES[profile]), video_seed(seed, name, ROSE_RANDOM, 0)
    return corruption(
        kinds[number % len(kinds)], severities[number // len(kinds) % len(severities)], profile
    )


def plan(
    index: DatasetIndex,
    out: Path,
    kinds: Sequence[str],
    severities: Sequence[int],
    *,
    profile: str,
    seed: int,
    short_side: int,
    within_actions: float | None = None,
) -> list[Job]:
    """List every video to write.

    One kind at one severity goes straight below `out`; several go to `out/<kind>/<severity>/`.

    Args:
        kinds: corruption names, or ["random"] for one draw a video among the profile's kinds and
            `severities`.
        within_actions: change this share of every annotated action, around its middle, and nothing
            else; None changes whole videos. Zeng et al., "Benchmarking the Robustness of Temporal
            Action Detection Models Against Temporal Corruptions", CVPR 2024 (THUMOS14-C,
            ActivityNet-v1.3-C): 0.01, 0.05 and 0.10, where the middle hurt most.

    Raises:
        UserError: if a name or severity is unknown, the data set is a packed folder, or
            `within_actions` is asked for and a video has no annotated action.
    """
    random = list(kinds) == [ROSE_RANDOM]
    changes = (
        []
        if random
        else [corruption(kind, severity, profile) for kind in kinds for severity in severities]
    )

    videos: dict[str, Sample] = {}
    actions: dict[str, list[Sample]] = {}
    for sample in index.samples:
        if sample.row is not None:
            raise UserError(
                f"{index.root}: a packed folder holds sampled frames, not videos; corrupt the "
                "videos it was packed from"
            )
        videos.setdefault(index.relative_path(sample), sample)
        actions.setdefault(index.relative_path(sample), []).append(sample)

    # A manifest elsewhere names its videos by absolute paths; the copy keeps what lies below their
    # common folder.
    is_elsewhere = any(map(os.path.isabs, videos))
    above = os.path.commonpath([os.path.dirname(name) for name in videos]) if is_elsewhere else ""

    jobs = []
    for name, sample in videos.items():
        spans = None
        if within_actions is not None:
            spans = middle_spans(actions[name], within_actions)
        below = Path(os.path.relpath(name, above)) if above else Path(name)
        target_name = str(below.with_suffix(".mp4")) if below.suffix else f"{below}.mp4"
        for change in [draw_corruption(name, severities, profile, seed)] if random else changes:
            folder = out / change.name / str(change.severity) if len(changes) > 1 else out
            jobs.append(
                Job(
                    source=str(sample.path),
                    name=name,
                    target=str(folder / target_name),
                    corruption=change,
                    seed=seed,
                    short_side=short_side,
                    spans=spans,
                )
            )
    return jobs


def middle_spans(actions: Sequence[Sample], share: float) -> tuple[tuple[float, float], ...]:
    """Return the middle of every annotated action of one video, [start, end) in seconds, by start.

    Args:
        actions: the samples of the video.
        share: of each action's length, above 0 and at most 1.

    Raises:
        UserError: if the share is out of range, or an action has no start or end.
    """
    if not 0 < share <= 1:
        raise UserError(f"within actions: expected a share above 0 and at most 1, got {share:g}")
    spans = []
    for sample in actions:
        if sample.start_seconds is None or sample.end_seconds is None:
            raise UserError(
                f"{sample.path}: no start_seconds and end_seconds, so there is no action to change "
                "the middle of; give a manifest with both, one row for each action"
            )
        middle = (sample.start_seconds + sample.end_seconds) / 2
        half = share * (sample.end_seconds - sample.start_seconds) / 2
        spans.append((middle - half, middle + half))
    return tuple(sorted(spans))
