"""Fixtures every room shares: where the real videos are, and one thread a test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]

torch.set_num_threads(int(os.environ.get("MAREY_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with real videos and golden values (`../shared`, or MAREY_SHARED); skips where it is absent."""
    folder = Path(os.environ.get("MAREY_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: this test measures on real videos kept outside the repository")
    return folder
