"""A decoder from scratch: the Qwen3 architecture of transformers in any size, with random weights.

Weights are drawn by transformers' own rules from torch's generator; seed it to get the same ones again. Settings that
Qwen3 does not have are put into the finished model: modules are replaced (no positions, LayerNorm) or get hooks
(dropout, the length limit). The class stays Qwen3ForCausalLM, so memory, encoders and `generate()` treat it like any
other. A saved folder does not hold these settings; a checkpoint (checkpoint.py) has them beside the weights.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from awareness.config.decoder import ModelConfig
from awareness.errors import UsageError
from awareness.model import hf


def build_decoder(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A float32 decoder on the CPU, in train mode, not fused. Raises UsageError if it has too few ids for the
    tokenizer."""
    head_dim = config.hidden_dim // config.num_heads
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = Qwen3ForCausalLM(qwen3_config(config, vocab_size=_vocab_size(config, tokenizer), **ids))
    # Set only now: set before, the embedding of the padding token stays zero, and in many tokenizers that is EOS.
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    model.config.pad_token_id = model.generation_config.pad_token_id = pad
    if not config.use_flash_attention:  # transformers' name for plain matrix products; fusing sets another
        hf.use_attention(model, hf.PLAIN_ATTENTION)
    if not config.use_rope:
        hf.replace_rotary(model, NoPositions(head_dim))
    if not config.use_rms_norm:
        hf.replace_norms(model, partial(nn.LayerNorm, config.hidden_dim, eps=config.norm_eps))
    if config.dropout:
        dropped = [model.get_input_embeddings()]
        dropped += [part(layer) for layer in hf.decoder_layers(model) for part in (hf.self_attention, hf.mlp)]
        for module in dropped:
            module.register_forward_hook(partial(_drop, config.dropout))
    hf.body(model).register_forward_pre_hook(_refuse_longer, with_kwargs=True)
    return model


def qwen3_config(config: ModelConfig, **of_tokenizer: Any) -> Qwen3Config:
    """The settings as transformers has them. of_tokenizer: the fields that a tokenizer decides."""
    return Qwen3Config(
        hidden_size=config.hidden_dim,
        intermediate_size=config.intermediate_dim or -(-8 * config.hidden_dim // 192) * 64,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads or config.num_heads,
        head_dim=config.hidden_dim // config.num_heads,
        max_position_embeddings=config.max_seq_len,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        attention_dropout=config.attention_dropout,
        **of_tokenizer,
    )


def _vocab_size(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    needed = max(tokenizer.get_vocab().values()) + 1  # not len(tokenizer): ids may have holes
    if config.vocab_size is not None and config.vocab_size < needed:
        raise UsageError(
            f"model.vocab_size {config.vocab_size} is smaller than the {needed} ids of the tokenizer",
            hint="leave model.vocab_size out: the tokenizer's is the default",
        )
    return config.vocab_size or needed


class NoPositions(nn.Module):
    """Replaces a rotary embedding and rotates nothing: only the causal mask gives an order (NoPE)."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """x: gives dtype and device; position_ids: [B, T]. Returns (cos 1, sin 0), each [B, T, D]."""
        cos = x.new_ones(*position_ids.shape, self.head_dim)
        return cos, torch.zeros_like(cos)


def _drop(rate: float, module: nn.Module, args: Any, output: Any) -> Any:
    """Forward hook: dropout of the output [B, T, hidden], or of the first of several outputs."""
    if isinstance(output, tuple):
        return dropout(output[0], rate, module.training), *output[1:]
    return dropout(output, rate, module.training)


def _refuse_longer(module: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Forward pre-hook: the tokens of this pass and of the cache must fit into max_seq_len."""
    length, limit = hf.text_length(args, kwargs), module.config.max_position_embeddings
    if length > limit:
        raise UsageError(f"{length} tokens do not fit into model.max_seq_len {limit}", hint="give shorter texts")
