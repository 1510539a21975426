"""Text -> latents. `SelfEncoder`: the frozen decoder's own keys and values, causal inside the chunk, after the sink.

Keys are taken before RoPE, behind the key norm where the architecture has one (Qwen3), by hooks on the decoder's
own projections: no layer is copied or wrapped. The sink is read the way every memory is, at negative positions, so
that its tokens are computed once and not once a chunk.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from awareness.errors import UsageError
from awareness.model.fusion import assemble, attached, attention_modules
from awareness.model.prompt import encode, sink_ids
from awareness.model.quant import to_latent, to_tensor
from awareness.types import QUANT_BITS, Latent, MemorySpec, digest

BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}  # of one forward pass; benchmarks/encode.py prints the curve


def default_layers(num_layers: int) -> tuple[int, ...]:
    """The upper five sixths. An untrained model whose memory starts higher finds fewer needles."""
    return tuple(range(num_layers // 6, num_layers))


class SelfEncoder:
    """`KVEncoder` by the decoder itself.

    model must be fused. layers: the memory layers, by default the upper five sixths. fingerprint: identity of the
    weights. sink: token ids of the fixed prefix, by default the tokenizer's system turn. quant: how latents are stored.
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
    ) -> None:
        config = model.config
        chosen = tuple(default_layers(config.num_hidden_layers) if layers is None else layers)
        ids = sink_ids(tokenizer) if sink is None else list(sink)
        self.model, self.tokenizer = model, tokenizer
        self.batch_tokens = batch_tokens or BATCH_TOKENS.get(model.device.type, BATCH_TOKENS["cpu"])
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.spec = with_quant(spec_for(fingerprint, config.num_key_value_heads, head_dim, chosen, ids), quant)
        # Chunks see the sink in every layer while they are encoded; questions see it in the memory layers alone.
        everywhere = spec_for(
            fingerprint,
            config.num_key_value_heads,
            head_dim,
            tuple(range(config.num_hidden_layers)),
            ids,
            dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        )
        whole = self._project([ids], everywhere)[0] if ids else Latent(0, bytearray())
        self._sink_memory = assemble(model, everywhere, whole, [])
        self.sink = to_latent(to_tensor(whole, everywhere)[:, list(chosen)], self.spec.raw)

    def storing_as(self, quant: str) -> SelfEncoder:
        """The same encoder, whose latents are stored in another way."""
        other = copy.copy(self)
        other.spec = with_quant(self.spec, quant)
        return other

    def encode(self, texts: Sequence[str]) -> Iterator[Latent]:
        """One latent a text, in order. Neighbours are batched, so sort by length first; B·T <= batch_tokens."""
        rows: list[list[int]] = []
        for text in texts:
            ids = encode(self.tokenizer, text)
            longest = max([len(ids), *map(len, rows)])
            if rows and longest * (len(rows) + 1) > self.batch_tokens:
                yield from self._encode_batch(rows)
                rows = []
            rows.append(ids)
        if rows:
            yield from self._encode_batch(rows)

    def _encode_batch(self, rows: list[list[int]]) -> list[Latent]:
        with attached(self.model, self._sink_memory):
            return self._project(rows, self.spec)

    @torch.inference_mode()
    def _project(self, rows: list[list[int]], spec: MemorySpec) -> list[Latent]:
        """Runs the decoder over right-padded rows; being causal, it needs no mask for what is kept."""
        width = max(len(row) for row in rows)
        device = next(self.model.parameters()).device
        input_ids = torch.zeros(len(rows), width, dtype=torch.long)
        for row, ids in zip(input_ids, rows, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        # [2, L, B, H_kv, T, D]
        out = torch.empty(
            (2, len(spec.layers), len(rows), spec.num_kv_heads, width, spec.head_dim), dtype=getattr(torch, spec.dtype)
        )
        with _captured_kv(self.model, spec, out), suppress(_AllCaptured):
            self.model.model(input_ids.to(device), use_cache=False)
        return [to_latent(out[:, :, i, :, : len(ids)], spec) for i, ids in enumerate(rows)]


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


class _AllCaptured(Exception):
    """Ends a forward pass whose remaining work nobody needs."""


@contextmanager
def _captured_kv(model: PreTrainedModel, spec: MemorySpec, out: Tensor) -> Iterator[None]:
    """While open, a forward pass writes K (before RoPE) and V of the memory layers into `out` [2, L, B, H_kv, T, D].

    With the last of them it is over, by `_AllCaptured`: what is above adds nothing to a latent.
    """

    def write_to(target: Tensor, last: bool) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            target.copy_(output.unflatten(-1, (-1, spec.head_dim)).flatten(2, -2).transpose(1, 2))
            if last:
                raise _AllCaptured

        return hook

    modules = attention_modules(model)
    with ExitStack() as stack:
        for i, layer in enumerate(spec.layers):
            attention = modules[layer]
            key_source = attention.get_submodule("k_norm" if hasattr(attention, "k_norm") else "k_proj")
            for source, target in ((key_source, out[0, i]), (attention.get_submodule("v_proj"), out[1, i])):
                last = layer == spec.layers[-1] and source is attention.get_submodule("v_proj")
                handle = source.register_forward_hook(write_to(target, last))
                stack.callback(handle.remove)
        yield
