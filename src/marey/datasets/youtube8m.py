"""YouTube-8M records: examples read from and written to frame-level and video-level TFRecords.

Format: Abu-El-Haija et al., arXiv 1609.08675, and the starter code's readers
(release of May 2018, 3,862 classes). A frame-level record holds an id, label ids, and a 1024-byte
`rgb` and a 128-byte `audio` string a second, up to 300.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marey.datasets.tf_example import feature_list, feature_matrix, messages
from marey.datasets.tfrecord import (
    OnCorrupt,
    ReadReport,
    RecordError,
    RecordLocation,
    locate_records,
    read_record,
    write_records,
)
from marey.errors import UserError

FEATURES = {"rgb": 1024, "audio": 128}
"""Feature name -> bytes a frame, as the data set has them."""
MAX_FRAMES = 300
SCALE, BIAS = 4 / 255, 4 / 512 - 2
"""Dequantisation of the starter code: x = q * 4/255 + (4/512 - 2), from [0, 255] to about
[-2, 2]."""


def quantize(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Quantise to 8 bits as the data set's feature extractor: clip to [-2, 2],
    round((x + 2) * 255 / 4).

    Raises:
        UserError: if a value is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise UserError("features hold a value that is not a finite number; it cannot be quantised")
    return np.round((np.clip(values, -2, 2) + 2) * (255 / 4)).astype(np.uint8)


def dequantize(quantized: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return float32 features; not an exact inverse of `quantize`: a round trip adds 4/512
    (as in the starter code)."""
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
    source: str = ""
    """File and record it was read from."""

    @property
    def num_frames(self) -> int:
        """Seconds T."""
        return len(next(iter(self.features.values())))

    def values(self, name: str, max_frames: int = MAX_FRAMES) -> NDArray[np.float32]:
        """Return the dequantised features of at most `max_frames` seconds, float32 (T, dim)."""
        array = self.features[name][:max_frames]
        return dequantize(array) if array.dtype == np.uint8 else array


