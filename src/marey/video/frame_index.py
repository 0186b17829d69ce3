"""The frames of a video in shown order: what each is, where it lies, which containers can be trusted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TRUSTED_CONTAINERS = ("mov", "matroska", "flv")
"""Containers whose packets carry the presentation time of the frame inside."""

TRUSTED_CODECS = {"h264", "hevc", "av1", "vp9", "vp8", "mpeg4"}
"""Codecs with reordered or hidden frames that are indexed by packets in a trusted container."""

PLAIN_CODECS = {"mjpeg", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "msmpeg4", "wmv1", "wmv2", "h263", "flv1", "flv",
                "png", "ffv1", "huffyuv", "ffvhuff", "prores", "dnxhd", "rawvideo", "dvvideo", "utvideo", "magicyuv"}
"""Codecs without reordering: every packet is one frame, in order, in any container that gives it a time."""



@dataclass(frozen=True)
class Entry:
    """One frame as shown."""

    pts: int | None
    """Presentation time, in time base units; None where the file gives none."""
    order: int
    """Place of its packet in decoding order."""
    duration: int
    """In time base units; 0 where unknown."""



def _rises(values: Sequence[Any]) -> bool:
    return all(earlier < later for earlier, later in itertools.pairwise(values))
