"""What the routers of chapters decide by, and what they have seen of each text, during an `attached` block."""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import Cache

from awareness.errors import UsageError
from awareness.model.chapter_attention import Gathered, gather
from awareness.model.chapter_router import ChapterChoice, ChapterRouter, RoutingPast
from awareness.model.hf import LayerCall


@dataclass(frozen=True)
class _Seen:
    """What a router has seen of the text in a KV cache: how many tokens, what it keeps of them, and, of a decision for
    the whole text, the gathered chapters."""

    tokens: int
    past: RoutingPast
    gathered: Gathered | None


@dataclass
class RouterState:
    """prompt: bool [B, P], the tokens that a sequence is routed by; None for all tokens of a forward pass.

    choices: every decision, for the losses of training; None to keep none.
    """

    prompt: Tensor | None = None
    choices: list[ChapterChoice] | None = None
    _seen: WeakKeyDictionary[Cache, dict[ChapterRouter, _Seen]] = field(default_factory=WeakKeyDictionary)

    def continue_from(self, earlier: RouterState) -> None:
        """Know the texts that `earlier` has seen, too."""
        self._seen = earlier._seen

    def route(
        self, router: ChapterRouter, x: Tensor, key: Tensor, value: Tensor, call: LayerCall
    ) -> tuple[ChapterChoice, Gathered | None]:
        """The chapters for this forward pass's tokens x [B, T, d], and what a decision for the whole text has gathered.

        key, value: of the bank, [1, H_kv, N, D]. Raises UsageError if the router has not seen exactly the text in the
        cache.
        """
        cache, start, length = call.cache, call.start, x.shape[1]
        of_cache = {} if cache is None else self._seen.setdefault(cache, {})
        seen = of_cache.get(router) if start else None
        known = 0 if seen is None else seen.tokens
        if router.strategy == "sequence":
            known = min(known, start)  # its decision holds even if the cache was cropped
        if start and router.strategy != "token" and known != start:
            raise UsageError(
                f"the KV cache holds {start} tokens, and the router of chapters has seen {known} of them",
                hint="use a new cache, attached(…, continues=SESSION), or routing_strategy_inference: token",
            )
        prompt = self.prompt
        if prompt is not None and prompt.shape[0] != len(x) and len(x) % prompt.shape[0] == 0:
            prompt = prompt.repeat_interleave(len(x) // prompt.shape[0], dim=0)  # beams
        by_prompt = router.strategy in ("sequence", "hybrid")
        if prompt is not None and by_prompt and not start and prompt[:, length:].any():
            raise UsageError(
                f"cannot route this prompt: the first forward pass has {length} of its {prompt.shape[1]} tokens",
                hint="pass the whole prompt at once, or set routing_strategy_inference: token or rolling",
            )
        past = None if seen is None else seen.past
        choice, past = router(
            x, real=_real_tokens(call.mask, start, x), prompt=_prompt_part(prompt, start, x), past=past
        )
        gathered = None if seen is None else seen.gathered
        if router.strategy == "sequence" and gathered is None and not torch.is_grad_enabled():
            gathered = gather(key, value, choice, router.num_chapters)
        if past is not None and cache is not None:
            of_cache[router] = _Seen(start + length, past, gathered)
        if self.choices is not None:
            self.choices.append(choice)
        return choice, gathered


def _real_tokens(attention_mask: Tensor | None, start: int, x: Tensor) -> Tensor | None:
    """bool [B, T]: False for padding among this forward pass's tokens. The last query sees every other token."""
    if attention_mask is None:
        return None
    seen = attention_mask[:, 0, -1] if attention_mask.dtype == torch.bool else attention_mask[:, 0, -1] == 0
    return seen[:, start : start + x.shape[1]].expand(x.shape[0], -1)


def _prompt_part(prompt: Tensor | None, start: int, x: Tensor) -> Tensor | None:
    """The prompt's mask for this forward pass's tokens; False after the prompt."""
    if prompt is None:
        return None
    stop = start + x.shape[1]
    return pad(prompt, (0, max(0, stop - prompt.shape[1])))[:, start:stop]
