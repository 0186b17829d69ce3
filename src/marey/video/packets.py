"""Facts read from the bytes of files and packets without decoding: truncated files, hidden and
packed pictures."""

from __future__ import annotations

import os

START_OF_PICTURE = b"\x00\x00\x01\xb6"
"""MPEG-4 part 2, VOP start code (ISO/IEC 14496-2, 6.3.5)."""


def cut_short(path: str) -> str | None:
    """Return how much of a file is missing by its own headers; None where nothing is, or the
    headers do not say.

    Reads the outermost boxes of MP4/MOV, chunks of AVI and segment of Matroska/WebM; sizes of 0 or
    "unknown" tell nothing.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(64)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
            end = _end_of_boxes(file, size)
        elif head[:4] == b"RIFF":
            declared = int.from_bytes(head[4:8], "little")
            end = 0 if declared in (0, 0xFFFFFFFF) else 8 + declared
        elif head[:4] == b"\x1aE\xdf\xa3":
            end = _end_of_segment(head)
        else:
            return None
    return f"the file is cut short: {size} of {end} bytes are present" if end > size else None


def _end_of_boxes(file, size: int) -> int:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8:  # 0: to the end of the file; 2..7: not a box
            return 0
        at += length
    return at


def _end_of_segment(head: bytes) -> int:
    at, length = _ebml_size(head, 4)
    at += length
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return 0
    at, length = _ebml_size(head, at + 4)
    return at + length if length >= 0 else 0


def _ebml_size(data: bytes, at: int) -> tuple[int, int]:
    """(position after the size, size) of an EBML element; size -1 where it is unknown."""
    if at >= len(data) or data[at] == 0:
        return at + 1, -1
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width], "big") & ((1 << (7 * width)) - 1)
    return at + width, -1 if value == (1 << (7 * width)) - 1 else value


def one_picture(packet: bytes, allow_b: bool) -> bool:
    """Whether an MPEG-4 part 2 packet holds exactly one coded picture (no B unless allowed): no
    packed bitstream.

    The coding type is the two bits after the start code (0 I, 1 P, 2 B, 3 S); a picture of a few
    bytes may be "not coded".
    """
    at = packet.find(START_OF_PICTURE)
    return (
        at >= 0
        and len(packet) - at > 16
        and (allow_b or packet[at + 4] >> 6 != 2)
        and packet.find(START_OF_PICTURE, at + 4) < 0
    )


def is_hidden(codec: str, first: int, last: int) -> bool:
    """Whether a VP8 or VP9 packet only updates references and shows nothing.

    Args:
        codec: "vp8" or "vp9"; False for others.
        first, last: first and last byte of the packet. VP8: bit 4 of the first is show_frame
            (RFC 6386, 9.1). VP9: after marker and profile come show_existing_frame, frame_type,
            show_frame; a superframe (last byte 110xxxxx) always shows one.
    """
    if codec == "vp8":
        return not first >> 4 & 1
    if codec == "vp9" and last & 0xE0 != 0xC0:
        after = 3 if first >> 4 & 3 != 3 else 2  # profile 3 has one reserved bit more
        return not first >> after & 1 and not first >> (after - 2) & 1
    return False
