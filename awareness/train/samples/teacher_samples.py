"""Samples that a model makes before training: questions that a teacher writes and answers, and answers of the base
model to questions that no chunk answers. They are cached on disk under a digest of all inputs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from awareness.model.generate import generate_batch
from awareness.model.load import Decoder
from awareness.model.prompts import BRIEFLY, question_ids
from awareness.train.samples.mixture import PREPARED_KINDS, PreparedSample, distractor_questions
from awareness.train.samples.pool import Pool
from awareness.types import Progress, Sample, digest, silent

BATCH = 8  # prompts of a batch
_WRITE = "Write one short question that a developer could ask about this code, and that the code answers."
_TOKENS = {"question": 40, "answer": 48}
_TRIES = 4  # questions drawn for each one that is needed


def prepare_samples(
    decoder: Decoder,
    pools: Sequence[Pool],
    kinds: Collection[str],
    *,
    count: int,
    seed: int,
    cache: Path,
    progress: Progress = silent,
) -> dict[str, list[PreparedSample]]:
    """`count` samples of each of the `kinds` that are in PREPARED_KINDS. cache: a folder."""
    makers: dict[str, Callable[[random.Random], Iterator[PreparedSample]]] = {
        "written": lambda rng: _written(decoder, pools, rng),
        "distractors": lambda rng: _answered_by_base(decoder, pools, rng),
    }
    prepared: dict[str, list[PreparedSample]] = {}
    for kind in [kind for kind in PREPARED_KINDS if kind in kinds and count]:
        texts = digest(*(text for pool in pools for text in (pool.name, *pool.texts)))
        path = cache / f"{digest(decoder.folder.fingerprint, kind, str(seed), str(count), texts)[:32]}.json"
        if not path.exists():
            samples = []
            for sample in makers[kind](random.Random(f"{seed}/{kind}")):
                samples.append(sample)
                progress(f"{kind}: asking the teacher", len(samples), count)
                if len(samples) == count:
                    break
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps([asdict(sample) for sample in samples]), "utf-8")
            partial.rename(path)
        prepared[kind] = [_read(entry) for entry in json.loads(path.read_text("utf-8"))]
    return prepared


def _written(decoder: Decoder, pools: Sequence[Pool], rng: random.Random) -> Iterator[PreparedSample]:
    """A chunk, a question that the teacher writes about it, and the teacher's answer."""
    while True:
        drawn = [(pool, rng.choice(pool.texts)) for pool in rng.choices(pools, k=BATCH)]
        prompts = [question_ids(decoder.tokenizer, _WRITE, chunks=[text]) for _, text in drawn]
        questions = map(_first_question, _generate(decoder, prompts, _TOKENS["question"]))
        asked = [(pool, text, q) for (pool, text), q in zip(drawn, questions, strict=True) if q]
        prompts = [question_ids(decoder.tokenizer, q + BRIEFLY, chunks=[text]) for _, text, q in asked]
        for (pool, text, question), answer in zip(asked, _generate(decoder, prompts, _TOKENS["answer"]), strict=True):
            if sentence := _first_sentence(answer):
                yield PreparedSample(pool.name, Sample((text,), (0,), question, sentence, kind="written"))


def _answered_by_base(decoder: Decoder, pools: Sequence[Pool], rng: random.Random) -> Iterator[PreparedSample]:
    """A question that no chunk answers, and the base model's answer without any chunk."""
    while True:
        drawn = [distractor_questions(rng, rng.choice(pools)) for _ in range(BATCH * _TRIES)]
        batch = [prepared for prepared in drawn if prepared is not None][:BATCH]
        prompts = [question_ids(decoder.tokenizer, prepared.sample.question) for prepared in batch]
        for prepared, answer in zip(batch, _generate(decoder, prompts, _TOKENS["answer"]), strict=True):
            if sentence := _first_sentence(answer):
                yield replace(prepared, sample=replace(prepared.sample, answer=sentence))


def _generate(decoder: Decoder, prompts: Sequence[Sequence[int]], tokens: int) -> list[str]:
    return generate_batch(decoder, prompts, max_new_tokens=tokens) if prompts else []


def _first_question(text: str) -> str:
    """The first line that is a question of 3 to 30 words, or empty."""
    lines = (line.strip(" \"'*`#-") for line in text.split("\n"))
    return next((line for line in lines if line.endswith("?") and 3 <= len(line.split()) <= 30), "")


def _first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence; empty without one, because the answer was cut off."""
    line = text.strip().split("\n")[0]
    sentence, stop, _ = line.partition(". ")
    whole = sentence + "." if stop else line
    return whole if whole.endswith((".", "`", ")")) else ""


def _read(entry: dict[str, Any]) -> PreparedSample:
    sample = entry["sample"]
    sample = Sample(**{**sample, "texts": tuple(sample["texts"]), "gold": tuple(sample["gold"])})
    return PreparedSample(entry["repository"], sample, tuple(entry["without"]))
