"""`ContextEncoder`: documents -> keys and values that a decoder can attend to. Part of the public Python API.

`encoder.py` computes them (or `projected.py`, if an adapter has such an encoder), as it does for the command line, so
the numbers are the same. This file loads the model by its name, cuts long documents, and labels the tensors.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from awareness.errors import UsageError
from awareness.model import model_files, presets
from awareness.model.checkpoint import Checkpoint, load_for_use
from awareness.model.encoder import SelfEncoder
from awareness.model.latent_tensor import DOCUMENT, LatentTensor, join_pieces
from awareness.model.load import Decoder, load
from awareness.model.memory_decoder import MemoryDecoder
from awareness.model.model_files import ModelFolder
from awareness.model.projected import ProjectedEncoder
from awareness.model.prompts import sink_ids
from awareness.model.quantisation import to_tensor
from awareness.model.token_offsets import token_starts
from awareness.types import Latent, MemorySpec

MAX_PIECE_TOKENS = 256
"""The size of the chunks of an index, with which the reading of memory was measured."""


class ContextEncoder:
    """Encodes documents with a model. The model also reads them, so a `ReasoningDecoder` can share it.

    decoder: the loaded model with its tokenizer and folder. trained: the adapter and what was trained with it, or None.
    """

    def __init__(
        self,
        model: str | Path | Decoder | None = None,
        *,
        adapter: str | Path | None = None,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        max_tokens: int = MAX_PIECE_TOKENS,
    ) -> None:
        """model: a preset, a hub id, a folder, or a decoder that is loaded already; by default the adapter's model, or
        `qwen2.5-coder-0.5b`. It is downloaded if it is not on this machine.

        adapter: the folder of a checkpoint that `awareness train` wrote. dtype: what the model computes in, by default
        bfloat16 if the device is fast in it, else float32, `auto` for the dtype of its files. device: by default `cuda`
        if there is one, else `cpu`. max_tokens: the longest piece that is encoded at once (`pieces`).

        Raises ModelNotAvailable if the model cannot be downloaded, and UsageError for a model that cannot read memory,
        an adapter of another model, or a `max_tokens` that the model has no positions for.
        """
        self.trained: MemoryDecoder | None = None
        if adapter is not None:
            self.trained, self.decoder = _load_trained(Path(adapter), model, dtype, device)
        elif isinstance(model, Decoder):
            self.decoder = model
        else:
            self.decoder = load(model_files.pull(str(model or presets.DEFAULT_MODEL)), device=device, dtype=dtype)
        folder = self.decoder.folder
        self._encoder: SelfEncoder | ProjectedEncoder
        if self.trained is not None:
            self._encoder = self.trained.encoder(self.decoder)
        else:
            self._encoder = SelfEncoder(self.model, self.tokenizer, fingerprint=folder.fingerprint)
        positions = self.max_positions - len(sink_ids(self.tokenizer)) - self._encoder.around
        if not 1 <= max_tokens <= positions:
            raise UsageError(f"max_tokens is {max_tokens}; {self.name} encodes 1 to {positions} tokens at once")
        self.max_tokens = max_tokens

    @property
    def model(self) -> PreTrainedModel:
        """The model itself, fused (`awareness.attached` works with it)."""
        return self.decoder.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.decoder.tokenizer

    @property
    def folder(self) -> ModelFolder:
        return self.decoder.folder

    @property
    def name(self) -> str:
        """The model's name, as it was given."""
        return self.folder.name

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in. The latents are in `spec.dtype`."""
        return self.model.dtype

    @property
    def max_positions(self) -> int:
        """Tokens that the model has positions for: memory, prompt and answer together."""
        return int(self.model.config.max_position_embeddings)

    @property
    def spec(self) -> MemorySpec:
        """How the latents are made: model, layers, heads, dtype. Only latents of one spec can be read together."""
        return self._encoder.spec.raw

    @property
    def sink(self) -> Latent:
        """The latents of the fixed prefix (the system turn) that every piece is encoded after."""
        return self._encoder.sink

    def encode_document(self, text: str | Sequence[str], *, name: str = DOCUMENT) -> tuple[LatentTensor, LatentTensor]:
        """Keys (before RoPE) and values of a document, each [layers, kv_heads, tokens, head_dim] in `spec.dtype`, on
        the CPU.

        text: the document, which is cut by `pieces` if it is long, or its pieces. name: the document's name in
        `spans`; a store replaces it by the document's id. An empty document has 0 tokens. The soft tokens that an
        adapter puts around each piece are part of the result.
        """
        pieces = self.pieces(text) if isinstance(text, str) else list(text)
        spec = self.spec
        encoded = [to_tensor(latent, spec) for latent in self._encoder.encode(pieces)]
        return join_pieces(encoded, [name] * len(encoded), spec, self.name).keys_values

    def pieces(self, text: str) -> list[str]:
        """Cuts a text into pieces of at most `max_tokens` tokens. Nothing is left out: the pieces joined are the text.

        Each piece is encoded by itself, as the chunks of an index are: it does not see the others. A piece ends at the
        end of a line, or between two tokens if the line is too long. A text that fits is one piece; an empty text has
        none. A single character is never cut, even if it has more than `max_tokens` tokens.
        """
        starts = self._token_starts(text)
        result: list[str] = []
        at = 0
        while at < len(text):
            after = bisect_left(starts, at) + self.max_tokens
            piece = text[at:] if after >= len(starts) else _up_to(text[at : max(at + 1, starts[after])])
            while len(piece) > 1 and len(own := self._token_starts(piece)) > self.max_tokens:
                piece = _up_to(piece[: max(1, min(own[self.max_tokens], len(piece) - 1))])
            result.append(piece)
            at += len(piece)
        return result

    @cached_property
    def _token_starts(self) -> Callable[[str], Sequence[int]]:
        return token_starts(self.folder.path)


def _up_to(text: str) -> str:
    """The text up to its last line end; all of it if it has no line end."""
    return text[: text.rfind("\n") + 1] or text


def _load_trained(
    checkpoint: Path,
    model: str | Path | Decoder | None,
    dtype: torch.dtype | str | None,
    device: torch.device | str | None,
) -> tuple[MemoryDecoder, Decoder]:
    """Raises UsageError if the checkpoint was trained on another model."""
    read = Checkpoint.read(checkpoint)
    if model is not None:
        folder = model.folder if isinstance(model, Decoder) else model_files.pull(str(model))
        if folder.fingerprint != read.fingerprint:
            raise UsageError(
                f"the adapter {checkpoint} was trained for {read.base} ({read.fingerprint}), not for {folder.name}"
                f" ({folder.fingerprint})",
                hint="leave the model out",
            )
    trained, decoder = load_for_use(checkpoint, pull=_pull_known, dtype=dtype)
    if device is not None and decoder.model.device != torch.device(device):
        if trained.adapter is not None and isinstance(trained.adapter.encoder, ProjectedEncoder):
            raise UsageError(
                f"an adapter with an encoder of its own stays on {decoder.model.device}", hint="no device="
            )
        trained.to(device)
    return trained, decoder


def _pull_known(name: str) -> ModelFolder:
    """As `pull`, for a name that was read from a checkpoint, maybe a stranger's: only presets are downloaded."""
    model_files.check_trusted(name)
    return model_files.pull(name)
