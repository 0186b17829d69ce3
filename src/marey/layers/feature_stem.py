"""Stems with a frozen or pretrained network inside, whose features can be computed once and
stored."""

from __future__ import annotations

from torch import Tensor, nn

from marey.layers.frozen_norm import FrozenNormMixin


class FeatureStem(FrozenNormMixin):
    """A stem of two parts: a network that turns frames into features, and a linear map from
    features to tokens.

    Axes: M frames, N = h*w patches, C channels of the network, D width of a token.
    """

    trunk: nn.Module
    """(M, 3, H, W) -> (M, C, h, w)."""

    image_width: int
    """Channels of the pretrained image network, the last of C."""

    def features(self, frames: Tensor) -> Tensor:
        """Return the network's features (M, N, C) of frames (M, 3, H, W)."""
        return self.trunk(frames).flatten(2).transpose(1, 2)

    def tokens(self, features: Tensor) -> Tensor:
        """Return tokens (..., N, D) of features (..., N, C)."""
        raise NotImplementedError

    def image_features(self, features: Tensor) -> Tensor:
        """Return the image network's part (..., N, `image_width`) of features (..., N, C)."""
        return features[..., -self.image_width :]
