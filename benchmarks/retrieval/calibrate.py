"""Fit the probability that a repository answers a question on the development questions, and measure it on others.

    python benchmarks/retrieval/calibrate.py FOLDER... [--set packages|whole|tiny] [--keep FOLDER] [--write]
    python benchmarks/retrieval/calibrate.py FOLDER... --test held_out
    python benchmarks/retrieval/calibrate.py FOLDER... --plot docs/abstention.png          # with matplotlib

FOLDER: where checkouts.py has put the repositories. So that every size is there, small repositories are cut out of
the larger ones: a few files that answer some questions, and others beside them; and a large one is made of all whole
ones together. Their indexes are kept in `--keep`, for the next time.

Questions that a repository answers against those that it does not: the written ones (`absent`), those of its own whose
places were cut away, and those of other projects. Each size has the same weight, and so have both answers in it.
Logistic regression on `Evidence.features`. With `--test dev` each project is judged by the fit on the others. The
threshold is the highest at which at most 5 % of the questions with an answer are refused in every size, and in the
written tiny repositories. `--write` puts the coefficients and the threshold into evidence.py.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from checkouts import SETS, commit_all, listed
from common import table
from metrics import Place, Question, questions
from ours import built

from awareness.evals.intervals import wilson
from awareness.index.search import evidence as module
from awareness.index.search.evidence import COEFFICIENTS, FEATURES, WEAK_SCORE
from awareness.index.search.ranking import HybridRouter

HERE = Path(__file__).parent
WRONG_REFUSALS = 0.05
SIZES = ((4, "1-4 files"), (20, "5-20"), (200, "21-200"), (1000, "201-1000"), (10**9, "more"))
CUTS = ((3, 4), (10, 2), (60, 1))  # files of a small repository that is cut out, how many of them
WRITTEN, ELSEWHERE, OTHER = "written", "cut away", "other project"
WEIGHTS = {WRITTEN: 1.0, ELSEWHERE: 0.35, OTHER: 0.35}  # what was not written for the repository may be answered in it
TINY_WEIGHTS = {True: 0.6, False: 0.4}  # of all written tiny repositories, beside those that are cut out
FEW = 20  # questions with an answer that a size needs to count for the threshold
_SEED = 7


@dataclass(frozen=True)
class Case:
    """A question asked in a repository. project: whose files it has. size: index in `SIZES`. origin: of the question.
    tiny: is the repository one of the set of tiny ones, not cut out?"""

    features: tuple[float, ...]
    answered: bool
    project: str
    size: int
    origin: str
    category: str
    tiny: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--set", choices=SETS, dest="chosen", help="only these repositories, as they are")
    parser.add_argument("--test", choices=("dev", "held_out"), default="dev")
    parser.add_argument("--keep", type=Path, help="where the made repositories and all indexes stay")
    parser.add_argument("--write", action="store_true", help="put the fit into evidence.py")
    parser.add_argument("--plot", type=Path, help="draw the reliability curve")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        keep = (options.keep or Path(scratch)).resolve()
        os.environ.setdefault("AWARENESS_INDEX_DIR", str(keep / "indexes"))
        cases = list(_asked(options.folders, options.test, options.chosen, keep))
    features = np.array([case.features for case in cases])
    answered = np.array([case.answered for case in cases])
    weights = weigh(cases)
    if options.test == "dev":
        fitted = np.round(fit(features, answered, weights), 3)
        scores = _cross_validated(cases, features, answered, weights)
        threshold = _threshold(cases, scores)
        print("COEFFICIENTS =", tuple(map(float, fitted)))
        print("WEAK_SCORE =", threshold)
        table(("feature", "coefficient", "times its spread"), _explained(fitted, features, weights))
        if options.write:
            _write(fitted, threshold)
    else:
        scores, threshold = apply(np.array(COEFFICIENTS), features), WEAK_SCORE
    told = _report(cases, scores, threshold)
    if options.json:
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    if options.plot:
        draw(options.plot, cases, scores, weights, threshold)


# --- questions -------------------------------------------------------------------------------------------------------


def _asked(folders: Sequence[Path], split: str, chosen: str | None, keep: Path) -> Iterator[Case]:
    """All questions of a split in their repositories and, unless a set is chosen, in those made of them."""
    rng = random.Random(_SEED)
    entries = {
        name: (root, entry["set"]) for name, entry in listed(split, chosen).items() if (root := _root(folders, name))
    }
    asked = {name: questions(HERE / "questions" / f"{name}.json") for name in entries}
    strange = {name: [q for other in asked if other != name for q in asked[other] if q.relevant] for name in asked}
    for name, (root, kind) in entries.items():
        of_others = rng.sample(strange[name], min(6, len(strange[name])))
        yield from _cases(root, name, asked[name], (), of_others, tiny=kind == "tiny")
        if chosen or kind == "tiny":
            continue
        for files, copies in CUTS:
            for copy in range(copies):
                inside = _cut(root, keep / f"{name}-{files}-{copy}", files, asked[name], rng)
                own = [q for q in asked[name] if _files(q.relevant) <= inside]
                own = [q for q in own if q.relevant or rng.random() < 0.35]
                away = [q for q in asked[name] if q.relevant and not _files(q.targets) & inside and rng.random() < 0.15]
                of_others = rng.sample(strange[name], min(3, len(strange[name])))
                yield from _cases(keep / f"{name}-{files}-{copy}", name, own, away, of_others)
    whole = [name for name, (_, kind) in entries.items() if kind == "whole"]
    if len(whole) > 1 and not chosen:
        _joined({name: entries[name][0] for name in whole}, keep / "joined")
        outside = [q for name in asked if name not in whole for q in asked[name] if q.relevant]
        yield from _cases(keep / "joined", "joined", (), (), rng.sample(outside, min(40, len(outside))))
        for name in whole:
            yield from _cases(keep / "joined", name, asked[name], (), ())


def _root(folders: Iterable[Path], name: str) -> Path | None:
    return next((folder.resolve() / name for folder in folders if (folder / name).is_dir()), None)


def _cases(
    root: Path,
    project: str,
    own: Iterable[Question],
    away: Iterable[Question],
    of_others: Iterable[Question],
    tiny: bool = False,
) -> Iterator[Case]:
    store, snapshot, _ = built(root)
    with store:
        router = HybridRouter(store, snapshot.id)
        files = len(store.files(snapshot.id))
        size = next(place for place, (most, _) in enumerate(SIZES) if files <= most)
        for origin, several in ((WRITTEN, own), (ELSEWHERE, away), (OTHER, of_others)):
            for question in several:
                found, _ = router.weigh(question.query, top_k=10)
                answered = origin == WRITTEN and bool(question.relevant)
                if origin != WRITTEN and found.is_lookup and found.named >= 0:
                    continue  # the name is here too, by chance or because it is used
                yield Case(found.features(), answered, project, size, origin, question.category, tiny)


def _files(places: Iterable[Place]) -> set[str]:
    return {place.path for place in places}


def _cut(root: Path, target: Path, files: int, asked: Sequence[Question], rng: random.Random) -> set[str]:
    """Make a repository of some files, two thirds of which answer questions. Returns their paths."""
    every = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout.decode()
    tracked = [
        path for path in every.split("\0") if path and (root / path).is_file() and not (root / path).is_symlink()
    ]
    chosen: list[str] = []
    for question in rng.sample(asked, len(asked)):
        places = sorted(_files(question.relevant))
        fits = len({*chosen, *places}) <= max(1, files * 2 // 3)
        if places and fits and set(places) <= set(tracked):
            chosen = list(dict.fromkeys([*chosen, *places]))
    endings = {Path(path).suffix for path in chosen}
    others = [path for path in tracked if path not in chosen and Path(path).suffix in endings]
    kept = {*chosen, *rng.sample(others, min(len(others), files - len(chosen)))}
    if not target.exists():
        for path in kept:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / path, target / path)
        commit_all(target, "files")
    return kept


def _joined(roots: dict[str, Path], target: Path) -> None:
    """Put repositories side by side into one."""
    if target.exists():
        return
    for name, root in roots.items():
        links = shutil.ignore_patterns(".git")
        shutil.copytree(root, target / name, ignore=links, symlinks=True)
    commit_all(target, "files")


# --- fit -------------------------------------------------------------------------------------------------------------


def weigh(cases: Sequence[Case]) -> np.ndarray:
    """The weight of each case: of each size, the questions with an answer weigh as much as those without."""
    groups = [(case.size, case.tiny, case.answered) for case in cases]
    total: defaultdict[tuple[int, bool, bool], float] = defaultdict(float)
    for case, group in zip(cases, groups, strict=True):
        total[group] += WEIGHTS[case.origin]
    weights = [
        WEIGHTS[case.origin] / total[group] * (TINY_WEIGHTS[case.answered] if case.tiny else 1.0)
        for case, group in zip(cases, groups, strict=True)
    ]
    return np.array(weights) / sum(weights) * len(cases)


def fit(features: np.ndarray, answered: np.ndarray, weights: np.ndarray, ridge: float = 1.0) -> np.ndarray:
    """Coefficients, the constant first, by Newton's method. Features are scaled for the ridge penalty, then back."""
    mean, spread = features.mean(0), features.std(0) + 1e-9
    scaled = np.c_[np.ones(len(features)), (features - mean) / spread]
    penalty = ridge * np.diag([0.0] + [1.0] * features.shape[1])
    found = np.zeros(scaled.shape[1])
    for _ in range(50):
        likely = 1 / (1 + np.exp(-scaled @ found))
        gradient = scaled.T @ (weights * (likely - answered)) + penalty @ found
        curvature = (scaled * (weights * likely * (1 - likely))[:, None]).T @ scaled + penalty + 1e-9
        found = found - np.linalg.solve(curvature, gradient)
    slopes = found[1:] / spread
    return np.concatenate([[found[0] - slopes @ mean], slopes])


