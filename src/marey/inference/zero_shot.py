"""Zero-shot recognition: labels never trained on, ranked by similarity to the predicted label
embedding ŝ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.errors import UserError
from marey.labels.embed import DEFAULT_MODEL, embed_labels, readable

TEMPERATURE = 0.07
"""Cosine similarities are divided by this before the softmax, so that they can be read as
probabilities."""


def rank_labels(outputs: dict[str, Any], labels: Sequence[str], checkpoint: Checkpoint) -> Tensor:
    """Return a probability for each label by the similarity of its name to the predicted label
    embedding.

    The probabilities are relative to the labels given: they say which of them fits best, not
    whether any of them fits.

    Args:
        outputs: of a model with a label-embedding head: "label_embedding" (V, E).
        labels: names; those the checkpoint carries an embedding of need no text model.

    Returns:
        (V, K), rows sum to 1.

    Raises:
        UserError: if the model has no label-embedding head, or embeddings of another size.
    """
    predicted = outputs.get("label_embedding")
    if predicted is None:
        raise UserError(
            f"{checkpoint.source} has no label-embedding head, which --labels needs; "
            "use --model marey-mini-rgb, or train a recipe such as sevitar_ucf101"
        )
    vectors = label_vectors(labels, checkpoint)
    if vectors.shape[1] != predicted.shape[1]:
        raise UserError(
            f"label embeddings have {vectors.shape[1]} values, the model predicts "
            f"{predicted.shape[1]}; embed the labels with the source the model was trained with"
        )
    return (similarity(predicted, vectors) / TEMPERATURE).softmax(-1)


def label_vectors(labels: Sequence[str], checkpoint: Checkpoint) -> Tensor:
    """Return unit vectors (K, E) of labels: stored ones where the checkpoint has them, the others
    embedded now.

    A checkpoint stores its classes, and those that were held out of its training as unseen.

    Raises:
        UserError: if a label has to be embedded and cannot be, or its embedding has another size
            than the stored ones.
    """
    extra = checkpoint.extra or {}
    stored: dict[str, Tensor] = {}
    for names, tensor in (
        (checkpoint.class_names, "label_embeddings"),
        (extra.get("unseen_classes"), "unseen_embeddings"),
    ):
        if tensor in checkpoint.tensors:
            stored |= {
                readable(name): vector.float()
                for name, vector in zip(names or (), checkpoint.tensors[tensor], strict=True)
            }
    missing = list(dict.fromkeys(label for label in labels if readable(label) not in stored))
    if missing:
        source = extra.get("label_source", DEFAULT_MODEL)
        embedded = embed_labels(missing, source)
        sizes = {len(vector) for vector in stored.values()}
        if sizes - {embedded.vectors.shape[1]}:
            raise UserError(
                f"label embeddings of {source} have {embedded.vectors.shape[1]} values, the "
                f"checkpoint's {sizes.pop()}; embed the labels with the source {checkpoint.source} "
                "was trained with"
            )
        stored |= {
            readable(label): vector for label, vector in zip(missing, embedded.vectors, strict=True)
        }
    return torch.stack([F.normalize(stored[readable(label)], dim=0) for label in labels])


def similarity(
    predicted: Tensor, vectors: Tensor, references: Tensor | None = None, neighbours: int = 10
) -> Tensor:
    """Return the cosine similarity of predicted embeddings to label vectors, corrected for hubs if
    asked.

    A hub is a label that is near to everything. With `references` the similarity is that of CSLS
    (Lample et al., 2018, Eq. 3): twice the cosine, less the mean cosine of the label to its nearest
    references. (The other correction term of that equation is the same for all labels of one video
    and cannot change their ranking; it is left out.)

    Args:
        predicted: (N, E), any scale.
        vectors: (K, E), any scale.
        references: (R, E) embeddings predicted for other videos, or None for the plain cosine.
        neighbours: how many nearest references are averaged.

    Returns:
        (N, K).
    """
    labels = F.normalize(vectors, dim=-1)
    cosine = F.normalize(predicted, dim=-1) @ labels.T
    if references is None:
        return cosine
    to_references = labels @ F.normalize(references, dim=-1).T  # (K, R)
    hubness = to_references.topk(min(neighbours, references.shape[0]), dim=-1).values.mean(-1)
    return 2 * cosine - hubness
