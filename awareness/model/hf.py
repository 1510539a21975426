"""Everything that the package assumes about the inside of transformers, PEFT and torch, one small function each.

These are names of modules and arguments, how a decoder layer computes, and private functions. No other file names them;
a test reads their source for that. What is public and documented (`from_pretrained`, `generate()`,
`config.num_hidden_layers`) is used directly. train/trainer.py overrides the Trainer's hooks.

Arguments are found by the type of their value, not by name: transformers 5.24 renamed a layer's `past_key_values` to
`cache`. Every function is tested on transformers `OLDEST` and `NEWEST` (tests/model/test_hf.py, run by .ci/versions).

Shapes: B rows, T tokens, H query heads, H_kv key heads, D head_dim, d hidden_size.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AttentionInterface, Cache, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.utils import logging as transformers_logging

from awareness.errors import UsageError

OLDEST, NEWEST = "5.18", "5.24"
"""Versions of transformers that the tests run on."""
ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Classes whose modules have the names in this file."""
STOCK_ATTENTION, PLAIN_ATTENTION = "sdpa", "eager"
"""transformers' names of torch's fused attention, and of attention by matrix products."""


# Versions


@functools.cache
def warn_if_untested(version: str = transformers.__version__) -> bool:
    """Return whether this version of transformers is newer than `NEWEST`; if so, log one line per process."""
    newer = _release(version) > _release(NEWEST)
    if newer:
        logging.getLogger("awareness").warning(
            "transformers %s is newer than %s, the newest version that awareness was tested with", version, NEWEST
        )
    return newer


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


# The modules of a decoder


def body(model: PreTrainedModel) -> nn.Module:
    """The decoder without its output layer. Called with ids [B, T] or `inputs_embeds=` [B, T, d], and `use_cache=`."""
    return model.model


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder layers, first to last."""
    return model.model.layers


def self_attention(layer: Any) -> Any:
    """The self-attention module of a decoder layer."""
    return layer.self_attn


def mlp(layer: Any) -> Any:
    """The MLP of a decoder layer."""
    return layer.mlp


def attention_norm(layer: Any) -> Any:
    """The norm of a decoder layer before its self-attention: [B, T, d] -> [B, T, d]."""
    return layer.input_layernorm


def mlp_norm(layer: Any) -> Any:
    """The norm of a decoder layer before its MLP: [B, T, d] -> [B, T, d]."""
    return layer.post_attention_layernorm


def final_norm(model: PreTrainedModel) -> nn.Module:
    """The norm after the last layer."""
    return model.model.norm


def replace_norms(model: PreTrainedModel, make: Callable[[], nn.Module]) -> None:
    """Replace every norm of hidden states by a new module; norms of heads (Qwen3) stay."""
    for layer in decoder_layers(model):
        layer.input_layernorm, layer.post_attention_layernorm = make(), make()
    model.model.norm = make()


@dataclass(frozen=True)
class AttentionParts:
    """The modules of one self-attention. The projections are Linear, or replaced by PEFT or torchao.

    query [d -> H·D], key and value [d -> H_kv·D], output [H·D -> d]. query_norm and key_norm: over a head (Qwen3), else
    None. scaling: factor on the scores.
    """

    query: Any
    key: Any
    value: Any
    output: Any
    query_norm: Any
    key_norm: Any
    head_dim: int
    scaling: float


def attention_parts(layer: Any) -> AttentionParts:
    """The parts of the self-attention of a decoder layer."""
    own = layer.self_attn
    norms = (getattr(own, "q_norm", None), getattr(own, "k_norm", None))
    return AttentionParts(own.q_proj, own.k_proj, own.v_proj, own.o_proj, *norms, own.head_dim, own.scaling)


def mlp_parts(layer: Any) -> dict[str, Any]:
    """Name -> projection of a gated MLP: down_proj(silu(gate_proj(x)) * up_proj(x))."""
    return {name: getattr(layer.mlp, name) for name in ("gate_proj", "up_proj", "down_proj")}


def key_value_sources(layer: Any) -> tuple[nn.Module, nn.Module]:
    """The modules whose outputs are K before RoPE and V, [B, T, H_kv·D] or [B, T, H_kv, D], in running order."""
    parts = attention_parts(layer)
    return parts.key if parts.key_norm is None else parts.key_norm, parts.value


def linear_names(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers in each decoder layer: q_proj … o_proj, gate_proj … down_proj."""
    layer = decoder_layers(model)[0]
    parts = (self_attention(layer), mlp(layer))
    return [name for part in parts for name, module in part.named_children() if isinstance(module, nn.Linear)]


