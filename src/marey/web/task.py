"""A request as the functions of a worker process take it, and what they may say before the
answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from marey.errors import UserError
from marey.persons.blur import Blur
from marey.web.inspection import Facts, inspect_video
from marey.web.limits import Limits
from marey.web.models import Answerer, ModelShelf

Tell = Callable[[dict[str, Any]], None]


class CancelledError(Exception):
    """The visitor no longer wants the answer."""


class ModelError(Exception):
    """The model cannot be loaded; no other one answers in its place."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A request, as its functions take it."""

    shelf: ModelShelf
    request: dict[str, Any]
    limits: Limits
    send: Tell

    @property
    def upload(self) -> str:
        """Path of the visitor's file or folder."""
        return self.request["upload"]

    @property
    def folder(self) -> Path:
        """Where the pictures of the answer go."""
        return Path(self.request["folder"])

    @property
    def options(self) -> dict[str, Any]:
        """What the visitor chose."""
        return self.request.get("options", {})

    def blurred(self, frames: Tensor) -> Tensor:
        """Return frames (T, 3, H, W) for pictures: with faces or persons made unrecognisable, where
        the server is set so."""
        kind = self.request.get("blur")
        return frames if kind is None else Blur(kind).pictures(frames)

    def stage(self, name: str, done: int = 0, total: int = 0) -> None:
        """Say what is being done; ends the work if it is no longer wanted."""
        self.send({"progress": {"stage": name, "done": done, "total": total}})

    def part(self, **values: Any) -> None:
        """Hand out a part of the answer before the rest is there."""
        self.send({"part": values})

    def facts(self) -> Facts:
        """Return what the video is, checked against the limits."""
        return inspect_video(self.upload, self.limits)

    def model(self) -> Answerer:
        """Return what answers.

        Raises:
            ModelError: if it cannot be loaded.
        """
        self.stage("loading the model")
        try:
            return self.shelf.get(self.request["model"])
        except (UserError, OSError) as error:
            name = self.request["model_name"]
            raise ModelError(f"the model {name} cannot be loaded: {error}") from error
