from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from marey.errors import UserError
from marey.features.weights import PCA, load_weights


def test_whitening_equals_the_data_sets_formula(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(50, 6)) @ generator.normal(size=(6, 6)) + 3
    values, vectors = np.linalg.eigh(np.cov(x.T))
    np.save(tmp_path / "mean.npy", x.mean(0))
    np.save(tmp_path / "eigenvals.npy", values[::-1])
    np.save(tmp_path / "eigenvecs.npy", vectors[:, ::-1].T)
    found = PCA.load(tmp_path, components=4)(torch.from_numpy(x)).numpy()
    expected = (x - x.mean(0)) @ vectors[:, ::-1][:, :4] / np.sqrt(values[::-1][:4] + 1e-4)
    assert np.allclose(found, expected, atol=1e-5)
    assert np.allclose(np.cov(found.T), np.eye(4), atol=1e-2)


def test_vggish_parameters_project_without_whitening(tmp_path):
    vectors, mean = np.random.default_rng(0).normal(size=(5, 5)), np.arange(5.0)[:, None]
    np.savez(tmp_path / "p.npz", pca_eigen_vectors=vectors, pca_means=mean)
    x = torch.randn(3, 5)
    assert np.allclose(PCA.load(tmp_path / "p.npz")(x), (x.numpy() - mean.T) @ vectors.T, atol=1e-5)


def test_missing_or_misfitting_pca_is_named(tmp_path):
    with pytest.raises(UserError, match="no PCA here"):
        PCA.load(tmp_path)
    with pytest.raises(UserError, match="features have 4 values but the PCA takes 3"):
        PCA(np.zeros(3), np.eye(3), None)(torch.zeros(1, 4))


def test_weights_load_strictly_from_both_kinds_of_file(tmp_path):
    source = nn.Linear(3, 2)
    save_file(source.state_dict(), tmp_path / "a.safetensors")
    torch.save(source.state_dict(), tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        loaded = load_weights(nn.Linear(3, 2), tmp_path / name)
        assert torch.equal(loaded.weight, source.weight)
        assert not loaded.training
    with pytest.raises(UserError, match=r"'weight' has shape \(2, 3\), expected \(2, 4\)"):
        load_weights(nn.Linear(4, 2), tmp_path / "a.pth")
    with pytest.raises(UserError, match="lacks 2 of 2 tensors, such as '0.weight'"):
        load_weights(nn.Sequential(nn.Linear(3, 2)), tmp_path / "a.pth")


def test_a_pickle_of_something_else_is_refused(tmp_path):
    torch.save(nn.Linear(3, 2), tmp_path / "whole.pth")
    with pytest.raises(UserError, match="not readable as weights only"):
        load_weights(nn.Linear(3, 2), tmp_path / "whole.pth")


def test_a_fitted_pca_whitens_and_is_read_back(tmp_path):
    generator = torch.Generator().manual_seed(0)
    features = 3 + torch.randn(500, 6, generator=generator) * torch.tensor([9.0, 4, 2, 1, 0.1, 0.1])
    projected = PCA.fit(features, tmp_path / "pca", 3)(features)
    assert torch.allclose(projected.mean(0), torch.zeros(3), atol=0.02)
    assert torch.allclose(projected.std(0), torch.ones(3), atol=0.02)
    assert torch.corrcoef(projected.T).fill_diagonal_(0).abs().max() < 0.02
    assert torch.equal(PCA.load(tmp_path / "pca")(features), projected)
    with pytest.raises(UserError, match="7 components need as many features and values"):
        PCA.fit(features, tmp_path / "more", 7)
