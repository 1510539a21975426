"""Keeps the latents of an evaluation's chunks in a folder, so that the next run with the same model reads them.

One folder below it for each `MemorySpec`, one file for each text: the numbers of its tokens and bytes, then the bytes.
The chunks of `ask` are kept in the index of their repository, not here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from awareness.errors import storage_errors
from awareness.model.model_files import replacing
from awareness.types import KVEncoder, Latent, MemorySpec, digest

_HEAD = struct.Struct("<qq")
_BATCH = 64  # texts that are encoded before they are written


@dataclass(frozen=True)
class LatentFolder:
    """folder: is made if necessary. spec: of the latents."""

    folder: Path
    spec: MemorySpec

    def keeping(self, encoder: KVEncoder) -> Callable[[list[str]], Iterable[Latent]]:
        """The encoder, which reads what is kept and keeps what it encodes. Raises StorageFailed."""

        def encode(texts: list[str]) -> Iterator[Latent]:
            for start in range(0, len(texts), _BATCH):
                batch = texts[start : start + _BATCH]
                kept = {text: latent for text in batch if (latent := self.read(text)) is not None}
                missing = [text for text in batch if text not in kept]
                for text, latent in zip(missing, encoder.encode(missing), strict=True):
                    self.write(text, latent)
                    kept[text] = latent
                yield from (kept[text] for text in batch)

        return encode

    def read(self, text: str) -> Latent | None:
        """None if it is not there, or not whole."""
        try:
            content = self._path(text).read_bytes()
        except OSError:
            return None
        if len(content) < _HEAD.size:
            return None
        tokens, size = _HEAD.unpack_from(content)
        data = bytearray(content[_HEAD.size :])
        return Latent(tokens, data) if len(data) == size else None

    def write(self, text: str, latent: Latent) -> None:
        path = self._path(text)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(_HEAD.pack(latent.tokens, len(latent.data)) + bytes(latent.data))

    def _path(self, text: str) -> Path:
        return self.folder / self.spec.key[:16] / digest(text)[:32]
