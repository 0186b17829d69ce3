"""Bytes of packets and files that tell what is shown, by the standards' own layouts."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from marey.video.packets import START_OF_PICTURE, cut_short, is_hidden, one_picture

I_PICTURE, P_PICTURE, B_PICTURE = (
    START_OF_PICTURE + bytes([kind << 6]) + b"\x55" * 20 for kind in (0, 1, 2)
)


def test_a_packet_of_one_picture_is_told_from_a_packed_one() -> None:
    assert one_picture(I_PICTURE, allow_b=False)
    assert one_picture(P_PICTURE, allow_b=False)
    assert not one_picture(P_PICTURE + B_PICTURE, allow_b=True)
    assert not one_picture(b"\x00" * 40, allow_b=True)
    assert not one_picture(P_PICTURE[:8], allow_b=True)  # may be "not coded"


def test_a_b_picture_passes_only_where_times_can_be_trusted() -> None:
    assert one_picture(B_PICTURE, allow_b=True)
    assert not one_picture(B_PICTURE, allow_b=False)


@pytest.mark.parametrize(
    ("codec", "first", "last", "hidden"),
    [
        ("vp8", 0b0001_0000, 0, False),
        ("vp8", 0b0000_0000, 0, True),
        # VP9: marker 10, profile 00, show_existing_frame, frame_type, show_frame, error_resilient.
        ("vp9", 0b1000_0010, 0, False),
        ("vp9", 0b1000_0000, 0, True),
        ("vp9", 0b1000_1000, 0, False),
        ("vp9", 0b1000_0000, 0b1100_0001, False),  # a superframe
        ("vp9", 0b1011_0001, 0, False),
        ("vp9", 0b1011_0000, 0, True),  # profile 3: one bit more
        ("h264", 0, 0, False),
    ],
)
def test_hidden_pictures_of_vp8_and_vp9(codec: str, first: int, last: int, hidden: bool) -> None:
    assert is_hidden(codec, first, last) is hidden


def boxes(*sizes: int) -> bytes:
    return b"".join(
        struct.pack(">I", size) + name + b"\x00" * (size - 8)
        for size, name in zip(sizes, (b"ftyp", b"mdat", b"moov"), strict=False)
    )


@pytest.mark.parametrize(
    "content",
    [
        boxes(16, 200),
        b"RIFF" + struct.pack("<I", 100) + b"\x00" * 100,
        b"\x1aE\xdf\xa3\x84" + b"\x00" * 4 + b"\x18\x53\x80\x67" + b"\xc0" + b"\x00" * 64,
    ],
    ids=["mp4", "avi", "matroska"],
)
def test_a_file_shorter_than_its_headers_say_is_cut_short(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "video"
    path.write_bytes(content)
    assert cut_short(str(path)) is None
    path.write_bytes(content[:-10])
    assert (
        cut_short(str(path))
        == f"the file is cut short: {len(content) - 10} of {len(content)} bytes are present"
    )


def test_unknown_sizes_and_formats_tell_nothing(tmp_path: Path) -> None:
    path = tmp_path / "video"
    to_the_end, unfinished = (
        struct.pack(">I", 0) + b"mdat" + b"\x00" * 20,
        b"RIFF\xff\xff\xff\xff" + b"\x00" * 20,
    )
    for content in (to_the_end, unfinished, b"\x47" * 188):
        path.write_bytes(content)
        assert cut_short(str(path)) is None
