"""`ReasoningDecoder`: a decoder that reads the keys and values of documents. Part of the public Python API.

It reads as the command line does: `assemble.py` places the documents before the prompt, `attached` gives them to the
layers, and the model's preset or the adapter decides how sharply they are read.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from awareness.errors import UsageError
from awareness.model import hf
from awareness.model.adapter import MemoryAdapter
from awareness.model.assemble import joined
from awareness.model.attention_record import AttentionRecord, retrieval_layers
from awareness.model.context_encoder import ContextEncoder
from awareness.model.fusion import attached
from awareness.model.generate import Generation, generate
from awareness.model.latent_tensor import LatentPair, check_model, check_pair
from awareness.model.load import Decoder
from awareness.model.presets import ReadingSettings, settings_of
from awareness.model.prompts import question_ids
from awareness.model.quantisation import to_tensor
from awareness.types import SINK, Memory, MemorySpec, Sampling, Span


@dataclass(frozen=True)
class ReasoningOutput:
    """The result of one forward pass over [B, T] tokens with M tokens of memory.

    logits: [B, T, vocabulary].
    loss: if `labels` were given.
    cache: the KV cache, with `use_cache=True`.
    memory_attention_weights: decoder layer -> [B, H, T, M] float32, the attention of each head and each token to each
        token of `memory_key`; empty without a memory. The rest, up to 1, went to the prompt, the sink and a bank.
    documents: the names of the documents of the memory, in order.
    document_attention: [B, documents] float32, the share of each document in the attention to the memory, summed over
        the layers of `RETRIEVAL_DEPTH`, all heads and all tokens that are not padding. Each row sums to 1. Citations
        rest on these shares.
    """

    logits: Tensor
    loss: Tensor | None = None
    cache: Cache | None = None
    memory_attention_weights: dict[int, Tensor] = field(default_factory=dict)
    documents: tuple[str, ...] = ()
    document_attention: Tensor | None = None


class ReasoningDecoder:
    """A decoder that reads a memory in its self-attention, or in the way that an adapter was trained to read.

    Without a memory, or with a memory of 0 tokens, it is exactly the base model, bit for bit. (An adapter's bank and
    weights that were trained are used without a memory, too.)

    encoder: makes the latents that this decoder reads, and holds the model.
    """

    def __init__(
        self,
        encoder: ContextEncoder | str | Path | Decoder | None = None,
        *,
        adapter: str | Path | None = None,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """encoder: the encoder whose model is shared, or a model, as for `ContextEncoder`. adapter, dtype, device: as
        for `ContextEncoder`; with any of them the model of the encoder is loaded a second time instead of shared.

        Raises UsageError and ModelNotAvailable.
        """
        options: dict[str, Any] = {"adapter": adapter, "dtype": dtype, "device": device}
        if not isinstance(encoder, ContextEncoder):
            encoder = ContextEncoder(encoder, **options)
        elif any(value is not None for value in options.values()):
            if encoder.trained is not None and adapter is None:
                raise UsageError("the encoder has an adapter", hint="give the same adapter= to the decoder")
            encoder = ContextEncoder(encoder.name, max_tokens=encoder.max_tokens, **options)
        self.encoder = encoder

    @property
    def device(self) -> torch.device:
        return self.encoder.device

    @property
    def dtype(self) -> torch.dtype:
        """What the decoder computes in. A memory is converted to it."""
        return self.encoder.dtype

    @property
    def spec(self) -> MemorySpec:
        """How the memory that this decoder reads was made."""
        return self.encoder.spec

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        memory_key: Tensor | None = None,
        memory_value: Tensor | None = None,
        spec: MemorySpec | None = None,
        output_memory_attention: bool = True,
        **options: Any,
    ) -> ReasoningOutput:
        """One forward pass. It is differentiable, also with respect to the memory.

        input_ids: [B, T].
        attention_mask: [B, T], or [B, cached tokens + T] with a KV cache; 0 for padding, on the left or on the right.
        memory_key, memory_value: each [layers, kv_heads, M, head_dim]; all rows read them.
        spec: how they were made, if they are plain tensors; `decoder.spec` says: by this model.
        output_memory_attention: False saves computing the attention weights, B·H·T·M numbers in each layer.
        options: of the model's `forward`, such as `labels` and `use_cache`.

        Raises UsageError for a memory of another model, for shapes that do not fit, and for more tokens than the model
        has positions for.
        """
        pair = self._checked(memory_key, memory_value, spec)
        input_ids, attention_mask = self._prompt(input_ids, attention_mask, pair)
        if attention_mask is not None and "position_ids" not in options and not attention_mask.all():
            # As `generate` counts them: the first token that is not padding stands next to the memory.
            positions = (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)
            options["position_ids"] = positions[:, -input_ids.shape[1] :]
        memory = None if pair is None else self._assembled(pair)
        record = None
        if memory is not None and output_memory_attention:
            record = AttentionRecord(memory.keys, keep=True, every_token=True)
        options.setdefault("use_cache", hf.cache_in((), options) is not None)
        with self._attached(memory, record=record):
            out = self.encoder.model(input_ids, attention_mask=attention_mask, **options)
        output = ReasoningOutput(out.logits, out.loss, hf.cache_in((), out))
        if memory is None or record is None or pair is None:
            return output
        weights = {
            layer: own[..., memory.spans[0].stop :]  # the sink stands first
            for layer, own in record.memory_attention_weights.items()
        }
        of_prompt = torch.ones_like(input_ids) if attention_mask is None else attention_mask[:, -input_ids.shape[1] :]
        names = tuple(dict.fromkeys(span.name for span in pair.spans))
        chosen = [weights[layer] for layer in retrieval_layers(self.encoder.model, memory)]
        shares = _shares(chosen, of_prompt, pair.spans, names)
        return replace(output, memory_attention_weights=weights, documents=names, document_attention=shares)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        memory_key: Tensor | None = None,
        memory_value: Tensor | None = None,
        spec: MemorySpec | None = None,
        **options: Any,
    ) -> Any:
        """Token ids [B, T + new tokens] by transformers' own `generate()`, which reads the memory.

        The arguments are those of a forward pass; without an attention_mask no token is padding. options: of
        `generate()`, such as `max_new_tokens`, `num_beams`, `do_sample`, `streamer`. By default it decodes greedily.
        Rows that end early are padded on the right. Raises UsageError, as a forward pass does.
        """
        pair = self._checked(memory_key, memory_value, spec)
        new_tokens = int(options.get("max_new_tokens") or 0)
        input_ids, attention_mask = self._prompt(input_ids, attention_mask, pair, new_tokens)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        with self._attached(None if pair is None else self._assembled(pair), prompt=attention_mask.bool()):
            return self.encoder.model.generate(input_ids, attention_mask=attention_mask, **options)  # type: ignore[operator]

    def ask(
        self,
        question: str,
        memory_key: Tensor | None = None,
        memory_value: Tensor | None = None,
        *,
        spec: MemorySpec | None = None,
        is_long: bool = False,
        max_new_tokens: int = 128,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        on_text: Callable[[str], None] = lambda _: None,
    ) -> Generation:
        """Answers a question as `awareness ask` does: with the chat template, and with the instruction and the
        repetition penalty of the model's preset. It decodes with the model as it is, not with packed weights.

        is_long: ask for an explanation instead of one or two sentences. on_text: gets the answer piece by piece. The
        result has the `text`, its times in seconds, and `attention`: document -> its share of the attention of the
        answer's tokens, with sum 1. Raises UsageError, as a forward pass does.
        """
        settings = self._settings
        pair = self._checked(memory_key, memory_value, spec)
        memory = None if pair is None else self._assembled(pair)
        prompt = question_ids(
            self.encoder.tokenizer,
            question + (settings.long if is_long else settings.brief),
            with_system=memory is None or settings.system_with_memory,
        )
        self._must_have_room(pair, len(prompt) + max_new_tokens)
        record = None if memory is None else AttentionRecord(retrieval_layers(self.encoder.model, memory))
        generation = generate(
            self.encoder.decoder,
            prompt,
            memory,
            max_new_tokens=max_new_tokens,
            on_text=on_text,
            record=record,
            repetition_penalty=settings.repetition_penalty,
            adapter=self._adapter,
            sampling=sampling,
            refuse_above=settings.refuse_above,
        )
        shares: dict[str, float] = {}
        for place, share in generation.attention.items():
            if pair is not None:
                name = pair.spans[int(place)].name
                shares[name] = shares.get(name, 0.0) + share
        return replace(generation, attention=shares)

    def memory(self, memory_key: Tensor, memory_value: Tensor, *, spec: MemorySpec | None = None) -> Memory | None:
        """The documents as a `Memory` for `awareness.attached`; None if they have no tokens. Its spans are the sink and
        then the pieces, which are named by their number. Raises UsageError, as a forward pass does."""
        pair = self._checked(memory_key, memory_value, spec)
        return None if pair is None else self._assembled(pair)

    def _checked(self, key: Tensor | None, value: Tensor | None, spec: MemorySpec | None) -> LatentPair | None:
        """None if there is nothing to read. Raises UsageError."""
        if key is None or value is None:
            if key is not value:
                raise UsageError("memory_key and memory_value belong together: pass both or neither")
            return None
        if key.numel() == value.numel() == 0:
            return None
        pair = check_pair(key, value, spec)
        check_model(pair.spec, pair.model, self.spec, self.encoder.name, "the memory")
        return pair

    def _assembled(self, pair: LatentPair) -> Memory:
        sink = to_tensor(self.encoder.sink, pair.spec)
        return joined(
            self.encoder.model,
            pair.spec.layers,
            [sink, *pair.pieces],
            (SINK, *map(str, range(len(pair.spans)))),
            sharpness=self._settings.sharpness,
            reads=None if self._adapter is None else self._adapter.sets,
        )

    @property
    def _settings(self) -> ReadingSettings:
        return settings_of(self.encoder.name, None if self._adapter is None else self._adapter.config)

    @property
    def _adapter(self) -> MemoryAdapter | None:
        return None if self.encoder.trained is None else self.encoder.trained.adapter

    def _attached(self, memory: Memory | None, **options: Any) -> AbstractContextManager[Any]:
        if self.encoder.trained is not None:
            return self.encoder.trained.attached(memory, **options)
        return attached(self.encoder.model, memory, **options)

    def _prompt(
        self, input_ids: Tensor, attention_mask: Tensor | None, pair: LatentPair | None, new_tokens: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """Both on the decoder's device. Raises UsageError."""
        if input_ids.ndim != 2 or input_ids.is_floating_point():
            raise UsageError(f"input_ids must be token ids [B, T]; they are {list(input_ids.shape)} {input_ids.dtype}")
        rows, length = input_ids.shape
        if attention_mask is not None and (
            attention_mask.ndim != 2 or len(attention_mask) != rows or attention_mask.shape[1] < length
        ):
            raise UsageError(f"attention_mask is {list(attention_mask.shape)}; input_ids are {list(input_ids.shape)}")
        total = length if attention_mask is None else attention_mask.shape[1]
        self._must_have_room(pair, total + new_tokens)
        mask = None if attention_mask is None else attention_mask.to(self.device)
        return input_ids.to(self.device), mask

    def _must_have_room(self, pair: LatentPair | None, tokens: int) -> None:
        own = 0 if pair is None else pair.tensor.shape[3] + self.encoder.sink.tokens
        if pair is not None and own + tokens > self.encoder.max_positions:
            raise UsageError(
                f"a memory of {own} tokens, and {tokens} of prompt and answer, do not fit: {self.encoder.name} has"
                f" {self.encoder.max_positions} positions",
                hint="fewer documents",
            )


def _shares(weights: list[Tensor], mask: Tensor, spans: tuple[Span, ...], names: tuple[str, ...]) -> Tensor:
    """weights: [B, H, T, M] of each layer; mask: [B, T], 0 for padding -> [B, documents], each row summing to 1."""
    by_token = torch.stack([(own * mask[:, None, :, None]).sum(dim=(1, 2)) for own in weights]).sum(dim=0)  # [B, M]
    owner = torch.tensor([names.index(s.name) for s in spans for _ in range(s.start, s.stop)], device=by_token.device)
    mass = by_token.new_zeros(len(by_token), len(names)).index_add(1, owner, by_token)
    return mass / mass.sum(dim=1, keepdim=True).clamp(min=torch.finfo(mass.dtype).tiny)
