"""Write a perturbed copy of a data set: UCF101-P, HMDB51-P, Kinetics400-P of any folder of
videos."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.perturb_plan import Job, plan
from marey.datasets.perturb_video import estimate_bytes, write_one
from marey.datasets.worker_pool import worker_pool
from marey.errors import UserError
from marey.files import write_csv, write_json


def perturb_dataset(
    index: DatasetIndex,
    out: str | Path,
    kinds: Sequence[str],
    severities: Sequence[int],
    *,
    profile: str = "rose",
    seed: int = 0,
    short_side: int = 256,
    within_actions: float | None = None,
    workers: int | None = None,
    force: bool = False,
    progress: Any = None,
    announce: Any = None,
) -> dict[str, Any]:
    """Write the perturbed copy, going on where an earlier run with the same settings stopped.

    Args:
        index: the data set.
        out: folder to write; not the data set's own.
        kinds, severities, profile, seed, short_side, within_actions: see `plan`.
        workers: processes; None takes the number of cores.
        force: begin anew where `out` holds something else.
        progress: wraps the iterator of finished videos, for a progress bar.
        announce: called with one line about size and disk before the work starts.

    Returns:
        "written", "kept" (from an earlier run), "failed": [{"name", "error"}], "manifests": [path].

    Raises:
        UserError: if the folders are the same, `out` holds something else, or the disk is too
            small.
    """
    out = Path(out)
    if out.resolve() == index.root.resolve() or index.root.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{out}: the output folder is the data set itself; choose another --out")
    settings = {
        "data": index.manifest_hash,
        "kinds": list(kinds),
        "severities": list(severities),
        "profile": profile,
        "seed": seed,
        "short_side": short_side,
        **({} if within_actions is None else {"within_actions": within_actions}),
    }
    settings_file, log_file = out / "corruptions.json", out / "corruptions.jsonl"
    jobs = plan(
        index,
        out,
        kinds,
        severities,
        profile=profile,
        seed=seed,
        short_side=short_side,
        within_actions=within_actions,
    )
    if out.exists() and any(out.iterdir()) and not force:
        if not settings_file.is_file() or json.loads(settings_file.read_text()) != settings:
            raise UserError(
                f"{out}: exists and holds something other than this copy; choose another --out, "
                "repeat the same command to resume, or give --force to write over it"
            )
    elif log_file.exists():
        log_file.unlink()
    out.mkdir(parents=True, exist_ok=True)
    done = _finished(log_file)
    todo = [job for job in jobs if job.target not in done]
    needed, free = estimate_bytes(todo), shutil.disk_usage(out).free
    if announce is not None:
        announce(
            f"{len(jobs)} videos to write, {len(jobs) - len(todo)} done; about {needed / 1e6:.0f} "
            f"MB more, {free / 1e9:.1f} GB free"
        )
    if needed > 0.9 * free:
        raise UserError(
            f"{out}: about {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; free "
            "some space, choose another --out, or fewer corruptions or severities"
        )
    write_json(settings_file, settings, indent=1)
    failed = []
    with log_file.open("a", encoding="utf-8") as log:
        log.write("\n" if log.tell() else "")  # ends a line that a kill cut short
        finished = _run(todo, workers or os.cpu_count() or 1)
        for entry in finished if progress is None else progress(finished, len(todo)):
            if entry["error"] is None:
                done[entry["target"]] = entry
                log.write(
                    json.dumps({**entry, "target": os.path.relpath(entry["target"], out)}) + "\n"
                )
                log.flush()
            else:
                failed.append(
                    {
                        "name": entry["name"],
                        "corruption": entry["corruption"],
                        "severity": entry["severity"],
                        "error": entry["error"],
                    }
                )
    manifests = _write_manifests(index, jobs, done, out)
    return {
        "videos": len(jobs),
        "written": len(todo) - len(failed),
        "kept": len(jobs) - len(todo),
        "failed": failed,
        "manifests": [str(path) for path in manifests],
    }


def _finished(log_file: Path) -> dict[str, dict[str, Any]]:
    """Return target -> entry of what an earlier run wrote completely."""
    done: dict[str, dict[str, Any]] = {}
    if not log_file.is_file():
        return done
    for line in log_file.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # empty, or cut short by a kill
        target = log_file.parent / entry["target"]
        if target.is_file() and target.stat().st_size == entry["bytes"]:
            done[str(target)] = {**entry, "target": str(target)}
    return done


def _run(jobs: Sequence[Job], workers: int) -> Iterator[dict[str, Any]]:
    """Yield entries as videos finish, in this process for one worker."""
    if workers == 1 or len(jobs) < 2:
        yield from map(write_one, jobs)
        return
    remedy = "run the command again with fewer --workers; finished videos are kept"
    with worker_pool(min(workers, len(jobs)), remedy) as pool:
        for future in as_completed([pool.submit(write_one, job) for job in jobs]):
            yield future.result()


def _write_manifests(
    index: DatasetIndex, jobs: Sequence[Job], done: dict[str, dict[str, Any]], out: Path
) -> list[Path]:
    """Write one manifest.csv per copy, readable as a data set; rows of failed videos are left
    out."""
    by_name: dict[str, list[Sample]] = {}
    for sample in index.samples:
        by_name.setdefault(index.relative_path(sample), []).append(sample)
    folders: dict[Path, list[list[Any]]] = {}
    pairs = {(job.corruption.name, job.corruption.severity) for job in jobs}
    single = len(jobs) == len(by_name)
    for job in jobs:
        entry = done.get(job.target)
        if entry is None:
            continue
        change = job.corruption
        root = out if single or len(pairs) == 1 else out / change.name / str(change.severity)
        for sample in by_name[job.name]:
            row = [
                Path(job.target).relative_to(root).as_posix(),
                sample.label,
                sample.split,
                sample.group,
                sample.start_seconds,
                sample.end_seconds,
                change.name,
                change.profile,
                change.severity,
                job.seed,
                entry.get("video_seed"),
                entry.get("sound"),
                entry.get("source_sha256"),
                entry["sha256"],
            ]
            folders.setdefault(root, []).append(row)
    header = [
        "path",
        "label",
        "split",
        "group",
        "start_seconds",
        "end_seconds",
        "corruption",
        "profile",
        "severity",
        "seed",
        "video_seed",
        "sound",
        "source_sha256",
        "sha256",
    ]
    for root, rows in folders.items():
        write_csv(root / "manifest.csv", [header, *rows])
    return [root / "manifest.csv" for root in folders]
