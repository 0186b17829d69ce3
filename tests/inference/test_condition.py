"""A still picture is told from a video, also where a coder wrote its first frame worse."""

import pytest
import torch

from marey.inference.condition import is_still


class Frames:
    """A reader of given grey levels, (T,) one for each whole frame."""

    def __init__(self, levels: list[float]) -> None:
        self.levels = levels
        self.num_frames = len(levels)

    def frames_at(self, indices: list[int], held: int) -> "Frames":
        picture = torch.tensor([self.levels[index] for index in indices])[:, None, None, None]
        self.frames = picture.expand(-1, 3, 40, 40)
        return self


@pytest.mark.parametrize(
    ("levels", "still"),
    [
        ([90.0], True),
        ([90.0] * 9, True),
        ([95.5, *[90.0] * 8], True),
        ([110.0, *[90.0] * 8], False),
        ([90.0] * 6 + [95.5] * 3, False),
        ([90.0 + 3 * n for n in range(9)], False),
    ],
)
def test_what_counts_as_still(levels: list[float], still: bool) -> None:
    assert is_still(Frames(levels)) is still
