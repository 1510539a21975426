"""Model folder -> a fused decoder with its tokenizer. Only safetensors are loaded and no remote code."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from awareness.errors import UsageError, reason
from awareness.model import hf
from awareness.model.fusion import fuse
from awareness.model.model_files import ModelFolder


@dataclass(frozen=True)
class Decoder:
    """A fused model in eval mode, its tokenizer, and the folder they came from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    folder: ModelFolder


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def default_dtype(device: torch.device) -> torch.dtype:
    """bf16 if the processor multiplies it in hardware (AMX, AVX512-BF16, CUDA from Ampere on), else fp32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if hf.cpu_multiplies_bf16() else torch.float32


def load_tokenizer(folder: ModelFolder) -> PreTrainedTokenizerBase:
    """Raises OSError or ValueError if the folder has none."""
    return AutoTokenizer.from_pretrained(folder.path, trust_remote_code=False, local_files_only=True)


def load(
    folder: ModelFolder, *, device: torch.device | str | None = None, dtype: torch.dtype | str | None = None
) -> Decoder:
    """Load and fuse. dtype: by default the one that the device is fast in; `auto` for that of the files.

    Raises UsageError for damaged weights, or an architecture that cannot read memory.
    """
    device = default_device() if device is None else torch.device(device)
    with hf.quiet_transformers():
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder.path,
                dtype=default_dtype(device) if dtype is None else dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                attn_implementation=hf.STOCK_ATTENTION,
            )
            tokenizer = load_tokenizer(folder)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise UsageError(
                f"model {folder.name} cannot be loaded from {folder.path}: {reason(error)}",
                hint=f"architectures that work: {', '.join(hf.ARCHITECTURES)}",
            ) from error
    hf.greedy_by_default(model, tokenizer)
    model = model.to(device).eval()  # type: ignore[arg-type]
    return Decoder(fuse(model), tokenizer, folder)
