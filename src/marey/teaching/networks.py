"""Networks that are trained on the user's videos: attentive pooling of a frozen encoder's tokens,
low-rank adapters, and fine-tuning of the whole encoder.

Legend: N videos, L tokens, D width, E of the vectors measured of a video, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.datasets.clips import VideoViews
from marey.datasets.index import DatasetIndex
from marey.errors import UserError, VideoError, import_extra
from marey.models.external_encoder import ExternalEncoder
from marey.models.probe import Probe
from marey.teaching.ridge import standardise
from marey.training.config import OptimConfig
from marey.training.optim import build_optimizer
from marey.transforms.preprocess import Preprocess

NETWORKS = ("attentive", "lora", "full")
LORA_RANK = 8


@dataclass(frozen=True)
class TrainingPlan:
    """How a network is trained; fixed beforehand, so that nothing is tuned on what is reported."""

    epochs: int
    lr: float
    batch_size: int = 16
    weight_decay: float = 0.05
    layer_decay: float = 1.0


PLANS = {
    "attentive": TrainingPlan(epochs=40, lr=1e-3),
    "lora": TrainingPlan(epochs=15, lr=5e-4, batch_size=4),
    "full": TrainingPlan(epochs=15, lr=1e-4, batch_size=4, layer_decay=0.75),
}

Batch = Callable[[list[int]], Tensor]
"""Rows -> tokens (B, L, D) for attentive pooling, clips (B, T, C, S, S) for the others."""


def train_probe(
    probe: Probe,
    method: str,
    batch_of: Batch,
    vectors: Tensor | None,
    labels: Tensor,
    rows: list[int],
    *,
    plan: TrainingPlan,
    device: str,
    seed: int = 0,
) -> Probe:
    """Train what a method trains, with cross-entropy, AdamW and a cosine schedule.

    Args:
        probe: changed in place.
        vectors: (N, E), what is measured of every video, or None.
        labels: int64 (N,).
        rows: the videos to learn from.

    Returns:
        The probe, in evaluation mode, on the CPU; adapters are merged into its encoder.

    Raises:
        UserError: if the method does not fit the encoder.
    """
    torch.manual_seed(seed)
    probe = probe.to(device).eval()  # dropout stays off, batch statistics frozen
    adapters = prepare(probe, method)
    probe.to(device)
    scaled = None if vectors is None else _Scaled(vectors[rows])
    optim = OptimConfig(
        lr=plan.lr, weight_decay=plan.weight_decay, layer_decay=plan.layer_decay, clip_norm=1.0
    )
    search = build_optimizer(probe, optim)
    steps = plan.epochs * -(-len(rows) // plan.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(search, max(1, steps))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(plan.epochs):
        order = [rows[k] for k in torch.randperm(len(rows), generator=generator).tolist()]
        for first in range(0, len(order), plan.batch_size):
            batch = order[first : first + plan.batch_size]
            extra = None
            if vectors is not None and scaled is not None:
                extra = scaled(vectors[batch]).to(device)
            logits = _logits(probe, method, batch_of(batch).to(device), extra)
            loss = F.cross_entropy(logits, labels[batch].to(device))
            search.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(probe.parameters(), 1.0)
            search.step()
            schedule.step()
    if adapters is not None:
        probe.encoder.net = adapters.merge_and_unload()
    if scaled is not None:
        scaled.fold_into(probe.head)
    return probe.requires_grad_(False).eval().cpu()


@torch.inference_mode()
def probe_logits(
    probe: Probe, method: str, batch_of: Batch, vectors: Tensor | None, rows: list[int]
) -> Tensor:
    """Return the logits (len(rows), K) of a trained probe."""
    found = []
    for first in range(0, len(rows), 8):
        batch = rows[first : first + 8]
        extra = None if vectors is None else vectors[batch]
        found.append(_logits(probe, method, batch_of(batch), extra))
    return torch.cat(found)


def _logits(probe: Probe, method: str, inputs: Tensor, vectors: Tensor | None) -> Tensor:
    if method != "attentive":
        return probe(inputs, vectors)["logits"]
    parts = [probe.pooler(inputs.float())] if probe.pooler is not None else []
    return probe.head(torch.cat(parts + ([] if vectors is None else [vectors]), dim=1))


def prepare(probe: Probe, method: str) -> Any:
    """Say which parameters train; returns the adapters of "lora", else None.

    Raises:
        UserError: if the encoder is no transformer, for "lora".
    """
    probe.requires_grad_(False)
    probe.head.requires_grad_(True)
    if probe.pooler is not None:
        probe.pooler.requires_grad_(True)
    if method == "full":
        probe.encoder.requires_grad_(True)
    if method != "lora":
        return None
    encoder = probe.encoder
    if not isinstance(encoder, ExternalEncoder) or encoder.library != "transformers":
        raise UserError(
            "method 'lora' adapts the attention of a transformer; name one with --encoder, such "
            "as hf:MCG-NJU/videomae-base, or take --method probe"
        )
    peft = import_extra("peft", "lora", "method 'lora'")
    config = peft.LoraConfig(
        r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules="all-linear", bias="none"
    )
    return peft.get_peft_model(encoder.net, config)  # layers are replaced inside encoder.net


class _Scaled:
    """Vectors standardised while training; folded into the head afterwards."""

    def __init__(self, vectors: Tensor) -> None:
        standard = standardise(vectors, [vectors.shape[1]])
        # Unit variance per value would drown the pooled tokens, so squared length is one.
        self.mean, self.scale = standard.mean.float(), standard.scale.float()

    def __call__(self, vectors: Tensor) -> Tensor:
        return (vectors - self.mean) * self.scale

    @torch.no_grad()
    def fold_into(self, head: nn.Linear) -> None:
        """Make a head of scaled vectors, which stand last, one of vectors as they are."""
        head.to("cpu")
        width = len(self.mean)
        head.weight[:, -width:] *= self.scale
        head.bias -= head.weight[:, -width:] @ self.mean


def cross_validate_network(
    build: Callable[[], Probe],
    method: str,
    batch_of: Batch,
    vectors: Tensor | None,
    labels: Tensor,
    folds: Tensor,
    *,
    plan: TrainingPlan,
    device: str,
    seed: int = 0,
    tick: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return the logits (N, K) of every video by a network that never saw its fold."""
    numbers = sorted(set(folds.tolist()))
    logits = torch.zeros(len(labels), build().head.out_features)
    for done, fold in enumerate(numbers, start=1):
        known = (folds != fold).nonzero()[:, 0].tolist()
        held = (folds == fold).nonzero()[:, 0].tolist()
        probe = train_probe(
            build(), method, batch_of, vectors, labels, known, plan=plan, device=device, seed=seed
        )
        logits[held] = probe_logits(probe, method, batch_of, vectors, held)
        if tick is not None:
            tick(done, len(numbers))
    return logits


def clips_of(index: DatasetIndex, preprocess: Preprocess) -> Batch:
    """Return what reads the middle view of some videos; each is read again in every epoch."""
    views = VideoViews(index, replace(preprocess, crops=1), (1, 1))

    def read(rows: list[int]) -> Tensor:
        items = [views[row] for row in rows]
        for item in items:
            if "error" in item:
                raise VideoError(item["error"])
        return torch.stack([item["views"][0] for item in items])

    return read


def tokens_of(tokens: Tensor) -> Batch:
    """Return what picks stored tokens (N, L, D)."""
    return lambda rows: tokens[rows]


def builder(probe: Probe) -> Callable[[], Probe]:
    """Return what makes fresh copies of a probe; heads and poolers start as they are."""
    return lambda: copy.deepcopy(probe)
