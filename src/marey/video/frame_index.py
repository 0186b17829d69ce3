"""The index of a video's shown frames: when each is shown, where it lies, and from which key frame
it is decoded.

It is made from packets, without decoding them, where container and codec can be trusted to tell
which frames are shown and when; else from all frames, decoded once.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from marey.video.packets import is_hidden, one_picture

TRUSTED_CONTAINERS = ("mov", "matroska", "flv")
"""Containers whose packets carry the presentation time of the frame inside."""
TRUSTED_CODECS = {"h264", "hevc", "av1", "vp9", "vp8", "mpeg4"}
"""Codecs with reordered or hidden frames that are indexed by packets in a trusted container."""
PLAIN_CODECS = {
    "mjpeg",
    "msmpeg4v1",
    "msmpeg4v2",
    "msmpeg4v3",
    "msmpeg4",
    "wmv1",
    "wmv2",
    "h263",
    "flv1",
    "flv",
    "png",
    "ffv1",
    "huffyuv",
    "ffvhuff",
    "prores",
    "dnxhd",
    "rawvideo",
    "dvvideo",
    "utvideo",
    "magicyuv",
}
"""Codecs without reordering: every packet is one frame, in order, in any container that gives it a
time."""


@dataclass(frozen=True)
class Entry:
    """One frame as shown."""

    pts: int | None
    """Presentation time, in time base units; None where the file gives none."""
    order: int
    """Position of its packet in decoding order; of the frame itself where the index was made by
    decoding."""
    duration: int
    """In time base units; 0 where unknown."""


@dataclass(frozen=True, kw_only=True)
class FrameIndex:
    """The shown frames of a video in the order in which they are shown."""

    entries: Sequence[Entry]
    """One per shown frame."""
    keys: Sequence[tuple[int, int]]
    """(pts, order) of every key frame, hidden ones too; empty where the video must be decoded from
    its start."""
    order_of_pts: dict[int, int] = field(default_factory=dict)
    """Presentation time of a packet -> its position in decoding order; empty where the index was
    made by decoding."""

    def runs(self, indices: Sequence[int]) -> Iterator[tuple[int, int, list[int]]]:
        """Group increasing frame indices by the key frame from which they are decoded.

        Yields:
            (order of the key frame, order of the last packet needed, the indices).
        """
        group: list[int] = []
        key = -1
        for i in indices:
            before = bisect_right(self.keys, self.entries[i].pts, key=lambda pair: pair[0]) - 1
            if group and before != key:
                yield self.keys[key][1], max(self.entries[j].order for j in group), group
                group = []
            key = before
            group.append(i)
        if group:
            yield self.keys[key][1], max(self.entries[j].order for j in group), group


def packets_can_tell(container: str, codec: str) -> bool:
    """Return whether the packets of this codec in this container can name the shown frames and
    their times."""
    in_trusted = container in TRUSTED_CONTAINERS and codec in TRUSTED_CODECS
    return in_trusted or codec in PLAIN_CODECS or (codec == "mpeg4" and container == "avi")


def index_packets(packets: Iterable[Any], container: str, codec: str) -> FrameIndex | None:
    """List the shown frames of a stream without decoding them.

    Args:
        packets: all packets of the stream, in decoding order.
        container, codec: FFmpeg's names, of which `packets_can_tell`.

    Returns:
        None where these packets do not tell which frames are shown: the decoder must be asked.
    """
    in_trusted = container in TRUSTED_CONTAINERS and codec in TRUSTED_CODECS
    entries: list[Entry] = []
    keys: list[tuple[int, int]] = []
    order_of_pts: dict[int, int] = {}

    for order, packet in enumerate(packets):
        pts = packet.pts if in_trusted or packet.pts is not None else packet.dts
        if (
            packet.size == 0
            or pts is None
            or pts in order_of_pts
            or (order == 0 and not packet.is_keyframe)
        ):
            return None
        if codec == "mpeg4" and not one_picture(bytes(packet), allow_b=in_trusted):
            return None

        order_of_pts[pts] = order
        if packet.is_keyframe:
            keys.append((pts, order))
        data = memoryview(packet)
        if not packet.is_discard and not is_hidden(codec, data[0], data[-1]):
            entries.append(Entry(pts, order, packet.duration or 0))

    entries.sort(key=lambda entry: entry.pts or 0)
    # Frames shown before the first key frame may or may not come out: only the decoder knows.
    if not entries or entries[0].pts < keys[0][0] or keys != sorted(keys):  # type: ignore[operator]
        return None
    return FrameIndex(entries=entries, keys=keys, order_of_pts=order_of_pts)


def index_frames(frames: Iterable[Any], *, seekable: bool) -> FrameIndex:
    """List the frames of a stream as the decoder shows them.

    Args:
        frames: all decoded frames, in the order shown.
        seekable: whether the container finds a key frame by its time; without that there are no key
            frames.
    """
    entries: list[Entry] = []
    keys: list[tuple[int, int]] = []
    for frame in frames:
        if frame.key_frame:
            keys.append((frame.pts, len(entries)))
        entries.append(Entry(frame.pts, len(entries), frame.duration or 0))
        del frame  # a picture of 8K is large

    pts = [entry.pts for entry in entries]
    knows_keys = seekable and None not in pts and _rises(pts)
    return FrameIndex(entries=entries, keys=keys if knows_keys else [])


def frame_times(
    entries: Sequence[Entry], time_base: Fraction, rate: float
) -> tuple[tuple[float, ...], float, float]:
    """Return when each frame is first shown, in seconds from the first; the duration in seconds;
    frames per second.

    Args:
        entries: the shown frames, at least one.
        time_base: seconds of one unit of time.
        rate: frames per second as the file names it, used where the frames have no rising times.
    """
    pts = [entry.pts for entry in entries if entry.pts is not None]
    if len(pts) < len(entries) or not _rises(pts):
        seconds, last = [i / rate for i in range(len(entries))], 1 / rate
    else:
        seconds = [float((p - pts[0]) * time_base) for p in pts]
        usual = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1 / rate
        last = float(entries[-1].duration * time_base) or usual

    duration_seconds = seconds[-1] + last
    fps = len(seconds) / duration_seconds
    # A rate within 0.2 % of the file's is the file's, which is the exact rational.
    return tuple(seconds), duration_seconds, rate if abs(fps / rate - 1) < 2e-3 else fps


def _rises(values: Sequence[Any]) -> bool:
    return all(earlier < later for earlier, later in itertools.pairwise(values))
