"""The models that a server has loaded, each once; the least recently used is dropped first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from marey.errors import UserError
from marey.inference.detector import Detector
from marey.inference.load import load_answerer
from marey.inference.predictor import VideoPredictor

Answerer = VideoPredictor | Detector

FALLBACK = "marey-mini"
"""Used where the chosen model cannot be loaded; the answer says so."""


class ModelShelf:
    """The models a server offers, loaded when first asked for.

    Args:
        offered: what a visitor may choose; nothing else is ever loaded, so a request cannot make
            the server fetch.
        views: temporal views per video.
        device: where they run.
        keep: how many stay in memory.
    """

    def __init__(
        self, offered: Sequence[str], *, views: int = 3, device: str = "cpu", keep: int = 3
    ) -> None:
        self.offered = tuple(dict.fromkeys(offered))
        self.views, self.device, self.keep = views, device, keep
        self._loaded: OrderedDict[str, Answerer] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> tuple[Answerer, str]:
        """Return what answers with a model, and a notice.

        The notice is empty, or says that another model answers because this one cannot be loaded.

        Raises:
            UserError: if the name is not offered, or not even the fallback can be loaded.
        """
        if name not in self.offered:
            raise UserError(
                f"model '{name}' is not offered by this server (it has: {', '.join(self.offered)})"
            )
        with self._lock:
            try:
                return self._load(name), ""
            except (UserError, OSError) as error:
                if name == FALLBACK:
                    raise
                return self._load(
                    FALLBACK
                ), f"{name} could not be loaded ({error}); {FALLBACK} answers instead"

    def _load(self, name: str) -> Answerer:
        if name not in self._loaded:
            self._loaded[name] = load_answerer(name, views=self.views, device=self.device)
        self._loaded.move_to_end(name)
        while len(self._loaded) > self.keep:
            self._loaded.popitem(last=False)
        return self._loaded[name]
