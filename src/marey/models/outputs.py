"""Run a model on any number of clips, a few at a time, and bring what it returns to the CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marey.models.timesformer import with_stem


@torch.inference_mode()
def outputs_of(
    model: nn.Module,
    clips: Tensor,
    *,
    batch_size: int | None = None,
    device: str | torch.device = "cpu",
    vectors: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return every tensor of the model's output dict, float32 on the CPU, in the order of the
    clips.

    Args:
        model: in eval mode, on `device`.
        clips: float (B, T, C, S, S), normalised for the model.
        batch_size: clips of one forward pass; None takes all at once.
        vectors: (B, E), what is measured of each clip's video, for a taught model that reads it.

    Returns:
        What the model returns with one row per clip ("logits" (B, K), "embedding" (B, D), ...), and
        "stem_embedding" (B, C), the mean feature of a pretrained image stem, where the model has
        one. Lists and None are left out.
    """
    parts: list[dict[str, Tensor]] = []
    step = batch_size or max(1, len(clips))
    for start in range(0, len(clips), step):
        part = clips[start : start + step]
        # A pretrained stem runs once: its features take the clip's place, and their mean is kept.
        shown, stem_embedding = with_stem(model, part.to(device))
        if vectors is None:
            outputs = model(shown)
        else:
            outputs = model(shown, vectors[start : start + step].to(device))
        if stem_embedding is not None:
            outputs = {**outputs, "stem_embedding": stem_embedding}
        parts.append(
            {
                name: value.float().cpu()
                for name, value in outputs.items()
                if isinstance(value, Tensor)
            }
        )
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
