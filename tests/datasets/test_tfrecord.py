from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

pytest.importorskip("google_crc32c", reason="the extra 'yt8m' is not installed")

from marey.datasets.tf_example import feature_list, feature_matrix, messages
from marey.datasets.tfrecord import (
    ReadReport,
    RecordError,
    count_records,
    masked_crc32c,
    read_records,
    write_records,
)


@pytest.fixture
def shard(tmp_path):
    write_records(tmp_path / "train0000.tfrecord", [b"one", b"", b"three" * 100])
    return tmp_path / "train0000.tfrecord"


def damage(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("data", "expected"), [(b"123456789", "e5b08ac7"), (bytes(8), "29039807"), (b"", "d8ea82a2")]
)
def test_the_masked_checksum_equals_the_published_values(data, expected):
    assert struct.pack("<I", masked_crc32c(data)).hex() == expected


def test_records_come_back_as_they_were_written(shard):
    assert list(read_records(shard)) == [(0, b"one"), (1, b""), (2, b"three" * 100)]
    assert count_records(shard) == 3


def test_a_damaged_record_is_named_or_skipped_alone(shard):
    damage(shard, 12)
    with pytest.raises(
        RecordError, match=r"train0000.tfrecord: record 0: the data fails its CRC-32C"
    ):
        list(read_records(shard))
    report = ReadReport()
    assert [number for number, _ in read_records(shard, on_corrupt="skip", report=report)] == [1, 2]
    assert (report.records, len(report.skipped)) == (2, 1)


def test_a_damaged_length_loses_the_rest_of_the_file(shard):
    damage(shard, 19)
    with pytest.raises(
        RecordError,
        match="record 1: the length field fails its CRC-32C; the rest of the file is lost",
    ):
        list(read_records(shard))
    assert len(list(read_records(shard, on_corrupt="skip"))) == 1


def test_a_file_cut_in_the_middle_is_named_with_its_record(shard):
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(
        RecordError, match="record 2: needs 516 bytes but the file ends after 509; it was cut"
    ):
        list(read_records(shard))
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(RecordError, match="record 2: the file ends inside the record's header"):
        list(read_records(shard))


def test_empty_gzip_and_foreign_files_are_told_apart(tmp_path):
    path = tmp_path / "a.tfrecord"
    for content, message in (
        (b"", "record 0: the file is empty"),
        (gzip.compress(b"x" * 99), "gzip-compressed"),
        (b"RIFF" * 9, "so this is no TFRecord file"),
    ):
        path.write_bytes(content)
        with pytest.raises(RecordError, match=message):
            list(read_records(path))


def test_no_file_is_left_when_writing_fails(tmp_path):
    def records():
        yield b"one"
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_records(tmp_path / "a.tfrecord", records())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dim", [1, 100, 128, 1024])
def test_a_matrix_of_frames_goes_through_protobuf_and_back(dim):
    matrix = np.random.default_rng(0).integers(0, 256, (7, dim), dtype=np.uint8)
    message = messages()["FeatureList"]()
    for row in matrix:
        message.feature.add().bytes_list.value.append(row.tobytes())
    assert feature_list(matrix) == message.SerializeToString()
    assert (feature_matrix(message.SerializeToString(), dim) == matrix).all()


def test_frames_of_unequal_width_name_the_frame():
    message = messages()["FeatureList"]()
    for size in (4, 5):
        message.feature.add().bytes_list.value.append(bytes(size))
    with pytest.raises(ValueError, match="frame 1 has 5 bytes, expected one string of 4 bytes"):
        feature_matrix(message.SerializeToString(), 4)


def test_frames_laid_out_unusually_are_still_read():
    message = messages()["FeatureList"]()
    for value in (b"abcd", b"efgh"):
        message.feature.add().bytes_list.value.append(value)
    unusual = message.SerializeToString() + b"\x98\x06\x01"  # an unknown field at the end
    assert feature_matrix(unusual, 4).tobytes() == b"abcdefgh"
