"""Questions with a reference answer and gold files: are the answer and the cited places right?

Answer: token F1 with the reference, both normalised, as in SQuAD (Rajpurkar et al. 2016, section 6.1). Citations:
recall@3, the share of the gold files among the files of the first three chunks that are cited, in three orders: as
routing ranks them (the baseline), by the attention of the reader's answer, and by both. Both is reciprocal rank fusion
with its usual constant, 60 (Cormack et al. 2009); nothing in it was tuned on questions. `bm25` cites what BM25 finds in
the whole repository, and gives no answer. Intervals are 95 %, by bootstrap over questions.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from awareness.errors import UsageError
from awareness.evals import pictures
from awareness.evals.intervals import Estimate, bootstrap
from awareness.evals.readers import Reader
from awareness.evals.report import Report, Table, as_json
from awareness.evals.routing import RoutedQuestion, route
from awareness.evals.setup import Setup
from awareness.model.prompts import BRIEFLY
from awareness.train.samples.question_files import Question, read_questions
from awareness.types import Chunk, Progress, Sample, silent

CITED = 3
ORDERS = ("routing", "attention", "both")
_RRF = 60
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Answer:
    """The answer of one reader to one question: its text, F1, and recall@3 by order."""

    arm: str
    question: str
    text: str
    f1: float
    recall: Mapping[str, float]


@dataclass(frozen=True)
class Scores:
    """f1: None without answers. recall: order -> recall@3; `attention` and `both` only with a memory."""

    arm: str
    f1: Estimate | None
    recall: Mapping[str, Estimate]


def measure(setup: Setup, *, questions: Path, top_k: int, max_new_tokens: int) -> Report:
    """questions: a file. top_k: chunks that are attached. max_new_tokens: of an answer."""
    listed = read_questions(questions)
    if unanswered := [question.question for question in listed if not question.answer.strip()]:
        raise UsageError(
            f"{len(unanswered)} of {len(listed)} questions of {questions} have no answer, the first: {unanswered[0]}",
            hint="awareness eval retrieval --questions, which needs none",
        )
    routed = route(listed, setup, top_k=top_k)
    readers = setup.open_readers()
    with setup.progress() as progress:
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "seed": setup.seed, "progress": progress}
        scores, answers = ask(readers, routed, **options)
    title = f"{setup.folder.name}, {len(routed)} questions of {questions.name}, {top_k} chunks, quant {setup.quant}"
    heading = f"token F1, and recall@3 of citations in three orders (95 % interval), {title}"
    cells = [(score.arm, score.f1, *map(score.recall.get, ORDERS)) for score in scores]
    return Report(
        "qa",
        [Table(heading, ("arm", "F1", *(f"by {order}" for order in ORDERS)), cells)],
        {
            "qa": [as_json({"arm": score.arm, "f1": score.f1, "recall@3": score.recall}) for score in scores],
            "answers": [asdict(answer) for answer in answers],
            "questions": questions.name,
            **setup.settings,
            "samples": len(routed),
            "top_k": top_k,
            "max_new_tokens": max_new_tokens,
        },
        partial(_draw, scores, title),
    )


def ask(
    readers: Sequence[Reader],
    questions: Sequence[RoutedQuestion],
    *,
    max_new_tokens: int,
    seed: int,
    progress: Progress = silent,
) -> tuple[list[Scores], list[Answer]]:
    """Asks every question of every reader that has room for it; of `bm25` only the citations are scored."""
    answers: list[Answer] = []
    for i, routed in enumerate(questions):
        for j, reader in enumerate(readers):
            sample = sample_of(routed.question, routed.chunks[::-1])  # as `ask` orders them: the best last
            if reader.fits(sample):
                answers.append(_answer(reader, routed, sample, max_new_tokens))
            progress("asking", i * len(readers) + j + 1, len(questions) * len(readers))
    words = [recall(routed.question, routed.bm25) for routed in questions]
    scores = [_scores(r.name, [answer for answer in answers if answer.arm == r.name], seed) for r in readers]
    return [*scores, Scores("bm25", None, {"routing": bootstrap(words, seed=seed)})], answers


def sample_of(question: Question, chunks: Sequence[Chunk]) -> Sample:
    """The question as `ask` puts it. chunks: in reading order."""
    texts = tuple(chunk.encoded_text for chunk in chunks)
    return Sample(texts, question.gold_among(chunks), question.question + BRIEFLY, question.answer, kind="qa")


def _answer(reader: Reader, routed: RoutedQuestion, sample: Sample, max_new_tokens: int) -> Answer:
    penalty = reader.settings.repetition_penalty
    generation = reader.generate(sample, max_new_tokens=max_new_tokens, repetition_penalty=penalty)
    orders = {"routing": list(range(len(routed.chunks)))}
    if reader.reads == "memory":
        shares = [generation.attention.get(str(place), 0.0) for place in reversed(range(len(routed.chunks)))]
        orders["attention"] = sorted(orders["routing"], key=lambda i: -shares[i])
        orders["both"] = fused(orders["routing"], orders["attention"])
    recalls = {name: recall(routed.question, [routed.chunks[i] for i in order]) for name, order in orders.items()}
    text = generation.text.strip()
    return Answer(reader.name, routed.question.question, text, token_f1(text, routed.question.answer), recalls)


def fused(*orders: Sequence[int]) -> list[int]:
    """Reciprocal rank fusion: each item by its sum of 1 / (60 + rank); equal ones in the first order."""
    return sorted(orders[0], key=lambda item: -sum(1 / (_RRF + 1 + order.index(item)) for order in orders))


def recall(question: Question, cited: Sequence[Chunk]) -> float:
    """The share of the gold files among the files of the first three chunks."""
    gold = {place.path for place in question.gold}
    return len(gold & {chunk.path for chunk in cited[:CITED]}) / len(gold)


def token_f1(text: str, reference: str) -> float:
    """Of the bags of normalised words."""
    words, expected = normalised(text), normalised(reference)
    shared = (Counter(words) & Counter(expected)).total()
    return 2 * shared / (len(words) + len(expected)) if shared else float(not words and not expected)


def normalised(text: str) -> list[str]:
    """Words in lower case, without punctuation and articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _scores(reader: str, answers: Sequence[Answer], seed: int) -> Scores:
    if not answers:
        return Scores(reader, None, {})
    columns = {order: [answer.recall[order] for answer in answers] for order in answers[0].recall}
    by_order = {order: bootstrap(column, seed=seed) for order, column in columns.items()}
    return Scores(reader, bootstrap([answer.f1 for answer in answers], seed=seed), by_order)


def _draw(scores: Sequence[Scores], title: str, folder: Path) -> list[str]:
    """Token F1 of each reader; recall@3, a bar for each order of its citations."""
    figure, panels = pictures.panels(2, width=pictures.bars_width(len(scores)))
    f1 = {(score.arm, "answer"): score.f1 for score in scores if score.f1 is not None}
    recalls = {(score.arm, order): estimate for score in scores for order, estimate in score.recall.items()}
    pictures.bars(panels[0], f1, ("answer",), what="token F1 of the answer")
    pictures.bars(panels[1], recalls, ORDERS, what="citation recall@3")
    panels[1].set_ylim(0, 1.02)
    pictures.legend_beside(panels[1], "citations by")
    return [pictures.save(figure, title, folder, "qa.png")]
