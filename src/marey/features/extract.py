"""Encode the videos of a data set and write their features as TFRecords in the YouTube-8M
format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from marey.checkpoints.load import RENAMED
from marey.datasets.index import VIDEO_SUFFIXES, DatasetIndex, Sample
from marey.datasets.open import open_dataset
from marey.datasets.tf_example import messages
from marey.datasets.tfrecord import read_records
from marey.datasets.youtube8m import FrameExample, quantize, write_examples
from marey.datasets.youtube8m_shards import write_sidecar
from marey.errors import UserError, VideoError
from marey.features.cache import FeatureCache, cache_key
from marey.features.frames import encode_frames, load_frame_encoder, whole_seconds
from marey.features.sound import SoundEncoder
from marey.features.weights import PCA
from marey.files import file_identity, weights_digest
from marey.video.decode import open_video

PARTITIONS = {"train": "train", "val": "validate", "test": "test"}
"""Split of a data set -> name of its shard."""


class FeatureExtractor:
    """A frame encoder, a sound encoder and optional projections, with a description for the
    features' file."""

    def __init__(
        self,
        frames: str = "marey-mini-rgb",
        sound: str = "log-mel",
        frames_pca: str | None = None,
        sound_pca: str | None = None,
        max_seconds: int = 300,
    ) -> None:
        """Load the encoders.

        Args:
            frames: "frames" (EfficientNet-Lite0 with ImageNet weights, bundled), "marey-mini-rgb"
                or another checkpoint that reads clips, or "inception:FILE".
            sound: "log-mel" (no weights), or "vggish:FILE".
            frames_pca, sound_pca: PCA files, see `PCA.load`.
            max_seconds: later seconds are left out (the data set: 300).

        Raises:
            UserError: if an encoder or file is not there.
        """
        self.max_seconds = max_seconds
        self.frames, self.sound = load_frame_encoder(frames), SoundEncoder(sound)
        self.frames_pca = PCA.load(frames_pca) if frames_pca else None
        self.sound_pca = PCA.load(sound_pca) if sound_pca else None
        self.description: dict[str, Any] = {
            "frames": frames,
            "sound": sound,
            "frames_pca": frames_pca,
            "sound_pca": sound_pca,
            "max_seconds": max_seconds,
            "frames_digest": weights_digest(self.frames.model.state_dict()),
        }

    @classmethod
    def from_description(
        cls, description: dict[str, Any], folder: Path | None = None
    ) -> FeatureExtractor:
        """Build the extractor a feature file or checkpoint describes.

        Args:
            description: the `description` of the extractor that made the features.
            folder: a checkpoint's folder, which may hold the frame encoder and its PCA ("frames"
                and "frames_pca" are then paths inside it).

        Raises:
            UserError: if the frame encoder has other weights than the one the features were made
                with.
        """
        values = dict(description)
        digest = values.pop("frames_digest", None)
        if folder is not None and (folder / values["frames"] / "config.json").is_file():
            values["frames"] = str(folder / values["frames"])
        else:
            values["frames"] = RENAMED.get(values["frames"], values["frames"])
        pca = values.get("frames_pca")
        if folder is not None and pca and (folder / pca).is_dir():
            values["frames_pca"] = str(folder / pca)
        extractor = cls(**values)
        if digest not in (None, extractor.description["frames_digest"]):
            raise UserError(
                f"the frame encoder '{values['frames']}' has other weights than when the features "
                "were "
                "made; make the features again and train on them"
            )
        return extractor

    def __call__(
        self,
        path: str | Path,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        *,
        max_pixels: int | None = None,
    ) -> dict[str, NDArray[np.uint8]]:
        """Return the quantised features of a video: `rgb` uint8 (T, D) and `audio` uint8 (T, 128),
        one row a second.

        Raises:
            VideoError: if the video cannot be read.
        """
        limits = {} if max_pixels is None else {"max_pixels": max_pixels}
        start = start_seconds or 0.0
        with open_video(path, **limits) as reader:
            end = (
                reader.duration_seconds
                if end_seconds is None
                else min(end_seconds, reader.duration_seconds)
            )
            seconds = whole_seconds(end - start, self.max_seconds)
            frames = encode_frames(reader, self.frames, start, seconds)
        sound = self.sound(path, seconds, start)
        if self.frames_pca is not None:
            frames = self.frames_pca(frames)
        if self.sound_pca is not None:
            sound = self.sound_pca(sound)
        return {"rgb": quantize(frames.numpy()), "audio": quantize(sound.numpy())}


@dataclass(kw_only=True)
class FeatureReport:
    """The files written and the videos left out by `write_features`."""

    files: dict[str, int] = field(default_factory=dict)
    """TFRecord file -> videos in it."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Video -> why it was left out."""
    class_names: tuple[str, ...] = ()


