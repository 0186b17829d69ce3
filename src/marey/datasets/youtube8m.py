"""YouTube-8M: frame-level and video-level TFRecords, label spaces, and a writer for the same format.

Format: Abu-El-Haija et al., arXiv 1609.08675, and the starter code's readers (release of May 2018, 3,862 classes).
A frame-level record holds an id, label ids, and a 1024-byte `rgb` and a 128-byte `audio` string a second, up to 300.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from marey.datasets.tfrecord import (
    OnCorrupt,
    ReadReport,
    RecordError,
    RecordPlace,
    count_records,
    feature_list,
    feature_matrix,
    iterate_places,
    messages,
    read_record,
    write_records,
)
from marey.errors import UserError

FEATURES = {"rgb": 1024, "audio": 128}
"""Feature name -> bytes a frame, as the data set has them."""
NUM_CLASSES = 3862
MAX_FRAMES = 300
SCALE, BIAS = 4 / 255, 4 / 512 - 2
"""Dequantisation of the starter code: x = q * 4/255 + (4/512 - 2), from [0, 255] to about [-2, 2]."""


def quantize(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Quantise to 8 bits as the data set's feature extractor: clip to [-2, 2], round((x + 2) * 255 / 4).

    Raises:
        UserError: if a value is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise UserError("features hold a value that is not a finite number; it cannot be quantised")
    return np.round((np.clip(values, -2, 2) + 2) * (255 / 4)).astype(np.uint8)


def dequantize(quantized: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return float32 features; not an exact inverse of `quantize`: a round trip adds 4/512 (as in the starter code)."""
    return quantized.astype(np.float32) * np.float32(SCALE) + np.float32(BIAS)


@dataclass(frozen=True, kw_only=True)
class FrameExample:
    """One video: features by second."""

    id: str
    """The data set's 4-character id, or a file name."""
    labels: tuple[int, ...]
    """Label ids, sorted; empty in the test partition."""
    features: dict[str, NDArray]
    """Name -> uint8 (T, dim) from a frame-level record, float32 (1, dim) from a video-level one."""
    place: str = ""
    """File and record it was read from."""

    @property
    def num_frames(self) -> int:
        """Seconds T."""
        return len(next(iter(self.features.values())))

    def values(self, name: str, max_frames: int = MAX_FRAMES) -> NDArray[np.float32]:
        """Return the dequantised features of at most `max_frames` seconds, float32 (T, dim)."""
        array = self.features[name][:max_frames]
        return dequantize(array) if array.dtype == np.uint8 else array


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """Which class ids a label id of the files turns into."""

    class_names: tuple[str, ...]
    """K names; a hierarchical one reads "Sports:Combat:Wrestling"."""
    classes_of: tuple[tuple[int, ...], ...]
    """For each label id of the files the classes it implies; () drops it."""

    def targets(self, labels: Iterable[int], place: str = "") -> NDArray[np.float32]:
        """Return the 0/1 vector of K classes for some label ids.

        Raises:
            UserError: if an id is not in the vocabulary.
        """
        target = np.zeros(len(self.class_names), dtype=np.float32)
        for label in labels:
            if not 0 <= label < len(self.classes_of):
                raise UserError(f"{place + ': ' if place else ''}label id {label} is not in the vocabulary of "
                                f"{len(self.classes_of)} labels; give the vocabulary these records were written with")
            target[list(self.classes_of[label])] = 1
        return target


def read_vocabulary(path: str | Path) -> LabelSpace:
    """Read the data set's vocabulary CSV (`Index,TrainVideoCount,KnowledgeGraphId,Name,...`): one class a row.

    A row without a name is called by its KnowledgeGraphId, a repeated name gets its index.

    Raises:
        UserError: if the columns are missing or the indices are not 0, 1, 2, ...
    """
    rows = _read_csv(path, ("Index", "Name"))
    names: list[str] = []
    for number, row in enumerate(sorted(rows, key=lambda row: int(row["Index"]))):
        if int(row["Index"]) != number:
            raise UserError(f"{path}: indices must run 0, 1, 2, ...; {number} is missing or doubled")
        name = row["Name"] or row.get("KnowledgeGraphId") or f"label {number}"
        names.append(name if name not in names else f"{name} ({number})")
    return LabelSpace(class_names=tuple(names), classes_of=tuple((k,) for k in range(len(names))))


