"""SeViTAR: a video transformer that also predicts the meaning of the label, as a sentence embedding.

"Semantic Video Transformer for Robust Action Recognition" (ROSE challenge), sections 3.2-3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from marey.layers.transformer_block import initialise_linear
from marey.models.direcformer import add_order_head, order_answer
from marey.models.timesformer import TimeSformer


def perceptron(width_in: int, hidden: Sequence[int], width_out: int, dropout: float = 0.0) -> nn.Sequential:
    """Build linear layers with GELU between them; without hidden widths it is one linear layer."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(width_in, width), nn.GELU(), nn.Dropout(dropout)]
        width_in = width
    layers.append(nn.Linear(width_in, width_out))
    return nn.Sequential(*layers)


class SeViTAR(TimeSformer):
    """Classify a clip from its visual feature z and its predicted label embedding ŝ.

    z is the class token of the last block; ŝ = semantic MLP(z); logits = classification MLP([ŝ, z]) (section 3.2).
    The paper gives neither the widths of the two MLPs nor whether they train together; the widths are arguments, and
    `detach_label_embedding` cuts the classification loss off from the semantic MLP. Following TimeSformer, z is taken
    after the last norm. Any attention kind of `TimeSformer` can carry it, and `num_orders` adds DirecFormer's head.

    Args:
        num_classes: K.
        label_dim: E, the width of the label embeddings (384 for the bundled sentence encoder, 700 for Sent2Vec).
        label_hidden: hidden widths of the semantic MLP.
        class_hidden: hidden widths of the classification MLP.
        head_dropout: dropout in both MLPs.
        detach_label_embedding: stop the classification loss at ŝ.
        num_orders: P, permutations the order head tells apart; 0 leaves it out.
        shared_norm: one last norm for the class and the order head.
        others: as `TimeSformer`.

    Raises:
        UserError: if arguments do not fit together.
    """

    def __init__(self, num_classes: int, label_dim: int = 384, label_hidden: Sequence[int] = (768,),
                 class_hidden: Sequence[int] = (768,), head_dropout: float = 0.0, detach_label_embedding: bool = False,
                 num_orders: int = 0, shared_norm: bool = False, num_frames: int = 8, image_size: int = 224,
                 patch_size: int = 16, embed_dim: int = 768, depth: int = 12, num_heads: int = 12,
                 mlp_ratio: float = 4.0, attention: str = "divided", time_attention: str = "softmax",
                 space_attention: str = "softmax", cls_in_time: bool = False, position_embedding: str = "separable",
                 stem: str = "linear", stem_stage: int | None = None, freeze_stem_norm: bool = False,
                 drop_path: float = 0.0, dropout: float = 0.0, attention_dropout: float = 0.0, qkv_bias: bool = True,
                 resize_embeddings: str | None = None,
                 activation_checkpointing: bool | str = False):
        label_hidden, class_hidden = list(label_hidden), list(class_hidden)
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        own = ("label_dim", "label_hidden", "class_hidden", "head_dropout", "detach_label_embedding", "num_orders",
               "shared_norm")
        super().__init__(**{name: value for name, value in arguments.items() if name not in own} | {"num_classes": 0})
        self.arguments: dict[str, Any] = arguments
        self.detach_label_embedding = detach_label_embedding
        self.semantic_mlp = perceptron(embed_dim, label_hidden, label_dim, head_dropout)
        self.class_mlp = perceptron(label_dim + embed_dim, class_hidden, num_classes, head_dropout)
        initialise_linear(self.semantic_mlp)
        initialise_linear(self.class_mlp)
        add_order_head(self, num_orders, shared_norm)

    def answer(self, cls: Tensor) -> dict[str, Any]:
        """Apply the two MLPs, and the order head if there is one, to the class token (B, D) of the last block.

        Returns:
            "logits" (B, K), "label_embedding" ŝ (B, E), "embedding" z (B, D), and "order_logits" (B, P).
        """
        z = self.norm(cls)
        label_embedding = self.semantic_mlp(z)
        seen = label_embedding.detach() if self.detach_label_embedding else label_embedding
        outputs = {"logits": self.class_mlp(torch.cat((seen, z), dim=-1)), "label_embedding": label_embedding,
                   "embedding": z}
        return outputs | order_answer(self, cls, z)
