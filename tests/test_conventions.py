"""Every line of docs/conventions.md names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

LINES = [
    line
    for line in (REPOSITORY / "docs" / "conventions.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("* ")
]


def test_every_convention_is_pinned_by_a_test_that_exists():
    assert len(LINES) > 25
    for line in LINES:
        pins = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", line)
        assert pins, f"no test is named in: {line}"
        for file, name in pins:
            assert f"def {name}(" in (REPOSITORY / file).read_text(encoding="utf-8"), (
                f"{file}::{name} does not exist"
            )
