"""A folder of YouTube-8M shards, official or our own: its files, feature widths and label space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marey.datasets.youtube8m import FEATURES
from marey.datasets.youtube8m_labels import LabelSpace, read_hierarchy, read_vocabulary
from marey.errors import UserError
from marey.files import read_json, write_json

NUM_CLASSES = 3862
"""Classes of the release of May 2018."""


def find_shards(data: str | Path, prefix: str = "") -> list[str]:
    """List the TFRecord files of a folder (or the one file given), sorted by name.

    Raises:
        UserError: if there is none.
    """
    data = Path(data)
    if data.is_file():
        return [str(data)]
    shards = sorted(str(path) for path in data.glob(f"{prefix}*.tfrecord"))
    if not shards:
        raise UserError(
            f"{data}: no file named '{prefix}*.tfrecord' here; YouTube-8M shards are called "
            "train0000.tfrecord"
        )
    return shards


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """Shards with what is needed to read them: widths, label space, and how the features were
    made."""

    root: str
    """The folder, or the one file."""
    features: dict[str, int]
    """Feature name -> bytes a frame."""
    space: LabelSpace
    encoders: dict[str, Any]
    """What made each feature ("rgb": {"model": "marey-mini-rgb", ...}); empty for the official
    data."""

    def shards(self, *prefixes: str) -> list[str]:
        """List the shards whose name begins with the first prefix that any has; a single file is
        always itself.

        Raises:
            UserError: if there is none.
        """
        for prefix in prefixes[:-1]:
            if Path(self.root).is_file() or any(Path(self.root).glob(f"{prefix}*.tfrecord")):
                return find_shards(self.root, prefix)
        return find_shards(self.root, prefixes[-1])


def sidecar(data: str | Path) -> Path:
    """Return where the description of a folder of shards, or of one file, stands."""
    data = Path(data)
    return data / "features.json" if data.is_dir() else data.with_suffix(".json")


def write_sidecar(
    data: str | Path,
    features: Mapping[str, int],
    class_names: Sequence[str],
    encoders: Mapping[str, Any] | None = None,
    **more: Any,
) -> None:
    """Describe shards that are not official: widths, class names, and how the features were
    made."""
    write_json(
        sidecar(data),
        {
            "features": dict(features),
            "class_names": list(class_names),
            "encoders": dict(encoders or {}),
            **more,
        },
    )


def open_feature_set(
    data: str | Path,
    *,
    features: Mapping[str, int] | None = None,
    vocabulary: str | Path | None = None,
    hierarchy: str | Path | None = None,
) -> FeatureSet:
    """Open a folder of shards, or one TFRecord file.

    Widths and class names come from the arguments, else from the description beside the data
    (features.json of a folder, X.json of X.tfrecord), else from `vocabulary.csv` and
    `hierarchy.csv` in the folder, else they are those of YouTube-8M with numbered classes.

    Raises:
        UserError: if there is nothing there, or a file is not what it should be.
    """
    root = Path(data)
    if not root.exists():
        raise UserError(
            f"{root}: no such file or folder; give a folder of YouTube-8M shards or one .tfrecord "
            "file"
        )
    described: dict[str, Any] = {}
    if sidecar(root).is_file():
        described = read_json(sidecar(root))
    beside = root if root.is_dir() else root.parent
    if (
        vocabulary is None
        and "class_names" not in described
        and (beside / "vocabulary.csv").is_file()
    ):
        vocabulary = beside / "vocabulary.csv"
    if vocabulary is not None:
        space = read_vocabulary(vocabulary)
    else:
        names = described.get("class_names") or [f"label {k}" for k in range(NUM_CLASSES)]
        space = LabelSpace(
            class_names=tuple(names), classes_of=tuple((k,) for k in range(len(names)))
        )
    if hierarchy is None and root.is_dir() and (root / "hierarchy.csv").is_file():
        hierarchy = root / "hierarchy.csv"
    if hierarchy is not None:
        space = read_hierarchy(hierarchy, space)
    return FeatureSet(
        root=str(root),
        features=dict(features or described.get("features") or FEATURES),
        space=space,
        encoders=described.get("encoders", {}),
    )