def apply(coefficients: np.ndarray, features: np.ndarray) -> np.ndarray:
    """The probabilities, as `Evidence.probability` gives them."""
    likely = 1 / (1 + np.exp(-(coefficients[0] + features @ coefficients[1:])))
    stands = features[:, FEATURES.index("has the name looked up")] > 0
    return np.where(stands, np.maximum(likely, 0.5), likely)


def _cross_validated(
    cases: Sequence[Case], features: np.ndarray, answered: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    scores = np.zeros(len(cases))
    project = np.array([case.project for case in cases])
    for name in set(project):
        inside = project == name
        scores[inside] = apply(fit(features[~inside], answered[~inside], weights[~inside]), features[inside])
    return scores


def _threshold(cases: Sequence[Case], scores: np.ndarray) -> float:
    answered = np.array([case.answered for case in cases])
    size = np.array([case.size for case in cases])
    enough = [place for place in range(len(SIZES)) if (answered & (size == place)).sum() >= FEW]
    tiny = np.array([case.tiny for case in cases])
    groups = [answered & (size == place) for place in enough] + [answered & tiny] * bool((answered & tiny).any())
    lowest = min(float(np.quantile(scores[group], WRONG_REFUSALS)) for group in groups)
    return math.floor(100 * lowest) / 100


def _explained(fitted: np.ndarray, features: np.ndarray, weights: np.ndarray) -> list[tuple[str, float, float]]:
    mean = np.average(features, axis=0, weights=weights)
    spread = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weights))
    return [(name, float(c), round(float(c * s), 2)) for name, c, s in zip(FEATURES, fitted[1:], spread, strict=True)]


