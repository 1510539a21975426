"""Text -> latents. `SelfEncoder`: the frozen decoder's own keys and values, causal inside the chunk, after the sink.

Keys are taken before RoPE, behind the key norm where the architecture has one (Qwen3), by hooks on the decoder's
own projections: no layer is copied or wrapped. The sink is read the way every memory is, at negative positions, so
that its tokens are computed once and not once a chunk. `RowEncoder` is what it shares with projected.py.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from awareness.errors import UsageError
from awareness.model import hf
from awareness.model.assemble import assemble
from awareness.model.fusion import attached
from awareness.model.int8_linear import in_int8, int8_pays
from awareness.model.prompts import encode, sink_ids
from awareness.model.quantisation import to_latent, to_tensor
from awareness.model.soft_tokens import SoftTokens, weights_digest
from awareness.model.weights import exact_weights
from awareness.types import QUANT_BITS, Latent, MemorySpec, default_layers, digest

BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}  # of one forward pass; benchmarks/encode.py prints the curve
ENOUGH = 0.25
"""Share of `BATCH_TOKENS` from which on a batch costs no more a token than a full one does."""
PADDING = 0.02
"""Share of such a batch that padding may take: where one row more would need more, the batch ends before it."""
COARSE = ("int4", "int2")
"""Ways of storing whose own error is larger than that of int8 products; docs/field-notes.md has the numbers."""
Own = TypeVar("Own", bound="RowEncoder")


class RowEncoder(ABC):
    """Texts -> rows of tokens -> batches -> K and V -> latents; how a batch becomes K and V is left to the encoders.

    batch_tokens: of one forward pass, padding included. around: tokens that every row gets around its own.
    """

    _spec: MemorySpec
    batch_tokens: int
    around: int

    @abstractmethod
    def _rows(self, text: str) -> list[list[int]]:
        """The text's tokens: one row, or several if it is longer than what can be read at once."""

    @abstractmethod
    def _forward(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """K (before RoPE) and V of each row, [2, L, H_kv, T, D], differentiable."""

    def keys_values(self, texts: Sequence[str]) -> list[Tensor]:
        """K (before RoPE) and V of each text, [2, L, H_kv, T, D] in the decoder's dtype, differentiable."""
        return list(self._stream(texts, self._forward))

    def encode(self, texts: Sequence[str]) -> Iterator[Latent]:
        """One latent a text, in order. Neighbours are batched, so sort by length first; B·T <= batch_tokens, and hardly
        any of it is padding then."""
        return (_stored(kv, self._spec) for kv in self._stream(texts, torch.inference_mode()(self._forward)))

    def for_many(self: Own) -> Own:
        """The same encoder, or one that takes less time over many texts once it is made."""
        return self

    def storing_as(self: Own, quant: str) -> Own:
        """The same encoder, whose latents are stored in another way."""
        other = copy.copy(self)
        other._spec = with_quant(self._spec, quant)
        return other

    def _stream(
        self, texts: Sequence[str], forward: Callable[[Sequence[Sequence[int]]], list[Tensor]]
    ) -> Iterator[Tensor]:
        """[2, L, H_kv, T, D] a text, in order, as soon as the batch with its last row is through."""
        counts: deque[int] = deque()  # rows of each text that was begun

        def rows() -> Iterator[list[int]]:
            for text in texts:
                own = self._rows(text)
                counts.append(len(own))
                yield from own

        parts: list[Tensor] = []
        for batch in self._batches(rows()):
            parts += forward(batch)
            while counts and counts[0] <= len(parts):
                count = counts.popleft()
                yield parts[0] if count == 1 else torch.cat(parts[:count], dim=3)
                del parts[:count]

    def _batches(self, rows: Iterator[list[int]]) -> Iterator[list[list[int]]]:
        batch: list[list[int]] = []
        longest = tokens = 0  # of the batch, `around` included
        for row in rows:
            own = len(row) + self.around
            width = max(longest, own)
            size = width * (len(batch) + 1)
            is_padded = size - tokens - own > size * PADDING and longest * len(batch) >= self.batch_tokens * ENOUGH
            if batch and (size > self.batch_tokens or is_padded):
                yield batch
                batch, width, tokens = [], own, 0
            batch.append(row)
            longest, tokens = width, tokens + own
        if batch:
            yield batch


class SelfEncoder(RowEncoder):
    """`KVEncoder` by the decoder itself.

    model must be fused. layers: the memory layers, by default the upper five sixths. fingerprint: identity of the
    weights. sink: token ids of the fixed prefix, by default the tokenizer's system turn. quant: how latents are stored.
    soft: learned vectors that stand around each chunk, behind the sink, and are part of its latent.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        fingerprint: str,
        layers: Sequence[int] | None = None,
        sink: Sequence[int] | None = None,
        batch_tokens: int | None = None,
        quant: str = "none",
        soft: SoftTokens | None = None,
    ) -> None:
        depth, hidden_size = model.config.num_hidden_layers, model.config.hidden_size
        if soft is not None and soft.header.shape[1] != hidden_size:
            raise UsageError(f"soft tokens of {soft.header.shape[1]} numbers in a decoder of hidden size {hidden_size}")
        chosen = tuple(default_layers(depth) if layers is None else layers)
        ids = sink_ids(tokenizer) if sink is None else list(sink)
        self.model, self.tokenizer, self.soft = model, tokenizer, soft
        self.batch_tokens = batch_tokens or batch_tokens_of(model)
        self.around = 0 if soft is None else soft.tokens
        self._spec = with_quant(spec_of(model, fingerprint, chosen, ids), quant)
        # Chunks see the sink in every layer while they are encoded; questions see it in the memory layers alone.
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        everywhere = spec_of(model, fingerprint, range(depth), ids, dtype)
        whole = self._project([ids], everywhere)[0] if ids else Latent(0, bytearray())
        self._sink_memory = assemble(model, everywhere, whole, [])
        self.sink = to_latent(to_tensor(whole, everywhere)[:, list(chosen)], self._spec.raw)

    def for_many(self) -> SelfEncoder:
        """The same encoder for many texts. Its decoder multiplies in int8 (int8_linear.py) where this processor gains
        much by that and the latents are stored in so few bits that their error is the larger one."""
        if self._spec.quant not in COARSE or not int8_pays(self.model):
            return self
        other = copy.copy(self)
        other.model = in_int8(self.model)
        return other

    @property
    def spec(self) -> MemorySpec:
        """Names the soft tokens as they are now, so that after a step of training no latent of before is read."""
        if self.soft is None or self.soft.tokens == 0:
            return self._spec
        return replace(self._spec, encoder=f"self+soft:{weights_digest(self.soft)[:16]}")

    def _rows(self, text: str) -> list[list[int]]:
        return [encode(self.tokenizer, text)]

    def _forward(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        with exact_weights(), attached(self.model, self._sink_memory):
            return self._own_kv(rows, self._spec, self.soft)

    @torch.inference_mode()
    def _project(self, rows: Sequence[Sequence[int]], spec: MemorySpec) -> list[Latent]:
        """Latents of bare rows, which stand behind no sink."""
        with exact_weights(), attached(self.model, None):
            return [_stored(kv, spec) for kv in self._own_kv(rows, spec)]

    def _own_kv(self, rows: Sequence[Sequence[int]], spec: MemorySpec, soft: SoftTokens | None = None) -> list[Tensor]:
        """[2, L, H_kv, T, D] a row. The decoder runs over right-padded rows; being causal, it needs no mask."""
        ids, lengths = padded(rows, self.model.device)
        embeddings = self.model.get_input_embeddings()(ids)
        if soft is not None:
            embeddings, lengths = soft(embeddings, lengths), lengths + soft.tokens
        decoder = hf.decoder_layers(self.model)
        sources = [source for layer in spec.layers for source in hf.key_value_sources(decoder[layer])]
        with outputs_of(sources) as found:
            hf.body(self.model)(inputs_embeds=embeddings, use_cache=False)
        heads = (spec.num_kv_heads, spec.head_dim)
        # [L, 2, B, T, H_kv, D]
        out = torch.stack([output.reshape(*output.shape[:2], *heads) for output in found]).unflatten(0, (-1, 2))
        return [out[:, :, i, :length].permute(1, 0, 3, 2, 4) for i, length in enumerate(lengths.tolist())]


def _stored(kv: Tensor, spec: MemorySpec) -> Latent:
    """[2, L, H_kv, T, D] in any dtype -> its latent by `spec`."""
    return to_latent(kv.to("cpu", getattr(torch, spec.dtype)), spec)


def batch_tokens_of(model: PreTrainedModel) -> int:
    return BATCH_TOKENS.get(model.device.type, BATCH_TOKENS["cpu"])


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [B, T], with 0 on the right of shorter rows, and lengths [B]. T is at least 1."""
    ids = torch.zeros(len(rows), max(1, *map(len, rows)), dtype=torch.long)
    for row, own in zip(ids, rows, strict=True):
        row[: len(own)] = torch.tensor(own)
    return ids.to(device), torch.tensor([len(row) for row in rows], device=device)


def spec_of(
    model: PreTrainedModel, fingerprint: str, layers: Sequence[int], sink: Sequence[int], dtype: str = "bfloat16"
) -> MemorySpec:
    """The spec of latents in this decoder's geometry."""
    config = model.config
    return spec_for(fingerprint, config.num_key_value_heads, hf.head_dim(config), tuple(layers), sink, dtype)


def spec_for(
    fingerprint: str,
    num_kv_heads: int,
    head_dim: int,
    layers: tuple[int, ...],
    sink: Sequence[int],
    dtype: str = "bfloat16",
) -> MemorySpec:
    return MemorySpec(fingerprint, layers, num_kv_heads, head_dim, dtype=dtype, sink=digest(repr(list(sink))))


def with_quant(spec: MemorySpec, quant: str) -> MemorySpec:
    """The spec with latents stored in another way. Raises UsageError if its heads can't be packed so."""
    if quant != "none" and (quant not in QUANT_BITS or spec.head_dim * QUANT_BITS[quant] % 8):
        raise UsageError(
            f"--quant {quant} is not possible for heads of {spec.head_dim} numbers",
            hint=f"--quant {'|'.join(('none', *QUANT_BITS))}",
        )
    return replace(spec, quant=quant)


class _AllFound(Exception):
    """Ends a forward pass whose remaining work nobody needs."""


@contextmanager
def outputs_of(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Inside the block, a forward pass leaves what `modules`, in the order in which they run, put out.

    With the last of them it is over: what is above adds nothing.
    """
    found: list[Tensor] = []

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        found.append(output)
        if len(found) == len(modules):
            raise _AllFound

    with ExitStack() as stack, suppress(_AllFound):
        for module in modules:
            stack.callback(module.register_forward_hook(hook).remove)
        yield found
