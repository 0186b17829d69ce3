"""The predictors a server has loaded: each once, the least used dropped first, one forward pass at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.inference.detector import Detector
from marey.inference.predictor import Predictor

FALLBACK = "marey-mini"
"""Answers where the model asked for cannot be loaded, and the page says so."""


class ModelShelf:
    """The models a server offers, loaded when first asked for.

    Args:
        offered: what a visitor may choose; nothing else is ever loaded, so a request cannot make the server fetch.
        views: temporal views per video.
        device: where they run.
        keep: how many stay in memory.
    """

    def __init__(self, offered: Sequence[str], *, views: int = 3, device: str = "cpu", keep: int = 3) -> None:
        self.offered = tuple(dict.fromkeys(offered))
        self.views, self.device, self.keep = views, device, keep
        self._loaded: OrderedDict[str, Predictor | Detector] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> tuple[Predictor | Detector, str]:
        """Return a predictor, or a detector, by the kind of model, and a notice.

        The notice is empty, or says that another model answers because this one cannot be loaded.

        Raises:
            UserError: if the name is not offered, or not even the fallback can be loaded.
        """
        if name not in self.offered:
            raise UserError(f"model '{name}' is not offered by this server (it has: {', '.join(self.offered)})")
        with self._lock:
            try:
                return self._load(name), ""
            except (UserError, OSError) as error:
                if name == FALLBACK:
                    raise
                return self._load(FALLBACK), f"{name} could not be loaded ({error}); {FALLBACK} answers instead"

    def _load(self, name: str) -> Predictor | Detector:
        if name not in self._loaded:
            checkpoint = load_checkpoint(name)
            self._loaded[name] = (Detector(checkpoint, device=self.device) if checkpoint.name == "action_transformer"
                                  else Predictor(checkpoint, views=self.views, device=self.device))
        self._loaded.move_to_end(name)
        while len(self._loaded) > self.keep:
            self._loaded.popitem(last=False)
        return self._loaded[name]