def read_hierarchy(path: str | Path, vocabulary: LabelSpace) -> LabelSpace:
    """Map a vocabulary to a hierarchical label space; a label implies its ancestors.

    The paper trains on 431 hierarchical classes that are not published, so the mapping comes from a file.

    Args:
        path: CSV with the columns `Index` (a label id) and `Path` ("Sports:Combat:Wrestling"); several rows may map one
            label, labels without a row are dropped.
        vocabulary: of the records.

    Raises:
        UserError: if the columns are missing or an index is not in the vocabulary.
    """
    chains: dict[int, set[str]] = {}
    for row in _read_csv(path, ("Index", "Path")):
        index, parts = int(row["Index"]), [part.strip() for part in row["Path"].split(":")]
        if not 0 <= index < len(vocabulary.classes_of):
            raise UserError(f"{path}: label id {index} is not in the vocabulary of {len(vocabulary.classes_of)} labels")
        chains.setdefault(index, set()).update(":".join(parts[:n]) for n in range(1, len(parts) + 1))
    names = tuple(sorted(set().union(*chains.values()))) if chains else ()
    position = {name: k for k, name in enumerate(names)}
    return LabelSpace(class_names=names, classes_of=tuple(
        tuple(sorted(position[name] for name in chains.get(index, ()))) for index in range(len(vocabulary.classes_of))))


def _read_csv(path: str | Path, columns: Sequence[str]) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise UserError(f"{path}: column {', '.join(missing)} is missing; the header is "
                            f"{','.join(reader.fieldnames or ()) or 'empty'}")
        return list(reader)


