from __future__ import annotations

import pytest
import torch
from torch import nn

from marey.errors import UserError
from marey.layers.gated_attention import (
    GatedMultiLevelAttention,
    attend,
    global_profile,
    local_profile,
    window_hierarchy,
)


def layer(windows=(None, 4), dim=16, heads=2, seed=0, **options):
    torch.manual_seed(seed)
    return GatedMultiLevelAttention(dim, heads, windows, **options).eval()


def tokens(frames=10, videos=2, dim=16, seed=1):
    return torch.randn(videos, frames, dim, generator=torch.Generator().manual_seed(seed))


def first_frames(count, frames, videos=2):
    return (torch.arange(frames) < count).expand(videos, frames)


def test_one_global_expert_equals_pytorchs_multihead_attention():
    ours, theirs = layer(windows=(None,)), nn.MultiheadAttention(16, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.output[0].state_dict())
    clip, mask = tokens(), first_frames(7, 10)
    found, _ = ours(clip, mask)
    expected, _ = theirs(clip, clip, clip, key_padding_mask=~mask)
    assert torch.allclose(found[:, :7], expected[:, :7], atol=1e-6)


def test_the_output_is_the_papers_equation_written_out():
    module, clip = layer(windows=(None, 4)), tokens(frames=8, videos=1)
    q, k, v = module.qkv(clip[0]).chunk(3, dim=1)
    experts = []
    for window in (8, 4):
        rows = torch.zeros(8, 16)
        for start in range(0, 8, window):
            inside = slice(start, start + window)
            for head in (slice(0, 8), slice(8, 16)):
                a = (q[inside, head] @ k[inside, head].T / 8**0.5).softmax(1)
                rows[inside, head] = a @ v[inside, head]
        experts.append(rows)
    values = [project(rows) for project, rows in zip(module.output, experts, strict=True)]
    raw = [gate(rows) for gate, rows in zip(module.gate, experts, strict=True)]
    r_global = raw[0].exp() / (raw[0].exp() + raw[1].exp())
    expected = r_global * values[0] + (1 - r_global) * values[1]
    assert torch.allclose(module(clip)[0][0], expected, atol=1e-6)


def test_the_fused_and_the_explicit_path_agree():
    module, clip, mask = layer(windows=(None, 4, 3)), tokens(), first_frames(9, 10)
    assert torch.allclose(
        module(clip, mask)[0], module(clip, mask, return_attention=True)[0], atol=1e-6
    )


@pytest.mark.parametrize("windows", [(None,), (None, 4), (None, None), (None, 4, 3), (None, 8, 4)])
@pytest.mark.parametrize("return_attention", [False, True])
def test_padding_never_changes_the_output(windows, return_attention):
    module = layer(windows, gating="tree" if windows == (None, 8, 4) else "flat")
    clip = tokens(frames=7)
    plain, _ = module(clip)
    for frames in (7, 8, 13, 30):
        padded = torch.full((2, frames, 16), float("nan"))
        padded[:, :7] = clip
        found, _ = module(padded, first_frames(7, frames), return_attention)
        assert torch.allclose(found[:, :7], plain, atol=1e-6)
        assert (found[:, 7:] == 0).all()


def test_windows_wholly_in_padding_give_zero_forward_and_backward():
    module, clip = layer().train(), tokens(frames=12).requires_grad_()
    mask = torch.stack([torch.arange(12) < 3, torch.zeros(12, dtype=torch.bool)])
    for return_attention in (False, True):
        output, _ = module(clip, mask, return_attention)
        assert torch.isfinite(output).all()
        assert (output[0, 3:] == 0).all()
        assert (output[1] == 0).all()
        clip.grad = None
        output.pow(2).sum().backward()
        assert torch.isfinite(clip.grad).all()
        assert (clip.grad[~mask] == 0).all()
        assert all(torch.isfinite(p.grad).all() for p in module.parameters())


