"""Write what a benchmark measured and keep what a person wrote about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from marey.files import write_json


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON; the "reading" of an earlier file is kept.

    The reading is a person's conclusion and is edited in the file, never written by code. A file
    whose numbers change needs its reading read again.
    """
    older = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_json(path, {**result, "reading": older.get("reading", "")})
