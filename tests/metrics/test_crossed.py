"""Means over scenes x seeds: the closed form, its coverage, and no effect where there is none."""

from __future__ import annotations

import pytest
import torch

from marey.metrics.crossed import crossed_bootstrap, crossed_mean


def table(G: int, S: int, scene: float, seed: float, rest: float, number: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.double)

    return scene * normal(G, 1) + seed * normal(1, S) + rest * normal(G, S)


def test_mean_squares_by_hand() -> None:
    # Rows 1 and 3 apart by 2, columns by 1, no rest.
    found = crossed_mean(torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    assert found.mean == 1.5
    assert found.scene_deviation == pytest.approx(2**0.5)
    assert found.seed_deviation == pytest.approx(0.5**0.5)
    assert found.residual_deviation == 0


def test_without_seeds_the_interval_is_students_t_over_scenes() -> None:
    values = table(12, 1, 1.0, 0.0, 0.0, 0)
    found = crossed_mean(values.expand(12, 4))
    mean, deviation = float(values.mean()), float(values.std())
    assert found.high - mean == pytest.approx(2.201 * deviation / 12**0.5, rel=1e-3)


@pytest.mark.parametrize(("scene", "seed"), [(1.0, 0.0), (0.3, 0.5), (0.0, 1.0)])
def test_the_interval_covers_the_true_mean_in_most_samples(scene: float, seed: float) -> None:
    covered = 0
    for number in range(200):
        found = crossed_mean(table(30, 10, scene, seed, 0.5, number))
        covered += found.low <= 0 <= found.high
    assert 0.90 <= covered / 200 <= 0.99


def test_the_bootstrap_takes_in_both_factors() -> None:
    values = table(40, 10, 1.0, 0.7, 0.3, 1)
    draws = crossed_bootstrap(values, draws=2000, generator=torch.Generator().manual_seed(0))
    model = crossed_mean(values)
    width = float(draws.quantile(0.975) - draws.quantile(0.025)) / 2
    assert 0.75 * model.half_width < width < 1.25 * model.half_width
    assert float(draws.mean()) == pytest.approx(model.mean, abs=0.02)
