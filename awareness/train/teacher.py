"""The teacher's distribution of each answer token: by default the base model, with gold chunks as text in its prompt.

The most likely tokens are cached on disk under a digest of all inputs: a second run with the same samples runs no
teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import apsw
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from awareness.model import hf
from awareness.model.fusion import attached
from awareness.model.load import Decoder
from awareness.model.prompts import answer_ids, sample_ids
from awareness.types import Sample, digest


class Teacher:
    """decoder: one that training does not change. cache: a file, created if missing. top_k: number of tokens that are
    kept of each distribution. temperature: of its softmax."""

    def __init__(self, decoder: Decoder, cache: Path, *, top_k: int, temperature: float) -> None:
        self.decoder, self.top_k, self.temperature = decoder, top_k, temperature
        cache.parent.mkdir(parents=True, exist_ok=True)
        self._cache = cache
        with closing(self._open()) as db:
            db.execute("CREATE TABLE IF NOT EXISTS said (key TEXT PRIMARY KEY, ids BLOB, log_probs BLOB) WITHOUT ROWID")

    def __call__(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """ids int64 and log-probabilities float32, each [N, k]: one row for each token of each answer, in order."""
        rows = [self._of(sample) for sample in samples]
        device = self.decoder.model.device
        ids = torch.cat([ids for ids, _ in rows]).to(device)
        return ids, torch.cat([log_probs for _, log_probs in rows]).to(device)

    def _of(self, sample: Sample) -> tuple[Tensor, Tensor]:
        tokenizer = self.decoder.tokenizer
        prompt = sample_ids(tokenizer, sample, chunks=[sample.texts[place] for place in sample.gold])
        answer = answer_ids(tokenizer, sample)
        settings = f"{self.decoder.folder.fingerprint} {self.top_k} {self.temperature}"
        key = digest(settings, repr(prompt), repr(answer))
        with closing(self._open()) as db:
            row = db.execute("SELECT ids, log_probs FROM said WHERE key = ?", (key,)).fetchone()
        if row is None:
            ids, log_probs = self._ask(prompt, answer)
            blobs = (ids.numpy().astype("<i4").tobytes(), log_probs.numpy().astype("<f4").tobytes())
            with closing(self._open()) as db:
                db.execute("INSERT OR REPLACE INTO said VALUES (?, ?, ?)", (key, *blobs))
            return ids, log_probs
        ids = torch.from_numpy(np.frombuffer(row[0], "<i4").astype(np.int64)).reshape(len(answer), -1)
        return ids, torch.from_numpy(np.frombuffer(row[1], "<f4").copy()).reshape(len(answer), -1)

    @torch.no_grad()
    def _ask(self, prompt: Sequence[int], answer: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Each sample runs alone: the padding of a batch would change the last bits."""
        model = self.decoder.model
        ids = torch.tensor([[*prompt, *answer]], device=model.device)
        with attached(model, None):
            logits = hf.last_logits(model, ids, len(answer) + 1)[0, :-1]
        top = log_softmax(logits.float() / self.temperature, dim=-1).topk(min(self.top_k, logits.shape[-1]), dim=-1)
        return top.indices.cpu(), top.values.cpu()

    def _open(self) -> apsw.Connection:
        db = apsw.Connection(str(self._cache))
        db.setbusytimeout(60_000)  # other processes of a distributed run
        return db
