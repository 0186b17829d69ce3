"""DirecFormer: directed attention over time and space, and a head that predicts the order of the
frames.

Truong et al., "DirecFormer: A Directed Attention in Transformer Approach to Robust Action
Recognition", CVPR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from marey.layers.transformer_block import initialise_linear
from marey.models.timesformer import TimeSformer
from marey.models.timesformer_config import TimeSformerConfig


@dataclass(frozen=True, kw_only=True)
class DirecFormerConfig(TimeSformerConfig):
    """TimeSformer's settings with the paper's defaults, and the order head's."""

    time_attention: str = "cosine"
    space_attention: str = "cosine"
    cls_in_time: bool = True

    num_orders: int = 1000
    """P, the number of classes of the order head; 0 leaves that head out."""

    shared_norm: bool = False
    """One last norm for both heads."""


class DirecFormer(TimeSformer):
    """Predict the class and the order of a clip (Eqs. 2 and 12).

    The defaults are the paper's: cosine attention over time and space ("C-C"), the class token as a
    key over time (Eq. 6), one norm per head (τ_cls, τ_ord). The released code differs: build with
    `space_attention="softmax"`, `cls_in_time=False`, `shared_norm=True` for checkpoints of its
    layout. The paper's kinds: S-S, S-C, C-S, C-C = (`time_attention`, `space_attention`).

    Args:
        config: the settings; or its fields as keyword arguments.

    Raises:
        UserError: if settings do not fit together.
    """

    config_type: ClassVar[type[TimeSformerConfig]] = DirecFormerConfig

    def __init__(self, config: DirecFormerConfig | None = None, /, **fields: Any) -> None:
        config = DirecFormerConfig(**fields) if config is None else config
        super().__init__(config)
        add_order_head(self, config.num_orders, config.shared_norm)

    def forward_head(self, cls: Tensor) -> dict[str, Any]:
        """Apply both norms and heads to the class token (B, D) of the last block (Eq. 12).

        Returns:
            "logits" (B, K), "order_logits" (B, P), "embedding" (B, D).
        """
        # Eq. 12: y = φ_cls(τ_cls(z)), i = φ_ord(τ_ord(z)).
        outputs = super().forward_head(cls)
        return outputs | order_outputs(self, cls, outputs["embedding"])


def add_order_head(model: TimeSformer, num_orders: int, shared_norm: bool) -> None:
    """Give a model `order_norm` (τ_ord) and `order` (φ_ord); with `shared_norm` only `order`, with
    0 orders neither."""
    if num_orders > 0:
        model.order = nn.Linear(model.config.embed_dim, num_orders)
        initialise_linear(model.order)
        if not shared_norm:
            model.order_norm = nn.LayerNorm(model.config.embed_dim, eps=1e-6)


def order_outputs(model: TimeSformer, cls: Tensor, embedding: Tensor) -> dict[str, Tensor]:
    """Return "order_logits" (B, P) if the model has an order head (Eq. 12): φ_ord(τ_ord(cls)).

    Args:
        cls: (B, D), the last block's class token, before any norm.
        embedding: (B, D), the class token after the class norm, which a shared norm uses.
    """
    if not hasattr(model, "order"):
        return {}
    norm = getattr(model, "order_norm", None)
    return {"order_logits": model.order(norm(cls) if isinstance(norm, nn.Module) else embedding)}
