"""Every number in results/ says how it was made, by a command that exists or a script that git
keeps."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = sorted(
    path for path in (ROOT / "results").glob("*.json") if not path.name.endswith("_labels.json")
)
"""Labels are written by hand; everything else was measured."""
SCRIPT = re.compile(r"benchmarks[./](\w+)")


def script_of(command: str) -> str | None:
    """The module of benchmarks/ that a command line runs; None for `marey` and for `python -m
    benchmarks` itself."""
    found = SCRIPT.search(command.split(" --")[0])
    return found[1] if found else None


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_each_result_names_a_command_that_exists_or_the_commit_that_holds_its_script(
    path: Path,
) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    script = script_of(result["command"])
    if script is None:
        assert result["command"].startswith(("marey ", "python -m benchmarks --"))
    elif not (ROOT / "benchmarks" / f"{script}.py").is_file():
        assert re.search(rf"git show [0-9a-f]{{7,}}:benchmarks/{script}\.py", result["script"])


def test_every_benchmark_of_the_list_has_its_module() -> None:
    text = (ROOT / "benchmarks" / "__main__.py").read_text(encoding="utf-8")
    names = re.findall(r'^    "(\w+)": Benchmark\(', text, flags=re.MULTILINE)
    assert names
    assert [name for name in names if not (ROOT / "benchmarks" / f"{name}.py").is_file()] == []


def test_the_module_of_a_command_is_found() -> None:
    assert script_of("python -m benchmarks.decode --rounds 9 --out results/decode.json") == "decode"
    assert script_of("python benchmarks/ava_metrics.py --out x.json") == "ava_metrics"
    assert script_of("python -m benchmarks --out results/benchmarks.json --reuse") is None
    assert script_of("marey reproduce gat --out results/gat") is None