def test_a_local_expert_sees_its_own_window_only():
    module, clip = layer(windows=(4,)), tokens(frames=12)
    changed = clip.clone()
    changed[:, 4:8] += 1
    difference = (module(clip)[0] - module(changed)[0]).abs().sum(-1)
    assert (difference[:, 4:8] > 1e-3).all()
    assert (difference[:, :4] == 0).all()
    assert (difference[:, 8:] == 0).all()


def test_a_window_as_long_as_the_video_is_a_global_expert():
    one, other = layer(windows=(None, None)), layer(windows=(None, 50))
    other.load_state_dict(one.state_dict())
    assert torch.allclose(one(tokens())[0], other(tokens())[0], atol=1e-6)


def test_two_global_experts_share_one_map_and_differ_in_their_matrices():
    module = layer(windows=(None, None))
    assert len(module.output) == len(module.gate) == 2
    _, maps = module(tokens(), return_attention=True)
    assert maps["global_map"].shape == (2, 2, 10, 10)
    assert maps["local_maps"] == {}


def test_rows_of_every_map_are_distributions_over_real_frames():
    _, maps = layer(windows=(None, 4))(tokens(), first_frames(6, 10), return_attention=True)
    assert maps["local_maps"][4].shape == (2, 2, 3, 4, 4)
    assert torch.allclose(maps["global_map"][:, :, :6].sum(-1), torch.ones(2, 2, 6))
    assert (maps["global_map"][:, :, 6:] == 0).all()
    assert (maps["global_map"][..., 6:] == 0).all()
    assert torch.allclose(
        maps["local_maps"][4].sum(-1),
        torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]).expand(2, 2, 3, 4),
    )


def test_maps_are_those_before_dropout():
    module = layer(dropout=0.5)
    _, quiet = module(tokens(), return_attention=True)
    _, noisy = module.train()(tokens(), return_attention=True)
    assert torch.equal(quiet["global_map"], noisy["global_map"])


def test_profiles_average_rows_and_lay_windows_side_by_side():
    mask = first_frames(6, 10)
    _, maps = layer(windows=(None, 4))(tokens(), mask, return_attention=True)
    whole = global_profile(maps["global_map"], mask)
    assert torch.allclose(whole[0, :6], maps["global_map"][0].mean(0)[:6, :6].mean(0))
    assert torch.allclose(whole.sum(1), torch.ones(2))
    local = local_profile(maps["local_maps"][4], 10, mask)
    assert local.shape == (2, 10)
    assert torch.allclose(local[:, :4].sum(1), torch.ones(2))
    assert torch.allclose(local[:, 4:8].sum(1), torch.ones(2))
    assert (local[:, 8:] == 0).all()


def test_a_hierarchy_runs_from_coarse_to_fine():
    assert window_hierarchy(20, 3) == (None, 80, 40, 20)
    assert layer(window_hierarchy(2, 2), gating="tree")(tokens())[0].shape == (2, 10, 16)


def test_tree_gating_of_two_experts_is_the_papers_gate():
    flat, tree = layer(), layer(gating="tree")
    assert torch.allclose(flat(tokens())[0], tree(tokens())[0], atol=1e-6)


def test_gradients_match_finite_differences():
    module = layer(dim=4, heads=2, windows=(None, 2)).double()
    clip = tokens(frames=3, videos=1, dim=4).double().requires_grad_()
    mask = torch.tensor([[True, True, False]])
    assert torch.autograd.gradcheck(lambda x: module(x, mask)[0], (clip,))


def test_attention_over_nothing_is_zero():
    query = torch.randn(1, 2, 3, 4)
    output, _ = attend(query, query, query, torch.zeros(1, 3, dtype=torch.bool))
    assert (output == 0).all()


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="width 10 is not a multiple of 4 heads"):
        GatedMultiLevelAttention(10, 4)
    with pytest.raises(UserError, match="at least one expert"):
        GatedMultiLevelAttention(8, 4, windows=())
    with pytest.raises(UserError, match="'flat' or 'tree'"):
        GatedMultiLevelAttention(8, 4, gating="round")
