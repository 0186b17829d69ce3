"""The index of shown frames, from packets and from decoded frames, worked by hand."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest

from marey.video.frame_index import (
    Entry,
    FrameIndex,
    frame_times,
    index_frames,
    index_packets,
    packets_can_tell,
)


class FakePacket(bytes):
    """What `index_packets` asks of a packet: its bytes and its times."""

    def __new__(cls, *_: object, **__: object) -> FakePacket:
        return super().__new__(cls, 20)

    def __init__(
        self, pts: int | None, *, is_keyframe: bool = False, dts: int | None = None
    ) -> None:
        self.pts, self.dts, self.is_keyframe = pts, dts, is_keyframe
        self.size, self.duration, self.is_discard = len(self), 1, False


@dataclass
class FakeFrame:
    """What `index_frames` asks of a decoded frame."""

    pts: int | None
    key_frame: bool = False
    duration: int = 1


def packets(*pts: int, keys: tuple[int, ...] = (0,)) -> list[FakePacket]:
    return [FakePacket(time, is_keyframe=order in keys) for order, time in enumerate(pts)]


def test_packets_in_decoding_order_become_entries_in_the_order_shown() -> None:
    index = index_packets(packets(0, 3, 1, 2, 4, keys=(0, 4)), "mov", "h264")
    assert index is not None
    assert [entry.pts for entry in index.entries] == [0, 1, 2, 3, 4]
    assert [entry.order for entry in index.entries] == [0, 2, 3, 1, 4]
    assert index.keys == [(0, 0), (4, 4)]
    assert index.order_of_pts == {0: 0, 3: 1, 1: 2, 2: 3, 4: 4}


@pytest.mark.parametrize(
    "untold",
    [
        packets(0, 1, 1),
        packets(0, 1, keys=()),
        packets(2, 0, 1),
        [FakePacket(0, is_keyframe=True), FakePacket(None)],
        packets(5, 6, 0, 1, keys=(0, 2)),
        [],
    ],
    ids=[
        "two at one time",
        "no key frame first",
        "shown before the key frame",
        "no time",
        "key frames fall",
        "none",
    ],
)
def test_packets_that_do_not_tell_are_left_to_the_decoder(untold: list[FakePacket]) -> None:
    assert index_packets(untold, "mov", "h264") is None


def test_a_plain_codec_may_give_only_decoding_times() -> None:
    plain = [FakePacket(None, is_keyframe=True, dts=0), FakePacket(None, is_keyframe=True, dts=1)]
    index = index_packets(plain, "avi", "mjpeg")
    assert index is not None
    assert [entry.pts for entry in index.entries] == [0, 1]


def test_a_discarded_packet_is_decoded_but_not_shown() -> None:
    given = packets(0, 1, 2)
    given[0].is_discard = True
    index = index_packets(given, "mov", "h264")
    assert index is not None
    assert [entry.pts for entry in index.entries] == [1, 2]
    assert index.keys == [(0, 0)]


def test_only_known_codecs_in_known_containers_can_tell() -> None:
    assert packets_can_tell("mov", "h264")
    assert not packets_can_tell("mpegts", "h264")
    assert packets_can_tell("mpegts", "mjpeg")
    assert packets_can_tell("avi", "mpeg4")
    assert not packets_can_tell("mov", "mpeg2video")


def test_decoded_frames_keep_their_key_frames_only_where_they_can_be_sought() -> None:
    frames = [FakeFrame(0, key_frame=True), FakeFrame(2), FakeFrame(4, key_frame=True)]
    assert index_frames(frames, seekable=True).keys == [(0, 0), (4, 2)]
    assert index_frames(frames, seekable=False).keys == []
    assert index_frames([*frames, FakeFrame(None)], seekable=True).keys == []
    assert index_frames([*frames, FakeFrame(3)], seekable=True).keys == []


def test_runs_group_frames_by_the_key_frame_before_them() -> None:
    entries = [
        Entry(pts, order, 1) for pts, order in ((0, 0), (1, 2), (2, 1), (3, 3), (4, 5), (5, 4))
    ]
    index = FrameIndex(entries=entries, keys=[(0, 0), (3, 3)])
    assert list(index.runs([1, 2, 4])) == [(0, 2, [1, 2]), (3, 5, [4])]
    assert list(index.runs([])) == []


def test_times_are_the_presentation_times_and_the_last_frame_lasts_as_it_says() -> None:
    entries = [Entry(10, 0, 2), Entry(12, 1, 2), Entry(14, 2, 4)]
    seconds, duration, fps = frame_times(entries, Fraction(1, 20), rate=10.0)
    assert seconds == pytest.approx((0.0, 0.1, 0.2))
    assert duration == pytest.approx(0.4)
    assert fps == pytest.approx(7.5)


def test_a_rate_near_the_files_is_the_files() -> None:
    entries = [Entry(1001 * i, i, 1001) for i in range(30)]
    _, _, fps = frame_times(entries, Fraction(1, 30_000), rate=30_000 / 1001)
    assert fps == 30_000 / 1001


@pytest.mark.parametrize("pts", [(None, None, None), (0, 2, 1)])
def test_frames_without_rising_times_are_spaced_by_the_rate(pts: tuple[int | None, ...]) -> None:
    entries = [Entry(time, order, 0) for order, time in enumerate(pts)]
    seconds, duration, fps = frame_times(entries, Fraction(1, 1000), rate=4.0)
    assert seconds == (0.0, 0.25, 0.5)
    assert (duration, fps) == (0.75, 4.0)
