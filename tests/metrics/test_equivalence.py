from __future__ import annotations

import math

import pytest
import torch

from marey.metrics.equivalence import crossed_difference, margin_from_power, verdict


def gains(N=2000, S=10, effect=0.0, discordant=0.1, seed_shift=0.0, seed=0):
    """Gains of which a share is not 0, with a mean effect and a shift of every seed."""
    generator = torch.Generator().manual_seed(seed)
    shifts = seed_shift * torch.randn(S, 1, generator=generator)
    chance = torch.rand(S, N, generator=generator)
    up = (discordant + effect + shifts) / 2
    down = (discordant - effect - shifts) / 2
    return (chance < up).double() - ((chance >= up) & (chance < up + down)).double()


def test_no_effect_is_equivalent_with_many_videos_and_undecided_with_few():
    assert verdict(crossed_difference(gains()), margin=0.02) == "equivalent"
    assert verdict(crossed_difference(gains(N=60, S=2)), margin=0.02) == "undecided"


def test_an_effect_helps_or_hurts():
    assert verdict(crossed_difference(gains(effect=0.05)), margin=0.02) == "helps"
    assert verdict(crossed_difference(gains(effect=-0.05)), margin=0.02) == "hurts"


def test_seeds_that_disagree_widen_the_interval():
    calm, wild = (crossed_difference(gains(seed_shift=value)) for value in (0.0, 0.05))
    assert wild.standard_error > 3 * calm.standard_error
    assert wild.degrees < 15
    assert verdict(wild, margin=0.005) == "undecided"


def test_groups_widen_the_interval():
    alike = gains(N=200, S=1).repeat_interleave(10, 1)
    single = crossed_difference(alike)
    grouped = crossed_difference(alike, [number // 10 for number in range(2000)])
    assert grouped.standard_error > 2.5 * single.standard_error
    assert grouped.num_groups == 200


def test_one_seed_without_groups_is_the_t_interval_of_the_mean():
    values = gains(N=500, S=1, effect=0.03)
    found = crossed_difference(values)
    assert found.standard_error == pytest.approx(float(values.std()) / math.sqrt(500), rel=1e-6)
    assert found.degrees == 499


def test_no_change_at_all_still_has_an_interval():
    low, high = crossed_difference(torch.zeros(3, 100)).interval()
    assert -0.05 < low < 0 < high < 0.05


def test_the_margin_of_two_equal_heads_is_met_at_the_stated_power():
    margin = margin_from_power(1000, 0.1)
    assert margin == pytest.approx(2.927 * math.sqrt(0.1 / 1000), rel=1e-3)
    verdicts = [
        verdict(crossed_difference(gains(N=1000, S=1, seed=seed)), margin, level=1 - 1e-9)
        for seed in range(300)
    ]
    assert 0.72 < verdicts.count("equivalent") / 300 < 0.88


def test_one_group_is_refused():
    with pytest.raises(ValueError, match="expected at least 2"):
        crossed_difference(torch.zeros(2, 3), ["a", "a", "a"])
