"""Text -> latents by a frozen backbone that reads in both directions, and learned heads into the decoder's geometry.

    K_l = norm_l(W_k,l · s_l)        V_l = W_v,l · s_l

for each stored set l, with s_l the backbone's states and norm_l the decoder's own key norm where it has one (Qwen3).
Keys are before RoPE, as in every latent, so the decoder reads them as its own. The backbone is an embedding model, or
the decoder itself with a full mask.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from awareness.errors import UsageError
from awareness.model import hf
from awareness.model.batches import padded
from awareness.model.encoder import RowEncoder, batch_tokens_of, outputs_of, spec_of, with_quant
from awareness.model.fusion import attached
from awareness.model.projection import Projection
from awareness.model.prompts import encode
from awareness.model.soft_tokens import digest_of
from awareness.model.text_embedder import TextEmbedder
from awareness.types import Latent, MemorySpec, default_layers, digest


@dataclass(frozen=True)
class Backbone(ABC):
    """The model that reads the text. fingerprint: identity of everything that its states depend on.

    max_tokens: of one row, including the special tokens `before` and `after` its own.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    max_tokens: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    @abstractmethod
    def states(self, ids: Tensor, mask: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """ids: [B, T]; mask: bool [B, T], False for padding -> [B, T, hidden_size] for each set."""


class EmbedderBackbone(Backbone):
    """An embedding model: every set is made from its last hidden states."""

    @classmethod
    def of(cls, embedder: TextEmbedder) -> EmbedderBackbone:
        """Raises UsageError for a causal model."""
        model, tokenizer, folder = embedder.model, embedder.tokenizer, embedder.folder
        if hf.is_causal(model):
            raise UsageError(
                f"embedding model {folder.name} reads one way only, and this encoder has to read both ways",
                hint="memory.encoder_model: null, which is the decoder with a full mask",
            )
        probe = tokenizer("a", return_special_tokens_mask=True)
        special = [bool(flag) for flag in probe["special_tokens_mask"]]
        first, stop = special.index(False), len(special) - special[::-1].index(False)
        ids, limit = probe["input_ids"], min(model.config.max_position_embeddings, tokenizer.model_max_length)
        return cls(model, tokenizer, folder.fingerprint, limit, tuple(ids[:first]), tuple(ids[stop:]))

    def states(self, ids: Tensor, mask: Tensor, layers: Sequence[int]) -> list[Tensor]:
        return [self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state] * len(layers)


class DecoderBackbone(Backbone):
    """The decoder with a full mask: a set is made from the input of its layer's self-attention."""

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, fingerprint: str) -> DecoderBackbone:
        return cls(model, tokenizer, fingerprint, model.config.max_position_embeddings)

    def states(self, ids: Tensor, mask: Tensor, layers: Sequence[int]) -> list[Tensor]:
        full = mask[:, None, None, :].expand(-1, 1, ids.shape[1], -1)  # [B, 1, T, T]: every token sees every token
        norms = [hf.attention_norm(layer) for layer in hf.decoder_layers(self.model)]
        with attached(self.model, None), outputs_of([norms[i] for i in layers]) as outputs:
            hf.body(self.model)(ids, attention_mask=full, use_cache=False)
        return outputs


class ProjectedEncoder(RowEncoder, nn.Module):
    """`KVEncoder` by a backbone and heads. Only the heads are its state: backbone and key norms are not saved with it.

    model: the fused decoder that reads the latents, with its tokenizer and fingerprint. layers: the stored sets.
    embedder: the backbone, by default the decoder itself. init: `copy` starts the heads as the decoder's own
    projections of their layer, if the decoder is the backbone; otherwise they are random, with `std`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        fingerprint: str,
        layers: Sequence[int] | None = None,
        embedder: TextEmbedder | None = None,
        init: Literal["copy", "zero"] = "copy",
        std: float = 0.02,
        batch_tokens: int | None = None,
        quant: str = "none",
    ) -> None:
        super().__init__()
        chosen = tuple(default_layers(model.config.num_hidden_layers) if layers is None else layers)
        self.backbone: Backbone = (
            DecoderBackbone.of(model, tokenizer, fingerprint) if embedder is None else EmbedderBackbone.of(embedder)
        )
        self.around = len(self.backbone.before) + len(self.backbone.after)
        self.batch_tokens = batch_tokens or batch_tokens_of(self.backbone.model)
        self._spec = with_quant(spec_of(model, fingerprint, chosen, []), quant)
        self.sink = Latent(0, bytearray())
        self._dtype, self._device = model.dtype, model.device
        own = [hf.attention_parts(hf.decoder_layers(model)[layer]) for layer in chosen]
        # Copies, in a plain list: neither trained with the decoder nor saved.
        self._key_norms = [copy.deepcopy(a.key_norm).requires_grad_(False) for a in own if a.key_norm is not None]
        dim, width = self.backbone.model.config.hidden_size, self._spec.num_kv_heads * self._spec.head_dim

        def heads(linears: Sequence[Any]) -> nn.ModuleList:
            if init == "copy" and embedder is None:
                made = [_copy_of(linear) for linear in linears]
            else:
                made = [Projection(dim, width).draw_(std) for _ in linears]
            return nn.ModuleList(made).to(model.device)

        self.key_heads = heads([attention.key for attention in own])
        self.value_heads = heads([attention.value for attention in own])

    @property
    def spec(self) -> MemorySpec:
        """Names the heads as they are now: after a training step no earlier latent is read."""
        made_by = digest(self.backbone.fingerprint, digest_of(self.state_dict()))
        return replace(self._spec, encoder=f"projected:{made_by[:16]}")

    def read_by(self, fingerprint: str) -> ProjectedEncoder:
        """This encoder, with latents for a decoder of this fingerprint."""
        other = copy.copy(self)
        other._spec = replace(self._spec, model=fingerprint)
        return other

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """states: [B, T, backbone's hidden_size] for each set -> K and V, [2, L, B, H_kv, T, D]."""
        shape = (self._spec.num_kv_heads, self._spec.head_dim)
        keys, values = (
            [head(own).unflatten(-1, shape) for head, own in zip(heads, states, strict=True)]
            for heads in (self.key_heads, self.value_heads)
        )
        if self._key_norms:
            keys = [norm(key) for norm, key in zip(self._key_norms, keys, strict=True)]
        return torch.stack([torch.stack(keys), torch.stack(values)]).transpose(3, 4)

    def _rows(self, text: str) -> list[list[int]]:
        """Consecutive windows, none longer than the backbone reads."""
        ids = encode(self.backbone.tokenizer, text)
        window = self.backbone.max_tokens - self.around
        return [ids[at : at + window] for at in range(0, max(1, len(ids)), window)]

    def _forward(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        backbone = self.backbone
        ids, lengths = padded([[*backbone.before, *row, *backbone.after] for row in rows], backbone.model.device)
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        with torch.no_grad():
            states = backbone.states(ids, mask, self._spec.layers)
        torch.clear_autocast_cache()  # up to torch 2.10 it holds the casts of a trained decoder without their gradients
        out = self([own.to(self._device, self._dtype) for own in states])
        first = len(backbone.before)
        return [out[:, :, i, :, first : first + len(row)] for i, row in enumerate(rows)]


def _copy_of(projection: Any) -> Projection:
    """With a bias if the projection has one (Qwen2): without it the copy would be another function."""
    head = Projection(projection.in_features, projection.out_features, bias=projection.bias is not None)
    return head.copy_(projection)
