"""The term "label": the predicted label embedding against the label's (SeViTAR, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.errors import UserError
from marey.labels.embed import LabelEmbeddings, embed_labels
from marey.losses.label_embedding import label_embedding_loss
from marey.training.task import Batch, Outputs


class LabelTerm(nn.Module):
    """`label_embedding_loss` of `outputs["label_embedding"]` (B, E) for `batch["label"]` (B,).

    Args:
        vectors: float, (K, E), one unit vector per class.
        kind: "mse" or "cosine".
    """

    vectors: Tensor

    def __init__(self, vectors: Tensor, kind: str = "mse") -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("vectors", vectors, persistent=False)

    def forward(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch.

        Raises:
            UserError: if the model has no label-embedding head.
        """
        if outputs.get("label_embedding") is None:
            raise UserError("the model has no label-embedding head; set model.name=sevitar")
        return label_embedding_loss(
            outputs["label_embedding"], self.vectors[batch["label"]], self.kind
        )


def embed_classes(
    class_names: Sequence[str], unseen: Sequence[str], source: str
) -> tuple[LabelEmbeddings, Tensor | None, dict[str, Any]]:
    """Embed the names of the classes, and of those left out of training.

    Returns:
        The embeddings of the classes; the vectors (U, E) of the unseen ones, None if there are
        none; and what the checkpoint says about them.
    """
    together = embed_labels([*class_names, *unseen], source)
    K = len(class_names)
    labels = replace(together, names=together.names[:K], vectors=together.vectors[:K])
    report = {
        "label_source": source,
        "unknown_words": list(labels.unknown_words),
        "same_meaning": [list(pair) for pair in together.same_meaning()],
        "unseen_classes": list(unseen),
    }
    return labels, together.vectors[K:] if unseen else None, report


class LabelMeasure:
    """ "label_top1": how often the nearest label embedding is the right one.

    Args:
        vectors: float, (K, E), one unit vector per class.
    """

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors

    def row_of(self, outputs: Outputs, position: int) -> dict[str, Any]:
        """Keep the predicted label embedding."""
        return {"label_embedding": outputs["label_embedding"][position].float().cpu()}

    def compute(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the share in [0, 1]."""
        predicted = torch.stack([row["label_embedding"] for row in rows])
        labels = torch.tensor([row["label"] for row in rows])
        nearest = (F.normalize(predicted, dim=-1) @ self.vectors.T).argmax(-1)
        return {"label_top1": float((nearest == labels).float().mean())}
