"""What `--persons` names: who says where people are."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from marey.errors import UserError, unknown_name
from marey.persons.boxes import FilePersons, HogPersons, PersonFinder, TorchvisionPersons
from marey.persons.nanodet import MIN_PROPOSED, NanoDetPersons
from marey.persons.poses import MIN_SCORE, PoseFinder

SOURCES = ("auto", "nanodet", "movenet", "own", "hog", "torchvision:NAME", "FILE.csv")


class PosedPersons:
    """People with a pose, as boxes: MoveNet alone, or with NanoDet's proposals."""

    def __init__(self, finder: PoseFinder) -> None:
        self.finder = finder

    def __call__(self, frame: Tensor, video: str, seconds: float) -> tuple[Tensor, Tensor]:
        """Return boxes (P, 4) in [0, 1] and scores (P,) of a uint8 (3, H, W) frame."""
        people = self.finder(frame[None])[0]
        return torch.from_numpy(people.boxes_xyxy_norm), torch.from_numpy(people.scores)


def person_finder(source: str) -> PersonFinder | None:
    """Build what finds boxes; None for "own": a detector's own proposals.

    Args:
        source: one of `SOURCES`.

    Raises:
        UserError: if the source is unknown, its file is absent, or what it needs is not installed
            or downloadable.
    """
    if source in ("auto", "movenet"):
        return PosedPersons(pose_finder(source))
    if source == "nanodet":
        return NanoDetPersons()
    if source == "own":
        return None
    if source == "hog":
        return HogPersons()
    if source.startswith("torchvision:"):
        return TorchvisionPersons(source.removeprefix("torchvision:"))
    if source.endswith(".csv"):
        return FilePersons(Path(source))
    raise unknown_name("source of persons", source, SOURCES)


def pose_finder(
    source: str = "auto",
    *,
    image_size: int = 256,
    tiles: int = 1,
    max_people: int = 30,
    min_score: float = MIN_SCORE,
    threads: int | None = None,
) -> PoseFinder:
    """Build what finds people with their poses.

    Args:
        source: "movenet": MoveNet on whole frames. "auto": the same, and a second look where
            NanoDet, or MoveNet itself, sees somebody unclearly. Any other of `SOURCES` but "own":
            its boxes are the people, and MoveNet looks into each.
        image_size, tiles, max_people, threads: as of `PoseFinder`.
        min_score: people below it are not reported, where "auto" or "movenet" decides.

    Raises:
        UserError: as of `person_finder`, and for "own", which needs a detection model.
    """
    if source == "own":
        raise UserError(
            "--persons own are the boxes of a detection model, which has no poses; use auto, or "
            "marey detect"
        )
    detector: PersonFinder | None = None
    if source == "auto":
        detector = NanoDetPersons(min_score=MIN_PROPOSED, threads=1)
    elif source != "movenet":
        detector = person_finder(source)
    return PoseFinder(
        detector,
        trust_detector=source not in ("auto", "movenet"),
        image_size=image_size,
        tiles=tiles,
        max_people=max_people,
        min_score=min_score,
        threads=threads,
    )