def is_supported(config: Any) -> bool:
    """Whether a model's config is of one of `ARCHITECTURES`; not every folder names its architecture."""
    return config.model_type in {name.removesuffix("ForCausalLM").lower() for name in ARCHITECTURES}


def linear_sizes(config: Any) -> dict[str, tuple[int, int]]:
    """`linear_names` -> numbers of inputs and outputs, from a decoder's config alone."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = (n * head_dim(config) for n in (config.num_attention_heads, config.num_key_value_heads))
    return {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }


def is_causal(model: nn.Module) -> bool:
    """Whether the model is causal: every token sees only the tokens before it."""
    return any(getattr(module, "is_causal", False) for module in model.modules())


def head_dim(config: Any) -> int:
    """D, also where config.json leaves it out (Qwen2)."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


GGUF_HEAD_DIM = "qwen3_moe.attention.key_length"
"""The field of a GGUF from which transformers takes D for any architecture. It does not read `attention.key_length` of
Qwen2 and Qwen3; llama.cpp does, and ignores this one."""


def gguf_head_dim(config: Any) -> int:
    """D as transformers takes it to be when it reads a GGUF without `GGUF_HEAD_DIM`."""
    if config.model_type == "qwen3":
        return type(config)().head_dim
    return head_dim(config) if config.model_type == "llama" else config.hidden_size // config.num_attention_heads


def rope_parameters(config: Any) -> dict[str, Any]:
    """The settings of RoPE: `rope_theta`, `rope_type` and more."""
    return config.rope_parameters


def rotated_heads(tensor: str, config: Any) -> int | None:
    """The number of heads that a tensor of the state dict projects to and RoPE rotates; None for other tensors."""
    if ".self_attn.q_proj" in tensor:
        return int(config.num_attention_heads)
    return int(config.num_key_value_heads) if ".self_attn.k_proj" in tensor else None


def is_output_weight(tensor: str) -> bool:
    """Whether this tensor of the state dict is the output layer, which may be tied to the embedding."""
    return tensor == "lm_head.weight"


# The call of a layer or a decoder


