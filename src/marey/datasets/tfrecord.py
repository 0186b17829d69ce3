"""TFRecord files without TensorFlow: framing, CRC-32C, and the `Example` / `SequenceExample` messages.

A record is `uint64 length, uint32 masked crc of length, data, uint32 masked crc of data`, little-endian. The messages
are read by protobuf against a schema built here, in which the lists of frames stay raw bytes (a length-delimited
message and a bytes field look the same on the wire): `feature_matrix` then reads 300 equally long frames as one strided
view instead of 300 objects, and falls back to protobuf where frames differ.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from marey.errors import UserError, import_extra
from marey.files import atomic

OnCorrupt = Literal["raise", "skip"]
MAX_RECORD_BYTES = 1 << 30
"""A longer length field is taken for damage, before any memory is asked for."""


class RecordError(UserError):
    """A record that cannot be used; `path`, `record` (0-based) and `reason` say which and why."""

    def __init__(self, path: str | Path, record: int, reason: str) -> None:
        """Keep the place and build the one-line message."""
        super().__init__(f"{path}: record {record}: {reason}")
        self.path, self.record, self.reason = str(path), record, reason


@dataclass(kw_only=True)
class ReadReport:
    """What a reader met, filled while it runs."""

    records: int = 0
    """Records that were given out."""
    skipped: list[str] = field(default_factory=list)
    """One line for each record or rest of a file that was left out."""


@dataclass(frozen=True, kw_only=True)
class RecordPlace:
    """Where one record stands."""

    path: str
    """File."""
    record: int
    """Number of the record in its file, from 0."""
    offset: int
    """Byte at which its data begins."""
    length: int
    """Bytes of data."""


@lru_cache(maxsize=1)
def _crc32c() -> Callable[[bytes], int]:
    return import_extra("google_crc32c", "yt8m", "reading and writing TFRecord files").value


def masked_crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of some bytes, rotated and shifted as TFRecord files store it."""
    crc = _crc32c()(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def write_records(path: str | Path, records: Iterable[bytes]) -> int:
    """Write records to a new file, under a temporary name until it is whole, and return how many there were."""
    count = 0
    with atomic(path) as temporary, temporary.open("wb") as file:
        for data in records:
            length = struct.pack("<Q", len(data))
            file.write(b"".join((length, struct.pack("<I", masked_crc32c(length)), data,
                                 struct.pack("<I", masked_crc32c(data)))))
            count += 1
    return count


def iterate_places(path: str | Path, *, on_corrupt: OnCorrupt = "raise", report: ReadReport | None = None) \
        -> Iterator[RecordPlace]:
    """Walk over the records of a file by their length fields, without reading their data.

    A damaged length field hides where the next record begins, so the rest of that file is lost (one skipped entry).

    Raises:
        RecordError: with `on_corrupt="raise"`, if the file is empty, compressed, cut, or a length field is damaged.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            if size == 0:
                raise RecordError(path, 0, "the file is empty; download or write it again")
            yield from _places(path, file, size)
        except RecordError as error:
            _refuse_or_note(error, on_corrupt, report)


def _places(path: str | Path, file: BinaryIO, size: int) -> Iterator[RecordPlace]:
    offset = record = 0
    while offset < size:
        file.seek(offset)
        header = file.read(12)
        if len(header) < 12:
            raise RecordError(path, record, f"the file ends inside the record's header (at byte {size}); "
                                            "it was cut: download or write it again")
        (length,) = struct.unpack("<Q", header[:8])
        if masked_crc32c(header[:8]) != struct.unpack("<I", header[8:])[0] or length > MAX_RECORD_BYTES:
            if record == 0 and header[:3] == b"\x1f\x8b\x08":
                raise RecordError(path, 0, "the file is gzip-compressed, not a TFRecord; unpack it with gunzip first")
            raise RecordError(path, record, "the length field fails its CRC-32C"
                              + (", so this is no TFRecord file" if record == 0 else "; the rest of the file is lost"))
        if offset + 12 + length + 4 > size:
            raise RecordError(path, record, f"needs {length + 16} bytes but the file ends after {size - offset}; "
                                            "it was cut: download or write it again")
        yield RecordPlace(path=str(path), record=record, offset=offset + 12, length=length)
        offset += length + 16
        record += 1


def read_record(file: BinaryIO, place: RecordPlace) -> bytes:
    """Read one record's data and check it.

    Raises:
        RecordError: if the data fails its CRC-32C or the file has become shorter.
    """
    file.seek(place.offset)
    block = file.read(place.length + 4)
    if len(block) != place.length + 4:
        raise RecordError(place.path, place.record, "the file has become shorter while it was read")
    data = block[:-4]
    if masked_crc32c(data) != int.from_bytes(block[-4:], "little"):
        raise RecordError(place.path, place.record, "the data fails its CRC-32C; the file is damaged here")
    return data


def read_records(path: str | Path, *, on_corrupt: OnCorrupt = "raise", report: ReadReport | None = None) \
        -> Iterator[tuple[int, bytes]]:
    """Give the number and data of every record of a file, both checksums verified.

    Args:
        path: TFRecord file.
        on_corrupt: "raise" stops at the first damaged record; "skip" leaves it out and notes it in `report`.
        report: filled while reading.

    Raises:
        RecordError: naming file and record, with `on_corrupt="raise"`.
    """
    report = report if report is not None else ReadReport()
    with Path(path).open("rb", buffering=1 << 20) as file:
        for place in iterate_places(path, on_corrupt=on_corrupt, report=report):
            try:
                data = read_record(file, place)
            except RecordError as error:
                _refuse_or_note(error, on_corrupt, report)
                continue
            report.records += 1
            yield place.record, data


def _refuse_or_note(error: RecordError, on_corrupt: OnCorrupt, report: ReadReport | None) -> None:
    if on_corrupt == "raise":
        raise error
    if report is not None:
        report.skipped.append(str(error))


def count_records(path: str | Path, *, on_corrupt: OnCorrupt = "raise") -> int:
    """Return how many records a file has, by its length fields alone."""
    return sum(1 for _ in iterate_places(path, on_corrupt=on_corrupt))


# ---- messages ------------------------------------------------------------------------------------------------------

_BYTES, _FLOAT, _INT64, _STRING, _MESSAGE = 12, 2, 3, 9, 11
_OPTIONAL, _REPEATED = 1, 3


@lru_cache(maxsize=1)
def messages() -> Mapping[str, Any]:
    """Build the message classes `Example`, `SequenceExample` and `FeatureList` (TensorFlow's example.proto)."""
    import_extra("google.protobuf", "yt8m", "reading and writing TFRecord files")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="marey_example.proto", package="marey", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, int, str | None]) -> Any:
        entry = file.message_type.add(name=name)
        for field_name, number, label, kind, type_name in fields:
            entry.field.add(name=field_name, number=number, label=label, type=kind,
                            type_name=f".marey.{type_name}" if type_name else None)
        return entry

    def add_map(owner: Any, name: str, number: int, kind: int, type_name: str | None) -> None:
        entry_name = "".join(part.capitalize() for part in name.split("_")) + "Entry"
        entry = owner.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=_OPTIONAL, type=_STRING)
        entry.field.add(name="value", number=2, label=_OPTIONAL, type=kind,
                        type_name=f".marey.{type_name}" if type_name else None)
        owner.field.add(name=name, number=number, label=_REPEATED, type=_MESSAGE,
                        type_name=f".marey.{owner.name}.{entry_name}")

    message("BytesList", ("value", 1, _REPEATED, _BYTES, None))
    message("FloatList", ("value", 1, _REPEATED, _FLOAT, None))
    message("Int64List", ("value", 1, _REPEATED, _INT64, None))
    message("Feature", ("bytes_list", 1, _OPTIONAL, _MESSAGE, "BytesList"),
            ("float_list", 2, _OPTIONAL, _MESSAGE, "FloatList"), ("int64_list", 3, _OPTIONAL, _MESSAGE, "Int64List"))
    add_map(message("Features"), "feature", 1, _MESSAGE, "Feature")
    message("FeatureList", ("feature", 1, _REPEATED, _MESSAGE, "Feature"))
    add_map(message("FeatureLists"), "feature_list", 1, _BYTES, None)          # values: FeatureList, left unparsed
    message("Example", ("features", 1, _OPTIONAL, _MESSAGE, "Features"))
    message("SequenceExample", ("context", 1, _OPTIONAL, _MESSAGE, "Features"),
            ("feature_lists", 2, _OPTIONAL, _MESSAGE, "FeatureLists"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"marey.{name}"))
            for name in ("Example", "SequenceExample", "FeatureList", "Feature")}


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _frame_prefix(dim: int) -> bytes:
    """Return the bytes before each frame: field 1 of FeatureList, of Feature and of BytesList, each with its length."""
    value = b"\x0a" + _varint(dim)
    listed = b"\x0a" + _varint(len(value) + dim) + value
    return b"\x0a" + _varint(len(listed) + dim) + listed


