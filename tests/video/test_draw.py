"""Drawing on frames: what is drawn stays inside, and what is not drawn on stays."""

from __future__ import annotations

import pytest
import torch

from marey.video.draw import clock, contact_sheet, draw_answers, draw_boxes


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00.0"), (75.25, "1:15.2"), (59.96, "0:59.9"), (3661, "1:01:01.0")]
)
def test_times_are_written_as_people_write_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_answers_are_drawn_in_a_band_and_the_rest_is_untouched() -> None:
    frame = torch.full((3, 120, 160), 200, dtype=torch.uint8)
    drawn = draw_answers(
        frame, [("a very long label that cannot fit into the frame", 0.9), ("b", 0.1)], "note"
    )
    assert drawn.shape == frame.shape
    assert torch.equal(drawn[:, :55], frame[:, :55])
    assert not torch.equal(drawn[:, 100:], frame[:, 100:])


def test_boxes_and_captions_stay_inside_the_frame() -> None:
    frame = torch.zeros(3, 90, 120, dtype=torch.uint8)
    drawn = draw_boxes(frame, [(5, 5, 60, 80)], [["person 1", "walk 80%"]], [(255, 0, 0)])
    assert drawn.shape == frame.shape
    assert drawn[0, 40, 5] == 255  # the box's left side


def test_a_contact_sheet_has_a_place_for_every_frame() -> None:
    sheet = contact_sheet(
        torch.zeros(5, 3, 48, 64, dtype=torch.uint8), list("abcde"), columns=4, width=64, title="t"
    )
    assert sheet.size == (4 * 70 + 6, 34 + 2 * (48 + 26))
