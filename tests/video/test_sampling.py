"""Samplers against worked values and the official rules written out naively."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.video.sampling import (
    KINDS,
    ClipSampling,
    equidistant_indices,
    frames_at_rate,
    random_indices,
    segment_indices,
    video_name,
    view_start,
)


def generator(seed: int) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def test_uniform_stride_of_the_paper_by_hand():
    assert ClipSampling().indices(300) == [0, 32, 64, 96, 128, 160, 192, 224]
    assert ClipSampling(num_frames=4, stride_frames=3).indices(100) == [0, 3, 6, 9]


def official_indices(L, N, stride, fps, target_fps, view, num_views, use_offset=False):
    """SlowFast `decoder.get_start_end_idx` and `temporal_sampling`, as TimeSformer's release runs
    them, line by line."""
    clip_size = stride * N / target_fps * fps
    delta = max(L - clip_size, 0)
    if use_offset:
        start = (
            math.floor(delta / 2) if num_views == 1 else view * math.floor(delta / (num_views - 1))
        )
    else:
        start = delta * view / num_views
    index = torch.linspace(start, start + clip_size - 1, N)
    return torch.clamp(index, 0, L - 1).long().tolist()


@pytest.mark.parametrize("use_offset", [False, True])
@pytest.mark.parametrize("num_views", [1, 3, 10])
@pytest.mark.parametrize(("L", "fps"), [(300, 30.0), (250, 25.0), (100, 29.97), (719, 59.94)])
def test_linspace_spacing_is_the_official_rule(L, fps, num_views, use_offset):
    sampling = ClipSampling(
        spacing="linspace", target_fps=30, view_start="offset" if use_offset else "spread"
    )
    for view in range(num_views):
        ours = sampling.indices(L, fps=fps, view=view, num_views=num_views)
        assert (
            np.abs(
                np.array(ours) - official_indices(L, 8, 32, fps, 30, view, num_views, use_offset)
            ).max()
            <= 0
        )


def test_the_last_of_ten_views_starts_at_nine_tenths_of_the_slack():
    assert view_start(356, 256) == 0
    assert view_start(356, 256, view=9, num_views=10) == pytest.approx(90)
    assert view_start(357, 256, rule="offset") == 50
    assert [view_start(356, 256, view=v, num_views=3, rule="offset") for v in range(3)] == [
        0,
        50,
        100,
    ]


def test_training_starts_are_spread_over_the_slack():
    starts = [view_start(356, 256, generator=generator(s)) for s in range(300)]
    assert 0 <= min(starts) < 3
    assert 97 < max(starts) <= 100


def test_a_target_rate_scales_the_stride():
    assert ClipSampling(num_frames=4, stride_frames=8, target_fps=30).indices(200, fps=60) == [
        0,
        16,
        32,
        48,
    ]
    assert ClipSampling(num_frames=4, stride_frames=8, target_fps=30).indices(200, fps=15) == [
        0,
        4,
        8,
        12,
    ]
    with pytest.raises(UserError, match="needs the frame rate of the source"):
        ClipSampling(target_fps=30).indices(200)


def test_equidistant_takes_first_and_last():
    assert equidistant_indices(100, 4) == [0, 33, 66, 99]
    assert equidistant_indices(9, 1) == [4]
    assert equidistant_indices(3, 5) == [0, 0, 1, 2, 2]


def test_views_of_equidistant_together_are_equidistant():
    together = sorted(
        i for view in range(3) for i in equidistant_indices(120, 4, view=view, num_views=3)
    )
    assert together == list(range(5, 120, 10))


def test_random_never_repeats_and_is_sorted():
    for seed in range(50):
        drawn = random_indices(20, 8, generator(seed))
        assert drawn == sorted(set(drawn))
        assert len(drawn) == 8
        assert drawn[0] >= 0
        assert drawn[-1] < 20


def test_random_evaluation_is_fixed_and_views_differ():
    sampling = ClipSampling(kind="random")
    assert sampling.indices(100) == sampling.indices(100)
    assert sampling.indices(100, view=0, num_views=2) != sampling.indices(100, view=1, num_views=2)


def test_random_evaluation_takes_other_frames_of_other_videos_of_one_length():
    sampling = ClipSampling(kind="random")
    first = sampling.indices(100, name="hug/a.avi")
    assert sampling.indices(100, name="hug/a.avi") == first
    assert sampling.indices(100, name="kick/a.avi") != first
    assert video_name("/data/set/hug/a.avi") == "hug/a.avi"


def test_the_released_decoding_takes_eight_points_of_256_frames():
    released = ClipSampling(spacing="linspace")
    assert released.indices(300) == [0, 36, 72, 109, 145, 182, 218, 255]
    assert ClipSampling().indices(300) == [0, 32, 64, 96, 128, 160, 192, 224]


def test_segments_round_half_to_even_by_hand():
    # L = 5, N = 8: seg = 0.5, edges round(0, .5, 1, 1.5, 2, 2.5, 3, 3.5, 4) = 0 0 1 2 2 2 3 4 4
    # (half to even)
    assert segment_indices(5, 8) == [0, 0, 1, 2, 2, 2, 3, 4]
    # L = 37 (a Jester clip), N = 8: seg = 4.5, edges 0 4 9 14 18 22 27 32 36
    assert segment_indices(37, 8) == [2, 6, 11, 16, 20, 24, 29, 34]


def test_segments_in_training_stay_in_their_closed_interval_and_reach_both_ends():
    edges = [0, 4, 9, 14, 18, 22, 27, 32, 36]
    drawn = np.array([segment_indices(37, 8, generator=generator(s)) for s in range(300)])
    assert (drawn.min(0) == edges[:-1]).all()
    assert (drawn.max(0) == edges[1:]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("L", [1, 2, 7, 8, 9, 64, 1000])
def test_indices_are_inside_in_number_and_in_order(kind, L):
    sampling = ClipSampling(kind=kind, stride_frames=4)
    for num_views in (1, 2, 10):
        for view in range(num_views):
            for source in (None, generator(view)):
                chosen = sampling.indices(L, view=view, num_views=num_views, generator=source)
                assert len(chosen) == 8
                assert all(0 <= i < L for i in chosen)
                assert chosen == sorted(chosen)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_generator_gives_the_same_clip(kind):
    sampling = ClipSampling(kind=kind, stride_frames=4)
    assert sampling.indices(500, generator=generator(3)) == sampling.indices(
        500, generator=generator(3)
    )


def test_short_policies_by_hand():
    def take(short, L=5):
        return ClipSampling(num_frames=4, stride_frames=2, short=short).indices(L)

    assert take("repeat_last") == [0, 2, 4, 4]
    assert take("loop") == [0, 2, 4, 1]
    assert take("extend") == [0, 2, 4, 6]  # of the video extended to 8 frames
    assert take("extend", L=8) == [0, 2, 4, 6]
    assert take("extend_after") == [0, 2, 4]  # those it has; the clip of them is extended
    assert ClipSampling(short="extend_after").indices(110) == [0, 32, 64, 96]
    with pytest.raises(UserError, match="has 5 frames and the sampler needs 8"):
        take("error")


def test_a_random_clip_of_a_short_video_takes_every_frame_once_first():
    assert ClipSampling(kind="random", num_frames=5).indices(3) == [0, 1, 2, 2, 2]
    assert ClipSampling(kind="random", num_frames=5, short="loop").indices(3) == [0, 1, 2, 0, 1]


def test_seconds_agree_with_indices_at_constant_rate():
    for kind in KINDS:
        sampling = ClipSampling(kind=kind, stride_frames=4, unit="seconds")
        times = sampling.seconds(4.0, fps=25.0)
        assert [int(t * 25) for t in times] == ClipSampling(kind=kind, stride_frames=4).indices(100)


def test_seconds_do_not_depend_on_the_rate_of_the_source_when_a_target_is_set():
    sampling = ClipSampling(num_frames=4, stride_frames=15, target_fps=30, unit="seconds")
    expected = pytest.approx([(15 * i + 0.5) / 30 for i in range(4)])
    assert sampling.seconds(10.0, fps=60) == sampling.seconds(10.0, fps=24) == expected


def test_frames_at_rate_holds_the_frame_shown():
    assert frames_at_rate([i / 30 for i in range(30)], 30) == list(range(30))
    assert frames_at_rate([i / 30 for i in range(30)], 10) == [1, 4, 7, 10, 13, 16, 19, 22, 25, 28]
    assert frames_at_rate([], 5) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "uniformly"}, "unknown sampling kind 'uniformly'; did you mean 'uniform'"),
        ({"short": "repeat"}, "did you mean 'repeat_last'"),
        ({"spacing": "line"}, "unknown spacing"),
        ({"num_frames": 0}, "counts from 1 up"),
        ({"target_fps": -1.0}, "rate above 0"),
    ],
)
def test_mistakes_are_named(change, words):
    with pytest.raises(UserError, match=words):
        ClipSampling(**change)


def test_wrong_views_and_empty_videos_are_named():
    with pytest.raises(UserError, match="at least 1 source frame"):
        ClipSampling().indices(0)
    with pytest.raises(UserError, match="view 3 of 3"):
        ClipSampling().indices(10, view=3, num_views=3)
