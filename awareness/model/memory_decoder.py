"""`MemoryDecoder`: a decoder with everything that a configuration puts beside it, as one module to train and save.

The sections `model:` and `memory:` give the decoder (loaded and frozen, or made from scratch), the memory adapter and
LoRA. With both, LoRA belongs to the memory and is off without it, so that without memory it is the base model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.errors import UsageError
from awareness.model.adapter import MemoryAdapter, build_adapter
from awareness.model.attention_record import AttentionRecord
from awareness.model.chapter_router import router_losses
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached, fuse
from awareness.model.load import Decoder, default_device, load, load_tokenizer
from awareness.model.lora import add_lora
from awareness.model.model_files import ModelFolder
from awareness.model.projected import ProjectedEncoder
from awareness.model.scratch import build_decoder
from awareness.model.session import Session, adapter_is_read
from awareness.model.soft_tokens import SoftTokens, digest_of
from awareness.model.text_embedder import TextEmbedder
from awareness.types import Memory, default_layers


@dataclass(frozen=True)
class MemoryOutput:
    """logits: [B, T, V], with labels only from the token before the first label on. loss: the sum of the terms, None
    without labels. terms: `answer`, the cross-entropy of the labels, and the routers' losses times their coefficients.
    """

    logits: Tensor
    loss: Tensor | None
    terms: dict[str, Tensor] = field(default_factory=dict)


class MemoryDecoder(nn.Module):
    """decoder is fused; adapter is None for a plain decoder or LoRA alone."""

    def __init__(self, decoder: PreTrainedModel, adapter: MemoryAdapter | None, config: MemoryConfig) -> None:
        super().__init__()
        self.decoder, self.adapter, self.config = decoder, adapter, config

    def attached(self, memory: Memory | None, **options: Any) -> AbstractContextManager[Session]:
        """`fusion.attached` with this decoder and its adapter; options: its other arguments. Raises UsageError."""
        if memory is not None and self.adapter is None:
            raise UsageError("this decoder has no memory adapter to read by", hint="memory.use_memory_adapter: true")
        return attached(self.decoder, memory, adapter=self.adapter, **options)

    def encoder(self, base: Decoder, quant: str = "none") -> SelfEncoder | ProjectedEncoder:
        """The encoder of the latents that the adapter reads. If only the frozen decoder makes them, they are the ones
        of every index of it, provided it stores the layers that are read."""
        learned = None if self.adapter is None else self.adapter.encoder
        fingerprint = base.folder.fingerprint
        if own := self._own_weights():
            fingerprint = f"{fingerprint}+{digest_of(own)[:16]}"
        if isinstance(learned, ProjectedEncoder):
            return learned.storing_as(quant).read_by(fingerprint)
        layers = None if self.adapter is None else sorted(set(self.adapter.sets.values()))
        if learned is None and set(layers or ()) <= set(default_layers(self.decoder.config.num_hidden_layers)):
            layers = None
        soft = learned if isinstance(learned, SoftTokens) else None
        return SelfEncoder(self.decoder, base.tokenizer, fingerprint=fingerprint, layers=layers, quant=quant, soft=soft)

    @property
    def learns_to_encode(self) -> bool:
        """Whether training changes the latents. If not, the latents of a text can be kept."""
        return bool(self._own_weights()) or (self.adapter is not None and self.adapter.encoder is not None)

    def _own_weights(self) -> dict[str, Tensor]:
        """What makes this decoder encode differently from the base: its trained weights, and LoRA unless it is off
        without a memory."""
        gated = self.adapter is not None
        return {
            name: p.detach()
            for name, p in self.decoder.named_parameters()
            if p.requires_grad and not (gated and "lora_" in name)
        }

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        memory: Memory | None = None,
        prompt: Tensor | None = None,
        record: AttentionRecord | None = None,
        **options: Any,
    ) -> MemoryOutput:
        """input_ids, labels: [B, T]; a label is -100 for a token that is not learned. prompt: bool [B, P], the tokens
        that a text is routed by, by default those before the first label. Labels are shifted inside: the logits of
        token t are compared with the label of t+1."""
        if prompt is None and labels is not None:
            prompt = (labels != -100).cumsum(dim=1) == 0
            prompt = prompt | ~prompt.any(dim=1, keepdim=True)  # plain text has no prompt: all of it
        with self.attached(memory, record=record, prompt=prompt, keep_choices=labels is not None) as session:
            if labels is not None:
                # As indices: a slice is not contiguous, and the product would copy W for it.
                first = labels.shape[1] - answer_length(labels) - 1
                options["logits_to_keep"] = torch.arange(first, labels.shape[1], device=input_ids.device)
            options = {"use_cache": False, **options}
            logits: Tensor = self.decoder(input_ids, attention_mask=attention_mask, **options).logits
        if labels is None:
            return MemoryOutput(logits, None)
        real = None if attention_mask is None else attention_mask.bool()
        terms = {"answer": next_token_loss(logits, labels), **router_losses(session.choices, self.config, real)}
        return MemoryOutput(logits, torch.stack(list(terms.values())).sum(), terms)

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name: of the adapter, of LoRA, and of the decoder unless it is frozen."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


def answer_length(labels: Tensor) -> int:
    """Tokens of labels [B, T] from the first one that any row learns; the first token of a row is never predicted."""
    learned = (labels[:, 1:] != -100).any(dim=0).nonzero()
    return labels.shape[1] - 1 - int(learned[0]) if len(learned) else 0


def next_token_loss(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of labels [B, T] (-100: not learned) by the logits [B, K, V] of the last K tokens; the logits of a
    token are compared with the next token's label."""
    own = labels[:, labels.shape[1] - logits.shape[1] + 1 :]
    return cross_entropy(logits[:, :-1].flatten(0, 1).float(), own.flatten(), reduction=reduction)


