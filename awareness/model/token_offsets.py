"""Text -> the character offsets of its tokens, by a model's own tokenizer, without torch. Chunks are sized by them.

Some tokenizers split text into words and encode each word alone; their result for a word is cached. The splits of
GPT-2, Llama 3 and Qwen are known here; any other tokenizer encodes every text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from awareness.errors import UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def token_starts(folder: Path) -> Callable[[str], Sequence[int]]:
    """A function: text -> the character offset of each token, by the tokenizer in a model's folder.

    Repositories repeat their words, so caching words is several times as fast. Raises UsageError for a folder without
    tokenizer.json.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UsageError(f"{folder} has no tokenizer.json", hint="save the model's fast tokenizer beside it")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encoded(text: str) -> list[int]:
        return [start for start, _ in tokenizer.encode(text, add_special_tokens=False).offsets]

    if (words := _words_of(tokenizer)) is None:
        return encoded
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values() if not token.special]
    unusual = re.compile("|".join([_UNUSUAL, *map(re.escape, added)]))
    widths = _WordCache(encoded).__getitem__

    def cached(text: str) -> list[int]:
        if unusual.search(text):
            return encoded(text)
        *starts, end = accumulate(chain.from_iterable(map(widths, words.findall(text))), initial=0)
        return starts if end == len(text) else encoded(text)

    return cached if cached(_PROBE) == encoded(_PROBE) else encoded


# How tokenizers split text into words.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2_WORDS = LLAMA3_WORDS.replace("{1,3}", "")

# Non-ASCII characters that are the same in every version of Unicode, and that NFC does not change.
_LETTERS = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017e"
_SYMBOLS = "\u2010-\u2027\u2190-\u21ff\u2500-\u257f\u2600-\u2775\U0001f300-\U0001f64f\U0001f680-\U0001f6ff§©«®°±¶·»×÷"
_UNUSUAL = f"[^\0-\x7f{_LETTERS}{_SYMBOLS}]"
_PROBE = "# file: ü.py · it's\n\n  def  f12345(x): \t\r\n    return 'X' →x_é!=I'LL  \n\n"


def _words_of(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """A pattern for the words that the tokenizer encodes alone, in texts without `_UNUSUAL`; None if not known."""
    from tokenizers import models, normalizers

    model, normalizer, splitter = tokenizer.model, tokenizer.normalizer, tokenizer.pre_tokenizer
    if not isinstance(model, models.BPE) or model.dropout or splitter is None:
        return None
    if normalizer is not None and not isinstance(normalizer, normalizers.NFC):  # usual characters are NFC already
        return None
    if (last := tokenizer.post_processor) is not None and b'"trim_offsets":true' in last.__getstate__():
        return None  # it moves the starts of tokens, and differently at the start of a text
    match json.loads(splitter.__getstate__()):
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            pattern = _GPT2
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        } if pattern in (LLAMA3_WORDS, QWEN2_WORDS):
            pass
        case _:
            return None
    pattern = pattern.replace(r"\p{L}\p{N}]", f"{_LETTERS}0-9]")
    return re.compile(pattern.replace(r"\p{L}", f"[{_LETTERS}]").replace(r"\p{N}", "[0-9]"), re.ASCII)


class _WordCache(dict[str, tuple[int, ...]]):
    """Word -> the width of each of its tokens, in characters. Long words are not kept, and only so many."""

    def __init__(self, encoded: Callable[[str], list[int]]) -> None:
        self.encoded = encoded

    def __missing__(self, word: str) -> tuple[int, ...]:
        widths = tuple(end - start for start, end in pairwise([*self.encoded(word), len(word)]))
        if len(word) <= 64 and len(self) < 1 << 17:
            self[word] = widths
        return widths
