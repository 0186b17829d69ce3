from __future__ import annotations

import pytest
import torch

from marey.checkpoints.i3d import read_i3d
from marey.errors import UserError
from marey.models.i3d import I3D


@pytest.mark.slow
def test_weights_of_the_public_layout_are_read_with_and_without_batch_counters(
    public_i3d_names, tmp_path
):
    torch.manual_seed(0)
    model = I3D().eval()
    names = public_i3d_names(model.state_dict())
    assert len(names) == 344
    old = {name: value for name, value in names.items() if not name.endswith("num_batches_tracked")}
    assert len(old) == 287

    clip = torch.rand(1, 9, 3, 64, 64)
    for weights in (names, old):
        torch.save(weights, tmp_path / "rgb_imagenet.pt")
        with torch.no_grad():
            torch.testing.assert_close(
                read_i3d(tmp_path / "rgb_imagenet.pt")(clip)["logits"], model(clip)["logits"]
            )


def test_a_file_of_another_layout_is_named(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"fc.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"other.pt: no entry 'logits.conv3d.weight'"):
        read_i3d(path)
    torch.save({"logits.conv3d.weight": torch.zeros(5, 1024, 1, 1, 1)}, path)
    with pytest.raises(UserError, match=r"not the layout of rgb_imagenet.pt; missing"):
        read_i3d(path)
