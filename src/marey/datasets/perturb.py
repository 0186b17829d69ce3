"""Write a perturbed copy of a data set: UCF101-P, HMDB51-P, Kinetics400-P of any folder of videos.

Every output depends only on (video, kind, severity, profile, seed), so runs in any order, on any number of processes,
and after a kill give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from marey.corruptions import kind_for, source_profile, strength
from marey.datasets.index import DatasetIndex, Sample
from marey.errors import UserError
from marey.files import write_csv, write_json

WINDOW_FRAMES = 512
"""Frames corrupted at a time, which bounds memory; a codec starts anew at each window."""
STORE_CRF, STORE_OPTIONS = 10, {"x264-params": "mbtree=0:threads=1"}
"""How the copy is stored: H.264 at a quality that adds little to the corruption, without x264's macroblock tree, whose
decisions differ between runs."""
ROSE_RANDOM = "random"
"""Corruption name that draws one kind and severity per video, as the ROSE challenge's sets have it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One video to write."""

    source: str
    """Video file or folder of frames."""
    name: str
    """Path of the video below the data set's root, which also seeds its randomness."""
    target: str
    """File to write."""
    kind: str
    """Corruption."""
    severity: int
    """1 to 5."""
    profile: str
    """Profile asked for."""
    seed: int
    """Seed of the copy."""
    short_side: int
    """Pixels of the shorter side, 0 keeps the source's."""


