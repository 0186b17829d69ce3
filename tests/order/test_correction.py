from __future__ import annotations

import pytest
import torch
from torch import nn

from marey.errors import UserError
from marey.losses.order import order_signs
from marey.models import create_model
from marey.order.correction import (
    NoTemporalAttentionError,
    check_distinct_frames,
    frame_distances,
    order_matrix,
    permute_frames,
    read_order,
    recover_order,
)
from marey.order.permutations import random_permutations


class Clock(nn.Module):
    """Knows the time of a frame by its brightness: its attention is the true sign matrix (with a
    CLS column)."""

    def forward(self, clip, return_attention=False):
        times = clip.mean(dim=(2, 3, 4)).argsort(dim=1).argsort(dim=1)
        signs = order_signs(times)[:, None, None].expand(-1, 3, 2, -1, -1)
        weights = torch.cat([torch.full_like(signs[..., :1], 9.0), signs], dim=-1)
        return {
            "logits": clip.flatten(1)[:, :2],
            "attention_time": [torch.zeros_like(weights), weights],
        }


def brightening(num_clips, T=6):
    """Clips (B, T, 3, 2, 2) whose frames grow brighter."""
    return (
        torch.arange(num_clips * T).view(num_clips, T, 1, 1, 1) + torch.zeros(1, 1, 3, 2, 2)
    ).float()


def tiny_model(**arguments):
    torch.manual_seed(0)
    model = create_model(
        "direcformer",
        num_classes=3,
        num_orders=5,
        num_frames=4,
        image_size=16,
        patch_size=8,
        embed_dim=16,
        depth=2,
        num_heads=2,
        **arguments,
    ).eval()
    for parameter in model.parameters():  # strong weights: nothing is near zero
        nn.init.normal_(parameter, std=0.5)
    return model


def test_the_matrix_is_the_last_block_averaged_over_patches_and_heads_without_the_cls_column():
    weights = torch.randn(2, 3, 2, 4, 5)
    matrix = order_matrix([torch.zeros_like(weights), weights], 4)
    assert torch.allclose(matrix, weights[..., 1:].mean(dim=(1, 2)))
    with pytest.raises(UserError, match="expected temporal attention over 8 frames, got 4 frames"):
        order_matrix([weights], 8)


def test_permuting_gathers_frames():
    clip = brightening(1, 4)
    assert permute_frames(clip, torch.tensor([[2, 0, 3, 1]]))[0, :, 0, 0, 0].tolist() == [
        2,
        0,
        3,
        1,
    ]
    with pytest.raises(UserError, match="clips of 4 frames do not fit permutations of 3 frames"):
        permute_frames(clip, torch.tensor([[2, 0, 1]]))


def test_a_model_that_knows_the_time_puts_every_frame_back():
    clip = brightening(5)
    order = random_permutations(5, 6, torch.Generator().manual_seed(0))
    shuffled = permute_frames(clip, order)
    path = recover_order(Clock(), shuffled).path
    assert torch.equal(path, order.argsort(dim=1))
    assert torch.equal(permute_frames(shuffled, path), clip)
    assert torch.equal(recover_order(Clock(), shuffled, method="sort").path, path)
    with pytest.raises(
        UserError, match="unknown method of order correction 'paths'; did you mean 'path'"
    ):
        recover_order(Clock(), shuffled, method="paths")


def test_repeated_frames_and_single_frames_are_refused():
    frames = brightening(1)[0]
    frames[4] = frames[1]
    with pytest.raises(UserError, match="frames 1 and 4 of 6 are equal"):
        check_distinct_frames(frames, name="a.mp4")
    with pytest.raises(UserError, match="a clip of 1 frame has no order to recover"):
        check_distinct_frames(frames[:1])


def test_a_model_without_temporal_attention_names_one_that_has_it():
    with pytest.raises(
        NoTemporalAttentionError, match="Identity gives no temporal attention.*marey-mini-order"
    ):
        recover_order(nn.Identity(), brightening(1))
    joint = create_model(
        "timesformer",
        num_classes=3,
        num_frames=4,
        image_size=16,
        patch_size=8,
        embed_dim=16,
        depth=1,
        num_heads=2,
        attention="space",
    )
    with pytest.raises(NoTemporalAttentionError):
        recover_order(joint, torch.rand(1, 4, 3, 16, 16))