def _write(fitted: np.ndarray, threshold: float) -> None:
    file = Path(str(module.__file__))
    text = re.sub(r"(?m)^WEAK_SCORE = [\d.]+", f"WEAK_SCORE = {threshold}", file.read_text())
    numbers = ", ".join(f"{c:g}" for c in fitted)
    file.write_text(re.sub(r"(?m)^COEFFICIENTS = \(.*\)$", f"COEFFICIENTS = ({numbers})", text))


# --- report ----------------------------------------------------------------------------------------------------------


def _report(cases: Sequence[Case], scores: np.ndarray, threshold: float) -> dict[str, object]:
    answered = np.array([case.answered for case in cases])
    origin = np.array([case.origin for case in cases])
    refused = scores < threshold
    written = origin == WRITTEN
    pairs = scores[answered][:, None] - scores[~answered & written][None, :]
    area = float((pairs > 0).mean() + (pairs == 0).mean() / 2)
    print(f"\narea under the ROC, written questions: {area:.3f}; refused below {threshold}\n")

    def rows(groups: Sequence[tuple[str, np.ndarray]]) -> list[tuple[str, str, str, str, str]]:
        return [
            (
                name,
                _share(refused[inside & answered]),
                *(_share(refused[inside & ~answered & (origin == kind)]) for kind in (WRITTEN, ELSEWHERE, OTHER)),
            )
            for name, inside in groups
        ]

    size, tiny = np.array([case.size for case in cases]), np.array([case.tiny for case in cases])
    category = np.array([case.category for case in cases])
    by_size = [(name, size == place) for place, (_, name) in enumerate(SIZES) if (size == place).any()]
    by_size += [("all", size >= 0), *([("written tiny ones", tiny)] if tiny.any() else [])]
    head = ("refused: answered", f"not answered: {WRITTEN}", ELSEWHERE, OTHER)
    sizes = rows(by_size)
    table(("files", *head), sizes)
    print()
    kinds = [(name, _share(refused[answered & (category == name)])) for name in sorted(set(category[answered]))]
    table(("kind of question", head[0]), kinds)
    print()
    curve = []
    for share in (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3):
        at = float(np.quantile(scores[answered], share))
        curve.append((share, round(float((scores[~answered & written] < at).mean()), 3), round(at, 3)))
    table(("wrong refusals", "unanswerable refused", "threshold"), curve)
    return {"area": area, "threshold": threshold, "sizes": sizes, "kinds": kinds, "curve": curve}


