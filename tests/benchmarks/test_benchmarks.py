"""The one command over all benchmarks, its page, and the GPU script at toy size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def main_module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.__main__ as module

    return module


def test_goals_are_met_from_above_or_below(main_module: Any) -> None:
    assert main_module.Goal(what="speed", measured=1.3, goal=1.3).to_dict()["met"]
    assert not main_module.Goal(what="memory", measured=0.8, goal=0.7, at_least=False).to_dict()[
        "met"
    ]


def test_results_that_are_there_are_taken_over_and_drawn(main_module: Any, tmp_path: Path) -> None:
    from benchmarks.page import write_page

    (tmp_path / "gat_reading.json").write_text(
        json.dumps(
            {
                "paired_ratios": {"tfrecord": 2.0},
                "megabytes_per_second": {"marey": 10.0, "tfrecord": 5.0},
                "command": "python -m x",
                "date": "2026-01-01",
                "reading": "Twice <as> fast.",
            }
        )
    )
    found = main_module.collect(
        ["youtube8m_reading", "corruptions"], tmp_path, quick=True, reuse=True
    )
    assert found["youtube8m_reading"]["goals"] == [
        {
            "what": "reading records, over the package tfrecord",
            "measured": 2.0,
            "goal": 3.0,
            "bound": "at least",
            "met": False,
        }
    ]
    assert found["corruptions"]["status"] == "left out by --quick"
    report = {
        "command": "c",
        "date": "d",
        "machine": {
            "cpu": "x",
            "cores": 2,
            "load_1min": 0,
            "python": "3",
            "versions": {"torch": "2"},
        },
        "threads": 1,
        "reading": "r",
        "rates": {
            "matmul_fp32_gflops": 1,
            "matmul_bf16_gflops": 2,
            "memory_copy_gigabytes_per_second": 3,
        },
        "benchmarks": found,
    }
    write_page(report, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "not met" in page
    assert "Twice &lt;as&gt; fast." in page
    assert page.count("<rect") == 2
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_the_gpu_script_runs_every_part_at_toy_size() -> None:
    pytest.importorskip("transformers", reason="the model it is compared with")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--dry-run"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "failed" not in done.stdout
    assert '"training_speed_over_transformers"' in done.stdout
