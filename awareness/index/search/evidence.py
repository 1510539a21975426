"""The probability that a repository answers a question, from what the search for it has found.

A logistic regression over the development questions of `benchmarks/retrieval`. It means the same in every repository;
below `WEAK_SCORE` the repository most likely does not answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WEAK_SCORE = 0.21  # from benchmarks/retrieval/calibrate.py, like COEFFICIENTS


@dataclass(frozen=True)
class Evidence:
    """What the question and its candidates tell about whether the repository answers it.

    bm25, cosine: the largest of any candidate. known: the share of the question's term weights, in [0, 1], whose terms
    the repository uses. named: 1 if it uses all names of code in the question, -1 if it lacks one, 0 if there are none.
    terms: number of the question's terms.
    """

    bm25: float
    cosine: float
    known: float
    named: int
    terms: int

    def features(self, worth: float) -> tuple[float, ...]:
        """The inputs of the logistic regression that `benchmarks/retrieval/calibrate.py` fits."""
        return (worth, self.bm25, self.cosine, self.known, float(self.named), math.log1p(self.terms))

    def probability(self, worth: float) -> float:
        """The probability, in [0, 1], that the question is answered, where `worth` is the relevance of the best hit."""
        logit = COEFFICIENTS[0] + sum(c * x for c, x in zip(COEFFICIENTS[1:], self.features(worth), strict=True))
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))


COEFFICIENTS = (-11.691, 5.173, 6.269, 0.752, 1.883, 1.54, 3.208)
