"""How a question may be asked, for front ends that only pass it on: importing this takes no time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from awareness.engine.corpus import CorpusHit
    from awareness.types import QuestionReading, Sampling

DEFAULT_TOP_K = 8
BRIEF_TOKENS, LONG_TOKENS = 128, 512


class Mode(str, Enum):
    """How the decoder gets the chunks: as memory (joint or tanh form), as text in the prompt, or not at all."""

    joint = "joint"
    tanh = "tanh"
    text = "text"
    none = "none"

    @property
    def reads_memory(self) -> bool:
        return self in (Mode.joint, Mode.tanh)


class QuestionOptions(TypedDict, total=False):
    """The arguments of `Engine.ask` that `Engine.stream` and `Talk.ask` pass on to it."""

    scope: Sequence[str] | None
    top_k: int
    max_new_tokens: int | None
    is_long: bool
    sampling: Sampling
    reading: QuestionReading
    on_hits: Callable[[Sequence[CorpusHit]], None]
    on_begun: Callable[[str], None]
