"""The models in memory that several engines share: one of each, used by one question at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from awareness.engine.models import LoadedModel, load_model, load_trained
from awareness.engine.reporter import Reporter
from awareness.model.model_files import ModelFolder

MOST_MODELS = 1


class ModelPool:
    """Loads a model once and keeps it; the one that was used least recently goes when there are too many.

    lock: hold it while a model computes. May be used from several threads.
    """

    def __init__(self, most: int = MOST_MODELS) -> None:
        """most: models in memory."""
        self.lock = threading.RLock()
        self._most = most
        self._models: OrderedDict[tuple[str, Path | None, str | None], LoadedModel] = OrderedDict()

    def load(self, folder: ModelFolder, adapter: Path | None, weights: str | None, reporter: Reporter) -> LoadedModel:
        """The decoder of a folder, or of a checkpoint with what was trained, and its encoder. weights: what to decode
        with, None for the model's own choice. Raises ModelNotAvailable, UsageError."""
        key = (folder.fingerprint, adapter, weights)
        with self.lock:
            if key not in self._models:
                while len(self._models) >= self._most:  # before another one needs the space
                    self._models.popitem(last=False)
                if adapter is not None:
                    self._models[key] = load_trained(adapter, weights, reporter)
                else:
                    self._models[key] = load_model(folder, weights=weights, reporter=reporter)
            self._models.move_to_end(key)
            return self._models[key]

    @property
    def names(self) -> list[str]:
        """Of the models in memory, the last used last. Does not wait for a model that computes."""
        return [model.decoder.folder.name for model in list(self._models.values())]

    def close(self) -> None:
        """Releases all models; a later question loads its own again."""
        with self.lock:
            self._models.clear()
