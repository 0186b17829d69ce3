"""The mean of a table of scenes x seeds, where both are drawn at random and neither alone is the
sample: a mixed model, and a bootstrap of both as a check.

Legend: G scenes (groups), S seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from marey.metrics.intervals import t_quantile


@dataclass(frozen=True, kw_only=True)
class CrossedMean:
    """A mean with the variance of both factors in its interval."""

    mean: float
    low: float
    high: float
    degrees: int
    """Degrees of freedom, by Satterthwaite."""
    scene_deviation: float
    """Standard deviation between scenes."""
    seed_deviation: float
    """Between seeds."""
    residual_deviation: float
    """Of a scene and seed beyond both."""

    @property
    def half_width(self) -> float:
        """Return half the width of the interval: what the table can resolve."""
        return (self.high - self.low) / 2


def crossed_mean(values: Tensor, *, level: float = 0.95) -> CrossedMean:
    """Estimate the mean of y_gs = mu + a_g + b_s + e_gs with random a, b and e.

    With one value for every scene and seed the REML estimates have a closed form, the mean squares
    of a two-way analysis of variance (Searle, Casella and McCulloch, "Variance Components", 1992,
    section 4.3), and  Var(mean) = (MS_g + MS_s - MS_e) / (G S). A negative variance component is
    set to zero. Student's t with Satterthwaite's degrees of freedom.

    Args:
        values: float, (G, S), a value (for example the mean over a scene's videos) per cell.
        level: of the interval.
    """
    y = values.double()
    G, S = y.shape
    mean = float(y.mean())
    rows, columns = y.mean(1), y.mean(0)
    of_rows = S * float(((rows - mean) ** 2).sum()) / max(1, G - 1)
    of_columns = G * float(((columns - mean) ** 2).sum()) / max(1, S - 1)
    rest = y - rows[:, None] - columns[None] + mean
    of_rest = float((rest**2).sum()) / max(1, (G - 1) * (S - 1))

    scene = max(0.0, (of_rows - of_rest) / S)
    seed = max(0.0, (of_columns - of_rest) / G)
    variance = scene / G + seed / S + of_rest / (G * S)

    # Satterthwaite: the mean squares that the variance is made of, with their degrees of freedom.
    parts = [(of_rows, G - 1), (of_columns, S - 1), (-of_rest, (G - 1) * (S - 1))]
    if seed == 0:
        parts = [(of_rows, G - 1)]
    elif scene == 0:
        parts = [(of_columns, S - 1)]
    squares = sum(square**2 / max(1, degrees) for square, degrees in parts)
    total = sum(square for square, _ in parts)
    degrees = max(1, int(total**2 / squares)) if squares > 0 else G - 1
    half = t_quantile((1 + level) / 2, degrees) * math.sqrt(variance)
    return CrossedMean(
        mean=mean,
        low=mean - half,
        high=mean + half,
        degrees=degrees,
        scene_deviation=math.sqrt(scene),
        seed_deviation=math.sqrt(seed),
        residual_deviation=math.sqrt(of_rest),
    )


def crossed_bootstrap(values: Tensor, *, draws: int, generator: Generator) -> Tensor:
    """Return the means of tables whose scenes and seeds are both drawn anew, (..., draws).

    Owen, "The pigeonhole bootstrap", 2007: it takes in the variance of both factors, and is
    slightly too wide.

    Args:
        values: float, (..., G, S).
    """
    G, S = values.shape[-2:]
    rows = torch.randint(0, G, (draws, G), generator=generator)
    columns = torch.randint(0, S, (draws, S), generator=generator)
    row_weights = torch.zeros(draws, G, dtype=torch.double).scatter_add_(
        1, rows, torch.ones(draws, G, dtype=torch.double)
    )
    column_weights = torch.zeros(draws, S, dtype=torch.double).scatter_add_(
        1, columns, torch.ones(draws, S, dtype=torch.double)
    )
    return torch.einsum("...gs,bg,bs->...b", values.double(), row_weights / G, column_weights / S)
