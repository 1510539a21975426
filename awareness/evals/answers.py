"""Short questions about code, answered as `ask` answers them: how many are right, and how long one waits.

Each question is routed as `ask` routes it, once for each number of chunks. Every reader gets the same chunks, as many
of them as its decoder has positions for, and answers with the settings and the weights that `ask` uses. Latents come
from the repository's index: they are encoded once and kept there. An answer is right if it holds one of the strings
that were written down before (short_questions.py). evals/qa.py differs: there a person's free text is compared word by
word, and citations are by file.

With `unanswerable`, the chunks that show the place are left out: then a reader is right to refuse.

The time to the first token of a reader with memory includes reading the latents from the index and joining them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from awareness.engine.corpus import CorpusHit
from awareness.engine.engine import DEFAULT_BUDGET, Engine
from awareness.engine.second_stage import second_stage_for_ask
from awareness.errors import UsageError
from awareness.evals import pictures
from awareness.evals.intervals import Estimate, bootstrap, wilson
from awareness.evals.readers import Reader
from awareness.evals.report import Report, Table, as_json
from awareness.evals.setup import Setup
from awareness.evals.short_questions import ShortQuestion, read_short_questions
from awareness.index import build
from awareness.index.search.ranking import GATHERED
from awareness.model.answering import count_fitting
from awareness.model.not_said import refuses
from awareness.types import Progress, silent

if TYPE_CHECKING:
    from awareness.model.encoder import SelfEncoder
    from awareness.model.projected import ProjectedEncoder

CONTROL = "text"
"""The reader that others are compared with."""
_SPARE = 24
"""Chunks that are found beyond those that are read, for those that are left out."""
_SECOND = 2  # decimals of a table's seconds


@dataclass(frozen=True)
class Asked:
    """One answer. top_k: the number of chunks that were asked for; chunks: of those that fitted. is_found: they show
    the place with the answer. is_cited: the source of the first sentence shows it. tokens, bytes: of the latents that
    were read, as they are stored."""

    arm: str
    top_k: int
    repo: str
    question: str
    answer: str
    is_right: bool
    is_found: bool
    is_cited: bool
    is_refused: bool
    chunks: int
    tokens: int
    bytes: int
    first_token_s: float
    answer_tokens: int
    tokens_per_s: float


@dataclass(frozen=True)
class Scores:
    """Of one reader with one number of chunks. right_where_found: of the questions whose place was found. minus_text:
    the paired difference in right answers to `CONTROL` with as many chunks. cited: of the right answers whose place was
    found. refused: of all. first_token_s, tokens_per_s: medians. of_text: the median of `CONTROL` is 1. tokens, bytes:
    means. Null where it cannot be said."""

    arm: str
    top_k: int
    right: Estimate
    right_where_found: Estimate | None
    minus_text: Estimate | None
    cited: Estimate | None
    refused: Estimate
    first_token_s: float
    of_text: float | None
    tokens_per_s: float
    chunks: float
    tokens: float
    bytes: float


def measure(
    setup: Setup,
    *,
    questions: Sequence[Path],
    top_k: Sequence[int],
    max_new_tokens: int,
    samples: int | None = None,
    weights: str | None = None,
    unanswerable: bool = False,
) -> Report:
    """questions: files. top_k: numbers of chunks. samples: at most this many questions of each repository. weights:
    what the decoders decode with, None for the choice of `ask`. unanswerable: leave out what shows the answer."""
    by_repository = assigned(questions, setup, samples)
    readers = setup.open_readers(weights=weights)
    total = sum(map(len, by_repository.values())) * sum(1 if r.reads == "none" else len(top_k) for r in readers)
    asked: list[Asked] = []
    with setup.progress() as progress:
        for root, own in by_repository.items():
            with Engine([root], model=setup.model, reporter=setup.reporter) as engine:
                engine.refresh()
                step = partial(_later, progress, len(asked), total)
                options: dict[str, Any] = {"top_k": top_k, "max_new_tokens": max_new_tokens}
                asked += ask(readers, own, engine, **options, unanswerable=unanswerable, progress=step)
    scores = scored(asked, setup.seed)
    count = sum(map(len, by_repository.values()))
    names = ", ".join(root.name for root in by_repository)
    without = " without the chunks that answer" if unanswerable else ""
    title = f"{setup.folder.name}, {count} questions about {names}{without}, quant {setup.quant}"
    return Report(
        "answers",
        _tables(scores, title),
        {
            "answers": [as_json(score) for score in scores],
            "rows": [as_json(row) for row in asked],
            "questions": [path.name for path in questions],
            "repositories": [root.name for root in by_repository],
            **setup.settings,
            "samples": count,
            "max_new_tokens": max_new_tokens,
            "unanswerable": unanswerable,
            "second_stage": second_stage_for_ask() is not None,
            "threads": _threads(),
        },
        partial(draw, scores, title),
    )


def assigned(files: Sequence[Path], setup: Setup, samples: int | None = None) -> dict[Path, list[ShortQuestion]]:
    """Root of a repository -> its questions. Raises UsageError if there are none about one of the repositories."""
    questions = [question for path in files for question in read_short_questions(path)]
    roots = list(dict.fromkeys(repository.root for repository in setup.repositories))
    is_one = len(roots) == len(files) == 1
    by_repository = {
        root: [q for q in questions if q.repo == root.name or (is_one and not q.is_named)][:samples] for root in roots
    }
    if missing := [root.name for root, own in by_repository.items() if not own]:
        raise UsageError(
            f"none of {len(questions)} questions is about {', '.join(missing)}",
            hint=f'"repo": "{missing[0]}" in a line, or the file named {missing[0]}.jsonl',
        )
    return by_repository


def ask(
    readers: Sequence[Reader],
    questions: Sequence[ShortQuestion],
    engine: Engine,
    *,
    top_k: Sequence[int],
    max_new_tokens: int,
    unanswerable: bool = False,
    progress: Progress = silent,
) -> list[Asked]:
    """Every question of every reader, with each number of chunks; once, of a reader that reads none. unanswerable:
    without the chunks that show the place or hold one of the strings of a right answer."""
    deep = second_stage_for_ask() is not None
    routed: dict[tuple[str, int], list[CorpusHit]] = {}
    for question in questions:
        for k in top_k:
            most = k + _SPARE if unanswerable else k
            hits = [
                hit
                for hit in engine.search(question.question, top_k=most, rules=GATHERED, deep=deep)
                if hit.is_current and not (unanswerable and question.is_answered_by(hit.chunk))
            ]
            routed[question.question, k] = hits[:k]
    asked: list[Asked] = []
    total = len(questions) * sum(1 if reader.reads == "none" else len(top_k) for reader in readers)
    for reader in readers:
        for k in (0,) if reader.reads == "none" else top_k:
            for question in questions:
                hits = routed[question.question, k] if k else []
                asked.append(_asked(reader, question, hits, k, max_new_tokens))
                progress("asking", len(asked), total)
    return asked


def _asked(
    reader: Reader, question: ShortQuestion, hits: Sequence[CorpusHit], top_k: int, max_new_tokens: int
) -> Asked:
    encoder = reader.encoder
    fitting = count_fitting(
        reader.decoder,
        reader.settings,
        question.question,
        [hit.chunk for hit in hits],
        encoder=cast("SelfEncoder | ProjectedEncoder | None", encoder),
        answer_tokens=max_new_tokens,
    )
    hits = hits[:fitting]
    chunks = [hit.chunk for hit in hits]
    memory, tokens, size, loaded_s = None, 0, 0, 0.0
    if encoder is not None and hits:
        store = hits[0].corpus.store

        def load() -> list[Any]:
            return build.load_latents(store, encoder, chunks, budget=DEFAULT_BUDGET)

        load()  # encodes what is missing
        started = time.perf_counter()
        latents = load()
        memory = reader.attach(latents)
        loaded_s = time.perf_counter() - started
        tokens, size = sum(latent.tokens for latent in latents), sum(len(latent.data) for latent in latents)
    answer = reader.answer(question.question, chunks, memory, max_new_tokens=max_new_tokens)
    gold = [place for place, chunk in enumerate(chunks) if question.is_shown(chunk)]
    is_right = question.is_right(answer.text)
    return Asked(
        reader.name,
        top_k,
        question.repo,
        question.question,
        answer.marked,
        is_right,
        bool(gold),
        bool(answer.sentences) and answer.sentences[0].source in gold,
        not is_right and refuses(answer.text),
        len(chunks),
        tokens,
        size,
        loaded_s + answer.generation.first_token_s,
        answer.generation.tokens,
        answer.generation.tokens_per_s,
    )


def scored(asked: Sequence[Asked], seed: int) -> list[Scores]:
    """By the number of chunks, then as the readers come."""
    cells = dict.fromkeys((row.top_k, row.arm) for row in asked)
    control = {k: [row for row in asked if (row.top_k, row.arm) == (k, CONTROL)] for k, _ in cells}
    scores = []
    for k, arm in sorted(cells, key=lambda cell: cell[0]):
        own = [row for row in asked if (row.top_k, row.arm) == (k, arm)]
        found = [row for row in own if row.is_found]
        right_and_found = [row for row in found if row.is_right]
        other = {(row.repo, row.question): row for row in control[k]} if arm != CONTROL else {}
        gains = [float(row.is_right) - float(other[row.repo, row.question].is_right) for row in own if other]
        first_token_s = statistics.median(row.first_token_s for row in own)
        scores.append(
            Scores(
                arm,
                k,
                wilson(sum(row.is_right for row in own), len(own)),
                wilson(len(right_and_found), len(found)) if found else None,
                bootstrap(gains, seed=seed) if gains else None,
                wilson(sum(row.is_cited for row in right_and_found), len(right_and_found)) if right_and_found else None,
                wilson(sum(row.is_refused for row in own), len(own)),
                first_token_s,
                first_token_s / statistics.median(row.first_token_s for row in control[k]) if control[k] else None,
                statistics.median(row.tokens_per_s for row in own),
                statistics.mean(row.chunks for row in own),
                statistics.mean(row.tokens for row in own),
                statistics.mean(row.bytes for row in own),
            )
        )
    return scores


def _later(progress: Progress, before: int, total: int, what: str, done: int, _: int | None) -> None:
    """Progress of one repository as that of all."""
    progress(what, before + done, total)


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _tables(scores: Sequence[Scores], title: str) -> list[Table]:
    rows = [
        (
            score.top_k or None,
            score.arm,
            score.right,
            score.right_where_found,
            None if score.minus_text is None else signed(score.minus_text),
            score.cited,
            score.refused,
        )
        for score in scores
    ]
    columns = ("chunks", "arm", "right", "where found", f"minus {CONTROL}", "cited", "refused")
    costs = [
        (
            score.top_k or None,
            score.arm,
            f"{score.first_token_s:.{_SECOND}f}",
            None if score.of_text is None else f"{score.of_text:.3f}",
            f"{score.tokens_per_s:.1f}",
            f"{score.bytes / 1024**2:.2f}" if score.bytes else None,
        )
        for score in scores
    ]
    titles = ("chunks", "arm", "first token, s", f"÷ {CONTROL}", "tokens/s", "MiB of latents")
    return [
        Table(f"right answers (95 % interval), {title}", columns, rows),
        Table("medians of a question", titles, costs),
    ]


def signed(difference: Estimate) -> str:
    """`+0.05 (-0.02 to +0.12)`"""
    return f"{difference.mean:+.2f} ({difference.low:+.2f} to {difference.high:+.2f})"


def draw(scores: Sequence[Scores], title: str, folder: Path, name: str = "answers.png") -> list[str]:
    """Right answers against the time to the first token: a curve for each arm, over the numbers of chunks."""
    figure, panels = pictures.panels(1, width=5.4, height=4.4)
    curves: dict[str, dict[int, tuple[float, Estimate]]] = {}
    for score in scores:
        curves.setdefault(score.arm, {})[score.top_k] = (score.first_token_s, score.right)
    pictures.waiting(panels[0], curves, what="right answers, 95 % interval")
    return [pictures.save(figure, f"Right answers against waiting:\n{title}", folder, name)]
