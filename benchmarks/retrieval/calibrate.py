"""Fit the probability that a hit answers its question on the development questions, and measure it on others.

    python benchmarks/retrieval/calibrate.py FOLDER [--test dev|held_out]

Questions that the repository answers against questions that it does not, with equal weight for both kinds: logistic
regression on `Evidence.features` of the first hit. With `--test dev` each repository is judged by the fit on the
others. The threshold is where 5 % of the questions with an answer would be refused.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from checkouts import listed
from common import table
from metrics import Question, questions
from ours import built

from awareness.index.search.evidence import COEFFICIENTS, WEAK_SCORE
from awareness.index.search.ranking import HybridRouter

HERE = Path(__file__).parent
WRONG_REFUSALS = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--test", choices=("dev", "held_out"), default="dev")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault("AWARENESS_INDEX_DIR", scratch)
        if options.test == "dev":
            features, answered, repository = _observed(options.folder, "dev")
            fitted = fit(features, answered)
            print("COEFFICIENTS =", tuple(round(float(c), 3) for c in fitted))
            scores = np.zeros(len(answered))
            for name in set(repository):
                inside = repository == name
                scores[inside] = apply(fit(features[~inside], answered[~inside]), features[inside])
            threshold = math.floor(100 * float(np.quantile(scores[answered], WRONG_REFUSALS))) / 100
            print("WEAK_SCORE =", threshold)
        else:
            features, answered, _ = _observed(options.folder, "held_out")
            scores, threshold = apply(np.array(COEFFICIENTS), features), WEAK_SCORE
    _report(scores, answered, threshold, options.json)


def _observed(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each question: features of its first hit, whether the repository answers it, its repository."""
    rows, answered, repository = [], [], []
    for name in listed(split):
        store, snapshot, _ = built((folder / name).resolve())
        with store:
            router = HybridRouter(store, snapshot.id)
            asked: list[Question] = questions(HERE / "questions" / f"{name}.json")
            for question in asked:
                evidence, weighed = router.weigh(question.query, top_k=10)
                rows.append(evidence.features(weighed[0][1] if weighed else 0.0))
                answered.append(bool(question.relevant))
                repository.append(name)
    return np.array(rows), np.array(answered), np.array(repository)


def fit(features: np.ndarray, answered: np.ndarray, ridge: float = 1.0) -> np.ndarray:
    """Coefficients, the constant first, by Newton's method. Features are scaled for the ridge penalty, then back."""
    mean, spread = features.mean(0), features.std(0) + 1e-9
    scaled = np.c_[np.ones(len(features)), (features - mean) / spread]
    share = np.where(answered, 0.5 / answered.sum(), 0.5 / (~answered).sum()) * len(answered)
    penalty = ridge * np.diag([0.0] + [1.0] * features.shape[1])
    found = np.zeros(scaled.shape[1])
    for _ in range(50):
        likely = 1 / (1 + np.exp(-scaled @ found))
        gradient = scaled.T @ (share * (likely - answered)) + penalty @ found
        curvature = (scaled * (share * likely * (1 - likely))[:, None]).T @ scaled + penalty + 1e-9
        found = found - np.linalg.solve(curvature, gradient)
    slopes = found[1:] / spread
    return np.concatenate([[found[0] - slopes @ mean], slopes])


def apply(coefficients: np.ndarray, features: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(coefficients[0] + features @ coefficients[1:])))


def _report(scores: np.ndarray, answered: np.ndarray, threshold: float, file: Path | None) -> None:
    pairs = scores[answered][:, None] - scores[~answered][None, :]
    area = float((pairs > 0).mean() + (pairs == 0).mean() / 2)
    wrong, right = float((scores[answered] < threshold).mean()), float((scores[~answered] < threshold).mean())
    print(f"\n{answered.sum()} questions with an answer, {(~answered).sum()} without; area under the ROC {area:.3f}")
    print(f"at {threshold}: {wrong:.1%} wrong refusals, {right:.1%} of the unanswerable refused\n")
    curve = []
    for refused in (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3):
        at = float(np.quantile(scores[answered], refused))
        curve.append((refused, float((scores[~answered] < at).mean()), round(at, 3)))
    table(("wrong refusals", "unanswerable refused", "threshold"), curve)
    if file:
        told = {"area": area, "threshold": threshold, "wrong_refusals": wrong, "refused": right, "curve": curve}
        file.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
