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


def test_answers_stand_below_the_frame_and_cover_nothing() -> None:
    frame = torch.full((3, 120, 160), 200, dtype=torch.uint8)
    long = "a very long label that cannot fit into the frame"
    drawn = draw_answers(frame, [(long, 0.9), ("b", 0.1)], "note")
    assert torch.equal(drawn[:, :120], frame)
    assert drawn.shape[1] > 120
    assert drawn.shape[1] % 2 == 0
    assert drawn.shape[2] == 160
    blue = (drawn[2, 120:] > 120) & (drawn[0, 120:] < 60)
    assert blue.any(0).nonzero().max() > 140  # the first bar: 90 % of the width


def test_answers_below_five_percent_are_not_drawn_but_for_the_first() -> None:
    frame = torch.zeros(3, 120, 160, dtype=torch.uint8)
    one = draw_answers(frame, [("a", 0.9)])
    assert torch.equal(draw_answers(frame, [("a", 0.9), ("b", 0.04), ("c", 0.03)]), one)
    assert draw_answers(frame, [("a", 0.9), ("b", 0.05)]).shape[1] > one.shape[1]
    assert draw_answers(frame, [("a", 0.04)]).shape == one.shape


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
