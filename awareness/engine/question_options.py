"""How a question may be asked, for front ends that only pass it on: importing this takes no time."""

from __future__ import annotations

from enum import Enum

DEFAULT_TOP_K = 8
BRIEF_TOKENS, LONG_TOKENS = 128, 512


class Mode(str, Enum):
    """How the decoder gets the chunks: as memory (joint or tanh form), as text in the prompt, or not at all."""

    joint = "joint"
    tanh = "tanh"
    text = "text"
    none = "none"