def cache_in(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Cache | None:
    """The KV cache among the arguments of a layer or a decoder, found by its type; None if there is none."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Cache)), None)


def cached_tokens(cache: Cache | None, layer: Any = None) -> int:
    """How many tokens the cache holds for a decoder layer (by default the first)."""
    return 0 if cache is None else int(cache.get_seq_length(0 if layer is None else layer.self_attn.layer_idx))


def position_embeddings_in(kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """cos and sin of RoPE, each [B or 1, T, D], among the keyword arguments of a layer, found by their form: a pair of
    tensors. Raises UsageError if no argument has it."""
    for value in kwargs.values():
        if isinstance(value, tuple) and len(value) == 2 and all(isinstance(side, Tensor) for side in value):
            return value
    raise UsageError(
        f"decoder layers of transformers {transformers.__version__} get no position embeddings",
        hint=f'pip install "transformers>={OLDEST},<={NEWEST}"',
    )


def mask_in(kwargs: Mapping[str, Any]) -> Tensor | None:
    """The attention mask [B or 1, 1, T, S] among the keyword arguments of a layer: bool, or float with 0 for what is
    seen; None if the layer is causal."""
    return kwargs.get("attention_mask")


@dataclass(frozen=True)
class LayerCall:
    """The arguments of one call of a decoder layer.

    position_embeddings: cos and sin, each [B or 1, T, D]. cache: the KV cache, or None. start: how many tokens the
    cache held before this forward pass. mask: as `mask_in` returns it.
    """

    position_embeddings: tuple[Tensor, Tensor]
    cache: Cache | None = None
    start: int = 0
    mask: Tensor | None = None

    @classmethod
    def of(cls, layer: Any, kwargs: Mapping[str, Any]) -> LayerCall:
        cache = cache_in((), kwargs)
        return cls(position_embeddings_in(kwargs), cache, cached_tokens(cache, layer), mask_in(kwargs))


def text_length(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Tokens in a call of a decoder's `body`: the given ones, and those in the cache."""
    given = args[0] if args else kwargs.get("input_ids")
    given = kwargs["inputs_embeds"] if given is None else given
    return int(given.shape[1]) + cached_tokens(cache_in(args, kwargs))


def continued(
    model: PreTrainedModel, ids: Tensor, cache: Cache | None = None, **padding: Tensor
) -> tuple[Tensor, Cache]:
    """Run a decoder over ids [B, T] after what `cache` holds: logits of the last token [B, 1, V], and the cache.

    padding: `attention_mask` [B, S + T] and `position_ids` [B, T], of rows that have padding."""
    named: dict[str, Any] = dict(padding) if cache is None else {**padding, _cache_name(model): cache}
    out = model(ids, use_cache=True, logits_to_keep=1, **named)
    cache = cache_in((), out)
    assert cache is not None
    return out.logits, cache


def rotated_keys_values(model: PreTrainedModel, ids: Tensor, positions: Tensor) -> list[tuple[Tensor, Tensor]]:
    """K after RoPE and V of ids [1, T] at ascending positions [T], which may have gaps: [1, H_kv, T, D] for each
    decoder layer. Every token sees those before it."""
    # Without a mask, transformers takes a gap between positions for the start of another text.
    whole = torch.ones_like(ids)
    out = body(model)(ids, attention_mask=whole, position_ids=positions[None], use_cache=True)
    cache: Any = cache_in((), out)
    return [(layer.keys, layer.values) for layer in cache.layers]


def cut_cache(cache: Cache, tokens: int) -> None:
    """Leave the first `tokens` of a cache. What its `crop` does with a positive number depends on the version."""
    if (rest := cached_tokens(cache) - tokens) > 0:
        cache.crop(-rest)


def empty_cache(model: PreTrainedModel) -> Cache:
    """A KV cache for `named_cache`."""
    return DynamicCache(config=model.config)


def named_cache(model: PreTrainedModel, cache: Cache) -> dict[str, Any]:
    """The argument by which `generate` goes on from a cache, which it extends in place."""
    return {_cache_name(model): cache}


def _cache_name(model: PreTrainedModel) -> str:
    """The name of the KV cache in the forward method of a decoder."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def last_logits(model: PreTrainedModel, ids: Tensor, count: int) -> Tensor:
    """Logits of the last `count` of ids [B, T]: [B, count, V]. The output layer is run for no other token."""
    return model(ids, use_cache=False, logits_to_keep=count).logits


def named_arguments(layer: type, args: Sequence[Any]) -> dict[str, Any]:
    """Positional arguments of a decoder layer of this class, after the hidden states, by their names."""
    return dict(zip([*inspect.signature(layer.forward).parameters][2:], args, strict=False)) if args else {}  # type: ignore[attr-defined]


def run_layer(
    layer: Any, hidden_states: Tensor, kwargs: Mapping[str, Any], *, between: Callable[[Tensor], Tensor]
) -> Tensor:
    """The forward pass of a decoder layer, with `between` applied to the hidden states [B, T, d] after self-attention
    and before the MLP. kwargs: the layer's other arguments. A test compares it with the layer's own, bitwise."""
    attended, _ = self_attention(layer)(hidden_states=attention_norm(layer)(hidden_states), **kwargs)
    hidden_states = between(hidden_states + attended)
    return hidden_states + mlp(layer)(mlp_norm(layer)(hidden_states))


# Attention


def register_attention(name: str, function: Callable[..., tuple[Tensor, Tensor | None]]) -> None:
    """Register an attention function under a name: (module, query [B, H, T, D], key and value [B, H_kv, S, D], mask
    bool [B, 1, T, S] or None, …) -> ([B, T, H, D], None)."""
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, sdpa_mask)


def use_attention(model: PreTrainedModel, name: str) -> None:
    """Point all layers at the attention function of this name."""
    model.set_attn_implementation(name)


def attention_name(layer: Any) -> str:
    """The name of the attention function that a decoder layer uses."""
    return str(layer.self_attn.config._attn_implementation)


def stock_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> Tensor:
    """transformers' own attention by torch's fused function: [B, T, H, D]. Shapes as in `register_attention`."""
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)[0]


def flash_cpu(
    query: Tensor, key: Tensor, value: Tensor, *, bias: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """torch's private fused attention of the CPU, which takes grouped queries and returns the log-sum-exp.

    query [B, H, T, D], key and value [B, H_kv, S, D], bias [B, 1, T, S] or None -> (output [B, H, T, D], lse [B, H, T]
    float32). Everything is computed in the dtype of `value`, as the kernel takes only one: under autocast RoPE makes
    queries and keys float32, and a projection leaves values in bfloat16. No gradient. Torch 2.9 to 2.13.
    """
    dtype = value.dtype
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query.to(dtype),
        key.to(dtype),
        value,
        is_causal=causal,
        attn_mask=None if bias is None else bias.to(dtype),
        scale=scale,
    )


def cpu_multiplies_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AMX, AVX512-BF16), by torch's private tests."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


# Rotary position embeddings


def rotary(model: PreTrainedModel) -> Any:
    """The module that makes cos and sin: (x for dtype and device, positions [B, T]) -> two tensors [B, T, D]."""
    return model.model.rotary_emb


def replace_rotary(model: PreTrainedModel, module: nn.Module) -> None:
    """Replace `rotary(model)`."""
    model.model.rotary_emb = module


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE (Su et al. 2021) of x [..., D] in the layout of these decoders, where number i is rotated with i + D/2.
    cos, sin: from `rotary`, in a shape that broadcasts with x."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


# Loading and generation


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Inside the block transformers shows no progress bars and no warnings: the command itself tells the user."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def greedy_by_default(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make `generate()` greedy by default (the folder's sampling settings would only cause warnings), and set a padding
    token."""
    settings: Any = model.generation_config
    settings.do_sample, settings.temperature, settings.top_p, settings.top_k = False, None, None, None
    if settings.pad_token_id is None:
        settings.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id


def pad_token(model: PreTrainedModel) -> int:
    """The padding token of `generate()`."""
    return int(model.generation_config.pad_token_id)


def end_tokens(model: PreTrainedModel) -> set[int]:
    """The tokens that end a text of `generate()`."""
    ends = model.generation_config.eos_token_id
    return set(ends if isinstance(ends, list) else [ends])


# PEFT

_LORA = "default"  # PEFT's name of an adapter


def put_lora(model: PreTrainedModel, targets: Sequence[str], *, rank: int, alpha: float, dropout: float) -> None:
    """Put PEFT's LoRA layers on these linear layers of every decoder layer. PEFT freezes all parameters but its own."""
    from peft import LoraConfig, inject_adapter_in_model

    # by the whole name, as a memory block has projections of the same names
    pattern = rf"model\.layers\.\d+\.(self_attn|mlp)\.({'|'.join(targets)})"
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=pattern)  # type: ignore[arg-type]
    inject_adapter_in_model(config, model, adapter_name=_LORA)


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """Name -> LoRA layer. Each has the linear layer it stands on as `base_layer`, and folds itself in by `merge()`."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def lora_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of LoRA, under names without that of PEFT's adapter."""
    return {
        f"{name}.{own.replace(f'.{_LORA}.', '.')}": parameter
        for name, layer in lora_layers(model).items()
        for own, parameter in layer.named_parameters()
        if own.startswith("lora_")
    }


def take_lora(model: PreTrainedModel) -> None:
    """Replace LoRA by the linear layers that it stands on, the same objects."""
    for name, layer in lora_layers(model).items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer.base_layer)
    vars(model).pop("peft_config", None)
