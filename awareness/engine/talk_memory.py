"""`TalkMemory`: the chunks that stay attached between the questions of a talk, and the KV cache of what was said."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from awareness.engine.corpus import CorpusHit

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from awareness.model.prompt_cache import PromptCache

MOST_KEPT = 4
"""Chunks of earlier questions that are attached beside those of a new one."""
NEEDED = 3
"""If so many of the best new chunks are attached already, the memory stays as it is."""


class TalkMemory:
    """hits: attached to the last question, best first."""

    def __init__(self) -> None:
        self.hits: tuple[CorpusHit, ...] = ()
        self._rested_on: list[CorpusHit] = []  # by answers, the last first
        self._cache: PromptCache | None = None

    def grown_by(self, found: Sequence[CorpusHit]) -> list[CorpusHit]:
        """What is attached to a question that has found these, best first: what was attached before if that has the
        best of them, else the new ones and, after them, those that the last answers rested on. Chunks whose code has
        changed meanwhile are left out."""
        attached = {_key(hit) for hit in self.hits}
        if all(_key(hit) in attached for hit in found[:NEEDED]) and all(hit.is_current for hit in self.hits):
            return list(self.hits)
        new = {_key(hit) for hit in found}
        kept = [hit for hit in self._rested_on if _key(hit) not in new and hit.is_current]
        return [*found, *kept[:MOST_KEPT]]

    def answered(self, hits: Sequence[CorpusHit], cited: Sequence[int]) -> None:
        """Remembers what was attached to an answer, and the places of those that it rests on."""
        self.hits = tuple(hits)
        rested_on = [hits[place] for place in cited]
        own = {_key(hit) for hit in rested_on}
        self._rested_on = [*rested_on, *(hit for hit in self._rested_on if _key(hit) not in own)][:MOST_KEPT]

    def past(self, model: PreTrainedModel, read_as: Hashable, hits: Sequence[CorpusHit]) -> PromptCache:
        """The KV cache of what was said, for a prompt that reads these hits; empty if it was computed with others.
        read_as: what else decides about the numbers."""
        from awareness.model.prompt_cache import PromptCache

        self._cache = self._cache or PromptCache()
        return self._cache.reading(model, (read_as, tuple(_key(hit) for hit in hits)))

    def clear(self) -> None:
        self.hits, self._rested_on, self._cache = (), [], None


def _key(hit: CorpusHit) -> tuple[str | None, str, int, str]:
    return hit.corpus.name, hit.chunk.path, hit.chunk.start_line, hit.chunk.digest
