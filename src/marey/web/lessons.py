"""Teaching by upload: a folder or a zip of labelled videos in, an honest score and a model out."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path
from typing import Any

from marey.errors import UserError
from marey.features.cache import FeatureCache
from marey.files import finite
from marey.teaching.page import decided_by, headline
from marey.teaching.teach import teach
from marey.web.lesson_paths import safe_path
from marey.web.limits import Limits
from marey.web.task import Task

MODEL_ZIP, REPORT = "model.zip", "report.html"
SHOWN_ERRORS = 10


def teach_videos(task: Task) -> dict[str, Any]:
    """Learn from the uploaded videos; ticks while features are computed."""
    root = Path(task.upload)
    zips = list(root.glob("*.zip"))
    if zips:
        task.stage("unpacking")
        unpack(zips[0], root / "videos", task.limits)
        zips[0].unlink()
        root = root / "videos"
    data = videos_root(root)
    task.request.setdefault("shown", {})[str(data)] = task.request["name"]
    out = task.folder / "model"
    cache = FeatureCache(task.folder / "features")
    taught = teach(data, out, cache=cache, tick=task.stage)
    report = finite(taught.report)
    shutil.rmtree(cache.folder, ignore_errors=True)
    shutil.copy(out / REPORT, task.folder / REPORT)
    shutil.make_archive(str(task.folder / "model"), "zip", out)
    shutil.rmtree(out)
    return {
        "model": MODEL_ZIP,
        "report": REPORT,
        "headline": headline(report),
        "decided_by": decided_by(report),
        "accuracy": report["accuracy"],
        "interval": report["interval"],
        "classes": report["classes"],
        "confusion": report["confusion"],
        "learning_curve": report["learning_curve"],
        "controls": {
            "always the most frequent": report["controls"]["majority"]["accuracy"],
            "size, length and rate only": report["controls"]["metadata"]["accuracy"],
            "one picture only": report["controls"]["single_frame"]["accuracy"],
        },
        "unreadable": [
            {"video": Path(entry["video"]).name, "error": entry["error"].replace(str(data), "")}
            for entry in report["unreadable"][:SHOWN_ERRORS]
        ],
        "notes": report["notes"],
        "record_more": report["record_more"],
        "seconds": report["seconds"],
    }


def unpack(archive: Path, target: Path, limits: Limits) -> None:
    """Unpack a zip of videos; sizes are counted as the bytes come, whatever the archive says.

    Raises:
        UserError: if it is no zip, holds too much, or holds a path out of it.
    """
    left = limits.teach_bytes
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = [entry for entry in packed.infolist() if not entry.is_dir()]
            if len(entries) > limits.teach_files:
                raise UserError(
                    f"the zip holds {len(entries)} files, this server takes up to "
                    f"{limits.teach_files}; leave some out"
                )
            for entry in entries:
                path = target / safe_path(entry.filename)
                if stat.S_ISLNK(entry.external_attr >> 16) or path.name.startswith("."):
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(entry) as source, path.open("wb") as file:
                    while chunk := source.read(1 << 20):
                        left -= len(chunk)
                        if left < 0:
                            raise UserError(
                                f"the zip holds more than {limits.teach_megabytes:g} MB unpacked, "
                                "the most this server takes; leave some videos out"
                            )
                        file.write(chunk)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise UserError(
            f"the zip cannot be unpacked ({' '.join(str(error).split())[:120]}); zip the folder "
            "again, without a password"
        ) from error


def videos_root(root: Path) -> Path:
    """Return the folder that holds the class folders or the manifest: folders that hold nothing but
    the folder of these are left out."""
    while True:
        inside = [entry for entry in root.iterdir() if not entry.name.startswith(("__", "."))]
        if len(inside) != 1 or not inside[0].is_dir():
            return root
        below = list(inside[0].iterdir())
        if not any(entry.is_dir() or entry.name == "manifest.csv" for entry in below):
            return root  # the only folder is that of a class
        root = inside[0]
