"""Keeps latents of the sources' chunks on disk, so that the next training encodes none of them again.

One SQLite file for all models: a latent's name is that of `MemorySpec.latent_key`, so latents of different models never
mix. Chunks with a needle are made for one sample, and not kept.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import torch
from torch import Tensor

from awareness.types import MemorySpec, digest


class LatentDisk:
    """file: created if missing. texts: the chunks whose latents are kept. limit: bytes of all latents in the file;
    those used least recently go first. dtype: of the latents, which come back bit for bit.

    The file only saves time: a latent that is damaged counts as missing, and a disk that takes none is no error.
    """

    def __init__(
        self, file: Path, spec: MemorySpec, texts: Collection[str], limit: int, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        self.file, self.limit, self._dtype = file, limit, dtype
        self.spec = replace(spec.raw, dtype=str(dtype).removeprefix("torch."))
        self._keys = {text: self.spec.latent_key(digest(text)) for text in texts}
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(self._open()) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(
                "CREATE TABLE IF NOT EXISTS latent"
                " (key TEXT PRIMARY KEY, bytes INTEGER, digest TEXT, used REAL, data BLOB)"
            )
            db.execute("CREATE INDEX IF NOT EXISTS by_use ON latent (used, bytes)")
            keys = [(key,) for key in self._keys.values()]
            with db:
                db.executemany(f"UPDATE latent SET used = {time.time()} WHERE key = ?", keys)

    def get(self, text: str) -> Tensor | None:
        """[2, layers, H_kv, T, D] on the CPU, None if it is not kept."""
        key = self._keys.get(text)
        if key is None:
            return None
        with closing(self._open()) as db:
            row = db.execute("SELECT data, digest FROM latent WHERE key = ?", (key,)).fetchone()
        per_token = 2 * len(self.spec.layers) * self.spec.num_kv_heads * self.spec.head_dim * self._dtype.itemsize
        if row is None or len(row[0]) % per_token or digest(row[0]) != row[1]:
            return None
        return torch.frombuffer(bytearray(row[0]), dtype=self._dtype).view(self.spec.shape(len(row[0]) // per_token))

    def put(self, text: str, latent: Tensor) -> None:
        """Keep the latent of a chunk of the sources; of another text, nothing."""
        key = self._keys.get(text)
        if key is None:
            return
        data = latent.detach().to("cpu", self._dtype).contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        if len(data) > self.limit:
            return
        try:
            with closing(self._open()) as db, db:
                held: Any = db.execute("SELECT coalesce(sum(bytes), 0) FROM latent").get
                while held + len(data) > self.limit:
                    number, size = db.execute("SELECT rowid, bytes FROM latent ORDER BY used LIMIT 1").get
                    db.execute("DELETE FROM latent WHERE rowid = ?", (number,))
                    held -= size
                row = (key, len(data), digest(data), time.time(), data)
                db.execute("INSERT OR REPLACE INTO latent VALUES (?, ?, ?, ?, ?)", row)
        except (apsw.FullError, apsw.IOError, apsw.ReadOnlyError):
            return

    def _open(self) -> apsw.Connection:
        db = apsw.Connection(str(self.file))
        db.setbusytimeout(60_000)  # other processes of a distributed run
        return db
