"""Weights and projections of feature encoders, from files of the user; random weights are never
used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from marey.checkpoints.pickled import read_pickled
from marey.errors import UserError
from marey.files import atomic

PCA_FLOOR = 1e-4
"""Added to the eigenvalues before whitening, as in the data set's feature extractor."""


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Fill a model from a .safetensors file, or from a .pth or .pt file that holds plain tensors.

    Raises:
        UserError: if the file is absent, holds something else, or lacks a parameter.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; encoder weights come from a file you have, random ones are "
            "refused"
        )
    state = read_pickled(path)
    wanted = model.state_dict()
    missing = [
        name for name in wanted if name not in state and not name.endswith("num_batches_tracked")
    ]
    if missing:
        raise UserError(
            f"{path}: lacks {len(missing)} of {len(wanted)} tensors, such as '{missing[0]}'"
        )
    wrong = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if wrong:
        raise UserError(
            f"{path}: '{wrong[0]}' has shape {tuple(state[wrong[0]].shape)}, expected "
            f"{tuple(wanted[wrong[0]].shape)}"
        )
    model.load_state_dict({name: state.get(name, tensor) for name, tensor in wanted.items()})
    return model.eval().requires_grad_(False)


class PCA:
    """Projection to principal components, with or without whitening.

    YouTube-8M: (x - mean) . V[:, :n] / sqrt(lambda[:n] + 1e-4), then clipped to [-2, 2] by the
    quantiser.
    """

    def __init__(self, mean: NDArray, vectors: NDArray, values: NDArray | None) -> None:
        """Keep the projection.

        Args:
            mean: (dim,).
            vectors: (dim, n), one component a column.
            values: (n,) eigenvalues for whitening; None does not whiten.
        """
        self.mean, self.vectors = (
            np.asarray(mean, np.float64).reshape(-1),
            np.asarray(vectors, np.float64),
        )
        self.scale = (
            1.0
            if values is None
            else np.sqrt(np.asarray(values, np.float64).reshape(-1) + PCA_FLOOR)
        )
        if self.vectors.shape[0] != self.mean.size:
            raise UserError(
                f"PCA mean has {self.mean.size} values but the vectors {self.vectors.shape[0]} rows"
            )

    @classmethod
    def load(cls, source: str | Path, components: int = 1024) -> PCA:
        """Read the released files.

        Args:
            source: a folder with mean.npy, eigenvals.npy and eigenvecs.npy (one component a row),
                or VGGish's vggish_pca_params.npz (`pca_eigen_vectors`, `pca_means`; not whitened).
            components: largest number of components kept.

        Raises:
            UserError: if files are missing or need unpickling.
        """
        source = Path(source)
        try:
            if source.is_dir():
                mean, values, vectors = (
                    np.load(source / f"{name}.npy", allow_pickle=False)
                    for name in ("mean", "eigenvals", "eigenvecs")
                )
                return cls(mean, vectors.T[:, :components], values.reshape(-1)[:components])
            stored = np.load(source, allow_pickle=False)
            return cls(stored["pca_means"], stored["pca_eigen_vectors"].T[:, :components], None)
        except (OSError, KeyError, ValueError) as error:
            raise UserError(
                f"{source}: no PCA here ({error}); expected a folder with mean.npy, eigenvals.npy "
                "and "
                "eigenvecs.npy, or vggish_pca_params.npz"
            ) from error

    @staticmethod
    def fit(features: Tensor, folder: str | Path, components: int) -> PCA:
        """Fit a whitening PCA to features (N, dim) and write the files that `load` reads; the
        vectors are stored in half precision.

        Raises:
            UserError: if there are fewer features or values than components.
        """
        values = features.double().numpy()
        if min(values.shape) < components:
            raise UserError(
                f"{components} components need as many features and values, got {values.shape}"
            )
        mean = values.mean(0)
        _, lengths, vectors = np.linalg.svd(values - mean, full_matrices=False)
        variances = lengths[:components] ** 2 / max(1, len(values) - 1)
        arrays = {
            "mean": mean.astype(np.float32),
            "eigenvals": variances.astype(np.float32),
            "eigenvecs": vectors[:components].astype(np.float16),
        }
        for name, array in arrays.items():
            with atomic(Path(folder) / f"{name}.npy") as temporary:
                np.save(temporary, array)
        return PCA.load(folder, components)

    def __call__(self, features: Tensor) -> Tensor:
        """Project (T, dim) features to (T, n)."""
        values = features.numpy().astype(np.float64)
        if values.shape[1] != self.mean.size:
            raise UserError(
                f"features have {values.shape[1]} values but the PCA takes {self.mean.size}"
            )
        return torch.from_numpy(
            ((values - self.mean) @ self.vectors / self.scale).astype(np.float32)
        )
