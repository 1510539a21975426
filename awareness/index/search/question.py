"""A question as the search reads it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from awareness.index.search.terms import names_in, query_terms, weighted_terms
from awareness.index.unicode_forms import fold


@dataclass(frozen=True)
class Question:
    """text: as it was asked."""

    text: str

    @cached_property
    def words(self) -> frozenset[str]:
        """Its terms, not stemmed."""
        return frozenset(query_terms(self.text))

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of code in it, folded."""
        return frozenset(fold(name) for name in names_in(self.text))

    @cached_property
    def weights(self) -> dict[str, float]:
        """Stemmed term -> its weight."""
        return weighted_terms(self.text)
