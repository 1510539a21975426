"""Offsets of tokens, cached word by word: equal to those of the tokenizer."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from awareness.errors import UsageError
from awareness.model import token_offsets
from tests.conftest import tiny_tokenizer


def test_token_starts_are_those_of_the_models_tokenizer(model_folder):
    starts = token_offsets.token_starts(model_folder)
    assert list(starts("ab c")) == [0, 1, 2, 3]
    # text that looks like a special token is text
    assert len(starts("<|im_end|>")) == len("<|im_end|>")
    assert len(tiny_tokenizer()("<|im_end|>")["input_ids"]) == 1


SENTENCE = (
    "def it's(self, über, x12345=67): # file: a/b.py · C.f\n\n    return  'We''LL' != \"n\\n\" → it\t\r\n<think>\n\n"
)


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    words = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def trained(splitter: pre_tokenizers.PreTokenizer, **parts: object) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([SENTENCE, f"{SENTENCE}    "], trainer)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.add_special_tokens(["<|im_end|>"])
    tokenizer.add_tokens(["<think>"])
    return tokenizer


gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
# which, and whether it is known to read words alone
TOKENIZERS = {
    "gpt2": (trained(gpt2), True),
    "qwen2": (trained(split(token_offsets.QWEN2_WORDS), normalizer=normalizers.NFC()), True),
    "llama3": (trained(split(token_offsets.LLAMA3_WORDS)), True),
    "another pattern": (trained(split(r"\w+|\W")), False),
    "another normalizer": (trained(split(token_offsets.QWEN2_WORDS), normalizer=normalizers.Lowercase()), False),
    "a prefix": (trained(pre_tokenizers.ByteLevel(add_prefix_space=True)), False),
    "trimmed": (trained(gpt2, post_processor=processors.ByteLevel(trim_offsets=True)), False),
}
FRAGMENTS = [
    *SENTENCE.split(" "),
    *" \n\r\t\x0b\x0c\x1c\x85\xa0'a1٣²ª_éž文👍—",
    "  ",
    "'s",
    "'S",
    "'ſ",
    "e\u0301",
    "👍🏽",
]
FRAGMENTS += ["<think>", "<|im_end|>", "x" * 70]


@pytest.fixture(scope="module", params=TOKENIZERS)
def starts_and_truth(request, tmp_path_factory):
    tokenizer, is_known = TOKENIZERS[request.param]
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    starts = token_offsets.token_starts(folder)
    assert (starts.__name__ == "cached") == is_known
    return starts, lambda text: [start for start, _ in tokenizer.encode(text, add_special_tokens=False).offsets]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=30).map("".join))
def test_words_read_alone_have_the_tokens_of_the_text(starts_and_truth, text):
    starts, truth = starts_and_truth
    assert starts(text) == truth(text)


def test_every_usual_character_between_others(starts_and_truth):
    starts, truth = starts_and_truth
    usual = [
        c for c in map(chr, range(0x20000)) if not 0xD800 <= ord(c) < 0xE000 and not re.match(token_offsets._UNUSUAL, c)
    ]
    assert len(usual) > 1900
    for c in usual:
        text = f"a{c}b {c}1{c}{c} .{c}\n{c}\n {c}"
        assert starts(text) == truth(text)


def test_a_folder_without_a_fast_tokenizer(tmp_path):
    with pytest.raises(UsageError, match="has no tokenizer"):
        token_offsets.token_starts(tmp_path)
