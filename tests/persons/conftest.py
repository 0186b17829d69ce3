"""The two finders of poses that need no other package."""

from __future__ import annotations

import pytest

from marey.persons.poses import PoseFinder
from marey.persons.sources import pose_finder


@pytest.fixture(scope="session")
def movenet() -> PoseFinder:
    """MoveNet on whole frames."""
    return pose_finder("movenet", threads=1)


@pytest.fixture(scope="session")
def auto() -> PoseFinder:
    """MoveNet with NanoDet's proposals and a second look."""
    return pose_finder("auto", threads=1)
