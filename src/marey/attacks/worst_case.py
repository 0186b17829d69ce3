"""The strongest candidate of an attack per sample, scored after rounding to whole grey levels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from marey.attacks.pixel_model import PixelModel


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What an attack found, per sample; all scores are of the uint8 clip."""

    clip: Tensor
    """uint8, (B, T, 3, H, W): the worst candidate, the clean clip where nothing was worse."""
    answers: Tensor
    """int64, (B,): the model's first answer to `clip`."""
    clean_answers: Tensor
    """int64, (B,): its first answer to the clean clip."""
    success: Tensor
    """bool, (B,): the answer is not the label, or with a target is the target."""
    margin: Tensor
    """float, (B,): highest wrong logit minus the label's (or target's minus the highest other);
    above 0 is success."""
    queries: int
    """Clips the model was asked about, gradients included, over the whole batch."""
    queries_per_clip: Tensor
    """int64, (B,): how often the model was asked about each clip."""


def margins(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return how far each sample is beyond the decision border, (B,): above 0 the attack has
    won."""
    wanted = labels if targets is None else targets
    own = logits.gather(1, wanted[:, None])[:, 0]
    others = logits.scatter(1, wanted[:, None], -torch.inf).amax(1)
    return others - own if targets is None else own - others


def whole_levels(moved: Tensor, clean: Tensor) -> Tensor:
    """Round candidates in [0, 1] to whole grey levels, towards the clean clip so that no budget
    grows.

    Args:
        moved: float, (B, T, 3, H, W).
        clean: uint8, same shape.

    Returns:
        uint8, same shape.
    """
    change = moved * 255 - clean
    steps = (change.abs() + 1e-3).floor() * change.sign()  # 7.9999 of float arithmetic is 8
    return (clean + steps).clamp_(0, 255).to(torch.uint8)


class WorstCase:
    """The worst candidate so far of each sample; starts from the clean clip."""

    def __init__(
        self,
        model: PixelModel,
        clip: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
        *,
        eps: float | None = None,
    ) -> None:
        """Score the clean clips, uint8 (B, T, 3, H, W).

        Args:
            model, clip, labels, targets: as in `marey.attacks.attack`.
            eps: candidates with a larger change of a value are scored but not kept; None keeps all.
        """
        self.model, self.clean, self.labels, self.targets = model, clip, labels, targets
        self.max_levels = 255 if eps is None else int(eps * 255 + 1e-3)
        self.queries_before = model.queries
        self.asked = torch.ones(len(clip), dtype=torch.int64)
        self.best = clip.clone()
        with torch.no_grad():
            logits = model(clip.float() / 255)
        self.clean_answers = logits.argmax(1)
        self.margin = margins(logits, labels, targets)

    def score(self, moved: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return logits of candidates rounded to whole levels; the gradient passes the rounding as
        if it were not there. Keeps a candidate that is worse than the sample's worst so far.

        Args:
            moved: float in [0, 1], (B, T, 3, H, W), or of the samples in `rows` alone.
            rows: int64, which samples are asked about; None asks about all.
        """
        if rows is None:
            rows = torch.arange(len(self.clean), device=self.clean.device)
        clean = self.clean[rows]
        levels = whole_levels(moved.detach(), clean)
        # Straight-through: forward the rounded clip, backward the identity.
        straight = moved + (levels.float() / 255 - moved).detach()
        logits = self.ask(straight, rows)
        targets = None if self.targets is None else self.targets[rows]
        margin = margins(logits.detach(), self.labels[rows], targets)
        inside = (levels.int() - clean.int()).abs().flatten(1).amax(1) <= self.max_levels
        worse = (margin > self.margin[rows]) & inside
        self.margin[rows] = torch.where(worse, margin, self.margin[rows])
        self.best[rows] = torch.where(worse.view(-1, 1, 1, 1, 1), levels, self.best[rows])
        return logits

    def ask(self, clips: Tensor, rows: Tensor) -> Tensor:
        """Return the model's logits for the samples in `rows`, and count the questions."""
        self.asked[rows.cpu()] += 1
        return self.model(clips)

    @property
    def open_rows(self) -> Tensor:
        """Which samples are not won yet, int64."""
        return (~self.won).nonzero()[:, 0]

    @property
    def won(self) -> Tensor:
        """Which samples are beyond the border, bool (B,)."""
        return self.margin > 0

    def result(self) -> AttackResult:
        """Score the kept uint8 clips once more, on their own."""
        with torch.no_grad():
            logits = self.model(self.best.float() / 255)
        answers = logits.argmax(1)
        success = answers != self.labels if self.targets is None else answers == self.targets
        return AttackResult(
            clip=self.best,
            answers=answers,
            clean_answers=self.clean_answers,
            success=success,
            margin=margins(logits, self.labels, self.targets),
            queries=self.model.queries - self.queries_before,
            queries_per_clip=self.asked + 1,
        )