def build_memory_decoder(
    model_config: ModelConfig,
    config: MemoryConfig,
    *,
    pull: Callable[[str], ModelFolder],
    dtype: torch.dtype | str | None = None,
) -> tuple[MemoryDecoder, Decoder]:
    """The module, and its decoder with tokenizer and folder. pull: model name -> folder, fetched if necessary.

    dtype: of the decoder, by default the one that the device is fast in, `auto` for that of the files; a decoder from
    scratch is float32. Raises UsageError.
    """
    if model_config.base_model_name is not None:
        base = load(pull(model_config.base_model_name), dtype=dtype)
        base.model.requires_grad_(not model_config.freeze_base_model)
    else:
        folder = pull(model_config.tokenizer_name)
        tokenizer = load_tokenizer(folder)
        scratch = build_decoder(model_config, tokenizer).to(default_device())  # type: ignore[arg-type]
        base = Decoder(scratch, tokenizer, ModelFolder("from scratch", folder.path, f"scratch on {folder.fingerprint}"))
    fuse(base.model, kernel="auto" if model_config.use_flash_attention else "plain")
    adapter = None
    if config.has_memory:
        adapter = build_adapter(base.model, config)
        adapter.encoder = _learned_encoder(base, config, sorted(set(adapter.sets.values())), pull)
    if config.has_lora:
        add_lora(
            base.model,
            rank=config.lora_rank,
            alpha=config.lora_alpha,
            dropout=config.lora_dropout,
            targets=config.lora_targets,
            active=adapter_is_read if adapter is not None else None,
        )
    return MemoryDecoder(base.model, adapter, config), base


def _learned_encoder(
    base: Decoder, config: MemoryConfig, layers: Sequence[int], pull: Callable[[str], ModelFolder]
) -> ProjectedEncoder | SoftTokens | None:
    """The trained part of the encoder; None if the encoder is the frozen decoder alone."""
    if config.encoder == "projected":
        return ProjectedEncoder(
            base.model,
            base.tokenizer,
            fingerprint=base.folder.fingerprint,
            layers=layers,
            embedder=TextEmbedder(pull(config.encoder_model)) if config.encoder_model else None,
            init=config.memory_init,
            std=config.memory_init_std,
        )
    if config.num_header_tokens or config.num_trailer_tokens:
        return SoftTokens.from_text(base.model, base.tokenizer, config.num_header_tokens, config.num_trailer_tokens)
    return None