def write_vocabulary(path: str | Path, names: Sequence[str], counts: Sequence[int] | None = None) -> None:
    """Write a vocabulary CSV with the data set's header for some class names."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["Index", "TrainVideoCount", "KnowledgeGraphId", "Name", "WikiUrl", "Vertical1", "Vertical2",
                         "Vertical3", "WikiDescription"])
        writer.writerows([k, counts[k] if counts else 0, "", name, "", "", "", "", ""] for k, name in enumerate(names))


# ---- records <-> examples ------------------------------------------------------------------------------------------


def _labels(context: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(sorted(context["labels"].int64_list.value)) if "labels" in context else ()


def _identity(context: Mapping[str, Any], path: str | Path, record: int) -> str:
    for key in ("id", "video_id"):
        if key in context and context[key].bytes_list.value:
            return context[key].bytes_list.value[0].decode("utf-8", "replace")
    raise RecordError(path, record, "the context has neither 'id' nor 'video_id'; is this a YouTube-8M record?")


def parse_frames(data: bytes, features: Mapping[str, int] = FEATURES, *, path: str | Path = "record",
                 record: int = 0) -> FrameExample:
    """Read a frame-level record (SequenceExample).

    Raises:
        RecordError: naming file and record, if it is no such message, a feature is missing, has another width, or the
            features differ in length.
    """
    try:
        message = messages()["SequenceExample"].FromString(data)
        lists = message.feature_lists.feature_list
        context = message.context.feature
        name = _identity(context, path, record)
    except RecordError:
        raise
    except Exception as error:
        raise RecordError(path, record, f"is not a SequenceExample ({type(error).__name__})") from error
    arrays = {}
    for key, dim in features.items():
        if key not in lists:
            raise RecordError(path, record, f"(id '{name}') has no feature '{key}'; it has "
                                            f"{', '.join(sorted(lists)) or 'none (is this video-level data?)'}")
        try:
            arrays[key] = feature_matrix(lists[key], dim)
        except Exception as error:
            raise RecordError(path, record, f"(id '{name}') feature '{key}': {error}") from error
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise RecordError(path, record, f"(id '{name}') features differ in length: "
                          + ", ".join(f"{key} has {length} frames" for key, length in lengths.items()))
    if not all(lengths.values()):
        raise RecordError(path, record, f"(id '{name}') has no frame")
    return FrameExample(id=name, labels=_labels(context), features=arrays, place=f"{path}: record {record}")


def parse_video(data: bytes, features: Mapping[str, int] = FEATURES, *, path: str | Path = "record",
                record: int = 0) -> FrameExample:
    """Read a video-level record (Example with `mean_rgb`, `mean_audio`) as a video of one frame.

    Raises:
        RecordError: as `parse_frames`, and if a value is not a finite number.
    """
    try:
        context = messages()["Example"].FromString(data).features.feature
        name = _identity(context, path, record)
    except RecordError:
        raise
    except Exception as error:
        raise RecordError(path, record, f"is not an Example ({type(error).__name__})") from error
    arrays = {}
    for key, dim in features.items():
        if f"mean_{key}" not in context:
            raise RecordError(path, record, f"(id '{name}') has no feature 'mean_{key}'; is this frame-level data?")
        values = np.array(context[f"mean_{key}"].float_list.value, dtype=np.float32)
        if values.shape != (dim,):
            raise RecordError(path, record, f"(id '{name}') 'mean_{key}' has {values.size} values, expected {dim}")
        if not np.isfinite(values).all():
            raise RecordError(path, record, f"(id '{name}') 'mean_{key}' holds a value that is not a finite number")
        arrays[key] = values[None]
    return FrameExample(id=name, labels=_labels(context), features=arrays, place=f"{path}: record {record}")


PARSERS: dict[str, Callable[..., FrameExample]] = {"frame": parse_frames, "video": parse_video}


def serialize_frames(example: FrameExample) -> bytes:
    """Write an example with uint8 features as a frame-level record."""
    message = messages()["SequenceExample"]()
    message.context.feature["id"].bytes_list.value.append(example.id.encode())
    message.context.feature["labels"].int64_list.value.extend(example.labels)
    for key, array in example.features.items():
        if array.dtype != np.uint8:
            raise UserError(f"feature '{key}' of '{example.id}' is {array.dtype}; quantise it to uint8 first")
        message.feature_lists.feature_list[key] = feature_list(array)
    return message.SerializeToString(deterministic=True)


def serialize_video(example: FrameExample) -> bytes:
    """Write the mean over time of an example's dequantised features as a video-level record."""
    message = messages()["Example"]()
    message.features.feature["id"].bytes_list.value.append(example.id.encode())
    message.features.feature["labels"].int64_list.value.extend(example.labels)
    for key in example.features:
        message.features.feature[f"mean_{key}"].float_list.value.extend(example.values(key).mean(0).tolist())
    return message.SerializeToString(deterministic=True)


def write_examples(path: str | Path, examples: Iterable[FrameExample], level: str = "frame") -> int:
    """Write examples to one TFRecord file (`level` "frame" or "video") and return how many there were."""
    serialize = {"frame": serialize_frames, "video": serialize_video}[level]
    return write_records(path, (serialize(example) for example in examples))


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
        raise UserError(f"{data}: no file named '{prefix}*.tfrecord' here; YouTube-8M shards are called "
                        "train0000.tfrecord")
    return shards


def read_examples(path: str | Path, features: Mapping[str, int] = FEATURES, *, level: str = "frame",
                  on_corrupt: OnCorrupt = "raise", report: ReadReport | None = None) -> Iterator[FrameExample]:
    """Give every example of a file; a damaged or malformed record is refused or skipped and noted."""
    with _Reader(features, level, on_corrupt, report or ReadReport()) as reader:
        for place in iterate_places(path, on_corrupt=on_corrupt, report=reader.report):
            example = reader.example(place)
            if example is not None:
                yield example


