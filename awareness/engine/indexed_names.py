"""The files and symbols of an index: what a front end completes while its user types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from awareness.engine.corpus import Corpus

MOST_NAMES = 100_000
"""Files and symbols of each kind at most, in order."""


@dataclass(frozen=True)
class IndexedNames:
    """Each once, sorted. Names that are not printable are left out."""

    paths: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()


def indexed_names(corpora: Sequence[Corpus]) -> IndexedNames:
    """The names of all corpora, as far as they are searched."""
    paths: set[str] = set()
    symbols: set[str] = set()
    for corpus in corpora:
        in_scope = corpus.build_scope(None)
        files = [(number, path) for number, path, _ in corpus.store.files(corpus.snapshot)]
        chosen = {number for number, path in files if in_scope is None or in_scope(path)}
        paths |= {path for number, path in files if number in chosen}
        rows = corpus.store.rows(
            "SELECT DISTINCT c.file_id, c.symbol FROM snapshot_file sf JOIN chunk c ON c.file_id = sf.file_id"
            " WHERE sf.snapshot_id = ? AND c.symbol != ''",
            corpus.snapshot,
        )
        symbols |= {symbol for number, symbol in rows if number in chosen and " " not in symbol}  # no titles of pages
    return IndexedNames(_listed(paths), _listed(symbols))


def _listed(names: set[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in names if name.isprintable())[:MOST_NAMES])
