"""Whether none of the names given to `--labels` is right: a background list of everyday actions
competes with them.

The answer is "none of these" where the predicted label embedding is nearer to an everyday action
than to every name given. How well that works is measured: `python -m benchmarks.zero_shot_trust`,
`results/zero_shot_trust.json`.

Legend: V views, K names given, B everyday actions, E size of a label embedding.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.checkpoints.sources import WEIGHTS_FOLDER
from marey.errors import UserError
from marey.labels.embed import DEFAULT_MODEL, embed_labels

EVERYDAY = (
    "standing still",
    "sitting on a chair",
    "walking along a street",
    "running",
    "climbing stairs",
    "opening a door",
    "talking to someone",
    "talking on the phone",
    "typing on a keyboard",
    "reading a book",
    "writing",
    "eating",
    "drinking",
    "cooking",
    "washing dishes",
    "cleaning the floor",
    "ironing",
    "folding clothes",
    "brushing teeth",
    "combing hair",
    "putting on clothes",
    "driving a car",
    "riding a bicycle",
    "riding a horse",
    "swimming",
    "dancing",
    "jumping",
    "lifting weights",
    "throwing a ball",
    "catching a ball",
    "kicking a ball",
    "playing basketball",
    "playing tennis",
    "playing the guitar",
    "playing the piano",
    "clapping hands",
    "waving",
    "shaking hands",
    "hugging",
    "pushing somebody",
    "punching",
    "fighting",
    "falling down",
    "lying down",
    "getting up",
    "carrying a box",
    "digging in the garden",
    "painting a wall",
    "sawing wood",
    "taking a photograph",
)
"""What people do every day, written down before anything was measured."""

NONE_OF_THESE = "none of these: an everyday action fits better"
"""The reason for "unknown" among given names."""

SAME = 0.6
"""Cosine similarity from which an everyday action means what a given name means, and does not
compete with it."""

STORED = WEIGHTS_FOLDER / "everyday-actions" / "vectors.safetensors"
"""Their embeddings by the default sentence model (`tools/everyday_actions.py`)."""


def none_of_these(predicted: Tensor, vectors: Tensor, checkpoint: Checkpoint) -> dict[str, Any]:
    """Compare a video with the names given and with everyday actions.

    Args:
        predicted: float, (V, E), any scale.
        vectors: (K, E), unit vectors of the names given.
        checkpoint: of the model, which says what embeds its names.

    Returns:
        JSON types: "none_of_these", whether an everyday action is nearer than every name given;
        "none_score", by how much cosine (negative: a name given is nearer), mean over views;
        "nearest_other", that action. The first is None, with "not_tested" saying why, where the
        everyday actions cannot be embedded as the names are.
    """
    source = (checkpoint.extra or {}).get("label_source", DEFAULT_MODEL)
    try:
        background = everyday_vectors(str(source))
    except UserError as error:
        return {"none_of_these": None, "not_tested": str(error)}
    if background.shape[1] != vectors.shape[1]:
        return {"none_of_these": None, "not_tested": f"{source} embeds to another size"}
    competing = (background @ vectors.T).max(1).values < SAME
    if not bool(competing.any()):
        return {"none_of_these": None, "not_tested": "the names given mean all everyday actions"}

    unit = F.normalize(predicted.float(), dim=-1)
    others = (unit @ background[competing].T).mean(0)
    score = float(others.max() - (unit @ vectors.T).mean(0).max())
    names = [name for name, keep in zip(EVERYDAY, competing.tolist(), strict=True) if keep]
    return {
        "none_of_these": score > 0,
        "none_score": round(score, 4),
        "nearest_other": names[int(others.argmax())],
    }


@functools.cache
def everyday_vectors(source: str = DEFAULT_MODEL) -> Tensor:
    """Return unit vectors (B, E) of `EVERYDAY`: stored ones for the default sentence model.

    Raises:
        UserError: if another source cannot embed them.
    """
    if source == DEFAULT_MODEL and STORED.is_file():
        return F.normalize(load_file(STORED)["vectors"].float(), dim=1)
    return torch.as_tensor(embed_labels(EVERYDAY, source).vectors)
