"""A plain decoder and its tokenizer -> one GGUF file, which llama.cpp and transformers load.

It follows the format's specification (ggml/docs/gguf.md) and the layout that llama.cpp expects. GGUF has no place for a
memory, LoRA or weights quantised by other libraries: these are refused by name, and the caller may merge LoRA first.
Without `quant`, matrices are the model's own, bit for bit; gguf_tensors.py makes the other types. Each tensor is made
and written by itself, so the memory in use is that of the decoder and of one tensor.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from awareness.errors import StorageFailed, UsageError
from awareness.model import hf
from awareness.model.gguf_tensors import FLOATS, GGUF_TYPES, stored, stored_bytes, stored_type
from awareness.model.model_files import replacing
from awareness.model.token_offsets import LLAMA3_WORDS, QWEN2_WORDS
from awareness.types import Progress, silent

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter

_ARCHITECTURES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}

_FREE_SPACE = "free some space, or choose another place, then run the same command again"

_PRE_TOKENIZERS = {
    ("gpt-2 split",): "gpt-2",
    ("digits", "gpt-2 split"): "smollm",
    (QWEN2_WORDS,): "qwen2",
    (LLAMA3_WORDS,): "llama-bpe",
}
"""Steps that split a text before BPE -> llama.cpp's name of them."""


def export_gguf(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
    *,
    quant: str = "none",
    progress: Progress = silent,
) -> None:
    """Write `model` (transformers' own Llama, Qwen2 or Qwen3, not fused) and `tokenizer` to `path`, all or nothing.

    quant: the type of the matrices, one of `GGUF_TYPES`. progress: in bytes. Raises UsageError, before anything is
    written, for anything that GGUF can't hold; StorageFailed if the file can't be written. A tokenizer's normalisation
    is not written: as in llama.cpp, Qwen's NFC is left to the caller.
    """
    import numpy as np
    from gguf import GGUFWriter

    if quant not in GGUF_TYPES:
        raise UsageError(f"quant '{quant}': not one of {', '.join(GGUF_TYPES)}")
    architecture = _architecture(model)
    try:
        with replacing(path) as partial:
            writer = GGUFWriter(partial, architecture)
            _add_config(writer, model, architecture, quant)
            _add_tokenizer(writer, tokenizer, rows=model.config.vocab_size)
            tensors = _tensors(model, architecture, quant)
            for tensor in tensors:
                # With a type of GGUF, numpy's is not looked at; uint8 would mean a shape in bytes.
                shape, kind = tensor.tensor.shape, tensor.kind
                writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), tensor.bytes, raw_dtype=kind)
            with contextlib.closing(writer):
                writer.write_header_to_file()
                writer.write_kv_data_to_file()
                writer.write_ti_data_to_file()
                done, total = 0, sum(tensor.bytes for tensor in tensors)
                for tensor in tensors:
                    progress(f"writing {path.name}", done, total)
                    writer.write_tensor_data(tensor.data())
                    done += tensor.bytes
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
    except OSError as error:
        # numpy, which writes tensors, only says how many numbers were written.
        why = error.strerror or "not all of it could be written, as on a full disk"
        raise StorageFailed(f"{path} can't be written: {why}", hint=_FREE_SPACE) from error


def _architecture(model: PreTrainedModel) -> str:
    """GGUF's name of the architecture. Raises UsageError if `model` is or has something that GGUF doesn't know."""
    name = type(model).__name__
    if name not in _ARCHITECTURES:
        raise UsageError(f"{name} can't be written as GGUF: not one of {', '.join(_ARCHITECTURES)}")
    for where, module in model.named_modules():
        kind = type(module)
        if kind.__module__.split(".")[0] not in ("torch", "transformers"):
            raise UsageError(
                f"GGUF can't hold {where}, a {kind.__name__}", hint="merge LoRA, and take a memory adapter off, first"
            )
    config = model.config
    rope = hf.rope_parameters(config)
    attends = ["full_attention"]
    settings: dict[str, tuple[Any, Any]] = {  # the value, and the only one that can be written
        "rope_type": (rope.get("rope_type", "default"), "default"),
        "partial_rotary_factor": (rope.get("partial_rotary_factor", 1.0), 1.0),
        "hidden_act": (config.hidden_act, "silu"),
        "layer_types": (sorted(set(getattr(config, "layer_types", None) or attends)), attends),
    }
    for key, (value, only) in settings.items():
        if value != only:
            raise UsageError(f"a decoder with {key} {value!r} can't be written as GGUF: only {only!r} can")
    return _ARCHITECTURES[name]


