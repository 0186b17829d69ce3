"""TensorFlow's `Example` and `SequenceExample` messages, without TensorFlow.

They are read by protobuf against a schema built here, in which the lists of frames stay raw bytes
(a length-delimited message and a bytes field look the same on the wire): `feature_matrix` then
reads 300 equally long frames as one strided view instead of 300 objects, and falls back to protobuf
where frames differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marey.errors import import_extra

_BYTES, _FLOAT, _INT64, _STRING, _MESSAGE = 12, 2, 3, 9, 11
_OPTIONAL, _REPEATED = 1, 3


@lru_cache(maxsize=1)
def messages() -> Mapping[str, Any]:
    """Build the message classes `Example`, `SequenceExample` and `FeatureList`
    (TensorFlow's example.proto)."""
    import_extra("google.protobuf", "yt8m", "reading and writing TFRecord files")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="marey_example.proto", package="marey", syntax="proto3"
    )

    def message(name: str, *fields: tuple[str, int, int, int, str | None]) -> Any:
        entry = file.message_type.add(name=name)
        for field_name, number, label, kind, type_name in fields:
            entry.field.add(
                name=field_name,
                number=number,
                label=label,
                type=kind,
                type_name=f".marey.{type_name}" if type_name else None,
            )
        return entry

    def add_map(owner: Any, name: str, number: int, kind: int, type_name: str | None) -> None:
        entry_name = "".join(part.capitalize() for part in name.split("_")) + "Entry"
        entry = owner.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=_OPTIONAL, type=_STRING)
        entry.field.add(
            name="value",
            number=2,
            label=_OPTIONAL,
            type=kind,
            type_name=f".marey.{type_name}" if type_name else None,
        )
        owner.field.add(
            name=name,
            number=number,
            label=_REPEATED,
            type=_MESSAGE,
            type_name=f".marey.{owner.name}.{entry_name}",
        )

    message("BytesList", ("value", 1, _REPEATED, _BYTES, None))
    message("FloatList", ("value", 1, _REPEATED, _FLOAT, None))
    message("Int64List", ("value", 1, _REPEATED, _INT64, None))
    message(
        "Feature",
        ("bytes_list", 1, _OPTIONAL, _MESSAGE, "BytesList"),
        ("float_list", 2, _OPTIONAL, _MESSAGE, "FloatList"),
        ("int64_list", 3, _OPTIONAL, _MESSAGE, "Int64List"),
    )
    add_map(message("Features"), "feature", 1, _MESSAGE, "Feature")
    message("FeatureList", ("feature", 1, _REPEATED, _MESSAGE, "Feature"))
    add_map(
        message("FeatureLists"), "feature_list", 1, _BYTES, None
    )  # values: FeatureList, left unparsed
    message("Example", ("features", 1, _OPTIONAL, _MESSAGE, "Features"))
    message(
        "SequenceExample",
        ("context", 1, _OPTIONAL, _MESSAGE, "Features"),
        ("feature_lists", 2, _OPTIONAL, _MESSAGE, "FeatureLists"),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"marey.{name}"))
        for name in ("Example", "SequenceExample", "FeatureList", "Feature")
    }


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _frame_prefix(dim: int) -> bytes:
    """Return the bytes before each frame: field 1 of FeatureList, of Feature and of BytesList, each
    with its length."""
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
        if (rows[:, : len(prefix)] == np.frombuffer(prefix, dtype=np.uint8)).all():
            return rows[:, len(prefix) :]
    frames = [
        tuple(feature.bytes_list.value)
        for feature in messages()["FeatureList"].FromString(feature_list).feature
    ]
    for t, values in enumerate(frames):
        if len(values) != 1 or len(values[0]) != dim:
            found = f"{len(values[0])} bytes" if len(values) == 1 else f"{len(values)} byte strings"
            raise ValueError(f"frame {t} has {found}, expected one string of {dim} bytes")
    return np.frombuffer(b"".join(values[0] for values in frames), dtype=np.uint8).reshape(-1, dim)


def feature_list(matrix: NDArray[np.uint8]) -> bytes:
    """Serialise a uint8 (T, dim) matrix as a FeatureList of T byte strings."""
    prefix = np.frombuffer(_frame_prefix(matrix.shape[1]), dtype=np.uint8)
    return np.concatenate(
        [np.broadcast_to(prefix, (len(matrix), len(prefix))), matrix], axis=1
    ).tobytes()
