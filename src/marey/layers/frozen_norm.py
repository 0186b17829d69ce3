"""Batch norm kept in evaluation mode while the rest of the network trains."""

from __future__ import annotations

from torch import nn


class FrozenNormMixin(nn.Module):
    """Keep batch norm at its stored statistics, also in `train()`, when `freeze_batch_norm` is
    set."""

    freeze_batch_norm: bool = False

    def train(self, mode: bool = True) -> FrozenNormMixin:
        """Set training mode, but leave frozen batch norm layers in evaluation mode."""
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self
