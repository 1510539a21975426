"""A GGUF file of any origin -> a Hugging Face folder, by transformers' own reader.

gguf_import.py, which streams, is for the presets alone: it takes the output layer to be the embedding, and stores
bfloat16.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from gguf import TokenType
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from awareness.errors import UsageError, reason
from awareness.model import hf
from awareness.model.gguf_header import read_header

_DTYPES = {0: torch.float32, 1: torch.float16}
"""`general.file_type` -> the type that holds its numbers; quantised ones become bfloat16, as the presets' do."""


def gguf_to_folder(path: Path, folder: Path) -> None:
    """Fill the folder. Raises UsageError for a file that is damaged, or whose architecture or tokenizer transformers
    does not read; OSError if the folder can't be written."""
    try:
        with path.open("rb") as stream:
            metadata = read_header(stream).metadata
        dtype = _DTYPES.get(metadata.get("general.file_type", -1), torch.bfloat16)
        source: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
        with hf.quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(
                path.parent, dtype=dtype, quantization_config=GgufConfig(dequantize=True), **source
            )
            tokenizer = AutoTokenizer.from_pretrained(path.parent, **source)
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, RuntimeError, MemoryError) as error:
        raise UsageError(
            f"{path} is no GGUF that can be loaded: {reason(error)}",
            hint=f"architectures that work: {', '.join(hf.ARCHITECTURES)}",
        ) from error
    config, generation = model.config, model.generation_config
    if hasattr(config, "quantization_config"):  # it says that these are blocks of a GGUF, and they no longer are
        del config.quantization_config
    config.architectures, config.dtype = [type(model).__name__], dtype
    # A chat model ends a turn with one token, and a text with another, which is also the padding.
    generation.eos_token_id = sorted({tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}, reverse=True)
    generation.pad_token_id = tokenizer.pad_token_id
    tensors = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if not (config.tie_word_embeddings and hf.is_output_weight(name))
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for part in (config, generation, _plain(tokenizer, metadata.get("tokenizer.ggml.token_type", []))):
        part.save_pretrained(folder)


def _plain(tokenizer: PreTrainedTokenizerBase, types: Sequence[int]) -> PreTrainedTokenizerFast:
    """The tokenizer without the tokens that only fill the embedding. It has no architecture's own class, which would
    give it that class's way to split a text when it is loaded. types: of the tokens, in the GGUF."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    unused = {i for i, kind in enumerate(types) if kind == TokenType.UNUSED}
    state["model"]["vocab"] = {token: i for token, i in state["model"]["vocab"].items() if i not in unused}
    special = {**tokenizer.special_tokens_map, "chat_template": tokenizer.chat_template}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **special)
