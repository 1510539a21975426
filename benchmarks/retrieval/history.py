"""What the history of a repository adds to a search: past commits as candidates, and an adapter of the question.

    python benchmarks/retrieval/history.py FOLDER [--questions DIR] [--commits N] [--repos A,B] [--adapters]

FOLDER holds repositories with their history; DIR holds a `NAME.json` with the questions for each, and those of the
category `issue` count. --commits asks with the messages of the N newest commits about one thing instead, in an index
of the commit before them, for the files that they changed. --adapters fits a linear map of the question's vector to the
commits of each repository, and measures all categories with it.

Figures are by files: the right file first, among five, among ten; all right files among ten; nDCG@10. The interval is
of the difference to the first row, by 10,000 bootstrap samples of the questions.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import table
from metrics import Place, Question, ndcg, questions
from ours import WHOLE

from awareness.engine.models import pull_model
from awareness.engine.workspace import Workspace
from awareness.index.files.file_kinds import FileKind
from awareness.index.files.git.past_commits import PastCommits
from awareness.index.renew_history import MAX_COMMITS, MAX_PATHS
from awareness.index.search import question as reading
from awareness.index.search.hit_kinds import HitKinds
from awareness.index.search.ranking import HybridRouter
from awareness.index.search.term_vectors import TermEmbedder
from awareness.index.search.terms import query_terms, weighted_terms
from awareness.index.store.lock import writing
from awareness.index.store.store import Store
from awareness.model import presets

HERE = Path(__file__).parent
FIGURES = ("any@1", "any@5", "any@10", "all in 10", "nDCG@10")
TRIVIAL = ("bump", "merge", "revert", "release", "chore", "update changelog", "version", "prepare")
SECONDS = 600.0  # to read a history: no limit here
Row = tuple[float, ...]
Commits = list[tuple[str, tuple[str, ...]]]  # (message, paths)


@dataclasses.dataclass
class Indexed:
    """One repository. questions: those to ask it. commits: of its past, newest first, without merges."""

    store: Store
    snapshot: int
    questions: list[Question]
    commits: Commits

    def __post_init__(self) -> None:
        kinds = self.store.paths(self.snapshot).kinds
        self.code = {p for _, p, _ in self.store.files(self.snapshot) if kinds.of(p) is FileKind.SOURCE}

    def router(self, past: int = 0) -> HybridRouter:
        return HybridRouter(self.store, self.snapshot, rules=dataclasses.replace(WHOLE, past=past))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=Path, default=HERE / "questions")
    parser.add_argument("--repos", help="only these repositories, separated by commas")
    parser.add_argument("--commits", type=int, default=0)
    parser.add_argument("--adapters", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = options.repos.split(",") if options.repos else sorted(p.name for p in options.folder.iterdir())
    rng = np.random.default_rng(options.seed)
    rows: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))  # category -> variant -> rows
    spent: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["AWARENESS_INDEX_DIR"] = scratch
        for name in names:
            repository = options.folder / name
            if options.commits:
                indexed = by_commits(repository, options.commits)
            elif (options.questions / f"{name}.json").is_file():
                indexed = by_questions(repository, questions(options.questions / f"{name}.json"))
            else:
                continue
            variants = adapters(indexed, rng) if options.adapters else candidates(indexed)
            asked = [q for q in indexed.questions if q.relevant and (options.adapters or q.category == "issue")]
            for variant, answer in variants:
                started = time.perf_counter()
                for question in asked:
                    rows[question.category][variant].append(figures(answer(question.query), question))
                spent[variant] += time.perf_counter() - started
            print(f"{name}: {len(asked)} questions, {len(indexed.commits)} commits", file=sys.stderr)
            indexed.store.close()
    for category, found in rows.items():
        report(category, found, rng)
    total = sum(len(next(iter(found.values()))) for found in rows.values())
    print("\nms a question: " + ", ".join(f"{name} {1e3 * s / max(1, total):.1f}" for name, s in spent.items()))


# --- what is asked -------------------------------------------------------------------------------------------------


def indexed_at(root: Path, rev: str | None) -> tuple[Store, int]:
    workspace = Workspace.open(root, rev=rev)
    folder = pull_model(presets.DEFAULT_MODEL)
    with writing(workspace.layout), Store.create(workspace.layout) as store:
        workspace.refresh(store, folder)
    store, snapshot = workspace.open_snapshot()
    return store, snapshot.id


def commits_of(root: Path, tip: str | None = None, count: int = MAX_COMMITS) -> Iterator[tuple[str, int, str, Commits]]:
    """(hash, time, first parent, [(message, paths)]) of the past commits, newest first; an empty list for a merge."""
    repository = Workspace.open(root).repository
    head, objects = tip or repository.head(), repository.objects
    assert head and objects
    past = PastCommits(objects, SECONDS)
    for sha, commit in past.newest(head, count):
        changed = past.changed(commit)
        listed = [(commit.message, changed.paths)] if changed and len(changed.paths) <= MAX_PATHS else []
        yield sha, commit.time, commit.parents[0] if commit.parents else "", listed


def by_questions(root: Path, asked: list[Question]) -> Indexed:
    store, snapshot = indexed_at(root, None)
    commits = [one for *_, listed in commits_of(root) for one in listed]
    return Indexed(store, snapshot, asked, commits)


def by_commits(root: Path, count: int) -> Indexed:
    """The newest commits about one thing as questions, and the index of the newest first-parent commit before them."""
    objects = Workspace.open(root).repository.objects
    base = Workspace.open(root).repository.head()
    assert objects and base
    kinds = HitKinds(list)
    found: list[tuple[str, str, list[str]]] = []
    for sha, when, parent, listed in commits_of(root, count=4 * MAX_COMMITS):
        for message, paths in listed:
            code = [path for path in paths if kinds.of(path) is FileKind.SOURCE]
            is_trivial = message.strip().lower().startswith(TRIVIAL) or "dependabot" in message
            if parent and 1 <= len(code) <= 4 and len(paths) <= 6 and len(query_terms(message)) > 3 and not is_trivial:
                found.append((sha, message, code))
                oldest = when
        if len(found) >= count:
            break
    while objects.commit(base).time >= oldest and objects.commit(base).parents:
        base = objects.commit(base).parents[0]
    store, snapshot = indexed_at(root, base)
    past = list(commits_of(root, base))
    ancestors = {sha for sha, *_ in past}
    indexed = Indexed(store, snapshot, [], [one for *_, listed in past for one in listed])
    for sha, message, code in found:
        right = tuple(Place(path) for path in code if path in indexed.code)
        if right and sha not in ancestors:
            indexed.questions.append(Question(message[:2000], "issue", right, ()))
    return indexed


# --- past commits as candidates ------------------------------------------------------------------------------------


def candidates(indexed: Indexed) -> Iterator[tuple[str, Callable[[str], list[str]]]]:
    """(variant, question -> the paths of its hits)."""

    def hits(router: HybridRouter) -> Callable[[str], list[str]]:
        return lambda query: [hit.chunk.path for hit in router.search(query, top_k=10)]

    def naming(name: Callable[[str], Sequence[str]]) -> Callable[[str], list[str]]:
        """As the product, with other files in place of those that commits name."""
        router = indexed.router(past=2)
        # Only a control names files in another way, so the product has no setting for it.
        router._past_files = lambda question: list(name(question.text))[:2] if question.is_issue else []  # type: ignore[method-assign]
        return hits(router)

    history, snapshot, code = indexed.store.history, indexed.snapshot, indexed.code
    bare = indexed.router()

    def folded(weight: float) -> Callable[[str], list[str]]:
        def answer(query: str) -> list[str]:
            _, ranked = bare.weigh(query, top_k=100)
            worth = dict(history.files(snapshot, weighted_terms(reading.Question(query).title), code))
            most, highest = max(worth.values(), default=1.0), ranked[0][1] if ranked else 1.0
            value = {chunk: relevance / highest for chunk, relevance in ranked}
            seen: set[str] = set()
            for chunk, _ in ranked:  # the best chunk of each file
                if chunk.path not in seen:
                    value[chunk] += weight * worth.get(chunk.path, 0.0) / most
                seen.add(chunk.path)
            return [chunk.path for chunk in sorted(value, key=lambda chunk: -value[chunk])][:10]

        return answer

    def whole(query: str) -> list[str]:
        return [path for path, _ in history.files(snapshot, reading.Question(query).weights, code) if path in code]

    changes = Counter(path for _, paths in indexed.commits for path in paths if path in code)
    popular = [path for path, _ in changes.most_common(10)]

    def together(query: str) -> list[str]:
        """The files that changed with those of the three best hits."""
        worth: dict[str, float] = defaultdict(float)
        best = list(dict.fromkeys(p for p in hits(bare)(query) if p in code))[:3]
        for _, paths in indexed.commits:
            for place, path in enumerate(best):
                for other in paths if path in paths else ():
                    if other in code and other != path:
                        worth[other] += 1 / (place + 1) / len(paths) / (10 + changes[path])
        return sorted(worth, key=lambda path: (-worth[path], path))

    yield "without history", hits(bare)
    for count in (1, 2, 3):
        yield f"{count} files after the third hit", hits(indexed.router(past=count))
    yield "2, by title and body", naming(whole)
    yield "2, changed with the best hits", naming(together)
    yield "2, changed most often (control)", naming(lambda query: popular)
    for weight in (0.1, 0.3):
        yield f"folded into the score, {weight}", folded(weight)


# --- an adapter of the question ------------------------------------------------------------------------------------


def adapters(indexed: Indexed, rng: np.random.Generator) -> Iterator[tuple[str, Callable[[str], list[str]]]]:
    """(variant, question -> the paths of its hits): a matrix [D, D] that the question's vector is multiplied by.

    It is fitted to pairs of a commit's message and the code that it changed: by ridge regression from the message's
    vector to the mean of the three nearest chunks of the changed files, M = (C - Q)ᵀQ (QᵀQ + λI)⁻¹ and W = I + M, as a
    whole or of rank 16; or by InfoNCE against random chunks of the repository. Shuffled: each message with the code of
    another commit.
    """
    terms = indexed.store.routing.terms
    assert terms
    vectors, asked, changed = _pairs(indexed, terms)
    router = indexed.router()
    original = router._finder._vector
    dim = terms.dim
    matrix = np.eye(dim, dtype=np.float32)

    def adapted(question: reading.Question) -> list[float] | None:
        vector = original(question)
        if vector is None:
            return None
        turned = matrix @ np.asarray(vector, dtype=np.float32)
        return (turned / max(float(np.linalg.norm(turned)), 1e-9)).tolist()

    router._finder._vector = adapted  # type: ignore[method-assign]  # left out of the product, so it has no seam there

    def answer(query: str) -> list[str]:
        return [hit.chunk.path for hit in router.search(query, top_k=10)]

    yield "no adapter", answer
    if len(asked) < 50:
        print(f"{len(asked)} commits are too few for an adapter", file=sys.stderr)
    order = rng.permutation(len(asked))
    for shuffled, targets in (("", changed), (", shuffled", [changed[i] for i in order])):
        for name, fit in {
            "ridge 0.01": lambda t: _ridge(asked, _nearest(vectors, asked, t), 0.01),
            "ridge 0.1": lambda t: _ridge(asked, _nearest(vectors, asked, t), 0.1),
            "ridge 0.1, rank 16": lambda t: _ridge(asked, _nearest(vectors, asked, t), 0.1, rank=16),
            "InfoNCE, 40 steps": lambda t: _contrastive(vectors, asked, t, rng, steps=40),
            "InfoNCE, 150 steps": lambda t: _contrastive(vectors, asked, t, rng, steps=150),
        }.items():
            started = time.perf_counter()
            matrix = fit(targets).astype(np.float32) if len(asked) >= 50 else np.eye(dim, dtype=np.float32)
            print(f"  {name}{shuffled}: fitted in {time.perf_counter() - started:.2f} s", file=sys.stderr)
            yield name + shuffled, answer


def _pairs(indexed: Indexed, terms: TermEmbedder) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Vectors of all chunks [N, D] and of messages [M, D], both of length 1; rows of the chunks that each changed."""
    ids, matrix = indexed.store.routing.vectors._matrix()
    vectors = _unit(matrix)
    row_of = {int(i): row for row, i in enumerate(ids)}
    rows: dict[str, list[int]] = defaultdict(list)
    for stored in indexed.store.chunks(indexed.snapshot):
        if stored.id in row_of and stored.chunk.path in indexed.code:
            rows[stored.chunk.path].append(row_of[stored.id])
    asked, changed = [], []
    for message, paths in indexed.commits:
        inside = [path for path in paths if path in rows]
        vector = terms.query(list(weighted_terms(message[:1000])))
        if vector and 1 <= len(inside) <= 5 and not message.lower().startswith(TRIVIAL):
            asked.append(vector)
            changed.append(np.array([row for path in inside for row in rows[path]]))
    return vectors, np.array(asked, dtype=np.float32).reshape(len(asked), terms.dim), changed


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _nearest(vectors: np.ndarray, asked: np.ndarray, changed: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of the three nearest chunks to each message among those that it changed [M, D]."""
    return np.array(
        [
            _unit(vectors[rows[np.argsort(-(vectors[rows] @ q))[:3]]].mean(0))
            for q, rows in zip(asked, changed, strict=True)
        ]
    )


def _ridge(asked: np.ndarray, targets: np.ndarray, penalty: float, rank: int | None = None) -> np.ndarray:
    count, dim = asked.shape
    change = ((targets - asked).T @ asked / count) @ np.linalg.inv(asked.T @ asked / count + penalty * np.eye(dim))
    if rank:
        left, size, right = np.linalg.svd(change)
        change = (left[:, :rank] * size[:rank]) @ right[:rank]
    return np.eye(dim) + change


def _contrastive(
    vectors: np.ndarray,
    asked: np.ndarray,
    changed: Sequence[np.ndarray],
    rng: np.random.Generator,
    *,
    steps: int,
    rate: float = 0.005,
    temperature: float = 0.05,
    decay: float = 0.01,
) -> np.ndarray:
    """Adam on InfoNCE: the nearest changed chunk against 1,024 random ones and those of the batch; W decays to I."""
    dim = asked.shape[1]
    matrix, first, second = np.eye(dim, dtype=np.float32), np.zeros((dim, dim)), np.zeros((dim, dim))
    for step in range(1, steps + 1):
        batch = rng.choice(len(asked), min(256, len(asked)), replace=False)
        q = asked[batch]
        turned = q @ matrix.T
        length = np.linalg.norm(turned, axis=1, keepdims=True)
        turned /= length
        right = [vectors[changed[i][np.argmax(vectors[changed[i]] @ t)]] for i, t in zip(batch, turned, strict=True)]
        others = vectors[rng.choice(len(vectors), min(1024, len(vectors)), replace=False)]
        compared = np.concatenate([np.array(right), others])
        logits = turned @ compared.T / temperature
        share = np.exp(logits - logits.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        share[np.arange(len(batch)), np.arange(len(batch))] -= 1
        slope = share @ compared / temperature
        slope = (slope - (slope * turned).sum(1, keepdims=True) * turned) / length
        gradient = slope.T @ q / len(batch) + decay * (matrix - np.eye(dim))
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient**2
        matrix = matrix - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
    return matrix


# --- figures -------------------------------------------------------------------------------------------------------


def figures(paths: Sequence[str], question: Question) -> Row:
    right = tuple(dict.fromkeys(Place(target.path) for target in question.relevant))
    hits = [Place(path) for path in paths]
    names = {place.path for place in right}
    return (
        *(float(any(path in names for path in paths[:k])) for k in (1, 5, 10)),
        float(names <= set(paths[:10])),
        ndcg(hits, right),
    )


def report(category: str, rows: dict[str, list[Row]], rng: np.random.Generator) -> None:
    base = np.array(next(iter(rows.values())))
    samples = rng.integers(0, len(base), (10_000, len(base)))
    print(f"\n{category}, {len(base)} questions\n")
    lines = []
    for name, found in rows.items():
        values = np.array(found)
        cells = []
        for column in range(len(FIGURES)):
            difference = values[:, column] - base[:, column]
            low, high = np.percentile(difference[samples].mean(1), (2.5, 97.5))
            is_same = math.isclose(low, 0) and math.isclose(high, 0)
            interval = "" if is_same else f" ({low:+.3f} {high:+.3f})"
            cells.append(f"{values[:, column].mean():.3f}{interval}")
        lines.append((name, *cells))
    table(("variant", *FIGURES), lines)


if __name__ == "__main__":
    main()
