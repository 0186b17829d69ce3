"""Which videos a model was trained on, kept in its checkpoint, and found again in what it is scored
on.

A video is known by its content, whatever its name: a hash of its bytes, and for sets of up to
`MAX_FINGERPRINTS` videos a fingerprint of its pictures, which finds re-encoded copies
(`datasets.fingerprint`). What is no video, a record of features or a window of keypoints, is known
by a hash of its numbers.

Legend: N training videos, M of them with a fingerprint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marey.datasets.fingerprint import fingerprint, near_duplicates
from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.pack import open_packed
from marey.datasets.poses import ARRAY, open_keypoints
from marey.errors import UserError
from marey.video.decode import open_video

HASHES, PICTURES = "training_videos", "training_pictures"
"""Names of the checkpoint's tensors: int64 (N,), uint8 (M, 3, 16, 16)."""
MAX_FINGERPRINTS = 5000
"""Training sets with more videos are known by their bytes alone."""
HASHED_BYTES = 4 << 20
"""Of a file more than twice as large only so many bytes from its beginning and end are hashed."""
HASHED_FRAMES = 64
"""Of a folder with more frames only so many, evenly spread, are hashed, and their number."""


@dataclass(frozen=True)
class Seen:
    """What of a data set a model was trained on."""

    same_file: tuple[int, ...]
    """Positions of samples with the bytes of a training video."""
    same_pictures: tuple[int, ...]
    """Positions of further samples that show what a training video shows."""

    @property
    def positions(self) -> frozenset[int]:
        """All of them."""
        return frozenset(self.same_file + self.same_pictures)


def content_hash(index: DatasetIndex, sample: Sample) -> int | None:
    """Return 63 bits of the SHA-256 over the bytes of a sample's video and over its stretch; None
    where it cannot be read."""
    digest = hashlib.sha256(repr((sample.start_seconds, sample.end_seconds)).encode())
    try:
        if sample.row is not None:
            is_poses = (index.root / ARRAY).is_file()
            rows = open_keypoints(index.root) if is_poses else open_packed(index.root).array
            digest.update(rows[sample.row].tobytes())
        elif sample.path.is_dir():
            files = sorted(file for file in sample.path.iterdir() if file.is_file())
            if len(files) > HASHED_FRAMES:
                digest.update(str(len(files)).encode())
            for number in range(min(len(files), HASHED_FRAMES)):
                _update(digest, files[number * len(files) // min(len(files), HASHED_FRAMES)])
        else:
            _update(digest, sample.path)
    except (OSError, UserError, IndexError):
        return None
    return _number(digest)


def record_hash(features: Mapping[str, Tensor]) -> int:
    """Return 63 bits of the SHA-256 over the numbers of a record of features, whatever its id."""
    digest = hashlib.sha256()
    for name, values in sorted(features.items()):
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.numpy().tobytes())
    return _number(digest)


def _number(digest: Any) -> int:
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def _update(digest: Any, file: Path) -> None:
    size = file.stat().st_size
    digest.update(str(size).encode())
    with file.open("rb") as stream:
        if size <= 2 * HASHED_BYTES:
            digest.update(stream.read())
        else:
            digest.update(stream.read(HASHED_BYTES))
            stream.seek(-HASHED_BYTES, 2)
            digest.update(stream.read())


def describe_training(index: DatasetIndex) -> dict[str, Tensor]:
    """Return the tensors by which the videos of a training set are known again.

    Videos that cannot be read are left out: the model was not trained on them.
    """
    hashes = [content_hash(index, sample) for sample in index.samples]
    tensors = {HASHES: torch.tensor([number for number in hashes if number is not None]).long()}
    if len(index) <= MAX_FINGERPRINTS:
        pictures = [_pictures(sample) for sample in index.samples]
        found = [torch.from_numpy(part).round().byte() for part in pictures if part is not None]
        if found:
            tensors[PICTURES] = torch.stack(found)
    return tensors


def together(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what knows the training videos of both, of a model and of the one that it started
    from."""
    return {
        name: torch.cat([part[name] for part in (first, second) if name in part])
        for name in (HASHES, PICTURES)
        if name in first or name in second
    }


def _pictures(sample: Sample) -> np.ndarray | None:
    """(3, 16, 16) float32; None for rows of a packed array and for what cannot be read."""
    if sample.row is not None:
        return None
    try:
        with open_video(sample.path, threads=1) as reader:
            return fingerprint(reader, sample.start_seconds, sample.end_seconds)
    except (UserError, OSError):
        return None


def seen_in_training(index: DatasetIndex, tensors: Mapping[str, Tensor]) -> Seen | None:
    """Find the samples that a model was trained on.

    Args:
        index: what it is to be scored on.
        tensors: of its checkpoint.

    Returns:
        None where the checkpoint does not say what it was trained on.
    """
    if HASHES not in tensors:
        return None
    known = set(tensors[HASHES].tolist())
    same_file = tuple(
        position
        for position, sample in enumerate(index.samples)
        if content_hash(index, sample) in known
    )
    return Seen(same_file, _same_pictures(index, tensors, set(same_file)))


def _same_pictures(
    index: DatasetIndex, tensors: Mapping[str, Tensor], known: set[int]
) -> tuple[int, ...]:
    if PICTURES not in tensors:
        return ()
    training: Sequence[np.ndarray] = list(tensors[PICTURES].float().numpy())
    rest = [position for position in range(len(index)) if position not in known]
    pictures = [_pictures(index.samples[position]) for position in rest]
    N = len(training)
    found = {j for i, j in near_duplicates([*training, *pictures]) if i < N <= j}
    return tuple(rest[j - N] for j in sorted(found))


def positions_seen(index: DatasetIndex, tensors: Mapping[str, Tensor]) -> frozenset[int]:
    """Return the positions of `seen_in_training`, none where the checkpoint does not say."""
    seen = seen_in_training(index, tensors)
    return frozenset() if seen is None else seen.positions


def describe_records(records: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensor by which records of features, or windows of keypoints, are known again."""
    return {HASHES: torch.tensor([record_hash(record) for record in records]).long()}


def records_seen(
    records: Iterable[Mapping[str, Tensor]], tensors: Mapping[str, Tensor]
) -> frozenset[int]:
    """Return the positions of the records that such a tensor knows."""
    if HASHES not in tensors:
        return frozenset()
    known = set(tensors[HASHES].tolist())
    return frozenset(
        position for position, record in enumerate(records) if record_hash(record) in known
    )
