"""TFRecord files without TensorFlow: their framing and checksums.

A record is `uint64 length, uint32 masked CRC-32C of length, data, uint32 masked CRC-32C of data`,
little-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal

from marey.errors import UserError, import_extra
from marey.files import atomic

OnCorrupt = Literal["raise", "skip"]
MAX_RECORD_BYTES = 1 << 30
"""A longer length field is taken for damage, before any memory is asked for."""


class RecordError(UserError):
    """A record that cannot be used; `path`, `record` (0-based) and `reason` say which and why."""

    def __init__(self, path: str | Path, record: int, reason: str) -> None:
        """Keep the position and build the one-line message."""
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
class RecordLocation:
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
    """Return the CRC-32C (Castagnoli) of some bytes, rotated and shifted as TFRecord files store
    it."""
    crc = _crc32c()(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def write_records(path: str | Path, records: Iterable[bytes]) -> int:
    """Write records to a new file, under a temporary name until it is whole, and return how many
    there were."""
    count = 0
    with atomic(path) as temporary, temporary.open("wb") as file:
        for data in records:
            length = struct.pack("<Q", len(data))
            file.write(
                b"".join(
                    (
                        length,
                        struct.pack("<I", masked_crc32c(length)),
                        data,
                        struct.pack("<I", masked_crc32c(data)),
                    )
                )
            )
            count += 1
    return count


def locate_records(
    path: str | Path, *, on_corrupt: OnCorrupt = "raise", report: ReadReport | None = None
) -> Iterator[RecordLocation]:
    """Walk over the records of a file by their length fields, without reading their data.

    A damaged length field hides where the next record begins, so the rest of that file is lost
    (one skipped entry).

    Raises:
        RecordError: with `on_corrupt="raise"`, if the file is empty, compressed, cut, or a length
            field is damaged.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            if size == 0:
                raise RecordError(path, 0, "the file is empty; download or write it again")
            yield from _locations(path, file, size)
        except RecordError as error:
            _refuse_or_note(error, on_corrupt, report)


def _locations(path: str | Path, file: BinaryIO, size: int) -> Iterator[RecordLocation]:
    offset = record = 0
    while offset < size:
        file.seek(offset)
        header = file.read(12)
        if len(header) < 12:
            raise RecordError(
                path,
                record,
                f"the file ends inside the record's header (at byte {size}); "
                "it was cut: download or write it again",
            )
        (length,) = struct.unpack("<Q", header[:8])
        if (
            masked_crc32c(header[:8]) != struct.unpack("<I", header[8:])[0]
            or length > MAX_RECORD_BYTES
        ):
            if record == 0 and header[:3] == b"\x1f\x8b\x08":
                raise RecordError(
                    path,
                    0,
                    "the file is gzip-compressed, not a TFRecord; unpack it with gunzip first",
                )
            raise RecordError(
                path,
                record,
                "the length field fails its CRC-32C"
                + (
                    ", so this is no TFRecord file"
                    if record == 0
                    else "; the rest of the file is lost"
                ),
            )
        if offset + 12 + length + 4 > size:
            raise RecordError(
                path,
                record,
                f"needs {length + 16} bytes but the file ends after {size - offset}; "
                "it was cut: download or write it again",
            )
        yield RecordLocation(path=str(path), record=record, offset=offset + 12, length=length)
        offset += length + 16
        record += 1


def read_record(file: BinaryIO, location: RecordLocation) -> bytes:
    """Read one record's data and check it.

    Raises:
        RecordError: if the data fails its CRC-32C or the file has become shorter.
    """
    file.seek(location.offset)
    block = file.read(location.length + 4)
    if len(block) != location.length + 4:
        raise RecordError(
            location.path, location.record, "the file has become shorter while it was read"
        )
    data = block[:-4]
    if masked_crc32c(data) != int.from_bytes(block[-4:], "little"):
        raise RecordError(
            location.path, location.record, "the data fails its CRC-32C; the file is damaged here"
        )
    return data


def read_records(
    path: str | Path, *, on_corrupt: OnCorrupt = "raise", report: ReadReport | None = None
) -> Iterator[tuple[int, bytes]]:
    """Give the number and data of every record of a file, both checksums verified.

    Args:
        path: TFRecord file.
        on_corrupt: "raise" stops at the first damaged record; "skip" leaves it out and notes it in
            `report`.
        report: filled while reading.

    Raises:
        RecordError: naming file and record, with `on_corrupt="raise"`.
    """
    report = report if report is not None else ReadReport()
    with Path(path).open("rb", buffering=1 << 20) as file:
        for location in locate_records(path, on_corrupt=on_corrupt, report=report):
            try:
                data = read_record(file, location)
            except RecordError as error:
                _refuse_or_note(error, on_corrupt, report)
                continue
            report.records += 1
            yield location.record, data


def _refuse_or_note(error: RecordError, on_corrupt: OnCorrupt, report: ReadReport | None) -> None:
    if on_corrupt == "raise":
        raise error
    if report is not None:
        report.skipped.append(str(error))


def count_records(path: str | Path, *, on_corrupt: OnCorrupt = "raise") -> int:
    """Return how many records a file has, by its length fields alone."""
    return sum(1 for _ in locate_records(path, on_corrupt=on_corrupt))