class _Reader:
    """Turns places into examples; keeps a few files open."""

    max_open = 16

    def __init__(self, features: Mapping[str, int], level: str, on_corrupt: OnCorrupt, report: ReadReport) -> None:
        self.features, self.parse, self.on_corrupt, self.report = features, PARSERS[level], on_corrupt, report
        self._files: dict[str, Any] = {}

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def data(self, place: RecordPlace) -> bytes:
        if place.path not in self._files:
            if len(self._files) >= self.max_open:
                self.__exit__()
            self._files[place.path] = Path(place.path).open("rb", buffering=0)  # noqa: SIM115 - closed by __exit__
        return read_record(self._files[place.path], place)

    def example(self, place: RecordPlace) -> FrameExample | None:
        try:
            example = self.parse(self.data(place), self.features, path=place.path, record=place.record)
        except RecordError as error:
            if self.on_corrupt == "raise":
                raise
            self.report.skipped.append(str(error))
            return None
        self.report.records += 1
        return example


# ---- data sets -----------------------------------------------------------------------------------------------------


def example_tensors(example: FrameExample, space: LabelSpace, max_frames: int = MAX_FRAMES) -> dict[str, Any]:
    """Return `features` (name -> float (T, dim)), `targets` float (K,) and `id` of an example."""
    return {"features": {key: torch.from_numpy(np.ascontiguousarray(example.values(key, max_frames)))
                         for key in example.features},
            "targets": torch.from_numpy(space.targets(example.labels, example.place)), "id": example.id}


def collate_features(samples: Sequence[dict[str, Any]], pad_to: int | None = None) -> dict[str, Any]:
    """Pad videos to one length with exact zeros and say which frames are real.

    Args:
        samples: from `example_tensors`.
        pad_to: seconds; None pads to the longest of the batch (the answer is the same, a model masks exactly).

    Returns:
        `features`: name -> float (B, T, dim); `mask`: bool (B, T), True at real frames; `targets`: float (B, K);
        `ids`: list.
    """
    lengths = [len(next(iter(sample["features"].values()))) for sample in samples]
    length = max(lengths) if pad_to is None else pad_to
    features: dict[str, Tensor] = {}
    for key, first in samples[0]["features"].items():
        features[key] = first.new_zeros(len(samples), length, first.shape[1])
        for row, sample in enumerate(samples):
            features[key][row, :lengths[row]] = sample["features"][key]
    mask = torch.arange(length)[None] < torch.tensor(lengths)[:, None]
    return {"features": features, "mask": mask, "targets": torch.stack([sample["targets"] for sample in samples]),
            "ids": [sample["id"] for sample in samples]}


class IndexedExamples(Dataset):
    """Records read by number, for data whose order a sampler decides (some millions of records on a local disk)."""

    def __init__(self, shards: Sequence[str], space: LabelSpace, *, features: Mapping[str, int] = FEATURES,
                 level: str = "frame", max_frames: int = MAX_FRAMES, on_corrupt: OnCorrupt = "raise") -> None:
        """Find every record by the length fields; with `on_corrupt="skip"` damaged ones are found and left out now."""
        self.space, self.features, self.level, self.max_frames = space, dict(features), level, max_frames
        self.report = ReadReport()
        self.places = [place for shard in shards
                       for place in iterate_places(shard, on_corrupt=on_corrupt, report=self.report)]
        if on_corrupt == "skip":
            with _Reader(self.features, level, "skip", self.report) as reader:
                self.places = [place for place in self.places if reader.example(place) is not None]

    def __len__(self) -> int:
        """Number of records."""
        return len(self.places)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """Return the tensors of record i; `(epoch, i)` is accepted, features have no augmentation."""
        index = key[1] if isinstance(key, tuple) else key
        with _Reader(self.features, self.level, "raise", ReadReport()) as reader:
            example = reader.example(self.places[index])
        assert example is not None
        return {**example_tensors(example, self.space, self.max_frames), "sample": index}