def _add_config(writer: GGUFWriter, model: PreTrainedModel, architecture: str, quant: str) -> None:
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    config = model.config
    if model.dtype not in FLOATS:
        known = ", ".join(str(dtype) for dtype in FLOATS)
        raise UsageError(f"a decoder in {model.dtype} can't be written as GGUF: not one of {known}")
    head_dim = hf.head_dim(config)
    name = FLOATS[model.dtype] if quant == "none" else quant
    writer.add_file_type(LlamaFileType["ALL_F32" if name == "f32" else f"MOSTLY_{name.upper()}"])
    if name not in FLOATS.values():
        writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    if head_dim != hf.gguf_head_dim(config):
        writer.add_uint32(hf.GGUF_HEAD_DIM, head_dim)
    writer.add_rope_freq_base(hf.rope_parameters(config)["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _add_tokenizer(writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """rows: of the embedding. GGUF needs a token for each, so rows without one get an unused token."""
    from gguf import TokenType

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    ids = tokenizer.get_vocab()
    if max(ids.values()) >= rows:
        raise UsageError(
            f"the tokenizer has ids up to {max(ids.values())}, the embedding of the decoder has {rows} rows"
        )
    tokens = [f"[PAD{i}]" for i in range(rows)]
    types = [TokenType.UNUSED] * rows
    added = tokenizer.added_tokens_decoder
    for token, i in ids.items():
        tokens[i] = token
        special = i in added and added[i].special
        types[i] = TokenType.CONTROL if special else TokenType.USER_DEFINED if i in added else TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(state))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(merge) for merge in state["model"]["merges"]])

    for add, token_id in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token_id is not None:
            add(token_id)
    bare, whole = (tokenizer.encode("x", add_special_tokens=special) for special in (False, True))
    writer.add_add_bos_token(len(whole) > len(bare) and whole[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(len(whole) > len(bare) and whole[-1] == tokenizer.eos_token_id)
    writer.add_add_space_prefix(False)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template is not None:
        writer.add_chat_template(template)


def _pre_tokenizer(state: dict[str, Any]) -> str:
    """llama.cpp's name of the tokenizer's split; state: the content of tokenizer.json, of byte-level BPE."""
    model, pre, normalizer = state["model"], state["pre_tokenizer"] or {"type": None}, state["normalizer"]
    steps = pre["pretokenizers"] if pre["type"] == "Sequence" else [pre]
    odd = [
        key for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback") if model.get(key)
    ]
    if model["type"] != "BPE" or odd or steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        raise UsageError("the tokenizer can't be written as GGUF: it is not plain byte-level BPE")
    if normalizer not in (None, {"type": "NFC"}):
        raise UsageError(f"the tokenizer can't be written as GGUF: it normalises by {normalizer['type']}")
    name = _PRE_TOKENIZERS.get(tuple(step for step in map(_split, steps) if step))
    if name is None or model.get("ignore_merges", False) != (name == "llama-bpe"):
        raise UsageError(
            "the tokenizer can't be written as GGUF: its way to split a text has no name there",
            hint=f"known are: {', '.join(_PRE_TOKENIZERS.values())}",
        )
    return name


def _split(step: dict[str, Any]) -> str:
    """A step of a pre-tokenizer in the words of `_PRE_TOKENIZERS`; empty for bytes alone."""
    if step["type"] == "ByteLevel":
        return "gpt-2 split" if step["use_regex"] else ""
    if step["type"] == "Digits" and step["individual_digits"]:
        return "digits"
    if step["type"] == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
        return str(step["pattern"].get("Regex"))
    return str(step["type"])


@dataclass(frozen=True)
class _Stored:
    """A tensor of the decoder, and what it is in the file. heads: their number, if RoPE's halves become neighbours."""

    name: str
    tensor: Tensor
    kind: GGMLQuantizationType
    heads: int | None

    @property
    def bytes(self) -> int:
        return stored_bytes(self.tensor.shape, self.kind)

    def data(self) -> np.ndarray:
        tensor = self.tensor.detach().cpu()
        return stored(self.name, tensor if self.heads is None else _interleaved(tensor, self.heads), self.kind)


def _tensors(model: PreTrainedModel, architecture: str, quant: str) -> list[_Stored]:
    """What the file holds of each tensor, in the order of the state dict. Raises UsageError for one it can't hold."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    config = model.config
    names = get_tensor_name_map(MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    tensors = []
    for name, tensor in model.state_dict().items():
        if hf.is_output_weight(name) and config.tie_word_embeddings:  # a missing output is the embedding
            continue
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if gguf_name is None or (name.endswith(".bias") and architecture != "qwen2"):
            raise UsageError(f"GGUF can't hold {name}: {architecture} has no such tensor there")
        if type(tensor) is not Tensor:
            raise UsageError(
                f"GGUF can't hold {name}: it is a {type(tensor).__name__}", hint="export before quantising"
            )
        kind = stored_type(tensor, quant, is_vocabulary=gguf_name in ("token_embd.weight", "output.weight"))
        heads = hf.rotated_heads(name, config) if architecture == "llama" else None
        tensors.append(_Stored(gguf_name, tensor, kind, heads))
    return tensors


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """[heads·D, hidden], from RoPE's halves (i, i + D/2) to neighbours (2i, 2i + 1): llama.cpp's Llama turns those."""
    return weight.view(heads, 2, -1, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)
