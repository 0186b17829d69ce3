from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.explain.order_figures import draw_order, legend
from marey.losses.order import order_signs

pytest.importorskip("matplotlib")


def test_the_figure_is_written_with_matrix_path_and_strips(tmp_path):
    frames = (255 * torch.rand(5, 3, 12, 16)).to(torch.uint8)
    order = torch.tensor([3, 1, 4, 0, 2])
    out = draw_order(
        frames,
        order.argsort(),
        order_signs(order),
        tmp_path / "new" / "order.png",
        order=order,
        accuracy=1.0,
        title="clip.mp4",
    )
    from torchvision.io import read_image

    picture = read_image(str(out))
    assert picture.shape[0] in (3, 4)
    assert picture.float().std() > 10


def test_without_a_known_order_it_is_drawn_too(tmp_path):
    frames = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    assert (
        draw_order(frames, torch.tensor([2, 0, 1]), torch.randn(3, 3), tmp_path / "order.svg")
        .stat()
        .st_size
        > 1000
    )


def test_shapes_that_do_not_belong_together_are_named(tmp_path):
    with pytest.raises(
        UserError, match=r"3 frames need a path of 3 and weights of 3 x 3, got \(2,\) and \(3, 3\)"
    ):
        draw_order(
            torch.zeros(3, 3, 8, 8), torch.tensor([1, 0]), torch.zeros(3, 3), tmp_path / "order.png"
        )


def test_the_legend_says_what_the_colours_mean():
    assert "green" in legend(known=False)
    assert "true order" not in legend(known=False)
    assert "numbered in their true order" in legend(known=True)
