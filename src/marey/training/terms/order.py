"""The terms "order" and "guided" of DirecFormer, and the permuted clips they are computed on.

Every clip goes through the model twice in one forward pass: ordered, for the class, and permuted,
for these terms. `outputs` holds the rows of the ordered clips, and `outputs["permuted"]` those of
the permuted ones.

`order` (B, T) is the gather that permuted a clip: `order[t]` is the original frame index of the
frame at position t.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from marey.errors import UserError, unknown_name
from marey.losses.order import graded_loss, guided_loss, order_loss
from marey.metrics.order import chance_order_accuracy, mean_with_interval, order_accuracy
from marey.order.correction import order_matrix, permute_frames
from marey.order.path import hamiltonian_path
from marey.order.permutations import load_permutations, make_permutation_set, random_permutations
from marey.training.objective_config import OrderConfig
from marey.training.task import Batch, Outputs

ORDER_TERMS = ("order", "guided")


class OrderTerm(nn.Module):
    """L_ord of Eq. 14: cross-entropy of which row of the permutation set permuted the clip."""

    def forward(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch.

        Raises:
            UserError: if the model has no order head.
        """
        if "order_logits" not in outputs:
            raise UserError(
                "the order loss needs a model with an order head, this one has none; use "
                "DirecFormer with num_orders = rows of the permutation set"
            )
        return order_loss(outputs["permuted"]["order_logits"], batch["permutation_index"])


class GuidedTerm(nn.Module):
    """L_self of Eq. 13, on the permuted clips only.

    On ordered clips attention could follow the time embedding without looking at the frames.

    Args:
        signs, mask_diagonal: see `guided_loss`.
        target: "signs" (Eq. 13), or "graded" (`graded_loss`, which has no signs and no diagonal).
    """

    def __init__(
        self, signs: str = "paper", mask_diagonal: bool = False, target: str = "signs"
    ) -> None:
        super().__init__()
        self.signs, self.mask_diagonal, self.target = signs, mask_diagonal, target

    def forward(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over clips, blocks, patches, heads and pairs of frames."""
        if self.target == "graded":
            return graded_loss(outputs["permuted"]["attention_time"], batch["order"])
        return guided_loss(
            outputs["permuted"]["attention_time"],
            batch["order"],
            signs=self.signs,
            mask_diagonal=self.mask_diagonal,
        )


def permutation_set(config: OrderConfig, num_frames: int) -> Tensor:
    """Return the permutations the order head tells apart, int64 (P, T).

    Raises:
        UserError: if they do not fit clips of so many frames.
    """
    if config.permutation_file is not None:
        return load_permutations(
            config.permutation_file, num_frames, identity_first=config.identity_first
        )
    return make_permutation_set(config.num_permutations, num_frames, rule=config.rule)


class PermutedClips(nn.Module):
    """The step before the forward pass: a permuted copy of every clip is appended to a batch.

    Args:
        permutations: int64, (P, T).
        class_names: in label order.
        backwards: classes whose clips are recordings played backwards; they are flipped in time
            before they are permuted.

    Raises:
        UserError: if a class played backwards is unknown.
    """

    permutations: Tensor
    is_backwards: Tensor

    def __init__(
        self, permutations: Tensor, class_names: Sequence[str], backwards: Sequence[str] = ()
    ) -> None:
        super().__init__()
        for name in backwards:
            if name not in class_names:
                raise unknown_name("class in objective.order.backwards", name, class_names)
        is_backwards = torch.tensor([name in backwards for name in class_names])
        self.register_buffer("permutations", permutations, persistent=False)
        self.register_buffer("is_backwards", is_backwards, persistent=False)

    def draw(self, batch: Batch) -> Tensor:
        """Draw a row of the set for each clip from torch's global generator, int64 (B,)."""
        return torch.randint(len(self.permutations), (len(batch["label"]),))

    def training_batch(self, batch: Batch, index: Tensor) -> Batch:
        """Permute each clip by its row of the set (Eq. 2)."""
        index = index.to(batch["clip"].device)
        return {**self.permuted(batch, self.permutations[index]), "permutation_index": index}

    def evaluation_batch(self, batch: Batch) -> Batch:
        """Permute each clip by one of all T! permutations, in every evaluation by the same."""
        T = batch["clip"].shape[1]
        rows = [
            random_permutations(1, T, torch.Generator().manual_seed(sample))
            for sample in batch["sample"].tolist()
        ]
        return self.permuted(batch, torch.cat(rows).to(batch["clip"].device))

    def permuted(self, batch: Batch, order: Tensor) -> Batch:
        """Return the batch with 2B clips, ordered then permuted, and their "order" (B, T)."""
        clip = batch["clip"]
        permuted = permute_frames(self.as_recorded(clip, batch["label"]), order)
        return {**batch, "clip": torch.cat([clip, permuted]), "order": order}

    def as_recorded(self, clip: Tensor, label: Tensor) -> Tensor:
        """Return the clips (B, T, ...), those played backwards flipped in time."""
        is_backwards = self.is_backwards[label].view(-1, *[1] * (clip.ndim - 1))
        return torch.where(is_backwards, clip.flip(1), clip)


def split_outputs(outputs: Outputs, num_ordered: int) -> Outputs:
    """Return the outputs of the ordered clips, and below "permuted" those of the permuted ones."""
    ordered, permuted = {}, {}
    for name, value in outputs.items():
        if isinstance(value, Tensor):
            ordered[name], permuted[name] = value[:num_ordered], value[num_ordered:]
        elif isinstance(value, list):  # attention: one tensor per block
            ordered[name] = [weights[:num_ordered] for weights in value]
            permuted[name] = [weights[num_ordered:] for weights in value]
    return {**ordered, "permuted": permuted}


EXACT_FRAMES, VALIDATION_BEAM = 12, 64
"""Of longer clips (an exact path of 16 frames takes .2 s) the path is found by a beam search so
wide; it weighs a few per cent less than the best."""


class OrderMeasure:
    """OrderAcc (Eq. 15) with interval and chance level, from the attention on permuted clips."""

    def row_of(self, outputs: Outputs, position: int) -> dict[str, Any]:
        """Return the OrderAcc of one sample, where the model has temporal attention."""
        permuted = outputs["permuted"]
        if not permuted.get("attention_time"):
            return {}
        order = permuted["order"][position][None].cpu()  # (1, T)
        last_block = permuted["attention_time"][-1][position][None]
        T = order.shape[1]
        beam = VALIDATION_BEAM if T > EXACT_FRAMES else None
        path, _ = hamiltonian_path(order_matrix([last_block], T), beam_width=beam)
        return {
            "order_accuracy": float(order_accuracy(path.cpu(), order)),
            "num_frames": order.shape[1],
        }

    def compute(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return "order_accuracy" with "_low", "_high", "_chance"; nothing if not measured."""
        measured = [row for row in rows if "order_accuracy" in row]
        if not measured:
            return {}
        mean, interval = mean_with_interval(
            torch.tensor([row["order_accuracy"] for row in measured])
        )
        return {
            "order_accuracy": mean,
            "order_accuracy_low": interval[0],
            "order_accuracy_high": interval[1],
            "order_accuracy_chance": chance_order_accuracy(measured[0]["num_frames"]),
        }
