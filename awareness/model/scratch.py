"""A decoder made from scratch: the Qwen3 architecture of transformers in any size, with random weights.

The weights are drawn by transformers' own rules from torch's generator: who wants the same ones again seeds it.
What Qwen3 has no setting for is put into the finished model: modules are exchanged (no positions, LayerNorm) or get
hooks (dropout, the length limit); the class stays Qwen3ForCausalLM, so memory, encoders and `generate()` take it as
any other. A saved folder does not tell these settings; a checkpoint (checkpoint.py) has them beside the weights.
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
    """A float32 decoder on the CPU, in train mode, not fused. Raises UsageError if the tokenizer has ids beyond it."""
    head_dim = config.hidden_dim // config.num_heads
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=_vocab_size(config, tokenizer),
            hidden_size=config.hidden_dim,
            intermediate_size=config.intermediate_dim or -(-8 * config.hidden_dim // 192) * 64,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads or config.num_heads,
            head_dim=head_dim,
            max_position_embeddings=config.max_seq_len,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            attention_dropout=config.attention_dropout,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    # Only now: told before, the embedding of the padding token is zero for ever, and in many tokenizers that is EOS.
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    model.config.pad_token_id = model.generation_config.pad_token_id = pad
    if not config.use_flash_attention:  # transformers' name for plain matrix products; fusing sets another
        hf.use_attention(model, hf.PLAIN_ATTENTION)
    if not config.use_rope:
        hf.replace_rotary(model, NoPositions(head_dim))
    if not config.use_rms_norm:
        hf.replace_norms(model, partial(nn.LayerNorm, config.hidden_dim, eps=config.norm_eps))
    if config.dropout:
        model.get_input_embeddings().register_forward_hook(partial(_drop, config.dropout))
        for layer in hf.decoder_layers(model):
            hf.self_attention(layer).register_forward_hook(partial(_drop, config.dropout))
            hf.mlp(layer).register_forward_hook(partial(_drop, config.dropout))
    hf.body(model).register_forward_pre_hook(_refuse_longer, with_kwargs=True)
    return model


def _vocab_size(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    needed = max(tokenizer.get_vocab().values()) + 1  # not len(tokenizer): ids may have holes
    if config.vocab_size is not None and config.vocab_size < needed:
        raise UsageError(
            f"model.vocab_size {config.vocab_size} is smaller than the {needed} ids of the tokenizer",
            hint="leave model.vocab_size out: the tokenizer's is the default",
        )
    return config.vocab_size or needed


class NoPositions(nn.Module):
    """In the place of a rotary embedding: turns nothing, so that only the causal mask tells an order (NoPE)."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """x: whose dtype and device count; position_ids: [B, T]. Returns (cos 1, sin 0), each [B, T, D]."""
        cos = x.new_ones(*position_ids.shape, self.head_dim)
        return cos, torch.zeros_like(cos)


def _drop(rate: float, module: nn.Module, args: Any, output: Any) -> Any:
    """Forward hook: dropout of an output [B, T, hidden], or of the first of several."""
    if isinstance(output, tuple):
        return dropout(output[0], rate, module.training), *output[1:]
    return dropout(output, rate, module.training)


def _refuse_longer(module: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Forward pre-hook: what is read, with what is in the cache, has to fit into max_seq_len."""
    length, limit = hf.text_length(args, kwargs), module.config.max_position_embeddings
    if length > limit:
        raise UsageError(f"{length} tokens do not fit into model.max_seq_len {limit}", hint="give shorter texts")
