"""Fit the class head alone on the frozen embedding before anything else moves (linear probing, then fine-tuning).

Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022: a random
head sends large gradients into features that were good; a fitted head does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from marey.errors import UserError

if TYPE_CHECKING:
    from marey.training.loop import Run

PASSES = 3
"""Augmented passes over the training clips whose embeddings the head is fitted on."""
FIRST_EPOCH = 500_000
"""The passes are augmented as epochs from this one on, which no training reaches."""
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
    raise UserError("train.head_warm_start needs a model with a class head on its embedding; set it to false")


def logits_of(model: nn.Module, embedding: Tensor) -> Tensor:
    """Return the class logits (B, K) of embeddings (B, D)."""
    if hasattr(model, "class_mlp"):
        return model.class_mlp(torch.cat((model.semantic_mlp(embedding), embedding), dim=-1))
    return head_of(model)(embedding)


def fit_head(model: nn.Module, embedding: Tensor, labels: Tensor, *, smoothing: float = 0.1, decay: float = 0.05,
             steps: int = STEPS) -> float:
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


def warm_start(run: Run) -> None:
    """Fit the head of a run's model on the embeddings of its augmented training clips; the same in every process."""
    model, device = run.model.eval(), run.accelerator.device
    head_of(model)
    keys = [(FIRST_EPOCH + turn, place) for turn in range(PASSES) for place in range(run.num_samples)]
    size = run.config.train.eval_batch_size or run.part_size
    loader = DataLoader(run.task.train_data, batch_sampler=[keys[n:n + size] for n in range(0, len(keys), size)],  # type: ignore[arg-type]
                        collate_fn=run.task.collate, num_workers=run.config.train.workers)
    embeddings, labels = [], []
    with torch.no_grad():
        for batch in loader:
            if "clip" in batch:
                embeddings.append(model(batch["clip"].to(device))["embedding"].float())
                labels.append(batch["label"].to(device))
    if not embeddings:
        raise UserError("no training video can be read; list the reasons with 'marey data check'")
    reached = fit_head(model, torch.cat(embeddings), torch.cat(labels),
                       smoothing=run.config.objective.label_smoothing)
    run.progress.say(f"class head fitted on the frozen embedding: {reached:.3f} of the training clips")