def _share(refused: np.ndarray) -> str:
    if not len(refused):
        return "-"
    interval = wilson(int(refused.sum()), len(refused))
    return f"{interval.mean:.1%} [{interval.low:.0%}, {interval.high:.0%}] of {len(refused)}"


def draw(file: Path, cases: Sequence[Case], scores: np.ndarray, weights: np.ndarray, threshold: float) -> None:
    """The reliability curve: the predicted probability against the share that is answered, weighted as in the fit. The
    intervals are Wilson's for as many questions as the weights are worth (Kish 1965)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    answered = np.array([case.answered for case in cases])
    size = np.array([case.size for case in cases])
    edges = np.linspace(0, 1, 11)
    bins = np.clip(np.digitize(scores, edges) - 1, 0, 9)
    figure, axes = pyplot.subplots(figsize=(7.2, 5.6), dpi=110)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--", label="as predicted")
    for place, (_, name) in enumerate(SIZES):
        points = [(b, inside) for b in range(10) if (inside := (bins == b) & (size == place)).sum() >= 10]
        if points:
            at = [float(np.average(scores[inside], weights=weights[inside])) for _, inside in points]
            share = [float(np.average(answered[inside], weights=weights[inside])) for _, inside in points]
            axes.plot(at, share, marker="o", markersize=3, linewidth=1, alpha=0.65, label=name)
    for b in range(10):
        inside = bins == b
        if not inside.any():
            continue
        weight = weights[inside]
        worth = float(weight.sum() ** 2 / (weight**2).sum())
        share = float(np.average(answered[inside], weights=weight))
        interval = wilson(round(share * worth), max(1, round(worth)))
        at = float(np.average(scores[inside], weights=weight))
        low, high = max(0.0, share - interval.low), max(0.0, interval.high - share)
        axes.errorbar(at, share, [[low], [high]], fmt="s", color="black", capsize=3, label="all" if b == 0 else None)
        axes.annotate(f"n={inside.sum()}", (edges[b] + 0.05, -0.055), ha="center", fontsize=8, annotation_clip=False)
    axes.axvline(threshold, color="tab:red", linewidth=1, label=f"refused below {threshold:g}")
    axes.set(xlim=(0, 1), ylim=(-0.08, 1.02), xlabel="predicted probability of an answer", ylabel="share answered")
    axes.legend(fontsize=8, loc="upper left")
    figure.tight_layout()
    figure.savefig(file)


if __name__ == "__main__":
    main()
