"""DirecFormer: directed attention over time and space, and a head that names the order of the frames.

Truong et al., "DirecFormer: A Directed Attention in Transformer Approach to Robust Action Recognition", CVPR 2022.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from marey.layers.transformer_block import initialise_linear
from marey.models.timesformer import TimeSformer


class DirecFormer(TimeSformer):
    """Predict the class and the order of a clip (Eqs. 2 and 12).

    The defaults are the paper's: cosine attention over time and space ("C-C"), the class token as a key over time
    (Eq. 6), one norm per head (τ_cls, τ_ord). The released code differs: build with `space_attention="softmax"`,
    `cls_in_time=False`, `shared_norm=True` for checkpoints of its layout. The paper's kinds: S-S, S-C, C-S, C-C =
    (`time_attention`, `space_attention`).

    Args:
        num_classes: K.
        num_orders: P, the permutations the order head tells apart; 0 leaves that head out.
        shared_norm: one last norm for both heads.
        others: as `TimeSformer`.

    Raises:
        UserError: if arguments do not fit together.
    """

    def __init__(self, num_classes: int, num_orders: int = 1000, num_frames: int = 8, image_size: int = 224,
                 patch_size: int = 16, embed_dim: int = 768, depth: int = 12, num_heads: int = 12,
                 mlp_ratio: float = 4.0, attention: str = "divided", time_attention: str = "cosine",
                 space_attention: str = "cosine", cls_in_time: bool = True, shared_norm: bool = False,
                 position_embedding: str = "separable", stem: str = "linear", stem_stage: int | None = None,
                 freeze_stem_norm: bool = False, drop_path: float = 0.0, dropout: float = 0.0,
                 attention_dropout: float = 0.0, qkv_bias: bool = True, resize_embeddings: str | None = None,
                 activation_checkpointing: bool | str = False):
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        own = ("num_orders", "shared_norm")
        super().__init__(**{name: value for name, value in arguments.items() if name not in own})
        self.arguments: dict[str, Any] = arguments
        add_order_head(self, num_orders, shared_norm)

    def answer(self, cls: Tensor) -> dict[str, Any]:
        """Apply both norms and heads to the class token (B, D) of the last block (Eq. 12).

        Returns:
            "logits" (B, K), "order_logits" (B, P), "embedding" (B, D).
        """
        outputs = super().answer(cls)
        return outputs | order_answer(self, cls, outputs["embedding"])


def add_order_head(model: TimeSformer, num_orders: int, shared_norm: bool) -> None:
    """Give a model `order_norm` (τ_ord) and `order` (φ_ord); with `shared_norm` only `order`, with 0 orders neither."""
    if num_orders > 0:
        model.order = nn.Linear(model.embed_dim, num_orders)
        initialise_linear(model.order)
        if not shared_norm:
            model.order_norm = nn.LayerNorm(model.embed_dim, eps=1e-6)


def order_answer(model: TimeSformer, cls: Tensor, embedding: Tensor) -> dict[str, Tensor]:
    """Return "order_logits" (B, P) if the model has an order head (Eq. 12): φ_ord(τ_ord(cls)).

    Args:
        cls: (B, D), the last block's class token, before any norm.
        embedding: (B, D), the class token after the class norm, which a shared norm uses.
    """
    if not hasattr(model, "order"):
        return {}
    norm = getattr(model, "order_norm", None)
    return {"order_logits": model.order(norm(cls) if isinstance(norm, nn.Module) else embedding)}
