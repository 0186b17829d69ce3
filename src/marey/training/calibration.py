"""At the end of training: trust, fitted on the answers to held-out validation videos.

Distances are to training clips; temperature, thresholds and prediction sets come from validation
videos (`marey.metrics.trust`). With fewer than 40 of them, or of fewer than 5 groups, nothing is
fitted and the checkpoint says so. Near scores are chosen by hiding classes from a linear map of the
embedding, which training saw; how well actions never taught are found can be lower.

Legend: N samples, D width of the embedding, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from marey.errors import UserError
from marey.metrics.trust import fit_trust
from marey.training.sampler import Key
from marey.training.task import Batch

MAX_FITTED = 2000
"""Most training clips that distances are measured to."""


def calibration_keys(num_samples: int) -> list[Key]:
    """Return the keys of the training items that distances are measured to: at most `MAX_FITTED`,
    at random."""
    order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(0))
    return [(0, sample) for sample in order[:MAX_FITTED].tolist()]


@torch.no_grad()
def embed(model: nn.Module, loader: Iterable[Batch], device: torch.device) -> dict[str, Tensor]:
    """Return what `fit_run` takes, for every video that can be read.

    Args:
        model: gives "logits" and "deciding_embedding" or "embedding"; put into evaluation mode.
        loader: batches with "clip", "label" and "sample".
        device: where the model is.

    Returns:
        "embedding" (N, D), "logits" (N, K), "label" (N,), and "sample" (N,), the number of each.
    """
    model.eval()
    found: dict[str, list[Tensor]] = {"embedding": [], "logits": [], "label": [], "sample": []}
    for batch in loader:
        if "clip" not in batch:  # no video of this batch could be read
            continue
        outputs = model(batch["clip"].to(device))
        deciding = outputs.get("deciding_embedding", outputs.get("embedding"))
        if deciding is None:
            raise UserError("the model returns no embedding, which trust is fitted on")
        found["embedding"].append(deciding.float().cpu())
        found["logits"].append(outputs["logits"].float().cpu())
        found["label"].append(batch["label"])
        found["sample"].append(batch["sample"])
    return {name: torch.cat(parts) if parts else torch.zeros(0) for name, parts in found.items()}


@torch.no_grad()
def embed_far(model: nn.Module, clips: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return logits (M, K) and embeddings (M, D) of clips (M, T, 3, S, S) of other footage."""
    model.eval()
    found = [model(part.to(device)) for part in clips.split(4)]
    deciding = [outputs.get("deciding_embedding", outputs["embedding"]) for outputs in found]
    logits = torch.cat([outputs["logits"].float().cpu() for outputs in found])
    return logits, torch.cat([part.float().cpu() for part in deciding])


def fit_run(
    train: dict[str, Tensor],
    val: dict[str, Tensor],
    groups: Sequence[Any] | None = None,
    far: tuple[Tensor, Tensor] | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fit trust from what `embed` returned for training and validation videos.

    Args:
        groups: group of each sample of the validation data, by its number; None where unknown.
        far: what `embed_far` returned.

    Returns:
        The checkpoint's calibration (JSON types) and its tensors.
    """
    own = None if groups is None else [groups[sample] for sample in val["sample"].tolist()]
    return fit_trust(
        val["logits"],
        val["embedding"],
        val["label"],
        own,
        far=far,
        bank=(train["embedding"], train["label"]),
    )
