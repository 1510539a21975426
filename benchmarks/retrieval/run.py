"""Compare search systems on the same questions: nDCG@10, recall, MRR, time.

    python benchmarks/retrieval/checkouts.py FOLDER
    python benchmarks/retrieval/run.py FOLDER [--split dev|held_out|all] [--set packages|whole|tiny]
        [--systems ours,bm25,ripgrep,router=NAME]
        [--questions DIR] [--semble-python VENV/bin/python --semble-model FOLDER] [--probe BINARY] [--json FILE]

FOLDER holds one checkout per repository; DIR holds a `NAME.json` with the questions for each (metrics.py has the
format). Any other benchmark in this format can be used. All speeds are from one process on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from checkouts import SETS, listed
from common import table
from metrics import CATEGORIES, Place, Question, ndcg, questions, recall, reciprocal_rank
from ours import VARIANTS, Ours
from peers import Answers, Probe, ripgrep, semble

from awareness.evals.intervals import bootstrap

HERE = Path(__file__).parent
FOUND = {
    "A relevant file is first": "first",
    "A relevant file is among the first five": "any5",
    "All relevant files are among the first ten": "all10",
    "A right place is first": "place_first",
}
FIGURES = ("ndcg10", "recall8", "gold8", "mrr", "file_ndcg10", "first", "any5", "all10", "place_first")
System = Callable[[Path, Sequence[str]], Answers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=Path, default=HERE / "questions")
    parser.add_argument("--split", choices=("dev", "held_out", "all"), default="dev")
    parser.add_argument("--set", choices=SETS, dest="chosen", help="only the repositories of this set")
    parser.add_argument("--repos", help="only these repositories, separated by commas")
    parser.add_argument(
        "--systems",
        default="ours,bm25",
        help=f"ripgrep, probe, semble, router=NAME, deep, deep without spreading, {', '.join(VARIANTS)}",
    )
    parser.add_argument("--semble-python", type=Path)
    parser.add_argument("--semble-model")
    parser.add_argument("--probe")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    parser.add_argument("--misses", action="store_true", help="show the places that the first system did not find")
    options = parser.parse_args()
    chosen = _repositories(options)
    if not chosen:
        raise SystemExit(f"no repository of {options.folder} has questions in {options.questions}")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["AWARENESS_INDEX_DIR"] = scratch
        results = {
            name: _measured(_system(name, options), chosen, options.folder) for name in options.systems.split(",")
        }
    _report(results, chosen)
    if options.misses:
        _misses(next(iter(results.values())), chosen)
    if options.json:
        options.json.write_text(json.dumps({n: _figures(r, chosen) for n, r in results.items()}, indent=1) + "\n")


def _repositories(options: argparse.Namespace) -> dict[str, list[Question]]:
    splits = {name: entry["split"] for name, entry in listed(chosen=options.chosen).items()}
    only = set(options.repos.split(",")) if options.repos else None
    return {
        file.stem: questions(file)
        for file in sorted(options.questions.glob("*.json"))
        if (options.folder / file.stem).is_dir()
        and (file.stem in splits or options.chosen is None)
        and (options.split == "all" or splits.get(file.stem, options.split) == options.split)
        and (only is None or file.stem in only)
    }


def _system(name: str, options: argparse.Namespace) -> System:
    if name in VARIANTS:
        return Ours(VARIANTS[name])
    if name in ("deep", "deep without spreading"):
        return Ours(VARIANTS["ours" if name == "deep" else "without spreading"], deep=True)
    if name.startswith("router="):
        return Ours(VARIANTS["ours"], name.removeprefix("router="))
    if name == "ripgrep":
        return ripgrep
    if name == "semble" and options.semble_python:
        return semble(options.semble_python, options.semble_model)
    if name == "probe" and options.probe:
        return Probe(options.probe)
    raise SystemExit(f"unknown system '{name}', or its --{name}-… option is missing")


def _measured(system: System, chosen: dict[str, list[Question]], folder: Path) -> dict[str, Answers]:
    found = {}
    for name, asked in chosen.items():
        started = time.perf_counter()
        found[name] = system((folder / name).resolve(), [question.query for question in asked])
        print(f"{name}: {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return found


def _figures(result: dict[str, Answers], chosen: dict[str, list[Question]]) -> dict[str, Any]:
    """All figures: means over questions, by category and by repository, and the scores of first hits for abstention."""
    by_category: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    by_repository: dict[str, list[float]] = defaultdict(list)
    each: dict[str, list[float]] = defaultdict(list)
    scores: dict[str, list[float]] = {"answered": [], "absent": []}
    for name, asked in chosen.items():
        for question, hits in zip(asked, result[name].hits, strict=True):
            top = hits[0].score if hits else 0.0
            if question.category == "absent":
                scores["absent"].append(top)
                continue
            scores["answered"].append(top)
            row = _row(question, hits)
            by_category[question.category].append(row)
            by_category["all"].append(row)
            for figure in ("ndcg10", "file_ndcg10"):
                each[figure].append(row[FIGURES.index(figure)])
            by_repository[name].append(row[0])
    seconds = sorted(s for one in result.values() for s in one.query_s)
    return {
        "categories": {
            category: dict(zip(FIGURES, map(statistics.mean, zip(*rows, strict=True)), strict=True)) | {"n": len(rows)}
            for category, rows in by_category.items()
        },
        "repositories": {name: statistics.mean(rows) for name, rows in by_repository.items()},
        "index_s": sum(one.index_s for one in result.values()),
        "p50_ms": 1e3 * statistics.median(seconds),
        "p95_ms": 1e3 * seconds[int(0.95 * (len(seconds) - 1))],
        "scores": scores,
        "each": each,
    }


def _row(question: Question, hits: Sequence[Place]) -> tuple[float, ...]:
    """The figures of one question, in the order of `FIGURES`."""
    targets, files = question.targets, question.files
    return (
        ndcg(hits, targets),
        recall(hits, targets, 8),
        recall(hits, question.relevant, 8),
        reciprocal_rank(hits, targets),
        ndcg(hits, files),
        *(float(value) for value in _found(question, hits)),
    )


def _found(question: Question, hits: Sequence[Place]) -> tuple[bool, bool, bool, bool]:
    """Is a relevant file first, or among the first five? Are all of them among the first ten? Is a right place first?

    The first ten hits may be of fewer files: files are counted, not hits.
    """
    listed = list(dict.fromkeys(hit.path for hit in hits))
    wanted = {place.path for place in question.relevant}
    return (
        bool(listed) and listed[0] in wanted,
        bool(wanted.intersection(listed[:5])),
        wanted <= set(listed[:10]),
        bool(hits) and any(hits[0].reaches(target) for target in question.targets),
    )


def _report(results: dict[str, dict[str, Answers]], chosen: dict[str, list[Question]]) -> None:
    figures = {name: _figures(result, chosen) for name, result in results.items()}
    first = figures[next(iter(figures))]
    present = [category for category in CATEGORIES if category in first["categories"]]
    counts = ", ".join(f"{first['categories'][c]['n']} {c}" for c in present)
    print(f"{len(chosen)} repositories; questions: {counts}, {len(first['scores']['absent'])} absent")
    for title, key, extra in (("places", "ndcg10", ("recall8", "gold8", "mrr")), ("files", "file_ndcg10", ())):
        print(f"\nnDCG@10, right {title}\n")
        rows = []
        for name, one in figures.items():
            numbers = [one["categories"][category][key] for category in ("all", *present)]
            numbers += [one["categories"]["all"][other] for other in extra]
            times = [f"{one[t]:.1f}" for t in ("index_s", "p50_ms", "p95_ms")] if extra else []
            rows.append((name, *(f"{number:.3f}" for number in numbers), _interval(one["each"][key]), *times))
        header = ("system", "all", *present)
        more = ("recall@8", "gold recall@8", "MRR", "95 %", "index s", "p50 ms", "p95 ms")
        table((*header, *more) if extra else (*header, "95 %"), rows)
    for title, key in FOUND.items():
        print(f"\n{title}\n")
        table(
            ("system", "all", *present),
            [(n, *(f"{o['categories'][c][key]:.2f}" for c in ("all", *present))) for n, o in figures.items()],
        )
    for name, one in list(figures.items())[1:]:
        parts = []
        for title, key in (("places", "ndcg10"), ("files", "file_ndcg10")):
            ahead = [a - b for a, b in zip(first["each"][key], one["each"][key], strict=True)]
            parts.append(f"{statistics.mean(ahead):+.3f} ({_interval(ahead)}) by {title}")
        print(f"\n{next(iter(figures))} against {name}: {', '.join(parts)}")


def _interval(values: Sequence[float]) -> str:
    """The 95 % interval of the mean: percentile bootstrap over questions, 2,000 draws, seed 0."""
    found = bootstrap(values)
    return f"{found.low:.3f} to {found.high:.3f}"


def _misses(result: dict[str, Answers], chosen: dict[str, list[Question]]) -> None:
    for name, asked in chosen.items():
        for question, hits in zip(asked, result[name].hits, strict=True):
            if question.targets and (worth := ndcg(hits, question.targets)) < 0.5:
                print(f"\n{name} [{question.category}] {question.query}  nDCG {worth:.2f}")
                for target in question.targets:
                    print(f"   wanted {target.path}:{target.start}-{target.end}")
                for hit in hits[:6]:
                    mark = "*" if any(hit.reaches(target) for target in question.targets) else " "
                    print(f"  {mark} {hit.score:.2f} {hit.path}:{hit.start}-{hit.end}")


if __name__ == "__main__":
    main()