def feature_matrix(feature_list: bytes, dim: int) -> NDArray[np.uint8]:
    """Read a FeatureList of T byte strings as a matrix.

    Args:
        feature_list: the serialised message.
        dim: bytes of every frame.

    Returns:
        uint8 (T, dim); a read-only view where the frames are laid out alike, otherwise a copy.

    Raises:
        ValueError: if a frame is not one string of `dim` bytes; the message names the frame.
    """
    prefix = _frame_prefix(dim)
    stride = len(prefix) + dim
    if feature_list and len(feature_list) % stride == 0:
        rows = np.frombuffer(feature_list, dtype=np.uint8).reshape(-1, stride)
        if (rows[:, :len(prefix)] == np.frombuffer(prefix, dtype=np.uint8)).all():
            return rows[:, len(prefix):]
    frames = [tuple(feature.bytes_list.value) for feature in messages()["FeatureList"].FromString(feature_list).feature]
    for t, values in enumerate(frames):
        if len(values) != 1 or len(values[0]) != dim:
            found = f"{len(values[0])} bytes" if len(values) == 1 else f"{len(values)} byte strings"
            raise ValueError(f"frame {t} has {found}, expected one string of {dim} bytes")
    return np.frombuffer(b"".join(values[0] for values in frames), dtype=np.uint8).reshape(-1, dim)


def feature_list(matrix: NDArray[np.uint8]) -> bytes:
    """Serialise a uint8 (T, dim) matrix as a FeatureList of T byte strings."""
    prefix = np.frombuffer(_frame_prefix(matrix.shape[1]), dtype=np.uint8)
    return np.concatenate([np.broadcast_to(prefix, (len(matrix), len(prefix))), matrix], axis=1).tobytes()
