"""Keeps the latents of texts in RAM, so that a text that comes again is not encoded again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

Encoded = TypeVar("Encoded")


class LatentCache(Generic[Encoded]):
    """encode: new texts, the shortest first -> their latents, in order. size: bytes of one. limit: bytes that are kept;
    the latents used least recently go first."""

    def __init__(
        self, encode: Callable[[list[str]], Iterable[Encoded]], size: Callable[[Encoded], int], limit: int
    ) -> None:
        self._encode, self._size, self.limit = encode, size, limit
        self._kept: OrderedDict[str, Encoded] = OrderedDict()
        self.bytes = 0

    def missing(self, texts: Sequence[str]) -> list[str]:
        """The texts that `get` would encode, the shortest first."""
        return sorted(set(texts) - self._kept.keys(), key=lambda text: (len(text), text))

    def get(self, texts: Sequence[str]) -> list[Encoded]:
        """One for each text, in order."""
        missing = self.missing(texts)
        new = dict(zip(missing, self._encode(missing), strict=True))
        self.bytes += sum(map(self._size, new.values()))
        self._kept |= new
        for text in dict.fromkeys(texts):
            self._kept.move_to_end(text)
        latents = [self._kept[text] for text in texts]
        while self.bytes > self.limit and self._kept:
            self.bytes -= self._size(self._kept.popitem(last=False)[1])
        return latents
