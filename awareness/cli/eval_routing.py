"""Questions of a file, put to the indexes of their repositories: what `ask` would attach for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from awareness.cli import render
from awareness.engine.corpus import open_corpora, open_workspaces, search_corpora
from awareness.engine.embedders import renew_vectors
from awareness.engine.models import pull_model
from awareness.engine.workspace import Workspace
from awareness.errors import UsageError
from awareness.evals.question_files import Asked, Question
from awareness.index.search.ranking import GATHERED, Rules
from awareness.index.store.lock import writing
from awareness.index.store.store import Store

WORDS_ALONE = Rules(dense=0.0, kinds=False, definition=0.0, calls=0.0, same_file=1.0, same_file_named=1.0)
"""BM25, as it is."""
_RULES = (GATHERED, WORDS_ALONE)


def route(questions: Sequence[Question], repos: Sequence[Path] | None, *, model: str | None, top_k: int) -> list[Asked]:
    """Those of the questions that are about one of `repos`. Raises UsageError if none is."""
    workspaces = open_workspaces(repos or (), (), None)
    found: list[Asked] = []
    for workspace in workspaces:
        name = workspace.repository.root.name
        alone = len(workspaces) == 1
        own = [one for one in questions if one.repo == name or (alone and one.repo is None)]
        if not own:
            continue
        _bring_up_to_date(workspace, model)
        with open_corpora([workspace], ()) as origins:
            for one in own:
                routed, words = (search_corpora(origins, one.question, None, top_k, rules) for rules in _RULES)
                chunks, bm25 = (tuple(hit.hit.chunk for hit in hits) for hits in (routed, words))
                found.append(Asked(one, chunks, bm25))
    names = ", ".join(workspace.repository.root.name for workspace in workspaces)
    if not found:
        raise UsageError(
            f"none of {len(questions)} questions is about {names}",
            hint='--repo with the folder that "repo" names in the file; without it only one --repo is possible',
        )
    if len(found) < len(questions):
        render.note(f"{len(found)} of {len(questions)} questions are about {names}")
    return found


def _bring_up_to_date(workspace: Workspace, model: str | None) -> None:
    """As `ask` does before it searches; latents are not made."""
    folder = pull_model(workspace.model_name(model), render.REPORTER)
    with writing(workspace.layout), Store.create(workspace.layout) as store:
        known = store.snapshot(workspace.snapshot_name)
        workspace.refresh(store, folder, scope=known.scope if known else (), reporter=render.REPORTER)
        renew_vectors(store, render.REPORTER)
