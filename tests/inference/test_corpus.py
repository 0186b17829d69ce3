"""A corpus on a local cluster of two workers: every video answered or named, nothing done twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from marey.errors import UserError
from marey.inference.corpus import finished, predict_corpus

ray = pytest.importorskip("ray", reason="the extra 'scale' is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="the extra 'scale' is not installed")


def rows(out: Path) -> dict[str, dict]:
    return {
        Path(row["video"]).name: row
        for part in out.glob("part-*.parquet")
        for row in parquet.read_table(part).to_pylist()
    }


def test_two_workers_answer_all_name_the_bad_and_resume(
    tiny_checkpoint: Path, day_and_night: Path, tmp_path: Path
) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    for i in range(5):
        shutil.copy(day_and_night, corpus / f"{i}.mp4")
    (corpus / "bad.mp4").write_bytes(b"no video")
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    try:
        assert predict_corpus([corpus], model=str(tiny_checkpoint), out=out, workers=2) == 1
        first = rows(out)
        assert len(first) == 6
        assert "cannot be read" in first["bad.mp4"]["error"]
        assert all(set(first[f"{i}.mp4"]["labels"]) == {"bright", "dark"} for i in range(5))
        written = {part.name: part.stat().st_mtime_ns for part in out.iterdir()}
        shutil.copy(day_and_night, corpus / "new.mp4")
        assert predict_corpus([corpus], model=str(tiny_checkpoint), out=out, workers=2) == 1
        assert len(finished(out)) == 7
        assert all((out / name).stat().st_mtime_ns == time for name, time in written.items())
    finally:
        ray.shutdown()


def test_an_output_folder_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--engine ray needs --out"):
        predict_corpus([tmp_path], model="marey-mini-rgb", out=None)
