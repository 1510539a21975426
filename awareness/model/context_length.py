"""What fits into a decoder's positions: memory, question and answer together.

A memory's keys stand at the positions -M … -1 and the prompt at 0 … T-1, so the last of N generated tokens looks back
over M + T + N positions. Beyond `max_position_embeddings` a decoder was never trained. Nothing here imports torch: a
question that is too long is refused before the model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from awareness.errors import UsageError
from awareness.model.model_files import ModelFolder
from awareness.model.token_offsets import token_starts

TURNS = 128
"""Tokens kept free for the system turn, the marks of the turns, and the instruction after the question."""
CHUNK = 256
"""Tokens kept free for the best chunk."""
CUT = "\n[…]\n"
"""Stands where the middle of a question was cut out."""


@dataclass(frozen=True)
class Question:
    """A question that fits. cut: tokens that were cut out of it."""

    text: str
    cut: int = 0


def fitting_question(
    text: str, folder: ModelFolder, *, answer_tokens: int, has_chunks: bool, may_cut: bool = False
) -> Question:
    """The question if it leaves room for the best chunk and the answer; with `may_cut` shortened in its middle until
    it does: people write what they want at the start or at the end of a long paste.

    answer_tokens: of the answer that it leaves room for. Raises UsageError."""
    room = folder.num_positions - TURNS - (CHUNK if has_chunks else 0) - answer_tokens
    if len(text.encode("utf-8", "surrogatepass")) <= room:  # a token has at least one byte
        return Question(text)
    starts_of = token_starts(folder.path)
    tokens = len(starts_of(text))
    if tokens <= room:
        return Question(text)
    if may_cut and room > 0:
        return _shortened(text, starts_of, room)
    raise UsageError(
        f"the question has {tokens:,} tokens; {folder.name} reads at most {max(0, room):,} beside memory and answer,"
        f" in {folder.num_positions:,} positions",
        hint="a shorter question, or --cut, which leaves its middle out",
    )


def _shortened(text: str, starts_of: Callable[[str], Sequence[int]], room: int) -> Question:
    starts = starts_of(text)
    kept = room
    while True:
        head, tail = kept // 2, kept - kept // 2
        shorter = text[: starts[head]] + CUT + text[starts[len(starts) - tail] :] if kept else CUT
        excess = len(starts_of(shorter)) - room
        if excess <= 0 or not kept:
            return Question(shorter, cut=len(starts) - kept)
        kept = max(0, kept - excess)


def fitting_chunks(tokens: Sequence[int], room: int) -> int:
    """How many chunks are attached, given their tokens, the best first: those before the first that does not fit, and
    at least one."""
    for count, own in enumerate(tokens):
        room -= own
        if room < 0:
            return max(1, count)
    return len(tokens)


def fitting_answer(wanted: int, positions: int, taken: int, model: str) -> int:
    """Tokens that the answer may have: what is wanted, or what memory and prompt (`taken`) leave. Raises UsageError if
    they leave nothing."""
    if taken >= positions:
        raise UsageError(
            f"memory and question have {taken:,} tokens; {model} has {positions:,} positions for both and the answer",
            hint="a shorter question, or a smaller --top-k",
        )
    return min(wanted, positions - taken)