def _labels(context: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(sorted(context["labels"].int64_list.value)) if "labels" in context else ()


def _identity(context: Mapping[str, Any], path: str | Path, record: int) -> str:
    for key in ("id", "video_id"):
        if key in context and context[key].bytes_list.value:
            return context[key].bytes_list.value[0].decode("utf-8", "replace")
    raise RecordError(
        path, record, "the context has neither 'id' nor 'video_id'; is this a YouTube-8M record?"
    )


def parse_frames(
    data: bytes,
    features: Mapping[str, int] = FEATURES,
    *,
    path: str | Path = "record",
    record: int = 0,
) -> FrameExample:
    """Read a frame-level record (SequenceExample).

    Raises:
        RecordError: naming file and record, if it is no such message, a feature is missing, has
            another width, or the features differ in length.
    """
    try:
        message = messages()["SequenceExample"].FromString(data)
        lists = message.feature_lists.feature_list
        context = message.context.feature
        name = _identity(context, path, record)
    except RecordError:
        raise
    except Exception as error:
        raise RecordError(
            path, record, f"is not a SequenceExample ({type(error).__name__})"
        ) from error
    arrays = {}
    for key, dim in features.items():
        if key not in lists:
            raise RecordError(
                path,
                record,
                f"(id '{name}') has no feature '{key}'; it has "
                f"{', '.join(sorted(lists)) or 'none (is this video-level data?)'}",
            )
        try:
            arrays[key] = feature_matrix(lists[key], dim)
        except Exception as error:
            raise RecordError(path, record, f"(id '{name}') feature '{key}': {error}") from error
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise RecordError(
            path,
            record,
            f"(id '{name}') features differ in length: "
            + ", ".join(f"{key} has {length} frames" for key, length in lengths.items()),
        )
    if not all(lengths.values()):
        raise RecordError(path, record, f"(id '{name}') has no frame")
    return FrameExample(
        id=name, labels=_labels(context), features=arrays, source=f"{path}: record {record}"
    )


def parse_video(
    data: bytes,
    features: Mapping[str, int] = FEATURES,
    *,
    path: str | Path = "record",
    record: int = 0,
) -> FrameExample:
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
            raise RecordError(
                path,
                record,
                f"(id '{name}') has no feature 'mean_{key}'; is this frame-level data?",
            )
        values = np.array(context[f"mean_{key}"].float_list.value, dtype=np.float32)
        if values.shape != (dim,):
            raise RecordError(
                path, record, f"(id '{name}') 'mean_{key}' has {values.size} values, expected {dim}"
            )
        if not np.isfinite(values).all():
            raise RecordError(
                path,
                record,
                f"(id '{name}') 'mean_{key}' holds a value that is not a finite number",
            )
        arrays[key] = values[None]
    return FrameExample(
        id=name, labels=_labels(context), features=arrays, source=f"{path}: record {record}"
    )


PARSERS: dict[str, Callable[..., FrameExample]] = {"frame": parse_frames, "video": parse_video}


def serialize_frames(example: FrameExample) -> bytes:
    """Write an example with uint8 features as a frame-level record."""
    message = messages()["SequenceExample"]()
    message.context.feature["id"].bytes_list.value.append(example.id.encode())
    message.context.feature["labels"].int64_list.value.extend(example.labels)
    for key, array in example.features.items():
        if array.dtype != np.uint8:
            raise UserError(
                f"feature '{key}' of '{example.id}' is {array.dtype}; quantise it to uint8 first"
            )
        message.feature_lists.feature_list[key] = feature_list(array)
    return message.SerializeToString(deterministic=True)


def serialize_video(example: FrameExample) -> bytes:
    """Write the mean over time of an example's dequantised features as a video-level record."""
    message = messages()["Example"]()
    message.features.feature["id"].bytes_list.value.append(example.id.encode())
    message.features.feature["labels"].int64_list.value.extend(example.labels)
    for key in example.features:
        message.features.feature[f"mean_{key}"].float_list.value.extend(
            example.values(key).mean(0).tolist()
        )
    return message.SerializeToString(deterministic=True)


def write_examples(path: str | Path, examples: Iterable[FrameExample], level: str = "frame") -> int:
    """Write examples to one TFRecord file (`level` "frame" or "video") and return how many there
    were."""
    serialize = {"frame": serialize_frames, "video": serialize_video}[level]
    return write_records(path, (serialize(example) for example in examples))


def read_examples(
    path: str | Path,
    features: Mapping[str, int] = FEATURES,
    *,
    level: str = "frame",
    on_corrupt: OnCorrupt = "raise",
    report: ReadReport | None = None,
) -> Iterator[FrameExample]:
    """Give every example of a file; a damaged or malformed record is refused or skipped and
    noted."""
    with ExampleReader(features, level, on_corrupt, report or ReadReport()) as reader:
        for location in locate_records(path, on_corrupt=on_corrupt, report=reader.report):
            example = reader.example(location)
            if example is not None:
                yield example


class ExampleReader:
    """Turns locations into examples; keeps a few files open."""

    max_open = 16

    def __init__(
        self, features: Mapping[str, int], level: str, on_corrupt: OnCorrupt, report: ReadReport
    ) -> None:
        self.features, self.parse, self.on_corrupt, self.report = (
            features,
            PARSERS[level],
            on_corrupt,
            report,
        )
        self._files: dict[str, Any] = {}

    def __enter__(self) -> ExampleReader:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def data(self, location: RecordLocation) -> bytes:
        if location.path not in self._files:
            if len(self._files) >= self.max_open:
                self.__exit__()
            self._files[location.path] = Path(location.path).open("rb", buffering=0)  # noqa: SIM115 - closed by __exit__
        return read_record(self._files[location.path], location)

    def example(self, location: RecordLocation) -> FrameExample | None:
        try:
            example = self.parse(
                self.data(location), self.features, path=location.path, record=location.record
            )
        except RecordError as error:
            if self.on_corrupt == "raise":
                raise
            self.report.skipped.append(str(error))
            return None
        self.report.records += 1
        return example
