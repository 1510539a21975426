"""Text -> the line that each of its tokens begins in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from transformers import PreTrainedTokenizerBase

from awareness.model.prompts import characters


def token_lines(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The line, from 0, of each token of `prompts.encode(tokenizer, text)`."""
    return lines_of(*characters(tokenizer, text))


def lines_of(text: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """The line, from 0, of each token of a text. spans: the characters [start, stop) of each. A token belongs to the
    line that it begins in, so a line break belongs to the line that it ends."""
    breaks = list(accumulate((character == "\n" for character in text), initial=0))
    return [breaks[start] for start, _ in spans]
