"""How each decoder reads a memory and is asked: one table, measured by benchmarks/answers on development repositories.

A decoder that is not in the table gets the neutral settings. An adapter that was trained to read brings its own
sharpness, which is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

BRIEF = "\nAnswer from the code above in one or two short sentences, with the exact names and values in backticks."
LONG = "\nExplain from the code above how it works, step by step, with the exact names and values in backticks."


@dataclass(frozen=True)
class ReadingSettings:
    """sharpness: what the scores of the chunks' keys are multiplied by, where there are several chunks. Chunks that
    were encoded apart never competed, so that the attention of some decoders spreads over too many of them; a lower
    temperature corrects it (APE, Yang et al. 2025, section 4.2).

    repetition_penalty: of what was generated (Keskar et al. 2019). brief, long: the instruction behind a question.
    weights: by which the CPU decodes, one of `weights.WEIGHTS`.
    """

    sharpness: float = 1.0
    repetition_penalty: float = 1.0
    brief: str = BRIEF
    long: str = LONG
    weights: str = "none"


NEUTRAL = ReadingSettings()
_QWEN_CODER = ReadingSettings(weights="int4")
SETTINGS = {
    "qwen2.5-coder-0.5b": _QWEN_CODER,
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": _QWEN_CODER,
    "qwen2.5-coder-1.5b": _QWEN_CODER,
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": _QWEN_CODER,
    "smollm2-135m": ReadingSettings(
        sharpness=1.2, repetition_penalty=1.15, brief=" Answer in one sentence.", long=" Explain it in detail."
    ),
}


def settings_of(name: str) -> ReadingSettings:
    """By the model's name: a preset, a hub id or a folder."""
    return SETTINGS.get(name, NEUTRAL)
