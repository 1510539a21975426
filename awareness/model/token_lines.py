"""Text -> the line that each of its tokens begins in."""

from __future__ import annotations

from itertools import accumulate

from transformers import PreTrainedTokenizerBase


def token_lines(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The line, from 0, of each token of `prompts.encode(tokenizer, text)`. A token belongs to the line that it begins
    in, so a line break belongs to the line that it ends."""
    text = text.encode("utf-8", "replace").decode()
    offsets = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, verbose=False, return_offsets_mapping=True
    )["offset_mapping"]
    breaks = list(accumulate((character == "\n" for character in text), initial=0))
    return [breaks[start] for start, _ in offsets]
