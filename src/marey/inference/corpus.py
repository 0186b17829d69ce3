"""Predictions for a large collection of videos by many workers, with Ray Data, written as Parquet
files.

A video whose answer is already written is skipped, so a killed job resumes where it stopped. A
video that cannot be read becomes a row with its error and never stops the job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from marey.errors import UserError, import_extra
from marey.files import atomic
from marey.inference.predictor import Predictor, predict_many, videos_in

PART_ROWS = 64
"""Rows per Parquet file; at most so many answers are lost when the job is killed."""


class Worker:
    """One process of the cluster with one loaded model.

    Args:
        model: as in `Predictor.load`.
        top: answers per video.
        views: temporal views per video.
        threads: CPU threads of the process.
    """

    def __init__(self, model: str, top: int, views: int, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self.predictor = Predictor.load(model, views=views)
        self.top = top

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Answer the videos of a batch; columns as in `columns_of`."""
        entries = [
            entry
            for _, entry in predict_many(self.predictor, map(str, batch["video"]), top=self.top)
        ]
        return columns_of(entries)


def columns_of(entries: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Turn JSON entries of `marey predict` into columns: one row per video, its answers as
    lists."""
    return {
        "video": [entry["video"] for entry in entries],
        "labels": [[answer["label"] for answer in entry["predictions"]] for entry in entries],
        "probabilities": [
            [answer["probability"] for answer in entry["predictions"]] for entry in entries
        ],
        "agreement": [entry["trust"].get("agreement") for entry in entries],
        "unknown": [entry["trust"].get("unknown") for entry in entries],
        "error": [entry["error"] for entry in entries],
    }


def predict_corpus(
    videos: Sequence[str | Path],
    *,
    model: str,
    out: Path | None,
    top: int = 5,
    views: int = 1,
    workers: int | None = None,
    threads: int = 1,
    say: Callable[[str], None] = print,
) -> int:
    """Answer every video of some folders with Ray Data and write Parquet parts into a folder.

    Uses the Ray cluster named by RAY_ADDRESS, or one on this machine.

    Args:
        out: folder for the Parquet files; videos that it already answers are skipped.
        workers: processes; None is one for every `threads` CPUs of the cluster.
        say: called with each line about the progress.

    Returns:
        0, or 1 if some videos could not be read.

    Raises:
        UserError: if `out` is not given, or the extra "scale" is not installed.
    """
    if out is None:
        raise UserError("--engine ray needs --out, a folder for the Parquet files")
    ray = import_extra("ray", "scale", "--engine ray")
    import_extra("pyarrow", "scale", "writing Parquet")
    out.mkdir(parents=True, exist_ok=True)
    done = finished(out)
    todo = [str(path) for path in videos_in(videos) if str(path) not in done]
    say(f"marey: {len(done)} videos done before, {len(todo)} to do")
    if todo:
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False, logging_level="ERROR")
        ray.data.DataContext.get_current().enable_progress_bars = False
        count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        rows = ray.data.from_items(
            [{"video": path} for path in todo], override_num_blocks=min(len(todo), 4 * count)
        )
        answers = rows.map_batches(
            Worker,
            fn_constructor_args=(model, top, views, threads),
            batch_size=8,
            compute=ray.data.ActorPoolStrategy(size=min(count, len(todo))),
            num_cpus=threads,
        )
        for batch in answers.iter_batches(batch_size=PART_ROWS, batch_format="pyarrow"):
            write_part(out, batch)
    errors = [error for error in finished(out).values() if error]
    say(
        f"marey: {len(todo)} videos answered, {len(errors)} of all could not be read; see the "
        f"column 'error' in {out}"
    )
    return int(bool(errors))


def finished(out: Path) -> dict[str, str | None]:
    """Return the videos whose answer is already in the folder, with their errors."""
    import pyarrow.parquet as parquet

    found: dict[str, str | None] = {}
    for part in sorted(out.glob("part-*.parquet")):
        table = parquet.read_table(part, columns=["video", "error"])
        found.update(zip(table["video"].to_pylist(), table["error"].to_pylist(), strict=True))
    return found


def write_part(out: Path, table: Any) -> Path:
    """Write a table under a name made from its videos, through a temporary name."""
    import pyarrow.parquet as parquet

    name = hashlib.sha256("\n".join(table["video"].to_pylist()).encode()).hexdigest()[:16]
    target = out / f"part-{name}.parquet"
    with atomic(target) as temporary:
        parquet.write_table(table, temporary)
    return target
