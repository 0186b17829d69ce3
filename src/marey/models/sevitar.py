"""SeViTAR: a video transformer that also predicts the sentence embedding of the label.

"Semantic Video Transformer for Robust Action Recognition" (ROSE challenge), sections 3.2-3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from marey.layers.transformer_block import initialise_linear
from marey.models.direcformer import add_order_head, order_outputs
from marey.models.timesformer import TimeSformer
from marey.models.timesformer_config import TimeSformerConfig


def perceptron(
    width_in: int, hidden: Sequence[int], width_out: int, dropout: float = 0.0
) -> nn.Sequential:
    """Build linear layers with GELU between them; without hidden widths it is one linear layer."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(width_in, width), nn.GELU(), nn.Dropout(dropout)]
        width_in = width
    layers.append(nn.Linear(width_in, width_out))
    return nn.Sequential(*layers)


@dataclass(frozen=True, kw_only=True)
class SeViTARConfig(TimeSformerConfig):
    """TimeSformer's settings and those of the heads."""

    label_dim: int = 384
    """E, the width of the label embeddings (384 for the bundled sentence encoder, 700 for
    Sent2Vec)."""

    label_hidden: Sequence[int] = (768,)
    """Hidden widths of the semantic MLP."""

    class_hidden: Sequence[int] = (768,)
    """Hidden widths of the classification MLP."""

    head_dropout: float = 0.0
    """Dropout in both MLPs."""

    detach_label_embedding: bool = False
    """Stop the classification loss at ŝ."""

    num_orders: int = 0
    """P, the number of classes of the order head; 0 leaves that head out."""

    shared_norm: bool = False
    """One last norm for the class and the order head."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("label_hidden", "class_hidden"):
            object.__setattr__(
                self, name, tuple(getattr(self, name))
            )  # lists, where they come from JSON


class SeViTAR(TimeSformer):
    """Classify a clip from its visual feature z and its predicted label embedding ŝ.

    z is the class token of the last block; ŝ = semantic MLP(z); logits = classification MLP([ŝ, z])
    (section 3.2). The paper gives neither the widths of the two MLPs nor whether they train
    together; the widths are arguments, and `detach_label_embedding` cuts the classification loss
    off from the semantic MLP. Following TimeSformer, z is taken after the last norm. Any attention
    kind of `TimeSformer` can carry it, and `num_orders` adds DirecFormer's head.

    Args:
        config: the settings; or its fields as keyword arguments.

    Raises:
        UserError: if settings do not fit together.
    """

    config_type: ClassVar[type[TimeSformerConfig]] = SeViTARConfig
    has_linear_head: ClassVar[bool] = False

    def __init__(self, config: SeViTARConfig | None = None, /, **fields: Any) -> None:
        config = SeViTARConfig(**fields) if config is None else config
        super().__init__(config)
        D, E = config.embed_dim, config.label_dim
        self.detach_label_embedding = config.detach_label_embedding
        self.semantic_mlp = perceptron(D, config.label_hidden, E, config.head_dropout)
        self.class_mlp = perceptron(
            E + D, config.class_hidden, config.num_classes, config.head_dropout
        )
        initialise_linear(self.semantic_mlp)
        initialise_linear(self.class_mlp)
        add_order_head(self, config.num_orders, config.shared_norm)

    def forward_head(self, cls: Tensor) -> dict[str, Any]:
        """Apply the two MLPs, and the order head if there is one, to the class token (B, D) of the
        last block.

        Returns:
            "logits" (B, K), "label_embedding" ŝ (B, E), "embedding" z (B, D), and "order_logits"
            (B, P).
        """
        z = self.norm(cls)
        label_embedding = self.semantic_mlp(z)

        # Section 3.2: the classification MLP reads ŝ beside z.
        passed_on = label_embedding.detach() if self.detach_label_embedding else label_embedding
        logits = self.class_mlp(torch.cat((passed_on, z), dim=-1))
        outputs = {"logits": logits, "label_embedding": label_embedding, "embedding": z}
        return outputs | order_outputs(self, cls, z)
