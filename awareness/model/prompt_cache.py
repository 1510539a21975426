"""`PromptCache`: the KV cache of the last prompt and answer, for a next prompt that begins alike.

The turns of a talk stand at the positions 0 … T-1 whatever memory is attached, whose keys are at negative ones. So
nothing has to be moved between turns. But keys and values above the first memory layer depend on the memory that they
were computed with: the caller names it (`reading`), and with another one they are computed again.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from transformers import Cache, PreTrainedModel

from awareness.model import hf


class PromptCache:
    """One KV cache of one row. reused: how many tokens of the last prompt were not computed again."""

    def __init__(self) -> None:
        self.reused = 0
        self._model: PreTrainedModel | None = None
        self._cache: Cache | None = None
        self._ids: list[int] = []
        self._read: Hashable = None

    def reading(self, model: PreTrainedModel, what: Hashable) -> PromptCache:
        """This cache for a prompt of `model` that reads `what`; emptied if it was computed with anything else."""
        if self._model is not model or self._read != what:
            self.clear()
        self._model, self._read = model, what
        return self

    def beginning_of(self, prompt: Sequence[int]) -> Cache:
        """The cache of the tokens that `prompt` begins with, to be extended; empty if there are none. One token of the
        prompt at least is left to compute."""
        assert self._model is not None, "say what is read first"
        cache, self._cache = self._cache, None  # whoever extends it gives it back
        same = 0
        for known, token in zip(self._ids, prompt[:-1], strict=False):
            if known != token:
                break
            same += 1
        self.reused = same
        if cache is None or not same:
            self.reused = 0
            return hf.empty_cache(self._model)
        hf.cut_cache(cache, same)
        return cache

    def keep(self, ids: Sequence[int], cache: Cache) -> None:
        """ids: the prompt and the answer; the cache lacks the last token, which nobody has read yet."""
        self._ids, self._cache = list(ids[: hf.cached_tokens(cache)]), cache

    def clear(self) -> None:
        self._cache, self._ids, self.reused = None, [], 0
