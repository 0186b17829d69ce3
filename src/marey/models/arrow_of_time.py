"""The arrow of time on poses: are the moments of a person played forwards or backwards?

Axes: B windows, T moments, P persons, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from marey.errors import UserError
from marey.layers.pose_stem import FEATURES, by_person, keypoint_features
from marey.transforms.keypoints import NUM_KEYPOINTS

DIRECTIONS = ("forwards", "backwards")
"""The classes, in label order."""


class ArrowOfTime(nn.Module):
    r"""Tell a window of keypoints from the same window played backwards.

    The question is that of Pickup et al., "Seeing the Arrow of Time", CVPR 2014, and Wei et al.,
    "Learning and Using the Arrow of Time", CVPR 2018; there the input is optical flow, here the
    keypoints of one person, which no codec writes. With g a small convolutional network over the
    moments, the log odds of "forwards" are

        s(x) = g(x) - g(reversed x)

    so s(reversed x) = -s(x): the network cannot prefer one direction whatever is shown, and a
    window that looks the same both ways has s = 0.

    Args:
        embed_dim: width D of the convolutions.
        dropout: of their output, in training.
        num_frames: T of the windows; the weights fit any.
        num_persons: P; only the first person is looked at.
        num_classes: 2, the `DIRECTIONS`.
    """

    task = "poses"

    def __init__(
        self,
        embed_dim: int = 64,
        dropout: float = 0.2,
        num_frames: int = 16,
        num_persons: int = 1,
        num_classes: int = 2,
    ) -> None:
        super().__init__()
        if num_classes != len(DIRECTIONS):
            raise UserError(f"num_classes is {num_classes}, but time has two directions: give 2")
        self.arguments = {
            "embed_dim": embed_dim,
            "dropout": dropout,
            "num_frames": num_frames,
            "num_persons": num_persons,
            "num_classes": num_classes,
        }
        D = embed_dim
        self.embed = nn.Linear(NUM_KEYPOINTS * FEATURES, D)
        self.convolve = nn.ModuleList(nn.Conv1d(D, D, 3, padding=1) for _ in range(2))
        self.norm = nn.LayerNorm(D)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Sequential(nn.Linear(2 * D, D), nn.GELU(), nn.Linear(D, 1))

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        """Compare windows with their reversals.

        Args:
            clip: (B, T, P * 17, 3), normalised (`transforms.pose_clip.normalise_pose`), T of 2 or
                more.

        Returns:
            "logits" (B, 2): s / 2 and -s / 2, whose softmax is sigmoid(s) for "forwards".

        Raises:
            UserError: if the clip has another form.
        """
        persons = by_person(clip)
        log_odds = self.score(persons) - self.score(persons.flip(1))
        return {"logits": torch.stack((log_odds, -log_odds), dim=-1) / 2}

    def score(self, persons: Tensor) -> Tensor:
        """Return g (B,) of keypoints (B, T, P, 17, 3)."""
        features = keypoint_features(persons[:, :, :1])[:, :, 0].flatten(-2)  # (B, T, 17 * 12)
        moments = gelu(self.embed(features)).transpose(1, 2)  # (B, D, T)
        for convolution in self.convolve:
            moments = moments + gelu(convolution(moments))
        moments = self.dropout(self.norm(moments.transpose(1, 2)))
        pooled = torch.cat((moments.mean(1), moments.amax(1)), dim=-1)  # (B, 2 * D)
        return self.head(pooled)[:, 0]
