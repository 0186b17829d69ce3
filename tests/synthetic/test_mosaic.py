from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.synthetic.mosaic import MosaicScenes
from marey.transforms.preprocess import Preprocess

SPEC = Preprocess(image_size=64, resize_mode="stretch", mean=(0, 0, 0), std=(1, 1, 1))


@pytest.fixture
def packed(tmp_path):
    """Ten clips of a bright rectangle (the "person") on black, as `render_dataset` lays them
    out."""
    frames = np.zeros((10, 4, 3, 32, 32), np.uint8)
    boxes = np.zeros((10, 4, 4), np.float32)
    for i in range(10):
        x, y = 4 + i, 10 - i // 2
        frames[i, :, :, y : y + 16, x : x + 8] = 255
        boxes[i, :] = (x, y, x + 8, y + 16)
    np.save(tmp_path / "frames.npy", frames)
    np.save(tmp_path / "boxes.npy", boxes)
    (tmp_path / "packed.json").write_text(
        json.dumps({"format": 1, "fps": 4.0, "class_names": ["walk", "run"]})
    )
    lines = [
        f"frames.npy#{i},{('walk', 'run')[i % 2]},{'train' if i < 8 else 'val'},g{i}"
        for i in range(10)
    ]
    (tmp_path / "manifest.csv").write_text("path,label,split,group\n" + "\n".join(lines) + "\n")
    return tmp_path


def test_boxes_stand_where_the_persons_are(packed):
    scenes = MosaicScenes(packed, SPEC, length=30)
    counts = set()
    for i in range(30):
        item = scenes[(0, i)]
        middle = item["clip"][2, 0]  # colour jitter keeps persons the brightest
        person = middle > (middle.max() + middle.min()) / 2
        covered = torch.zeros(64, 64, dtype=torch.bool)
        for x1, y1, x2, y2 in (item["boxes_xyxy_norm"] * 64).tolist():
            covered[round(y1) : round(y2), round(x1) : round(x2)] = True
        assert (person & covered).sum() / (person | covered).sum() > 0.75
        counts.add(len(item["labels"]))
    assert counts == {1, 2, 3, 4}


def test_a_scene_follows_from_seed_epoch_and_number(packed):
    scenes = MosaicScenes(packed, SPEC, length=4)
    torch.testing.assert_close(scenes[(1, 2)]["clip"], scenes[(1, 2)]["clip"])
    assert not torch.equal(scenes[(1, 2)]["clip"], scenes[(2, 2)]["clip"])
    assert not torch.equal(
        scenes[(1, 2)]["clip"], MosaicScenes(packed, SPEC, length=4, seed=1)[(1, 2)]["clip"]
    )


def test_splits_and_missing_boxes_are_checked(packed):
    assert len(MosaicScenes(packed, SPEC, split="val").rows) == 2
    with pytest.raises(UserError, match="no clip of split 'test'"):
        MosaicScenes(packed, SPEC, split="test")
    (packed / "boxes.npy").unlink()
    with pytest.raises(UserError, match="no boxes.npy"):
        MosaicScenes(packed, SPEC)
