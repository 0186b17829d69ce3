"""From keypoints to tokens: one token per moment and part of the body, one per moment and other
person.

Axes: B clips, T moments, P persons, 13 parts (`transforms.keypoints.PART_NAMES`), D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marey.errors import UserError
from marey.transforms.keypoints import HEAD, NUM_KEYPOINTS, TRUNK

FEATURES = 12
"""Per keypoint: place around the person's middle of the moment (2), change from the moment before
and to the one after
(2 + 2), score, whether it is seen; and of the person the middle of the moment (2) and its change
(2)."""

CHANGE_SCALE = 4.0
"""Factor of changes, so that they are about as large as places (an arm's length is .3 body
heights)."""


class PoseStem(nn.Module):
    """A linear map of each keypoint's place, motion and score; the five keypoints of the head share
    one token.

    Two layers, and a norm, so that tokens are as large as the positions added to them.

    A clip holds x, y in body heights and the score, as `transforms.pose_clip.normalise_pose` gives
    them; a score of 0 means not seen. Changes are taken between the moments of the clip as it
    comes: shuffled frames give the changes of shuffled frames.

    The first person is the one whose action is asked; each other person is one token a moment,
    relative to the first.

    Args:
        embed_dim: token width D.
        num_persons: P.
    """

    def __init__(self, embed_dim: int, num_persons: int = 1) -> None:
        super().__init__()
        self.head = nn.Linear(len(HEAD) * FEATURES, embed_dim)
        self.body = nn.Linear(FEATURES, embed_dim)
        self.other = nn.Linear(NUM_KEYPOINTS * FEATURES, embed_dim) if num_persons > 1 else None
        self.mix = nn.Sequential(
            nn.GELU(), nn.Linear(embed_dim, embed_dim), nn.LayerNorm(embed_dim, eps=1e-6)
        )

    def forward(self, clip: Tensor) -> Tensor:
        """Return tokens (B, T, 13 + P - 1, D) of keypoints (B, T, P * 17, 3)."""
        features = keypoint_features(by_person(clip))  # (B, T, P, 17, FEATURES)
        actor = features[:, :, 0]
        head = self.head(actor[..., list(HEAD), :].flatten(-2))  # (B, T, D)
        body = self.body(actor[..., len(HEAD) :, :])  # (B, T, 12, D)
        tokens = [head[..., None, :], body]
        if self.other is not None:
            tokens.append(self.other(features[:, :, 1:].flatten(-2)))  # (B, T, P - 1, D)
        return self.mix(torch.cat(tokens, dim=-2))

    def visible(self, clip: Tensor) -> Tensor:
        """Return which tokens are seen, bool (B, T, 13 + P - 1); attention leaves the rest out."""
        seen = by_person(clip)[..., 2] > 0  # (B, T, P, 17)
        actor = seen[:, :, 0]
        head = actor[..., list(HEAD)].any(-1, keepdim=True)
        return torch.cat((head, actor[..., len(HEAD) :], seen[:, :, 1:].any(-1)), dim=-1)


def by_person(clip: Tensor) -> Tensor:
    """Return keypoints (B, T, P, 17, 3) of a clip (B, T, P * 17, 3).

    Raises:
        UserError: if the clip has another form.
    """
    if clip.ndim != 4 or clip.shape[-1] != 3 or clip.shape[2] % NUM_KEYPOINTS:
        raise UserError(
            f"clip has shape {tuple(clip.shape)}, but a pose model takes keypoints (B, T, "
            f"{NUM_KEYPOINTS} * persons, 3): x, y, score; `marey predict` finds them in a video"
        )
    return clip.unflatten(2, (-1, NUM_KEYPOINTS))


def keypoint_features(keypoints: Tensor) -> Tensor:
    """Return what the stem maps (B, T, P, 17, `FEATURES`), zeros where a keypoint is not seen."""
    places, score = keypoints[..., :2], keypoints[..., 2:]
    seen = (score > 0).to(places.dtype)

    # the middle of a moment: of shoulders and hips that are seen, else of everything seen
    trunk = places[..., list(TRUNK), :].sum(-2) / seen[..., list(TRUNK), :].sum(-2).clamp_min(1)
    anywhere = places.sum(-2) / seen.sum(-2).clamp_min(1)
    middle = torch.where(seen[..., list(TRUNK), :].sum(-2) > 0, trunk, anywhere)[..., None, :]
    there = seen.amax(-2, keepdim=True)
    local = (places - middle) * seen

    before, after = changes(local, seen)
    way, _ = changes(middle, there)
    of_person = torch.cat((middle, CHANGE_SCALE * way), dim=-1).expand(*places.shape[:-1], 4)
    features = torch.cat(
        (local, CHANGE_SCALE * before, CHANGE_SCALE * after, score, seen, of_person), dim=-1
    )
    return features * seen


def changes(places: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the change from the moment before, and to the one after; zero where one of the two is
    not seen.

    Args:
        places: (B, T, ...), the second axis is time.
        seen: 0 or 1, broadcastable to it.
    """
    step = (places[:, 1:] - places[:, :-1]) * seen[:, 1:] * seen[:, :-1]
    none = torch.zeros_like(places[:, :1])
    return torch.cat((none, step), dim=1), torch.cat((step, none), dim=1)
