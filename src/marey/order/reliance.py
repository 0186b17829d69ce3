"""Order reliance: how much any model's answer depends on the order of the frames, and whether correction repairs it.

The two questions of Truong et al., "DirecFormer", CVPR 2022, section 1: is a shuffled clip still given the same label
(then the model never looked at the order), and can the frames be put back so that the answer returns?
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from marey.errors import UserError
from marey.metrics.order import mean_with_interval
from marey.order.correction import permute_frames, recover_order
from marey.order.permutations import random_permutations


def order_reliance(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, corrector: nn.Module | None = None,
                   corrector_clips: Iterable[Tensor] | None = None, shuffles: int = 4, seed: int = 0) -> dict[str, Any]:
    """Measure a model on ordered, shuffled, and shuffled-then-corrected clips.

    Args:
        model: any model with `model(clip)["logits"]` in eval mode: ours, `hf:` or `torchvision:`.
        batches: pairs of clips (B, T, C, H, W), ordered and normalised for the model, and labels (B,).
        corrector: the model that puts shuffled frames back; None takes `model` itself where it gives temporal
            attention, else nothing is corrected.
        corrector_clips: the same clips, same frames, normalised for the corrector, where it takes another size.
        shuffles: permutations per clip, drawn uniformly from all T!.
        seed: of the permutations, the same for every model.

    Returns:
        "ordered_accuracy", "shuffled_accuracy", "corrected_accuracy" (None without a corrector), "order_reliance"
        (ordered - shuffled) with "order_reliance_interval" (95%, over clips), "agreement" (share of shuffled clips
        with the answer of the ordered one), "clips", "shuffles", "seed".

    Raises:
        UserError: if there is no clip.
    """
    generator = torch.Generator().manual_seed(seed)
    paired = iter(corrector_clips) if corrector_clips is not None else None
    rows: dict[str, list[Tensor]] = {"ordered": [], "shuffled": [], "agreement": [], "corrected": []}
    for clips, labels in batches:
        B, T = clips.shape[:2]
        orders = random_permutations(B * shuffles, T, generator).to(clips.device)
        repeated = clips.repeat_interleave(shuffles, dim=0)
        shuffled = permute_frames(repeated, orders)
        wanted = labels.to(clips.device)
        ordered = answers(model, clips)
        got = answers(model, shuffled).view(B, shuffles)
        rows["ordered"].append((ordered == wanted).double().cpu())
        rows["shuffled"].append((got == wanted[:, None]).double().cpu())
        rows["agreement"].append((got == ordered[:, None]).double().cpu())
        seen = next(paired).to(clips.device) if paired is not None else clips
        path = _recovered(corrector or model, permute_frames(seen.repeat_interleave(shuffles, dim=0), orders),
                          required=corrector is not None)
        if path is not None:
            repaired = answers(model, permute_frames(shuffled, path)).view(B, shuffles)
            rows["corrected"].append((repaired == wanted[:, None]).double().cpu())
    if not rows["ordered"]:
        raise UserError("no clip to measure order reliance on; give at least one labelled video")
    means = {name: torch.cat(values) for name, values in rows.items() if values}
    lost, interval = mean_with_interval((means["ordered"] - means["shuffled"].mean(dim=1) + 1) / 2)
    return {"ordered_accuracy": float(means["ordered"].mean()), "shuffled_accuracy": float(means["shuffled"].mean()),
            "corrected_accuracy": float(means["corrected"].mean()) if "corrected" in means else None,
            "order_reliance": 2 * lost - 1, "order_reliance_interval": [2 * bound - 1 for bound in interval],
            "agreement": float(means["agreement"].mean()), "clips": len(means["ordered"]), "shuffles": shuffles,
            "seed": seed}


@torch.inference_mode()
def answers(model: nn.Module, clips: Tensor, *, batch_size: int = 16) -> Tensor:
    """Return the most probable class of every clip, int64 (B,)."""
    return torch.cat([model(part)["logits"].argmax(dim=1) for part in clips.split(batch_size)])


def _recovered(model: nn.Module, shuffled: Tensor, *, required: bool) -> Tensor | None:
    """Return the recovered paths, or None where the model has no temporal attention and none is required."""
    try:
        return recover_order(model, shuffled).path
    except UserError:
        if required:
            raise
        return None