def write_features(
    data: str | Path,
    out: str | Path,
    extractor: FeatureExtractor,
    *,
    dataset: str | None = None,
    split_by: str | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> FeatureReport:
    """Encode every video of a data set and write feature files.

    Labels come from class folders or a manifest (several for one video: "run;jump"). An `out` that
    ends in .tfrecord is one file; any other is a folder with train0000, validate0000 and test0000.
    A JSON description beside them holds widths, class names and encoders for `marey train` and
    `marey predict --features`.

    Args:
        data: a data set of the data contract, a folder of unlabelled videos, or one video.
        out: file or folder.
        extractor: the encoders.
        dataset, split_by: as in `open_dataset`.
        progress: wraps the list of samples, for a display.

    Raises:
        UserError: if `out` exists, or no video could be read.
    """
    out = Path(out)
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{out}: already exists; choose another --out")
    index = open_videos(Path(data), dataset, split_by)
    names = tuple(sorted({name for sample in index.samples for name in labels_of(sample)}))
    report = FeatureReport(class_names=names)
    single = out.suffix == ".tfrecord"
    groups: dict[str, list[Sample]] = {}
    for sample in index.samples:
        name = (
            out.name
            if single
            else f"{PARTITIONS.get(sample.split or 'train', sample.split)}0000.tfrecord"
        )
        groups.setdefault(name, []).append(sample)
    folder = out.parent if single else out
    folder.mkdir(parents=True, exist_ok=True)
    for name, samples in groups.items():
        count = write_examples(
            folder / name, _examples(index, progress(samples), names, extractor, report)
        )
        if count:
            report.files[str(folder / name)] = count
        else:
            (folder / name).unlink()
    if not report.files:
        raise UserError(
            f"{data}: none of its {len(index.samples)} videos could be read; the first: "
            f"{next(iter(report.unreadable.values()))}"
        )
    write_sidecar(out, _widths(next(iter(report.files))), names, extractor.description)
    return report


def open_videos(
    data: Path, dataset: str | None = None, split_by: str | None = None
) -> DatasetIndex:
    """Open a data set, a flat folder of unlabelled videos, or one video."""
    if data.is_file() and data.suffix.lower() in VIDEO_SUFFIXES:
        return _unlabelled([data], data.parent)
    if data.is_dir() and dataset is None and not (data / "manifest.csv").exists():
        flat = sorted(path for path in data.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
        if flat:
            return _unlabelled(flat, data)
    return open_dataset(data, dataset=dataset, split_by=split_by)


def _unlabelled(paths: list[Path], root: Path) -> DatasetIndex:
    return DatasetIndex(
        samples=tuple(Sample(path=path, label=None) for path in paths),
        class_names=(),
        name="unlabelled",
        root=root,
    )


def labels_of(sample: Sample) -> list[str]:
    """Return the labels of a sample; a manifest may give several, separated by semicolons."""
    return [name.strip() for name in (sample.label or "").split(";") if name.strip()]


def _examples(
    index: DatasetIndex,
    samples: Iterable[Sample],
    names: tuple[str, ...],
    extractor: FeatureExtractor,
    report: FeatureReport,
) -> Iterator[FrameExample]:
    cache = FeatureCache()
    for sample in samples:
        try:
            features = _stored(cache, extractor, sample)
        except (VideoError, OSError) as error:
            report.unreadable[str(sample.path)] = str(error)
            continue
        yield FrameExample(
            id=index.relative_path(sample),
            features=features,
            labels=tuple(sorted(names.index(name) for name in labels_of(sample))),
        )


def _stored(
    cache: FeatureCache, extractor: FeatureExtractor, sample: Sample
) -> dict[str, NDArray[np.uint8]]:
    """Return the features of a video, from the cache where an earlier run has made them."""

    def make() -> dict[str, torch.Tensor]:
        made = extractor(sample.path, sample.start_seconds, sample.end_seconds)
        return {name: torch.from_numpy(values.copy()) for name, values in made.items()}

    if not sample.path.exists():
        return extractor(sample.path)
    key = cache_key(
        what="features by second",
        extractor=extractor.description,
        video=file_identity(sample.path),
        start_seconds=sample.start_seconds,
        end_seconds=sample.end_seconds,
    )
    return {name: values.numpy() for name, values in cache.get_or_make(key, make).items()}


def _widths(path: str) -> dict[str, int]:
    """Return the width of every feature in the first record of a file just written."""
    _, data = next(read_records(path))
    lists = messages()["SequenceExample"].FromString(data).feature_lists.feature_list
    return {
        name: len(messages()["FeatureList"].FromString(lists[name]).feature[0].bytes_list.value[0])
        for name in ("rgb", "audio")
    }
