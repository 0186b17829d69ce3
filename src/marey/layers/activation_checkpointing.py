"""Memory for time: which activations of a block are computed again in the backward pass."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

KEPT_PRODUCTS = tuple(
    getattr(torch.ops.aten, name).default
    for name in (
        "addmm",
        "mm",
        "bmm",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
)
"""What "cheap" keeps: whatever costs a matrix product. Norms, GELU and sums are computed again."""


def keep_products(context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    """Return whether the output of an operation is kept for the backward pass or computed again in
    it."""
    return (
        CheckpointPolicy.MUST_SAVE
        if operation in KEPT_PRODUCTS
        else CheckpointPolicy.PREFER_RECOMPUTE
    )


CHECKPOINTING: dict[Any, dict[str, Any]] = {
    True: {},
    "cheap": {"context_fn": partial(create_selective_checkpoint_contexts, keep_products)},
}
"""What `activation_checkpointing` names, with the arguments of PyTorch's `checkpoint`; False is
none."""
