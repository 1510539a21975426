"""Greedy answers to several prompts of a row: the tokens that prompts share are computed once.

Reading a prompt is most of the work of a short answer on a CPU. `SharedBeginning` reads what all prompts begin with,
`Rows` what each row goes on with (a chunk); every `answers` then costs the tokens of its own ending only.

Rows are padded on the left of each part, so the padding may stand in the middle of a prompt; it is masked, and
positions count real tokens only. B rows, T tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache

from awareness.model import hf
from awareness.model.batches import padded
from awareness.model.fusion import attached
from awareness.model.load import Decoder


class SharedBeginning:
    """ids: what all prompts begin with; at least one token."""

    def __init__(self, decoder: Decoder, ids: Sequence[int]) -> None:
        self.decoder = decoder
        with torch.inference_mode(), attached(decoder.model, None):
            _, self._cache = hf.continued(decoder.model, torch.tensor([list(ids)], device=decoder.model.device))
        self._tokens = len(ids)

    def rows(self, middles: Sequence[Sequence[int]]) -> Rows:
        """One row for each of `middles`, which goes on after the beginning."""
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(len(middles))
        mask = torch.ones(len(middles), self._tokens, dtype=torch.long, device=self.decoder.model.device)
        return Rows(self.decoder, cache, mask, middles)


class Rows:
    """The KV cache [B, …] of prompts without their endings. mask: [B, T], 0 for padding."""

    def __init__(self, decoder: Decoder, cache: Cache, mask: Tensor, middles: Sequence[Sequence[int]]) -> None:
        self.decoder, self._cache, self._mask = decoder, cache, mask
        with torch.inference_mode():
            _, self._mask = self._read(middles, mask)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; one that is named twice becomes two."""
        chosen = torch.tensor(list(rows), dtype=torch.long, device=self._mask.device)
        self._cache.batch_select_indices(chosen)
        self._mask = self._mask[chosen]

    def answers(self, endings: Sequence[Sequence[int]], max_new_tokens: int, stop: str = "") -> list[str]:
        """The greedy continuation of each row after its own ending, up to its end of text, or to a line break if
        `stop` is one. The rows stay as they were."""
        model, tokenizer = self.decoder.model, self.decoder.tokenizer
        ends, before = torch.tensor(sorted(hf.end_tokens(model)), device=model.device), self._mask.shape[1]
        said: list[Tensor] = []
        texts = [""] * len(endings)
        with torch.inference_mode():
            logits, mask = self._read(endings, self._mask)
            done = torch.zeros(len(endings), dtype=torch.bool, device=model.device)
            while True:
                token = logits.argmax(dim=-1)  # [B]
                done = done | torch.isin(token, ends)
                said.append(torch.where(done, ends[0], token))
                for row in range(len(endings)):
                    if not done[row]:
                        ids = [int(step[row]) for step in said]
                        texts[row] = str(tokenizer.decode(ids, skip_special_tokens=True))
                if stop:
                    done = done | torch.tensor([stop in text for text in texts], device=model.device)
                if len(said) == max_new_tokens or bool(done.all()):
                    break
                logits, mask = self._read([[int(t)] for t in said[-1]], mask)
        hf.cut_cache(self._cache, before)
        return [text.partition(stop)[0] if stop else text for text in texts]

    def _read(self, parts: Sequence[Sequence[int]], mask: Tensor) -> tuple[Tensor, Tensor]:
        """Run the decoder over the next part of each row: logits of the last token [B, V], and the longer mask."""
        ids, lengths = padded(parts, self._mask.device, fill=hf.pad_token(self.decoder.model), left=True)
        width = ids.shape[1]
        real = (torch.arange(width, device=ids.device) >= width - lengths[:, None]).long()
        mask = torch.cat([mask, real], dim=1)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -width:]
        with attached(self.decoder.model, None):
            logits, self._cache = hf.continued(
                self.decoder.model, ids, self._cache, attention_mask=mask, position_ids=positions
            )
        return logits[:, -1], mask
