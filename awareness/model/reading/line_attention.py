"""Attention to the tokens of a memory -> attention to the lines of its chunks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from awareness.model.prompts import characters
from awareness.model.reading.token_lines import lines_of
from awareness.types import SINK, Chunk, Memory


class LineAttention:
    """Finds how much attention each line got.

    memory: each span is named by its place in `chunks`. around: learned tokens before and after those of each chunk.
    A chunk whose latent has other tokens than its text, by this tokenizer, gets no attention: nobody knows which token
    stands where.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        memory: Memory,
        chunks: Sequence[Chunk],
        around: tuple[int, int] = (0, 0),
    ) -> None:
        counts = [chunk.text.count("\n") + 2 for chunk in chunks]
        firsts = [0, *accumulate(counts)]
        self._count = firsts[-1]
        lines = torch.full((memory.tokens,), self._count)  # the last place is for what is in no line
        for span in memory.spans:
            if span.name == SINK:
                continue
            place = int(span.name)
            rows = _rows(tokenizer, chunks[place])
            if sum(around) + len(rows) == span.stop - span.start:
                start = span.start + around[0]
                lines[start : start + len(rows)] = torch.tensor(
                    [self._count if row is None else firsts[place] + min(row, counts[place] - 1) for row in rows]
                )
        self._lines = lines

    def __call__(self, steps: Tensor) -> list[float]:
        """steps: [T, M] float32, the weights of T generated tokens -> for the header and each line of the first chunk,
        then of the next, …, the most that one token gave it. A token that copies a value looks at its line alone, and
        those of ordinary words look everywhere."""
        sums = steps.new_zeros(len(steps), self._count + 1).index_add_(1, self._lines.to(steps.device), steps)
        return [float(value) for value in sums[:, :-1].amax(dim=0)]


def _rows(tokenizer: PreTrainedTokenizerBase, chunk: Chunk) -> list[int | None]:
    """The row of the encoded text that each of its tokens begins in, 0 for the header; None for the first token of a
    row, which mostly is its indentation, and for those without a letter or digit."""
    text, spans = characters(tokenizer, chunk.encoded_text)
    rows: list[int | None] = []
    before = -1
    for row, (start, stop) in zip(lines_of(text, spans), spans, strict=True):
        is_counted = row == before and any(c.isalnum() for c in text[start:stop])
        rows.append(row if is_counted else None)
        before = row
    return rows