def test_attention_that_is_nan_is_refused():
    clip = torch.rand(1, 4, 3, 16, 16)
    clip[0, 2, 0, 3, 3] = torch.nan
    with pytest.raises(UserError, match="NaN or infinite"):
        recover_order(tiny_model(), clip)


@pytest.mark.parametrize("time_attention", ["cosine", "softmax"])
def test_without_time_embeddings_permuting_frames_permutes_both_axes_of_the_attention(
    time_attention,
):
    """a'[t, t'] = a[o_t, o_t']; the class token's column follows the query alone; reversal is not
    the transpose."""
    model = tiny_model(time_attention=time_attention)
    nn.init.zeros_(model.time_embed)
    clip = torch.rand(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    for order in ([2, 0, 3, 1], [3, 2, 1, 0]):
        o = torch.tensor(order)
        with torch.no_grad():
            plain = model(clip, return_attention=True)
            moved = model(clip[:, o], return_attention=True)
        assert torch.allclose(moved["logits"], plain["logits"], atol=1e-4)
        for before, after in zip(plain["attention_time"], moved["attention_time"], strict=True):
            cls_before, frames_before = before[..., :1], before[..., 1:]
            assert torch.allclose(after[..., 1:], frames_before[..., o, :][..., o], atol=1e-4)
            assert torch.allclose(after[..., :1], cls_before[..., o, :], atol=1e-4)
            if order == [3, 2, 1, 0]:
                assert not torch.allclose(
                    after[..., 1:], frames_before.transpose(-1, -2), atol=1e-2
                )


def test_with_time_embeddings_this_does_not_hold():
    model = tiny_model()
    clip = torch.rand(1, 4, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    o = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        before = model(clip, return_attention=True)["attention_time"][-1][..., 1:]
        after = model(clip[:, o], return_attention=True)["attention_time"][-1][..., 1:]
    assert not torch.allclose(after, before[..., o, :][..., o], atol=1e-2)


def test_frames_are_as_far_apart_as_they_look():
    clip = torch.tensor([0.0, 1.0, 3.0]).view(1, 3, 1, 1, 1).expand(1, 3, 3, 64, 64)
    expected = torch.tensor([[[0.0, 1, 3], [1, 0, 2], [3, 2, 0]]])
    torch.testing.assert_close(frame_distances(clip), expected, atol=1e-4, rtol=0)


def test_keypoints_are_compared_where_both_moments_show_them():
    keypoints = torch.zeros(1, 3, 17, 3)
    keypoints[0, :, :2, 2] = 1.0
    keypoints[0, 1, :2, 0] = torch.tensor([3.0, 5.0])
    keypoints[0, 2, 0, 0] = 1.0
    keypoints[0, 2, 1] = 0.0  # not seen
    found = frame_distances(keypoints)
    assert found[0, 0, 1].item() == pytest.approx(17**0.5)
    assert found[0, 0, 2].item() == pytest.approx(1.0)
    assert found[0, 1, 2].item() == pytest.approx(2.0)
    keypoints[0, 2] = 0
    assert frame_distances(keypoints)[0, 0, 2] == frame_distances(keypoints)[0, 0, 1]


def test_appearance_and_the_matrix_together_put_frames_back():
    clip = torch.linspace(0, 1, 6).view(1, 6, 1, 1, 1).expand(1, 6, 3, 8, 8).contiguous()
    order = random_permutations(4, 6, torch.Generator().manual_seed(0))
    shuffled = permute_frames(clip.expand(4, -1, -1, -1, -1), order)
    found = recover_order(Clock(), shuffled, method="oriented")
    assert torch.equal(found.path, order.argsort(dim=1))


def test_distances_that_were_not_stored_are_named():
    with pytest.raises(UserError, match="answer the clips again"):
        read_order(torch.zeros(1, 3, 3), "oriented")
