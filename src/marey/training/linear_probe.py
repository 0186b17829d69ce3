"""The linear probe: the class head fitted alone on the frozen embedding, before fine-tuning begins.

Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
ICLR 2022: the large gradients of a random head distort features that were good, those of a fitted
head do not.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.errors import UserError
from marey.training.sampler import Key
from marey.training.task import Batch

PASSES = 3
"""Augmented passes over the training clips whose embeddings the head is fitted on."""
FIRST_EPOCH = 500_000
"""Epoch number of the first pass: so high that no training epoch is augmented alike."""
STEPS = 300
"""Full-batch optimiser steps."""


def head_of(model: nn.Module) -> nn.Module:
    """Return the module that makes logits: `head`, or SeViTAR's `class_mlp`.

    Raises:
        UserError: if the model has neither.
    """
    for name in ("head", "class_mlp"):
        if isinstance(getattr(model, name, None), nn.Module):
            return getattr(model, name)
    raise UserError(
        "train.linear_probe needs a model with a class head on its embedding; set it to false"
    )


def logits_of(model: nn.Module, embedding: Tensor) -> Tensor:
    """Return the class logits (B, K) of embeddings (B, D)."""
    if hasattr(model, "class_mlp"):
        return model.class_mlp(torch.cat((model.semantic_mlp(embedding), embedding), dim=-1))
    return head_of(model)(embedding)


def fit_head(
    model: nn.Module,
    embedding: Tensor,
    labels: Tensor,
    *,
    smoothing: float = 0.1,
    decay: float = 0.05,
    steps: int = STEPS,
) -> float:
    """Fit the class head by full-batch AdamW on fixed embeddings; returns its accuracy on them.

    Args:
        embedding: float, (N, D).
        labels: int, (N,).
    """
    head = head_of(model).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = F.cross_entropy(logits_of(model, embedding), labels, label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.zero_grad()
    with torch.no_grad():
        return (logits_of(model, embedding).argmax(1) == labels).double().mean().item()


def fit_linear_probe(
    model: nn.Module, loader: Iterable[Batch], device: torch.device, *, smoothing: float
) -> float:
    """Fit the class head of a model on the embeddings of clips; returns its accuracy on them.

    Args:
        model: put into evaluation mode; nothing but its head changes.
        loader: batches with "clip" and "label".
        device: where the model is.
        smoothing: label smoothing, 0..1.

    Raises:
        UserError: if the model has no class head, or no video can be read.
    """
    head_of(model)
    model.eval()
    embeddings, labels = [], []
    with torch.no_grad():
        for batch in loader:
            if "clip" in batch:
                embeddings.append(model(batch["clip"].to(device))["embedding"].float())
                labels.append(batch["label"].to(device))
    if not embeddings:
        raise UserError("no training video can be read; list the reasons with 'marey data check'")
    return fit_head(model, torch.cat(embeddings), torch.cat(labels), smoothing=smoothing)


def probe_keys(num_samples: int) -> list[Key]:
    """Return the keys of the augmented training items the head is fitted on."""
    return [(FIRST_EPOCH + turn, sample) for turn in range(PASSES) for sample in range(num_samples)]
