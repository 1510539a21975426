"""Text -> unit vectors by an embedding model from a local folder: any encoder or decoder that transformers knows.

How token vectors become one is read from the files that sentence-transformers keeps beside the weights (Reimers &
Gurevych 2019, arXiv 1908.10084). Without them it is the mean for bidirectional models, and the last token for causal
ones. Only safetensors are loaded, no remote code; nothing is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from awareness.errors import UsageError, reason
from awareness.model import hf
from awareness.model.batches import by_length, padded
from awareness.model.load import default_device, default_dtype
from awareness.model.model_files import ModelFolder
from awareness.model.weights import float32_pays
from awareness.types import Chunk, digest

MAX_TOKENS = 256  # read of a chunk or a question, special tokens and prompt included
BATCH_TOKENS = {"cpu": 4096, "cuda": 65536}  # of one forward pass, padding included
BATCH_WORDS = 512
_WINDOW = 2048  # chunks that are sorted by length together
_VERSION = 1  # of `text_of`


class TextEmbedder:
    """`Embedder` by an embedding model.

    pooling: `mean`, `cls` or `lasttoken`. prompt: prefix of a question. max_tokens: longer texts are cut. dim: D.
    Raises UsageError for a folder without such a model, or with weights or a pooling that do not fit.
    """

    def __init__(
        self, folder: ModelFolder, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        self.folder = folder
        self.device = default_device() if device is None else torch.device(device)
        self.model, self.tokenizer = _load(folder, self.device, dtype or _dtype(self.device))
        self.pooling = _pooling(folder) or ("lasttoken" if hf.is_causal(self.model) else "mean")
        prompts = _json(folder.path / "config_sentence_transformers.json").get("prompts") or {}
        self.prompt = str(prompts.get("query") or "")
        self.max_tokens = _max_tokens(self.model, self.tokenizer, folder.path)
        self.dim: int = self.model.config.hidden_size
        settings = digest(self.pooling, self.prompt, str(self.max_tokens), str(_VERSION))[:16]
        self.fingerprint = f"{folder.fingerprint}-{self.pooling}-{settings}"

    def question(self, text: str) -> np.ndarray:
        """float32 [D]"""
        return self._embed([self.prompt + text])[0]

    def chunks(self, chunks: Sequence[Chunk]) -> Iterator[np.ndarray]:
        """float32 [D] per chunk, in order."""
        for start in range(0, len(chunks), _WINDOW):
            yield from self._embed([text_of(chunk) for chunk in chunks[start : start + _WINDOW]])

    def words(self, words: Sequence[str]) -> np.ndarray:
        """Single words, without the prompt -> float32 [n, D]."""
        parts = [self._embed(words[at : at + BATCH_WORDS]) for at in range(0, len(words), BATCH_WORDS)]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors [n, D]; texts of similar length are batched."""
        options: dict[str, Any] = {"truncation": True, "max_length": self.max_tokens, "split_special_tokens": True}
        # Lone surrogates, of a path that is not UTF-8, become `?`.
        ids = self.tokenizer([text.encode("utf-8", "replace").decode() for text in texts], **options)["input_ids"]
        vectors = np.empty((len(ids), self.dim), np.float32)
        for batch in by_length(ids, BATCH_TOKENS.get(self.device.type, BATCH_TOKENS["cpu"])):
            vectors[batch] = self._forward([ids[k] for k in batch])
        return vectors

    @torch.inference_mode()
    def _forward(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Rows of token ids -> unit vectors [n, D]."""
        ids, lengths = padded(rows, self.device, fill=self.tokenizer.pad_token_id or 0)
        # An empty text is read as one token of padding.
        mask = (torch.arange(ids.shape[1], device=self.device) < lengths.clamp(min=1)[:, None]).long()
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return F.normalize(pool(states.float(), mask, self.pooling), dim=-1).cpu().numpy()


def text_of(chunk: Chunk) -> str:
    """What the model reads of a chunk."""
    return f"{chunk.path} {chunk.symbol}\n{chunk.text}"


def pool(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """states [B, T, D] and mask [B, T], 1 for tokens and then 0 -> [B, D]."""
    if pooling == "cls":
        return states[:, 0]
    if pooling == "lasttoken":
        return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
    is_token = mask.unsqueeze(-1).to(states.dtype)
    return (states * is_token).sum(1) / is_token.sum(1)


def _dtype(device: torch.device) -> torch.dtype:
    """float32 where the processor multiplies bfloat16 more slowly than that."""
    return torch.float32 if device.type == "cpu" and float32_pays() else default_dtype(device)


def _load(
    folder: ModelFolder, device: torch.device, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    local: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True, **local}
    with hf.quiet_transformers():
        try:
            model, info = AutoModel.from_pretrained(folder.path, **options)
            tokenizer = AutoTokenizer.from_pretrained(folder.path, **local)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            raise _unusable(folder, f"cannot be loaded from {folder.path}: {reason(error)}") from error
    # A missing pooler is not used here; any other missing weight would be random numbers.
    if missing := sorted(name for name in info["missing_keys"] if not name.startswith("pooler.")):
        raise _unusable(folder, f"has no weights for {missing[0]} and {len(missing) - 1} others")
    return model.to(device).eval(), tokenizer


def _unusable(folder: ModelFolder, why: str) -> UsageError:
    return UsageError(f"embedding model {folder.name} {why}", hint="awareness models pull all-minilm-l6-v2")


def _pooling(folder: ModelFolder) -> str | None:
    """The pooling in sentence-transformers' files; None without them. Raises UsageError for an unsupported one."""
    listed = _json(folder.path / "modules.json", [])
    parts = {str(part.get("type")).rpartition(".")[2]: str(part.get("path", "")) for part in listed}
    if other := sorted(set(parts) - {"Transformer", "Pooling", "Normalize"}):
        raise _unusable(folder, f"has a part that is not supported: {other[0]}")
    if "Pooling" not in parts:
        return None
    config = _json(folder.path / parts["Pooling"] / "config.json")
    modes = {key.removeprefix("pooling_mode_").removesuffix("_tokens"): on for key, on in config.items()}
    chosen = [str(modes["pooling_mode"])] if "pooling_mode" in modes else [k for k, on in modes.items() if on is True]
    chosen = [mode for mode in chosen if mode != "include_prompt"]
    if len(chosen) != 1 or chosen[0] not in ("mean", "cls", "cls_token", "lasttoken"):
        raise _unusable(folder, f"pools by {' and '.join(chosen) or 'nothing'}, not by mean, cls or lasttoken")
    return chosen[0].removesuffix("_token")


def _max_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path) -> int:
    limits = (
        _json(path / "sentence_bert_config.json").get("max_seq_length"),
        getattr(model.config, "max_position_embeddings", None),
        tokenizer.model_max_length,
    )
    return min([MAX_TOKENS, *(int(limit) for limit in limits if limit)])


def _json(path: Path, default: Any = None) -> Any:
    """A JSON file beside the weights; `default`, else {}, if it is missing or damaged."""
    expected: Any = {} if default is None else default
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return expected
    return content if isinstance(content, type(expected)) else expected
