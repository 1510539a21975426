"""Text -> latents. `SelfEncoder` takes the frozen decoder's own keys and values, causal in the chunk, after the sink.

Keys are taken before RoPE, and after the key norm where there is one (Qwen3), by hooks on the decoder's own modules: no
layer is copied or wrapped. The sink is read as any memory is, at negative positions, so its tokens are computed once,
not once per chunk. projected.py also builds on `RowEncoder`.
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
from awareness.model.batches import padded
from awareness.model.fusion import attached
from awareness.model.int8_linear import in_int8, int8_pays
from awareness.model.pca.tables import codec_digest
from awareness.model.prompts import encode, sink_ids
from awareness.model.quantisation import to_latent, to_tensor
from awareness.model.sharded import is_sharded
from awareness.model.soft_tokens import SoftTokens, digest_of
from awareness.model.weights import exact_weights
from awareness.types import PCA, QUANT_BITS, QUANTS, Latent, MemorySpec, default_layers, digest

BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}  # of one forward pass; benchmarks/encode.py prints the curve
ENOUGH = 0.25
"""From this share of `BATCH_TOKENS` on, a batch costs no more per token than a full one."""
MAX_PADDING = 0.02
"""Share of padding in such a batch. The batch ends before a row that would need more."""
COARSE = ("int4", "int2", PCA)
"""Quantisations with a larger error than int8 products; docs/field-notes.md has the numbers."""
Own = TypeVar("Own", bound="RowEncoder")


class RowEncoder(ABC):
    """Texts -> rows of token ids -> batches -> K and V -> latents. Subclasses turn a batch into K and V.

    batch_tokens: of one forward pass, padding included. around: tokens that every row gets around its own.
    """

    _spec: MemorySpec
    batch_tokens: int
    around: int

    @abstractmethod
    def _rows(self, text: str) -> list[list[int]]:
        """The text's tokens: one row, or several if the text is longer than one forward pass can read."""

    @abstractmethod
    def _forward(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """K (before RoPE) and V of each row, [2, L, H_kv, T, D], differentiable."""

    def keys_values(self, texts: Sequence[str]) -> list[Tensor]:
        """K (before RoPE) and V of each text, [2, L, H_kv, T, D] in the decoder's dtype, differentiable."""
        return list(self._stream(texts, self._forward))

    def encode(self, texts: Sequence[str]) -> Iterator[Latent]:
        """One latent per text, in order. Neighbours are batched: sort by length to avoid padding."""
        return (_stored(kv, self._spec) for kv in self._stream(texts, torch.inference_mode()(self._forward)))

    def passes(self, texts: Sequence[str]) -> int:
        """The number of forward passes that `keys_values` makes for these texts."""
        return sum(1 for _ in self._batches(row for text in texts for row in self._rows(text)))

    def for_many(self: Own) -> Own:
        """This encoder, or one that is slower to make and faster per text."""
        return self

    def storing_as(self: Own, quant: str) -> Own:
        """This encoder with another quantisation of its latents. Raises UsageError."""
        other = copy.copy(self)
        other._spec = with_quant(self._spec, quant)
        return other

    def _stream(
        self, texts: Sequence[str], forward: Callable[[Sequence[Sequence[int]]], list[Tensor]]
    ) -> Iterator[Tensor]:
        """[2, L, H_kv, T, D] per text, in order, as soon as the batch with its last row is done."""
        counts: deque[int] = deque()  # rows of each started text

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
            is_padded = size - tokens - own > size * MAX_PADDING and longest * len(batch) >= self.batch_tokens * ENOUGH
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
    soft: learned vectors around each chunk, after the sink, which are part of its latent.
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
        # While they are encoded, chunks see the sink in every layer; questions see it in the memory layers only.
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        all_layers = spec_of(model, fingerprint, range(depth), ids, dtype)
        whole = self._project([ids], all_layers)[0] if ids else Latent(0, bytearray())
        self._sink_memory = assemble(model, all_layers, whole, [])
        self.sink = to_latent(to_tensor(whole, all_layers)[:, list(chosen)], self._spec.raw)

    def for_many(self) -> SelfEncoder:
        """With products in int8 (int8_linear.py), where the processor gains much by it and the latents' quantisation
        has the larger error."""
        if self._spec.quant not in COARSE or not int8_pays(self.model):
            return self
        other = copy.copy(self)
        other.model = in_int8(self.model)
        return other

    @property
    def spec(self) -> MemorySpec:
        """Names the soft tokens as they are now: after a training step no earlier latent is read."""
        if self.soft is None or self.soft.tokens == 0:
            return self._spec
        return replace(self._spec, encoder=f"self+soft:{digest_of(self.soft.state_dict())[:16]}")

    def _rows(self, text: str) -> list[list[int]]:
        return [encode(self.tokenizer, text)]

    def _forward(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        with exact_weights(), attached(self.model, self._sink_memory):
            return self._own_kv(rows, self._spec, self.soft)

    @torch.inference_mode()
    def _project(self, rows: Sequence[Sequence[int]], spec: MemorySpec) -> list[Latent]:
        """Latents of rows without a sink."""
        with exact_weights(), attached(self.model, None):
            return [_stored(kv, spec) for kv in self._own_kv(rows, spec)]

    def _own_kv(self, rows: Sequence[Sequence[int]], spec: MemorySpec, soft: SoftTokens | None = None) -> list[Tensor]:
        """[2, L, H_kv, T, D] per row. Rows are padded on the right, so a causal decoder needs no mask."""
        ids, lengths = padded(rows, self.model.device)
        embeddings = self.model.get_input_embeddings()(ids)
        if soft is not None:
            embeddings, lengths = soft(embeddings, lengths), lengths + soft.tokens
        decoder = hf.decoder_layers(self.model)
        modules = [module for layer in spec.layers for module in hf.key_value_sources(decoder[layer])]
        # FSDP gathers the weights for the backward pass where a gradient reaches a layer's output.
        to_the_end = torch.is_grad_enabled() and is_sharded(decoder[0])
        with outputs_of(modules, to_the_end=to_the_end) as outputs:
            last = hf.body(self.model)(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        if to_the_end:
            outputs[0] = outputs[0] + 0.0 * last.sum()
        heads = (spec.num_kv_heads, spec.head_dim)
        # [L, 2, B, T, H_kv, D]
        out = torch.stack([output.reshape(*output.shape[:2], *heads) for output in outputs]).unflatten(0, (-1, 2))
        return [out[:, :, i, :length].permute(1, 0, 3, 2, 4) for i, length in enumerate(lengths.tolist())]


def _stored(kv: Tensor, spec: MemorySpec) -> Latent:
    """[2, L, H_kv, T, D] in any dtype -> its latent by `spec`."""
    return to_latent(kv.to("cpu", getattr(torch, spec.dtype)), spec)


def batch_tokens_of(model: PreTrainedModel) -> int:
    return BATCH_TOKENS.get(model.device.type, BATCH_TOKENS["cpu"])


def spec_of(
    model: PreTrainedModel, fingerprint: str, layers: Sequence[int], sink: Sequence[int], dtype: str = "bfloat16"
) -> MemorySpec:
    """The spec of latents in this decoder's geometry. sink: token ids."""
    heads, head_dim, sink_digest = model.config.num_key_value_heads, hf.head_dim(model.config), digest(repr(list(sink)))
    return MemorySpec(fingerprint, tuple(layers), heads, head_dim, dtype=dtype, sink=sink_digest)


def with_quant(spec: MemorySpec, quant: str) -> MemorySpec:
    """The spec with another quantisation. Raises UsageError if its heads cannot be packed that way, or if there are no
    tables for `pca`."""
    if quant == PCA:
        return replace(spec, quant=quant, codec=codec_digest(spec.raw))
    if quant not in QUANTS or spec.head_dim * QUANT_BITS.get(quant, 8) % 8:
        raise UsageError(
            f"--quant {quant} is not possible for heads of {spec.head_dim} numbers",
            hint=f"--quant {'|'.join(QUANTS)}",
        )
    return replace(spec, quant=quant, codec="")


class _AllSeen(Exception):
    """Ends a forward pass after the last module of interest."""


@contextmanager
def outputs_of(modules: Sequence[nn.Module], *, to_the_end: bool = False) -> Iterator[list[Tensor]]:
    """Inside the block, a forward pass appends the outputs of `modules` (given in running order) to the yielded list,
    and ends after the last of them, unless it shall go on to the end."""
    outputs: list[Tensor] = []

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        outputs.append(output)
        if len(outputs) == len(modules) and not to_the_end:
            raise _AllSeen

    with ExitStack() as stack, suppress(_AllSeen):
        for module in modules:
            stack.callback(module.register_forward_hook(hook).remove)
        yield outputs