class StreamedExamples(IterableDataset):
    """Records streamed from many shards: divided over ranks and workers, shuffled in a bounded buffer, resumable.

    With at least as many shards as readers every reader takes whole shards; with fewer, records are dealt out in turn.
    Either way no record is read twice in an epoch. Order depends on seed, epoch and number of readers only; the
    buffer holds places, not data, so a resumed epoch passes over what is done without reading it.
    """

    def __init__(self, shards: Sequence[str], space: LabelSpace, *, features: Mapping[str, int] = FEATURES,
                 level: str = "frame", max_frames: int = MAX_FRAMES, shuffle_buffer: int = 0, seed: int = 0,
                 rank: int = 0, num_ranks: int = 1, on_corrupt: OnCorrupt = "raise") -> None:
        """Set up; nothing is read yet.

        Args:
            shards: TFRecord files.
            space: label space.
            features: name -> width.
            level: "frame" or "video".
            max_frames: later seconds are dropped.
            shuffle_buffer: records held for shuffling; 0 keeps the order of the files.
            seed: of the shuffle; the epoch is mixed in.
            rank, num_ranks: of this process.
            on_corrupt: refuse or skip damaged records (`report.skipped` names them).
        """
        self.shards, self.space, self.features = list(shards), space, dict(features)
        self.level, self.max_frames, self.shuffle_buffer, self.seed = level, max_frames, shuffle_buffer, seed
        self.rank, self.num_ranks, self.on_corrupt = rank, num_ranks, on_corrupt
        self.report = ReadReport()
        self.epoch, self._batches_done, self._batch_size = 0, 0, 1
        self._counts: dict[str, int] = {}

    def set_epoch(self, epoch: int, *, batches_done: int = 0, batch_size: int = 1) -> None:
        """Start at an epoch, or in the middle of one.

        Args:
            epoch: mixed into the shuffle.
            batches_done: batches this rank's loader had given out when it stopped.
            batch_size: of that loader (it must not drop the last batch).
        """
        self.epoch, self._batches_done, self._batch_size = epoch, batches_done, batch_size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give the samples of this rank and worker."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        worker, skip = self._where_to_go_on(worker, workers)
        with _Reader(self.features, self.level, self.on_corrupt, self.report) as reader:
            for place in self._shuffled(worker, workers, skip):
                example = reader.example(place)
                if example is not None:
                    yield {**example_tensors(example, self.space, self.max_frames), "sample": place.record}

    def num_batches(self, batch_size: int, workers: int = 1) -> int:
        """Return how many batches this epoch gives this rank through a loader with so many workers (0 counts as 1)."""
        return sum(-(-self._part_size(worker, max(workers, 1)) // batch_size) for worker in range(max(workers, 1)))

    def num_records(self) -> int:
        """Return the records of all shards, by their length fields (counted once)."""
        return sum(self._count(shard) for shard in self.shards)

    def _count(self, shard: str) -> int:
        if shard not in self._counts:
            self._counts[shard] = count_records(shard, on_corrupt=self.on_corrupt)
        return self._counts[shard]

    def _part_size(self, worker: int, workers: int) -> int:
        part, parts = self.rank * workers + worker, self.num_ranks * workers
        shards = self._epoch_shards()
        if len(shards) >= parts:
            return sum(self._count(shard) for shard in shards[part::parts])
        return len(range(part, self.num_records(), parts))

    def _epoch_shards(self) -> list[str]:
        shards = list(self.shards)
        if self.shuffle_buffer:
            np.random.default_rng([self.seed, self.epoch]).shuffle(shards)
        return shards

    def _part(self, worker: int, workers: int) -> Iterator[RecordPlace]:
        part, parts = self.rank * workers + worker, self.num_ranks * workers
        shards = self._epoch_shards()
        whole = len(shards) >= parts
        number = 0
        for shard in shards[part::parts] if whole else shards:
            for place in iterate_places(shard, on_corrupt=self.on_corrupt, report=self.report):
                if whole or number % parts == part:
                    yield place
                number += 1

    def _shuffled(self, worker: int, workers: int, skip: int) -> Iterator[RecordPlace]:
        """Give places in shuffled order from the `skip`-th on; what is passed over is not read."""
        generator = np.random.default_rng([self.seed, self.epoch, self.rank, worker])
        buffer: list[RecordPlace] = []
        done = 0
        for place in self._part(worker, workers):
            buffer.append(place)
            if len(buffer) > self.shuffle_buffer:
                last = buffer.pop(int(generator.integers(len(buffer)))) if self.shuffle_buffer else buffer.pop()
                done += 1
                if done > skip:
                    yield last
        generator.shuffle(buffer)  # type: ignore[arg-type]
        yield from buffer[max(skip - done, 0):]

    def _where_to_go_on(self, worker: int, workers: int) -> tuple[int, int]:
        """Return whose part a worker takes over, and how many of its examples the loader had already given.

        A loader takes batches from its workers in turn and passes over those that have no more; the worker whose turn
        it was must be the first one again. Exact unless damaged records were skipped.
        """
        if workers == 1:
            return 0, self._batches_done * self._batch_size
        if not self._batches_done:
            return worker, 0
        left = [-(-self._part_size(w, workers) // self._batch_size) for w in range(workers)]
        given = [0] * workers
        turn = 0
        for _ in range(min(self._batches_done, sum(left))):
            while not left[turn]:
                turn = (turn + 1) % workers
            left[turn] -= 1
            given[turn] += 1
            turn = (turn + 1) % workers
        taken = (worker + turn) % workers
        return taken, given[taken] * self._batch_size


# ---- what stands beside the shards ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """Shards with what is needed to read them: widths, label space, and how the features were made."""

    root: str
    """The folder, or the one file."""
    features: dict[str, int]
    """Feature name -> bytes a frame."""
    space: LabelSpace
    encoders: dict[str, Any]
    """What made each feature ("rgb": {"model": "marey-mini", ...}); empty for the official data."""

    def shards(self, *prefixes: str) -> list[str]:
        """List the shards whose name begins with the first prefix that any has; a single file is always itself.

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


def write_sidecar(data: str | Path, features: Mapping[str, int], class_names: Sequence[str],
                  encoders: Mapping[str, Any] | None = None, **more: Any) -> None:
    """Describe shards that are not official: widths, class names, and how the features were made."""
    sidecar(data).write_text(json.dumps({"features": dict(features), "class_names": list(class_names),
                                         "encoders": dict(encoders or {}), **more}, indent=2) + "\n", encoding="utf-8")


def open_feature_set(data: str | Path, *, features: Mapping[str, int] | None = None,
                     vocabulary: str | Path | None = None, hierarchy: str | Path | None = None) -> FeatureSet:
    """Open a folder of shards, or one TFRecord file.

    Widths and class names come from the arguments, else from the description beside the data (features.json of a
    folder, X.json of X.tfrecord), else from `vocabulary.csv` and `hierarchy.csv` in the folder, else they are those of
    YouTube-8M with numbered classes.

    Raises:
        UserError: if there is nothing there, or a file is not what it should be.
    """
    root = Path(data)
    if not root.exists():
        raise UserError(f"{root}: no such file or folder; give a folder of YouTube-8M shards or one .tfrecord file")
    described: dict[str, Any] = {}
    if sidecar(root).is_file():
        try:
            described = json.loads(sidecar(root).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise UserError(f"{sidecar(root)}: not valid JSON ({error}); write the features again") from error
    beside = root if root.is_dir() else root.parent
    if vocabulary is None and "class_names" not in described and (beside / "vocabulary.csv").is_file():
        vocabulary = beside / "vocabulary.csv"
    if vocabulary is not None:
        space = read_vocabulary(vocabulary)
    else:
        names = described.get("class_names") or [f"label {k}" for k in range(NUM_CLASSES)]
        space = LabelSpace(class_names=tuple(names), classes_of=tuple((k,) for k in range(len(names))))
    if hierarchy is None and root.is_dir() and (root / "hierarchy.csv").is_file():
        hierarchy = root / "hierarchy.csv"
    if hierarchy is not None:
        space = read_hierarchy(hierarchy, space)
    return FeatureSet(root=str(root), features=dict(features or described.get("features") or FEATURES), space=space,
                      encoders=described.get("encoders", {}))
