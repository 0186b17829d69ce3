"""Decoded frames as upright RGB: quarter turns by the display matrix, and the pixels they give."""

from __future__ import annotations

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from marey.video.rgb import quarter_turns, upright_rgb

ONE = 1 << 16


class FakeFrame:
    """A frame with a display matrix (a b u, c d v, x y w), 16.16 fixed point."""

    def __init__(self, a: int, b: int, c: int, d: int) -> None:
        matrix = np.array([a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30], np.int32)
        self.side_data = {"DISPLAYMATRIX": matrix.tobytes()}


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [
        ((1, 0, 0, 1), (False, False, False)),
        ((-1, 0, 0, -1), (False, True, True)),
        ((0, 1, -1, 0), (True, True, False)),
        ((0, -1, 1, 0), (True, False, True)),
        ((-1, 0, 0, 1), (False, True, False)),
    ],
)
def test_the_matrix_names_the_turn(
    matrix: tuple[int, int, int, int], turns: tuple[bool, bool, bool]
) -> None:
    assert quarter_turns(FakeFrame(*matrix)) == turns


def test_a_frame_without_a_matrix_stays() -> None:
    frame = av.VideoFrame.from_ndarray(np.zeros((4, 6, 3), np.uint8), format="rgb24")
    assert quarter_turns(frame) == (False, False, False)


def test_pixels_are_turned_as_the_matrix_asks() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    for turns, expected in (
        ((False, False, False), pixels),
        ((False, True, True), np.rot90(pixels, 2)),
        ((True, True, False), np.rot90(pixels, -1)),
        ((True, False, True), np.rot90(pixels)),
    ):
        np.testing.assert_array_equal(
            upright_rgb(frame, (6, 4), turns, VideoReformatter()), expected
        )


def test_a_frame_of_another_size_is_resized_to_the_first_ones() -> None:
    frame = av.VideoFrame.from_ndarray(np.full((8, 12, 3), 7, np.uint8), format="rgb24")
    assert upright_rgb(frame, (6, 4), (False, False, False), VideoReformatter()).shape == (4, 6, 3)
