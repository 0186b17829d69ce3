from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from marey.cli import build_app
from marey.errors import UserError


def run(*words):
    return CliRunner().invoke(build_app(), ["reproduce", *words])


def test_two_rows_run_from_the_command_to_the_tables_and_a_second_run_reads_them(tmp_path):
    words = (
        "direcformer",
        "--out",
        str(tmp_path / "out"),
        "--cells",
        "size of timesformer,size of direcformer",
    )
    first = run(*words, "--json")
    assert first.exit_code == 0, first.stderr
    rows = {row["cell"]: row for row in json.loads(first.stdout)["rows"]}
    assert rows["size of direcformer"]["ours"]["params_million"]["mean"] == pytest.approx(
        121.303354
    )
    assert rows["size of direcformer"]["paper"]["params_million"] == 121.4
    stored = json.loads((tmp_path / "out" / "table.json").read_text())
    assert stored["command"].startswith(
        "marey reproduce direcformer --scale mini --seeds 3 --cells 'size of"
    )

    second = run(*words)
    assert "2 already stored, 0 to run" in second.stderr
    assert "size of direcformer" in second.stdout


def test_what_a_person_concluded_is_printed_below_the_tables(tmp_path):
    words = ("direcformer", "--out", str(tmp_path), "--cells", "size of timesformer")
    assert run(*words).exit_code == 0
    table = json.loads((tmp_path / "table.json").read_text())
    (tmp_path / "table.json").write_text(
        json.dumps({**table, "reading": "Both have the size of the paper."})
    )
    assert run(*words).stdout.endswith("Both have the size of the paper.\n")


@pytest.mark.parametrize(
    "study", ["direcformer", "gat", "sevitar", "hmdb-study", "action-transformer"]
)
def test_the_plan_of_the_full_scale_is_printed_without_data(study, tmp_path):
    result = run(
        study, "--scale", "full", "--dry-run", "--seeds", "1", "--out", str(tmp_path / "out")
    )
    assert result.exit_code == 0
    assert "estimated cost" in result.stderr
    assert "[1/" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gatt", "--out", "x"), "unknown study 'gatt'; did you mean 'gat'"),
        (("gat", "--scale", "midi", "--out", "x"), "unknown scale 'midi'; did you mean 'mini'"),
        (("gat", "--scale", "full", "--out", "x"), "give the folder of its shards as --data"),
        (("direcformer", "--cells", "C-D", "--out", "x"), "unknown cell 'C-D'; did you mean 'C-"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = run(*words).exception
    assert isinstance(error, UserError)
    assert message in str(error)
    assert "\n" not in str(error)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_cell_is_named_and_the_exit_status_is_1(tmp_path, monkeypatch):
    monkeypatch.setattr("marey.papers.direcformer.create_model", lambda *args, **kwargs: 1 / 0)
    result = run("direcformer", "--out", str(tmp_path), "--cells", "size of timesformer")
    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.stdout
    assert "some cells failed" in result.stderr