def video_seed(seed: int, name: str, kind: str, severity: int) -> int:
    """Return the seed of one video's randomness, in [0, 2**63)."""
    digest = hashlib.sha256(f"{seed}/{name}/{kind}/{severity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def plan(index: DatasetIndex, out: Path, kinds: Sequence[str], severities: Sequence[int], *, profile: str, seed: int,
         short_side: int) -> list[Job]:
    """List every video to write.

    One kind at one severity goes straight below `out`; several go to `out/<kind>/<severity>/`.

    Args:
        kinds: corruption names, or ["random"] for one draw a video among the profile's kinds and `severities`.

    Raises:
        UserError: if a name or severity is unknown, or the data set is a packed folder.
    """
    from marey.corruptions import PROFILES

    random = list(kinds) == [ROSE_RANDOM]
    for kind in () if random else kinds:
        for severity in severities:
            strength(kind, severity, profile)
    single = random or (len(kinds) == 1 and len(severities) == 1)
    videos: dict[str, Sample] = {}
    for sample in index.samples:
        if sample.row is not None:
            raise UserError(f"{index.root}: a packed folder holds sampled frames, not videos; corrupt the videos it "
                            "was packed from")
        videos.setdefault(index.relative_path(sample), sample)
    above = os.path.commonpath([os.path.dirname(name) for name in videos]) if any(map(os.path.isabs, videos)) else ""
    jobs = []
    for name, sample in videos.items():                                    # a manifest elsewhere names absolute paths
        below = Path(os.path.relpath(name, above)) if above else Path(name)
        target_name = str(below.with_suffix(".mp4")) if below.suffix else f"{below}.mp4"
        pairs = [(kind, severity) for kind in kinds for severity in severities]
        if random:
            choices = sorted(PROFILES[profile])
            draw = video_seed(seed, name, ROSE_RANDOM, 0)
            pairs = [(choices[draw % len(choices)], severities[draw // len(choices) % len(severities)])]
        for kind, severity in pairs:
            folder = out if single else out / kind / str(severity)
            jobs.append(Job(source=str(sample.path), name=name, target=str(folder / target_name), kind=kind,
                            severity=severity, profile=profile, seed=seed, short_side=short_side))
    return jobs


def perturbed_frames(job: Job, reader: Any) -> Iterator[Any]:
    """Yield the corrupted clips, uint8 (t, 3, H, W), of one video, `WINDOW_FRAMES` at a time."""
    import torch

    from marey.corruptions import corrupt, temporal_indices
    from marey.transforms.functional import resize_short_side

    meaning = kind_for(job.kind, job.profile)
    generator = torch.Generator().manual_seed(video_seed(job.seed, job.name, job.kind, job.severity))
    order = list(range(reader.num_frames))
    if meaning.where == "index":
        order = temporal_indices(job.kind, len(order), job.severity, generator=generator, profile=job.profile)
    bitrate = None
    if os.path.isfile(job.source) and reader.duration_seconds > 0:
        bitrate = 8 * os.path.getsize(job.source) / reader.duration_seconds
        if job.short_side:
            bitrate *= min(1.0, (job.short_side / min(reader.width, reader.height)) ** 2)
    start_state = generator.get_state()
    for start in range(0, len(order), WINDOW_FRAMES):
        frames = reader.frames_at(order[start:start + WINDOW_FRAMES]).frames
        if job.short_side:
            frames = resize_short_side(frames, job.short_side)
        if meaning.where != "index":
            if meaning.coherence == "clip" and meaning.where == "pixel":
                generator.set_state(start_state)                            # one draw for the whole video
            frames = corrupt(frames, job.kind, job.severity, generator=generator, profile=job.profile,
                             fps=reader.fps, reference_bitrate=bitrate)
        yield frames


def write_one(job: Job) -> dict[str, Any]:
    """Write one perturbed video and return its manifest entry, or its "error"."""
    import torch

    from marey.video.decode import open_video
    from marey.video.encode import write_video

    torch.set_num_threads(1)
    entry = {"name": job.name, "target": job.target, "corruption": job.kind, "severity": job.severity,
             "profile": source_profile(job.kind, job.profile), "seed": job.seed}
    try:
        with open_video(job.source) as reader:
            write_video(job.target, perturbed_frames(job, reader), reader.fps, crf=STORE_CRF,
                        options=STORE_OPTIONS)
    except UserError as error:
        return {**entry, "error": str(error)}
    content = Path(job.target).read_bytes()
    return {**entry, "error": None, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def estimate_bytes(jobs: Sequence[Job], sample: int = 4) -> int:
    """Estimate the size of all outputs from the start of a few jobs, written to memory's temporary folder."""
    import tempfile

    from marey.video.decode import open_video
    from marey.video.encode import write_video

    if not jobs:
        return 0
    chosen = list(jobs)[::max(1, len(jobs) // sample)][:sample]
    total = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for job in chosen:
            try:
                with open_video(job.source) as reader:
                    frames = next(perturbed_frames(job, _Beginning(reader, 24)))
                    path = Path(folder) / "sample.mp4"
                    write_video(path, frames, reader.fps, crf=STORE_CRF)
                    total += path.stat().st_size * reader.num_frames / len(frames)
            except UserError:
                continue
    return int(total / len(chosen) * len(jobs))


class _Beginning:
    """The first frames of a reader, for the estimate."""

    def __init__(self, reader: Any, num_frames: int) -> None:
        self.num_frames = min(num_frames, reader.num_frames)
        self.fps, self.width, self.height = reader.fps, reader.width, reader.height
        self.duration_seconds, self.frames_at = reader.duration_seconds, reader.frames_at


def perturb_dataset(index: DatasetIndex, out: str | Path, kinds: Sequence[str], severities: Sequence[int], *,
                    profile: str = "rose", seed: int = 0, short_side: int = 256, workers: int | None = None,
                    force: bool = False, progress: Any = None, announce: Any = None) -> dict[str, Any]:
    """Write the perturbed copy, going on where an earlier run with the same settings stopped.

    Args:
        index: the data set.
        out: folder to write; not the data set's own.
        kinds, severities, profile, seed, short_side: see `plan`.
        workers: processes; None takes the number of cores.
        force: begin anew where `out` holds something else.
        progress: wraps the iterator of finished videos, for a progress bar.
        announce: called with one line about size and disk before the work starts.

    Returns:
        "written", "kept" (from an earlier run), "failed": [{"name", "error"}], "manifests": [path].

    Raises:
        UserError: if the folders are the same, `out` holds something else, or the disk is too small.
    """
    out = Path(out)
    if out.resolve() == index.root.resolve() or index.root.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{out}: the output folder is the data set itself; choose another --out")
    settings = {"data": index.manifest_hash, "kinds": list(kinds), "severities": list(severities), "profile": profile,
                "seed": seed, "short_side": short_side}
    settings_file, log_file = out / "corruptions.json", out / "corruptions.jsonl"
    jobs = plan(index, out, kinds, severities, profile=profile, seed=seed, short_side=short_side)
    if out.exists() and any(out.iterdir()) and not force:
        if not settings_file.is_file() or json.loads(settings_file.read_text()) != settings:
            raise UserError(f"{out}: exists and holds something other than this copy; choose another --out, repeat the "
                            "same command to resume, or give --force to write over it")
    elif log_file.exists():
        log_file.unlink()
    out.mkdir(parents=True, exist_ok=True)
    done = _finished(log_file)
    todo = [job for job in jobs if job.target not in done]
    needed, free = estimate_bytes(todo), shutil.disk_usage(out).free
    if announce is not None:
        announce(f"{len(jobs)} videos to write, {len(jobs) - len(todo)} done; about {needed / 1e6:.0f} MB more, "
                 f"{free / 1e9:.1f} GB free")
    if needed > 0.9 * free:
        raise UserError(f"{out}: about {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; free some "
                        "space, choose another --out, or fewer corruptions or severities")
    write_json(settings_file, settings, indent=1)
    failed = []
    with log_file.open("a", encoding="utf-8") as log:
        log.write("\n" if log.tell() else "")                               # ends a line that a kill cut short
        finished = _run(todo, workers or os.cpu_count() or 1)
        for entry in finished if progress is None else progress(finished, len(todo)):
            if entry["error"] is None:
                done[entry["target"]] = entry
                log.write(json.dumps({**entry, "target": os.path.relpath(entry["target"], out)}) + "\n")
                log.flush()
            else:
                failed.append({"name": entry["name"], "corruption": entry["corruption"], "severity": entry["severity"],
                               "error": entry["error"]})
    manifests = _write_manifests(index, jobs, done, out)
    return {"videos": len(jobs), "written": len(todo) - len(failed), "kept": len(jobs) - len(todo), "failed": failed,
            "manifests": [str(path) for path in manifests]}


def _finished(log_file: Path) -> dict[str, dict[str, Any]]:
    """Return target -> entry of what an earlier run wrote completely."""
    done: dict[str, dict[str, Any]] = {}
    if not log_file.is_file():
        return done
    for line in log_file.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue                                                        # empty, or cut short by a kill
        target = log_file.parent / entry["target"]
        if target.is_file() and target.stat().st_size == entry["bytes"]:
            done[str(target)] = {**entry, "target": str(target)}
    return done


def _run(jobs: Sequence[Job], workers: int) -> Iterator[dict[str, Any]]:
    """Yield entries as videos finish, in this process for one worker."""
    if workers == 1 or len(jobs) < 2:
        yield from map(write_one, jobs)
        return
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"),
                             initializer=_end_with_parent) as pool:
        for future in as_completed([pool.submit(write_one, job) for job in jobs]):
            yield future.result()


def _end_with_parent() -> None:
    """Ask Linux to end this worker when the process that started it is killed; elsewhere nothing happens."""
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)                          # 1 is PR_SET_PDEATHSIG


def _write_manifests(index: DatasetIndex, jobs: Sequence[Job], done: dict[str, dict[str, Any]],
                     out: Path) -> list[Path]:
    """Write one manifest.csv per copy, readable as a data set; rows of failed videos are left out."""
    by_name: dict[str, list[Sample]] = {}
    for sample in index.samples:
        by_name.setdefault(index.relative_path(sample), []).append(sample)
    folders: dict[Path, list[list[Any]]] = {}
    pairs = {(job.kind, job.severity) for job in jobs}
    single = len(jobs) == len(by_name)
    for job in jobs:
        entry = done.get(job.target)
        if entry is None:
            continue
        root = out if single or len(pairs) == 1 else out / job.kind / str(job.severity)
        for sample in by_name[job.name]:
            row = [Path(job.target).relative_to(root).as_posix(), sample.label, sample.split, sample.group,
                   sample.start_seconds, sample.end_seconds, job.kind, entry["profile"], job.severity, job.seed,
                   entry["sha256"]]
            folders.setdefault(root, []).append(row)
    header = ["path", "label", "split", "group", "start_seconds", "end_seconds", "corruption", "profile", "severity",
              "seed", "sha256"]
    for root, rows in folders.items():
        write_csv(root / "manifest.csv", [header, *rows])
    return [root / "manifest.csv" for root in folders]


