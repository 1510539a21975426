"""Questions of a file -> the chunks that `ask` would attach for each, by the indexes of their repositories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from awareness.engine.engine import Engine
from awareness.errors import UsageError
from awareness.evals.setup import Setup
from awareness.index.search.ranking import GATHERED, Rules
from awareness.train.samples.question_files import Question
from awareness.types import Chunk

WORDS_ALONE = Rules(
    dense=0.0, kinds=False, definition=0.0, calls=0.0, same_file=1.0, same_file_named=1.0, artefacts=1.0
)
"""BM25 without anything else."""


@dataclass(frozen=True)
class RoutedQuestion:
    """chunks: what `ask` would attach, best first. bm25: what BM25 alone finds, best first."""

    question: Question
    chunks: tuple[Chunk, ...]
    bm25: tuple[Chunk, ...]


def route(questions: Sequence[Question], setup: Setup, *, top_k: int) -> list[RoutedQuestion]:
    """The questions about the repositories of `setup`; their indexes are refreshed first. Raises UsageError if no
    question is about any of them."""
    repositories = {repository.root: repository for repository in setup.repositories}.values()
    routed: list[RoutedQuestion] = []
    for repository in repositories:
        name, is_alone = repository.root.name, len(repositories) == 1
        own = [question for question in questions if question.repo == name or (is_alone and question.repo is None)]
        if not own:
            continue
        with Engine([repository.root], model=setup.model, reporter=setup.reporter) as engine:
            engine.refresh()
            for question in own:
                chunks, bm25 = (
                    tuple(hit.chunk for hit in engine.search(question.question, top_k=top_k, rules=rules))
                    for rules in (GATHERED, WORDS_ALONE)
                )
                routed.append(RoutedQuestion(question, chunks, bm25))
    names = ", ".join(repository.root.name for repository in repositories)
    if not routed:
        raise UsageError(
            f"none of {len(questions)} questions is about {names}",
            hint='--repo with the folder that "repo" names in the file; without it only one --repo is possible',
        )
    if len(routed) < len(questions):
        setup.reporter.note(f"{len(routed)} of {len(questions)} questions are about {names}")
    return routed
