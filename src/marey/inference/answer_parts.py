"""The finished part of a pass over videos, kept so that an interrupted pass goes on.

Each forward pass leaves one file: the outputs of its videos, their names, and the state of the
generator after it. A pass that is asked for again with the same model, videos and options reads
them and starts behind the last one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from marey.files import atomic

GENERATOR = "generator_state"


@dataclass(frozen=True)
class Part:
    """What one forward pass left."""

    entries: list[dict[str, Any]]
    """Per video {"video", "label", "group"}, or {"video", "error"}, in order."""
    outputs: dict[str, Tensor]
    """Of the readable ones, see `Answers.outputs`."""
    generator_state: Tensor
    """Of the shuffles, after this part."""


class AnswerParts:
    """The parts of one pass, in a folder of its own below the user's cache.

    Args:
        key: names everything the answers depend on.
        folder: where passes are kept; None: `marey/answers` in XDG_CACHE_HOME, by default ~/.cache.
    """

    def __init__(self, key: str, folder: str | Path | None = None) -> None:
        user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.folder = (user_cache / "marey" / "answers" if folder is None else Path(folder)) / key
        self.count = 0

    def read(self) -> Iterator[Part]:
        """Yield the parts that are there, in order, up to the first that is missing or damaged."""
        while (path := self._path(self.count)).is_file():
            try:
                with safe_open(path, framework="pt") as file:
                    entries = json.loads((file.metadata() or {})["entries"])
                    tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
                state = tensors.pop(GENERATOR)
            except (SafetensorError, OSError, KeyError, ValueError):
                return
            self.count += 1
            yield Part(entries, tensors, state)

    def write(self, part: Part) -> None:
        """Add a part."""
        tensors = {name: value.contiguous() for name, value in part.outputs.items()}
        tensors[GENERATOR] = part.generator_state
        with atomic(self._path(self.count)) as temporary:
            save_file(tensors, temporary, {"entries": json.dumps(part.entries)})
        self.count += 1

    def remove(self) -> None:
        """Remove all parts; the pass is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"
