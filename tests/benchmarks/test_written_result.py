"""Results keep what a person wrote about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def write_result(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.written_result import write_result

    return write_result


def test_a_reading_written_by_hand_survives_a_new_measurement(
    write_result: Any, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "speed.json"
    write_result(path, {"seconds": 2.0})
    assert json.loads(path.read_text()) == {"seconds": 2.0, "reading": ""}

    path.write_text(json.dumps({"seconds": 2.0, "reading": "Twice as fast."}))
    write_result(path, {"seconds": 1.0, "reading": "assembled"})
    assert json.loads(path.read_text()) == {"seconds": 1.0, "reading": "Twice as fast."}
