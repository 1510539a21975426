"""Other systems, each run as its own command: index once if the system has an index, then rank for each question."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metrics import Place

from awareness.index.search.terms import query_terms

TOP = 10
WINDOW = 40  # lines in the best place of a file, for ripgrep


@dataclass
class Answers:
    """The hits of a system for each question, best first, and the seconds for indexing and for each question."""

    hits: list[list[Place]] = field(default_factory=list)
    index_s: float = 0.0
    query_s: list[float] = field(default_factory=list)


def semble(python: Path, model: str | None) -> _Worker:
    """semble, installed in the environment of `python`. model: folder of a Model2Vec model, None for its default."""
    return _Worker([str(python), str(Path(__file__).with_name("semble_worker.py")), *([model] if model else [])])


@dataclass
class _Worker:
    """A program that reads {root, queries, top} and writes {index_s, query_s, hits} as JSON."""

    command: list[str]

    def __call__(self, root: Path, queries: Sequence[str]) -> Answers:
        with tempfile.TemporaryDirectory() as cache:
            request = json.dumps({"root": str(root), "queries": list(queries), "top": TOP, "cache": cache})
            done = subprocess.run(self.command, input=request, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{self.command[0]} failed: {done.stderr[-500:]}")
        told = json.loads(done.stdout)
        return Answers([[Place(*hit) for hit in hits] for hits in told["hits"]], told["index_s"], told["query_s"])


def ripgrep(root: Path, queries: Sequence[str]) -> Answers:
    """Files ranked by how many of the question's words they hold, then by how often; the place with most words."""
    answers = Answers()
    for query in queries:
        started = time.perf_counter()
        answers.hits.append(_by_keywords(root, query_terms(query)))
        answers.query_s.append(time.perf_counter() - started)
    return answers


def _by_keywords(root: Path, words: Sequence[str]) -> list[Place]:
    pattern = "|".join(map(re.escape, words))
    line = ["rg", "--ignore-case", "--no-heading", "--with-filename", "--line-number", "--null", pattern, "."]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True, errors="replace")
    files: dict[str, list[tuple[int, set[str]]]] = defaultdict(list)
    for found in done.stdout.splitlines():
        path, _, rest = found.partition("\0")
        number, _, text = rest.partition(":")
        if number.isdigit():
            files[path.removeprefix("./")].append((int(number), {w for w in words if w in text.lower()}))

    def worth(path: str) -> tuple[int, int]:
        return len(set().union(*(held for _, held in files[path]))), len(files[path])

    return [_densest(path, files[path]) for path in sorted(files, key=worth, reverse=True)[:TOP]]


def _densest(path: str, lines: Sequence[tuple[int, set[str]]]) -> Place:
    """The window of a file that holds the most words."""

    def held(first: int) -> tuple[int, int]:
        inside = [words for number, words in lines if first <= number < first + WINDOW]
        return len(set().union(*inside)), len(inside)

    first = max((number for number, _ in lines), key=held)
    return Place(path, first, first + WINDOW - 1)


@dataclass
class Probe:
    """probe (npm `@probelabs/probe`): tree-sitter blocks ranked by BM25, no index."""

    binary: str

    def __call__(self, root: Path, queries: Sequence[str]) -> Answers:
        answers = Answers()
        for query in queries:
            started = time.perf_counter()
            line = [self.binary, "search", query, ".", "--format", "json", "--max-results", str(TOP), "--allow-tests"]
            done = subprocess.run(line, cwd=root, capture_output=True, text=True)
            answers.query_s.append(time.perf_counter() - started)
            answers.hits.append(_probe_places(done.stdout, root))
        return answers


def _probe_places(told: str, root: Path) -> list[Place]:
    begin = told.find("{")
    if begin < 0:
        return []
    results = json.JSONDecoder().raw_decode(told[begin:])[0].get("results", [])
    places = []
    for one in results:
        path = Path(one["file"])
        relative = path.relative_to(root) if path.is_absolute() else path
        places.append(Place(relative.as_posix(), *one["lines"]))
    return places[:TOP]
