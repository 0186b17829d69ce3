from __future__ import annotations

import pytest
import torch

from marey.layers.roi import pool_boxes, pool_tubes


@pytest.mark.parametrize("operator", ["pool", "align"])
def test_a_box_around_everything_of_a_constant_map_is_that_constant(operator):
    features = torch.arange(2.0)[:, None, None, None].expand(2, 3, 8, 8)
    boxes = [
        torch.tensor([[0.0, 0, 1, 1]]),
        torch.tensor([[0.25, 0.25, 0.75, 0.75], [0, 0, 0.5, 1]]),
    ]
    out = pool_boxes(features, boxes, operator)
    assert out.shape == (3, 3, 7, 7)
    torch.testing.assert_close(out[0], torch.zeros(3, 7, 7))
    torch.testing.assert_close(out[1:], torch.ones(2, 3, 7, 7))


def test_align_reads_the_region_of_the_box():
    ramp = torch.arange(16.0).expand(1, 1, 16, 16) + 0.5  # value = x in cells
    out = pool_boxes(ramp, [torch.tensor([[0.25, 0, 0.75, 1]])], "align")[0, 0, 0]
    expected = 4 + (torch.arange(7) + 0.5) * 8 / 7  # the middle of each seventh of [4, 12)
    torch.testing.assert_close(out, expected)


def test_tubes_repeat_the_box_over_time_and_keep_clips_apart():
    features = torch.randn(2, 3, 4, 8, 8)
    boxes = [torch.tensor([[0.0, 0, 0.5, 0.5]]), torch.tensor([[0.5, 0.5, 1, 1], [0, 0, 1, 1]])]
    tubes = pool_tubes(features, boxes, "align")
    assert tubes.shape == (3, 3, 4, 7, 7)
    for t in range(4):
        torch.testing.assert_close(tubes[:, :, t], pool_boxes(features[:, :, t], boxes, "align"))


def test_no_boxes_give_no_rows_and_gradients_flow():
    features = torch.randn(1, 2, 3, 8, 8, requires_grad=True)
    assert pool_tubes(features, [torch.zeros(0, 4)]).shape == (0, 2, 3, 7, 7)
    pool_tubes(features, [torch.tensor([[0.0, 0, 1, 1]])]).sum().backward()
    assert features.grad.abs().sum() > 0
