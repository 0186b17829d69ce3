"""The terms of the Action Transformer (Girdhar et al., section 3.4): heads and proposals."""

from __future__ import annotations

from torch import Tensor, nn

from marey.losses.detection import action_loss, box_loss
from marey.training.task import Batch, Outputs


class ActionTerm(nn.Module):
    """`action_loss` of the boxes the head looked at: several actions may be true of one person."""

    def forward(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the boxes."""
        return action_loss(
            outputs["logits"],
            outputs["proposal_labels"],
            outputs.get("background_logits"),
            outputs["is_positive"],
        )


class BoxTerm(nn.Module):
    """`box_loss` of the head's corrections of the boxes it looked at."""

    def forward(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the boxes."""
        return box_loss(
            outputs["box_deltas"],
            outputs["box_delta_targets"],
            outputs["is_positive"],
            outputs["proposal_labels"],
        )


class ProposalTerm(nn.Module):
    """A loss of the proposal network, which torchvision's computes beside its boxes.

    Args:
        name: entry of the outputs, "loss_objectness" or "loss_rpn_box".
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the anchors."""
        return outputs[self.name]


def detection_terms() -> dict[str, nn.Module]:
    """Return all terms by name, in the order of the sum."""
    return {
        "class": ActionTerm(),
        "box": BoxTerm(),
        "rpn_objectness": ProposalTerm("loss_objectness"),
        "rpn_box": ProposalTerm("loss_rpn_box"),
    }
