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
from marey.order.correction import NoTemporalAttentionError, permute_frames, recover_order
from marey.order.permutations import random_permutations


def order_reliance(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, corrector: nn.Module | None = None,
                   corrector_clips: Iterable[Tensor] | None = None, shuffles: int = 4, seed: int = 0) -> dict[str, Any]:
    """Measure a model on ordered, shuffled, and shuffled-then-corrected clips.

    Args:
        model: any model with `model(clip)["logits"]` in eval mode: ours, `hf:` or `torchvision:`.
        batches: pairs of clips (B, T, C, H, W), ordered and normalised for the model, and labels (B,), -1 where there
            is none; such clips count for the agreement only.
        corrector: the model that puts shuffled frames back; None takes `model` itself where it gives temporal
            attention, else nothing is corrected.
        corrector_clips: the same clips, same frames, normalised for the corrector, where it takes another size.
        shuffles: permutations per clip, drawn uniformly from all T!.
        seed: of the permutations, the same for every model.

    Returns:
        "ordered_accuracy", "shuffled_accuracy", "corrected_accuracy", "order_reliance" (ordered - shuffled) with
        "order_reliance_interval" (95%, over clips), "agreement" and "corrected_agreement" (share of shuffled, of
        corrected clips with the answer of the ordered one), "clips", "labelled", "shuffles", "seed". What could not be
        measured (no labels, no corrector) is None.

    Raises:
        UserError: if there is no clip.
    """
    generator = torch.Generator().manual_seed(seed)
    paired = iter(corrector_clips) if corrector_clips is not None else None
    given: list[Tensor] = []
    found: dict[str, list[Tensor]] = {"ordered": [], "shuffled": [], "corrected": []}
    for clips, labels in batches:
        B, T = clips.shape[:2]
        orders = random_permutations(B * shuffles, T, generator).to(clips.device)
        shuffled = permute_frames(clips.repeat_interleave(shuffles, dim=0), orders)
        seen = next(paired).to(clips.device) if paired is not None else clips
        path = _recovered(corrector or model, permute_frames(seen.repeat_interleave(shuffles, dim=0), orders),
                          required=corrector is not None)
        given.append(labels.cpu())
        found["ordered"].append(answers(model, clips).cpu()[:, None].expand(-1, shuffles))
        found["shuffled"].append(answers(model, shuffled).cpu().view(B, shuffles))
        if path is not None:
            found["corrected"].append(answers(model, permute_frames(shuffled, path)).cpu().view(B, shuffles))
    if not given:
        raise UserError("no clip to measure order reliance on; give at least one video")
    return summarise(torch.cat(given), {name: torch.cat(parts) for name, parts in found.items() if parts},
                     shuffles=shuffles, seed=seed)


def summarise(labels: Tensor, predicted: dict[str, Tensor], *, shuffles: int, seed: int) -> dict[str, Any]:
    """Turn labels (N,), -1 for none, and answers (N, shuffles) per condition into accuracies and agreements."""
    known = labels >= 0
    right = {name: (answer[known] == labels[known, None]).double() for name, answer in predicted.items()}
    result: dict[str, Any] = {}
    for name in ("ordered", "shuffled", "corrected"):
        measured = name in right and bool(known.any())
        result[f"{name}_accuracy"] = float(right[name].mean()) if measured else None
    result["order_reliance"], result["order_reliance_interval"] = None, None
    if bool(known.any()):
        lost, interval = mean_with_interval((right["ordered"] - right["shuffled"] + 1) / 2)   # into [0, 1] and back
        result["order_reliance"], result["order_reliance_interval"] = 2 * lost - 1, [2 * end - 1 for end in interval]
    for key, name in (("agreement", "shuffled"), ("corrected_agreement", "corrected")):
        same = (predicted[name] == predicted["ordered"]).double() if name in predicted else None
        result[key] = float(same.mean()) if same is not None else None
    return {**result, "clips": len(labels), "labelled": int(known.sum()), "shuffles": shuffles, "seed": seed}


@torch.inference_mode()
def answers(model: nn.Module, clips: Tensor, *, batch_size: int = 16) -> Tensor:
    """Return the most probable class of every clip, int64 (B,)."""
    return torch.cat([model(part)["logits"].argmax(dim=1) for part in clips.split(batch_size)])


def _recovered(model: nn.Module, shuffled: Tensor, *, required: bool) -> Tensor | None:
    """Return the recovered paths, or None where the model has no temporal attention and none is required."""
    try:
        return recover_order(model, shuffled).path
    except NoTemporalAttentionError:
        if required:
            raise
        return None


def describe_reliance(result: dict[str, Any]) -> str:
    """Say a result of `order_reliance` in one line."""
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    accuracy = ", ".join(f"{name} {share(result[f'{name}_accuracy'])}" for name in ("ordered", "shuffled", "corrected"))
    interval = result["order_reliance_interval"]
    reliance = "order reliance -" if interval is None else (
        f"order reliance {result['order_reliance']:.1%} [{interval[0]:.1%}, {interval[1]:.1%}]")
    return (f"accuracy {accuracy}; {reliance}; same answer after shuffling {share(result['agreement'])}, after "
            f"correction {share(result['corrected_agreement'])} ({result['clips']} videos, {result['labelled']} with a "
            f"label of the model, x {result['shuffles']} shuffles)")
