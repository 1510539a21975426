"""Find texts that are near duplicates of an earlier text: MinHash proposes candidates, the exact Jaccard index decides.

A text is the set of its shingles, runs of `SHINGLE` tokens (Broder 1997, "On the resemblance and containment of
documents"). Two texts are near duplicates if |A ∩ B| / |A ∪ B| reaches the threshold.
"""

from __future__ import annotations

import re

SHINGLE = 3  # tokens
NUM_PERM = 128
SEED = 1  # of the permutations
MISSED = 1e-3  # upper bound of the probability that a pair at the threshold is never compared
_TOKEN = re.compile(r"\w+|[^\w\s]")


class NearDuplicates:
    """Named texts, each compared with the earlier ones. With a threshold of 0 nothing is a duplicate."""

    def __init__(self, threshold: float) -> None:
        from rensa import RMinHashLSH

        self.threshold = threshold
        self._lsh = RMinHashLSH(threshold, NUM_PERM, num_bands(threshold))
        self._added: list[tuple[str, str, int]] = []  # name, text, number of shingles

    def add(self, name: str, text: str) -> str | None:
        """The name of the earliest text that this one duplicates. If there is none, the text is added: None."""
        from rensa import RMinHash

        shingles = shingles_of(text)
        sketch = RMinHash(NUM_PERM, SEED)
        sketch.update(shingles)
        if self.threshold > 0:
            for key in sorted(self._lsh.query(sketch)):
                earlier, its_text, size = self._added[key]
                fewer, more = sorted((size, len(shingles)))
                if fewer / more < self.threshold:  # |A ∩ B| / |A ∪ B| is at most the quotient of the sizes
                    continue
                if jaccard(shingles, shingles_of(its_text)) >= self.threshold:
                    return earlier
        self._lsh.insert(len(self._added), sketch)
        self._added.append((name, text, len(shingles)))
        return None


def num_bands(threshold: float) -> int:
    """The fewest bands, of r = NUM_PERM / bands rows each, that compare a pair at the threshold t. It is missed
    with probability (1 - t^r)^bands (Leskovec, Rajaraman & Ullman, "Mining of Massive Datasets", 3.4.2)."""
    bands = 1
    while bands < NUM_PERM and (1 - threshold ** (NUM_PERM // bands)) ** bands > MISSED:
        bands *= 2
    return bands


def shingles_of(text: str) -> frozenset[str]:
    """Every run of `SHINGLE` tokens; a shorter text is one shingle."""
    tokens = _TOKEN.findall(text)
    starts = range(max(1, len(tokens) - SHINGLE + 1))
    return frozenset(" ".join(tokens[start : start + SHINGLE]) for start in starts)


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / len(first | second)
