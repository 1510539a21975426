"""Questions with a reference answer and gold files: is the answer right, and are the places that it cites?

Answer: token F1 with the reference, both normalised, as SQuAD has it (Rajpurkar et al. 2016, section 6.1). Citations:
recall@3, the share of the gold files among the files of the first three chunks that are cited, in three orders: as
routing has them (the baseline), by the attention that the arm's answer gave them, and by both. Both is reciprocal rank
fusion with its usual constant, 60 (Cormack et al. 2009): nothing in it is chosen on any questions. `bm25` cites what
its words find in the whole repository, and answers nothing. Intervals are 95 %, by bootstrap over questions.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from awareness.evals.arms import Arm
from awareness.evals.intervals import Estimate, bootstrap
from awareness.evals.question_files import Asked, Question
from awareness.model.attention_record import AttentionRecord
from awareness.model.prompts import BRIEFLY
from awareness.types import Chunk, Progress, Sample, silent

CITED = 3
_RRF = 60
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class ArmScores:
    """f1: None of what answers nothing. recall: `routing`, with a memory `attention` and `both` -> recall@3."""

    arm: str
    f1: Estimate | None
    recall: Mapping[str, Estimate]


@dataclass(frozen=True)
class Answer:
    """What one arm said to one question: its text, F1, and recall@3 by order."""

    arm: str
    question: str
    text: str
    f1: float
    recall: Mapping[str, float]


def run(
    arms: Sequence[Arm],
    asked: Sequence[Asked],
    *,
    max_new_tokens: int,
    repetition_penalty: float,
    seed: int,
    progress: Progress = silent,
) -> tuple[list[ArmScores], list[Answer]]:
    """Puts every question to every arm that has room for it; of `bm25` the citations alone."""
    answers: list[Answer] = []
    for i, one in enumerate(asked):
        for j, arm in enumerate(arms):
            sample = sample_of(one.question, one.chunks[::-1])  # as `ask` has it: the best next to the question
            if arm.fits(sample):
                answers.append(_answer(arm, one, sample, max_new_tokens, repetition_penalty))
            progress("asking", i * len(arms) + j + 1, len(asked) * len(arms))
    words = [recall(one.question, one.bm25) for one in asked]
    scores = [_scores(arm.name, [answer for answer in answers if answer.arm == arm.name], seed) for arm in arms]
    return [*scores, ArmScores("bm25", None, {"routing": bootstrap(words, seed=seed)})], answers


def sample_of(question: Question, chunks: Sequence[Chunk]) -> Sample:
    """The question as `ask` puts it. chunks: in reading order."""
    texts = tuple(chunk.encoded_text for chunk in chunks)
    return Sample(texts, question.gold_among(chunks), question.question + BRIEFLY, question.answer, kind="qa")


def _answer(arm: Arm, asked: Asked, sample: Sample, max_new_tokens: int, repetition_penalty: float) -> Answer:
    record = AttentionRecord(arm.retrieval_layers) if arm.reads == "memory" else None
    said = arm.say(sample, max_new_tokens=max_new_tokens, record=record, repetition_penalty=repetition_penalty)
    orders = {"routing": list(range(len(asked.chunks)))}
    if arm.reads == "memory":
        shares = [said.attention.get(str(place), 0.0) for place in reversed(range(len(asked.chunks)))]
        orders["attention"] = sorted(orders["routing"], key=lambda i: -shares[i])
        orders["both"] = fused(orders["routing"], orders["attention"])
    cited = {name: recall(asked.question, [asked.chunks[i] for i in order]) for name, order in orders.items()}
    text = said.text.strip()
    return Answer(arm.name, asked.question.question, text, token_f1(text, asked.question.answer), cited)


def fused(*orders: Sequence[int]) -> list[int]:
    """Reciprocal rank fusion: each of the orders' items by the sum of 1 / (60 + rank); among equals as in the first."""
    return sorted(orders[0], key=lambda item: -sum(1 / (_RRF + 1 + order.index(item)) for order in orders))


def recall(question: Question, cited: Sequence[Chunk]) -> float:
    """The share of the gold files among the files of the first three."""
    gold = {place.path for place in question.gold}
    return len(gold & {chunk.path for chunk in cited[:CITED]}) / len(gold)


def token_f1(text: str, reference: str) -> float:
    """Of the bags of normalised words."""
    said, wanted = normalised(text), normalised(reference)
    shared = (Counter(said) & Counter(wanted)).total()
    return 2 * shared / (len(said) + len(wanted)) if shared else float(not said and not wanted)


def normalised(text: str) -> list[str]:
    """Words in lower case, without punctuation and articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _scores(arm: str, answers: Sequence[Answer], seed: int) -> ArmScores:
    if not answers:
        return ArmScores(arm, None, {})
    columns = {order: [answer.recall[order] for answer in answers] for order in answers[0].recall}
    by_order = {order: bootstrap(column, seed=seed) for order, column in columns.items()}
    return ArmScores(arm, bootstrap([answer.f1 for answer in answers], seed=seed), by_order)
