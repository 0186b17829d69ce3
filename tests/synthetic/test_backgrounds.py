from __future__ import annotations

import pytest
import torch
from torchvision.io import write_png

from marey.errors import UserError
from marey.synthetic.backgrounds import KINDS, draw_background


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_no_kind_of_background_is_in_two_splits():
    kinds = [kind for members in KINDS.values() for kind in members]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("split", list(KINDS))
def test_backgrounds_are_pictures_in_0_to_1_that_repeat_by_their_seed(split):
    for seed in range(12):
        wall = draw_background(24, split, generator(seed))
        assert wall.shape == (3, 24, 24)
        assert 0 <= wall.min() <= wall.max() <= 1
        assert torch.equal(wall, draw_background(24, split, generator(seed)))


def test_each_image_file_belongs_to_one_split(tmp_path):
    for number in range(10):
        level = torch.full((3, 20, 20), 20 * number, dtype=torch.uint8)
        write_png(level, str(tmp_path / f"{number}.png"))

    def levels(split):
        walls = [draw_background(8, split, generator(seed), tmp_path) for seed in range(200)]
        plain = [wall for wall in walls if wall.std() < 1e-6]  # a drawn one is never of one colour
        return {round(float(wall.mean() * 255 / 20)) for wall in plain}

    assert levels("val") == {8}
    assert levels("test") == {9}
    assert levels("train") == set(range(8))


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no JPEG or PNG file to use as a background"):
        draw_background(8, "train", generator(), tmp_path)
