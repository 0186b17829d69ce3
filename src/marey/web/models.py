"""The models that a worker has loaded, each once; the least recently used is dropped first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from marey.checkpoints.folder import Checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.inference.detector import Detector
from marey.inference.load import load_answerer
from marey.inference.predictor import VideoPredictor
from marey.persons.poses import PoseFinder

Answerer = VideoPredictor | Detector
Finder = TypeVar("Finder", bound=PoseFinder)


class ModelShelf:
    """The models of a worker, loaded when first asked for.

    Args:
        views: temporal views per video.
        device: where they run.
        keep: how many stay in memory.
    """

    def __init__(self, *, views: int = 3, device: str = "cpu", keep: int = 3) -> None:
        self.views, self.device, self.keep = views, device, keep
        self._loaded: OrderedDict[str, Answerer] = OrderedDict()
        self._checkpoints: OrderedDict[str, Checkpoint] = OrderedDict()
        self._finder: PoseFinder | None = None

    def get(self, source: str) -> Answerer:
        """Return what answers with a model.

        Raises:
            UserError: if it cannot be loaded; no other model takes its place.
        """
        if source not in self._loaded:
            self._loaded[source] = load_answerer(source, views=self.views, device=self.device)
        self._loaded.move_to_end(source)
        while len(self._loaded) > self.keep:
            self._loaded.popitem(last=False)
        return self._loaded[source]

    def checkpoint(self, source: str) -> Checkpoint:
        """Return a model as it was saved.

        Raises:
            UserError: if it cannot be loaded.
        """
        if source not in self._checkpoints:
            self._checkpoints[source] = load_checkpoint(source)
        self._checkpoints.move_to_end(source)
        while len(self._checkpoints) > self.keep:
            self._checkpoints.popitem(last=False)
        return self._checkpoints[source]

    def finder(self, make: type[Finder]) -> Finder:
        """Return what finds people, made once."""
        if not isinstance(self._finder, make):
            self._finder = make()
        return self._finder
