"""The term "class": cross-entropy of one label per clip or of several, and mixed clips."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from marey.losses.classification import cross_entropy
from marey.losses.multilabel import multilabel_loss
from marey.training.objective_config import ClassificationConfig
from marey.training.task import Batch, Outputs
from marey.transforms.mixing import cutmix, mixup


class ClassTerm(nn.Module):
    """Cross-entropy of `outputs["logits"]` against the distributions `batch["targets"]`, (B, K).

    Args:
        class_weights: float, (K,), or None for 1.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        return cross_entropy(outputs["logits"], batch["targets"], self.class_weights)


class MultilabelTerm(nn.Module):
    """Binary cross-entropy of `outputs["logits"]` (B, K) against `batch["targets"]` (B, K), 0 or 1.

    Args:
        over_classes: put the classes together by their mean or their sum.
    """

    def __init__(self, over_classes: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        self.over_classes: Literal["mean", "sum"] = over_classes

    def forward(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the videos."""
        return multilabel_loss(outputs["logits"], batch["targets"], self.over_classes)


def mix_clips(clip: Tensor, targets: Tensor, config: ClassificationConfig) -> tuple[Tensor, Tensor]:
    """Mix the clips of a batch, as drawn from torch's global generator.

    Args:
        clip: float, (B, T, C, H, W).
        targets: float, (B, K).
    """
    alphas = {"mixup": config.mixup_alpha, "cutmix": config.cutmix_alpha}
    kinds = [kind for kind, alpha in alphas.items() if alpha > 0]
    if not kinds or float(torch.rand(())) >= config.mix_probability:
        return clip, targets

    kind = kinds[int(torch.randint(len(kinds), ()))]
    share = float(torch.distributions.Beta(alphas[kind], alphas[kind]).sample())
    partner = torch.randperm(len(clip)).to(clip.device)
    if kind == "mixup":
        return mixup(clip, targets, share, partner)
    across, down = torch.rand(2).tolist()
    return cutmix(clip, targets, share, partner, (across, down))
