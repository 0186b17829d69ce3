"""How separable features are, by two numbers worked by hand, and the panels of Fig. 1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from marey.errors import UserError
from marey.papers.figures import (
    describe_embedding,
    draw_embeddings,
    knn_accuracy,
    project,
    silhouette,
)


def two_blobs(N: int = 40, spread: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % 2
    return F.one_hot(labels, 5).float() + spread * torch.randn(N, 5, generator=generator), labels


def test_the_silhouette_of_four_points_worked_by_hand() -> None:
    """Unit vectors at 0, 60 | 90, 150 degrees; own distance 0.5 for all.

    To the other class: 0 deg: mean(1, 1 + cos 30) = 1.433; 60 deg: mean(1 - cos 30, 1) = 0.567; 90
    and 150 mirror them.
    """
    angles = torch.tensor([0.0, 60.0, 90.0, 150.0]).deg2rad()
    points = torch.stack((angles.cos(), angles.sin()), dim=1)
    far, near = 1 + 3**0.5 / 4, 1 - 3**0.5 / 4
    expected = ((far - 0.5) / far + (near - 0.5) / near) / 2
    assert silhouette(points, torch.tensor([0, 0, 1, 1])) == pytest.approx(expected, abs=1e-5)
    assert silhouette(3 * points, torch.tensor([0, 0, 1, 1])) == pytest.approx(expected, abs=1e-5)


def test_the_silhouette_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="the extra 'plots' is not installed")
    features, labels = two_blobs(spread=0.8)
    labels = torch.arange(40) % 3
    expected = metrics.silhouette_score(features.numpy(), labels.numpy(), metric="cosine")
    assert silhouette(features, labels) == pytest.approx(expected, abs=1e-5)


def test_neighbours_vote_and_a_sample_never_votes_for_itself() -> None:
    features, labels = two_blobs()
    assert knn_accuracy(features, labels) == 1.0
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(400, 8, generator=generator)
    assert abs(knn_accuracy(noise, torch.arange(400) % 2) - 0.5) < 0.1
    assert knn_accuracy(torch.eye(2), torch.tensor([0, 1])) == 0.0


def test_separable_features_have_the_higher_numbers() -> None:
    clear, labels = two_blobs()
    blurred, _ = two_blobs(spread=2.0)
    assert all(
        describe_embedding(clear, labels)[name] > describe_embedding(blurred, labels)[name]
        for name in ("silhouette", "knn")
    )


def test_the_first_principal_axis_carries_the_largest_variance() -> None:
    features, labels = two_blobs()
    points = project(features, "pca")
    assert points.shape == (40, 2)
    assert points[:, 0].var() > points[:, 1].var()
    assert (points[labels == 0, 0] > 0).all() or (points[labels == 0, 0] < 0).all()


def test_the_figure_has_three_panels_twice(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra 'plots' is not installed")
    pytest.importorskip("sklearn", reason="the extra 'plots' is not installed")
    features, labels = two_blobs(24)
    panels = {
        "I3D features": features,
        "z": features[:, :3],
        "[ŝ, z]": torch.cat((features, features), 1),
    }
    out = draw_embeddings(panels, labels, ("run", "eat"), tmp_path / "figures" / "fig1.png")
    assert out.stat().st_size > 10_000


def test_mistakes_are_named(tmp_path: Path) -> None:
    features, labels = two_blobs()
    with pytest.raises(UserError, match="panel 'z' has 3 samples, the labels 40"):
        draw_embeddings({"z": features[:3]}, labels, ("run", "eat"), tmp_path / "a.png")
    with pytest.raises(UserError, match="a silhouette compares classes, got 1"):
        silhouette(features, torch.zeros(40, dtype=torch.int64))
