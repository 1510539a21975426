"""The token ids around a question: the sink that chunks are encoded after, and the chat turn that asks.

Text from a repository or a user is encoded with special tokens switched off, so a file that contains `<|im_end|>`
cannot end a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from awareness.types import Sample

SYSTEM = "You are a helpful assistant that answers questions about the code of a repository."
BRIEFLY = " Answer in one sentence."
"""Ends a question of training and evaluation: small models drift off without it."""
_MARK = "\u241e"  # stands for the user's words while the chat template is rendered
_FALLBACK_TURN = f"\n# Question: {_MARK}\n# Answer:"


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of untrusted text: special tokens are neither added nor recognised. Nothing is printed about its length."""
    return _encode_untrusted(tokenizer, _without_surrogates(text))["input_ids"]


def characters(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[str, list[tuple[int, int]]]:
    """(the text that `encode` encodes, the characters [start, stop) of each of its tokens)"""
    text = _without_surrogates(text)
    return text, _encode_untrusted(tokenizer, text, return_offsets_mapping=True)["offset_mapping"]


def _without_surrogates(text: str) -> str:
    """A lone surrogate of an argument that is not UTF-8 becomes `?`."""
    return text.encode("utf-8", "replace").decode()


def _encode_untrusted(tokenizer: PreTrainedTokenizerBase, text: str, **options: Any) -> Any:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False, **options)


def _encode_trusted(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _turns(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str, str]:
    """The chat template, cut into the system turn, the text before the user's words, and the text after them."""
    if not tokenizer.chat_template:
        return tokenizer.bos_token or "\n", *_FALLBACK_TURN.split(_MARK)  # type: ignore[return-value]
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": _MARK}]
    options: dict[str, Any] = {"add_generation_prompt": True, "enable_thinking": False}
    text = cast(str, tokenizer.apply_chat_template(messages, tokenize=False, **options))
    before, after = text.split(_MARK)
    cut = before.index(SYSTEM) + len(SYSTEM)
    system_turn = cast(str, tokenizer.apply_chat_template(messages[:1], tokenize=False))
    if before.startswith(system_turn) and len(system_turn) >= cut:
        cut = len(system_turn)
    return before[:cut], before[cut:], after


def sink_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The system turn: the fixed prefix that every chunk is encoded after."""
    return _encode_trusted(tokenizer, _turns(tokenizer)[0])


def _beginning(tokenizer: PreTrainedTokenizerBase, system: str, chunks: Sequence[str]) -> list[int]:
    """What comes before the question, or before the code to continue. system: the system turn, or empty."""
    ids = _encode_trusted(tokenizer, system) if system else []
    for chunk in chunks:
        ids += encode(tokenizer, chunk)
    return ids


def _end_of_answer(tokenizer: PreTrainedTokenizerBase) -> str:
    """The text between an answer and the turn that follows it."""
    if not tokenizer.chat_template:
        return ""
    answer = "\u241f"  # as `_MARK`
    messages = [
        {"role": "user", "content": _MARK},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": _MARK},
    ]
    text = cast(str, tokenizer.apply_chat_template(messages, tokenize=False))
    _, before, _ = _turns(tokenizer)
    return text[text.index(answer) + 1 : text.rindex(_MARK)].removesuffix(before)


def question_ids(
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    *,
    chunks: Sequence[str] = (),
    earlier: Sequence[tuple[str, str]] = (),
    with_system: bool = True,
    answer_prefix: str = "",
) -> list[int]:
    """A prompt that asks. chunks: texts in the prompt itself, between system turn and question. earlier: the
    (question, answer) pairs of the turns before it.

    with_system: False leaves the system turn out; an attached memory has it already, as the sink. answer_prefix: the
    first words of the answer.
    """
    system, before, after = _turns(tokenizer)
    ids = _beginning(tokenizer, system if with_system else "", chunks)
    for asked, answered in earlier:
        ids += _encode_trusted(tokenizer, before) + encode(tokenizer, asked) + _encode_trusted(tokenizer, after)
        ids += encode(tokenizer, answered) + _encode_trusted(tokenizer, _end_of_answer(tokenizer))
    ids += _encode_trusted(tokenizer, before) + encode(tokenizer, question) + _encode_trusted(tokenizer, after)
    return ids + (encode(tokenizer, answer_prefix) if answer_prefix else [])


def sample_ids(
    tokenizer: PreTrainedTokenizerBase, sample: Sample, *, chunks: Sequence[str] = (), with_system: bool = True
) -> list[int]:
    """The prompt of a sample; arguments as in `question_ids`. Code to continue takes the place of the question."""
    if sample.question:
        options: dict[str, Any] = {"chunks": chunks, "with_system": with_system, "answer_prefix": sample.answer_prefix}
        return question_ids(tokenizer, sample.question, **options)
    system = _turns(tokenizer)[0] if with_system else ""
    return _beginning(tokenizer, system, chunks) + encode(tokenizer, sample.context)


def answer_ids(tokenizer: PreTrainedTokenizerBase, sample: Sample) -> list[int]:
    """What follows `sample_ids`: the answer and, for a question, the end of the turn."""
    end = tokenizer.eos_token_id if sample.question else None
    return encode(tokenizer, sample.answer) + ([] if end is None else [cast(int, end)])
