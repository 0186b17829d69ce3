"""Poses are found once, and again where the file or a setting changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from marey.errors import VideoError
from marey.features.cache import FeatureCache
from marey.features.pose_cache import cached_poses
from marey.persons.poses import PoseFinder


class Counted(PoseFinder):
    """MoveNet on whole frames, and how often it looked."""

    looks = 0

    def look(self, *given: Any) -> Any:
        self.looks += 1
        return super().look(*given)


def test_the_cache_answers_until_the_file_or_a_setting_changes(walkers, tmp_path):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(walkers.read_bytes())
    cache, finder = FeatureCache(tmp_path / "cache"), Counted(threads=1)
    first = cached_poses(copy, cache, fps=3, finder=finder)
    looks = finder.looks
    assert looks > 0
    again = cached_poses(copy, cache, fps=3, finder=finder)
    assert finder.looks == looks
    assert again.video == str(copy)
    assert len(again.tracks) == len(first.tracks) > 0
    for ours, theirs in zip(again.tracks, first.tracks, strict=True):
        np.testing.assert_array_equal(ours.keypoints, theirs.keypoints)
        np.testing.assert_array_equal(ours.observed, theirs.observed)

    cached_poses(copy, cache, fps=2, finder=finder)
    changed = finder.looks
    assert changed > looks
    copy.write_bytes(walkers.read_bytes() + b"\0" * 8)
    cached_poses(copy, cache, fps=2, finder=finder)
    assert finder.looks > changed
    with pytest.raises(VideoError, match="nosuch.mp4"):
        cached_poses("nosuch.mp4", cache, finder=finder)
