"""Reader of I3D weights in the layout of `rgb_imagenet.pt`, the public PyTorch port of Inception-v1
I3D."""

from __future__ import annotations

from pathlib import Path

from marey.checkpoints.pickled import read_pickled
from marey.errors import UserError
from marey.models.i3d import I3D


def read_i3d(path: str | Path) -> I3D:
    """Build the I3D a file in the `rgb_imagenet.pt` layout describes, with its weights, in eval
    mode.

    The class count comes from the file. The layout is a flat dict, `Mixed_3b.b1a.conv3d.weight` and
    so on, with or without `num_batches_tracked` (287 or 344 entries).

    Args:
        path: a `.pt` file (read with `weights_only=True`) or `.safetensors`.

    Raises:
        UserError: if entries are missing, unknown or of another shape.
    """
    weights = read_pickled(path)
    if "logits.conv3d.weight" not in weights:
        raise UserError(
            f"{path}: no entry 'logits.conv3d.weight'; expected the flat layout of rgb_imagenet.pt"
        )
    model = I3D(num_classes=weights["logits.conv3d.weight"].shape[0])
    own = model.state_dict()
    renamed = {_own_name(name): value for name, value in weights.items()}
    missing = [
        name for name in own if name not in renamed and not name.endswith("num_batches_tracked")
    ]
    unknown = [name for name in renamed if name not in own]
    if missing or unknown:
        raise UserError(
            f"{path}: not the layout of rgb_imagenet.pt; missing {missing[:3]}, unknown "
            f"{unknown[:3]}"
        )
    wrong = [
        f"{name} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in renamed.items()
        if value.shape != own[name].shape
    ]
    if wrong:
        raise UserError(f"{path}: wrong shapes: {'; '.join(wrong[:3])}")
    model.load_state_dict({**own, **renamed})
    return model.eval()


def _own_name(name: str) -> str:
    if name.startswith("logits.conv3d."):
        return name.replace("logits.conv3d.", "logits.")
    return ("tail." if name.startswith("Mixed_5") else "trunk.") + name
