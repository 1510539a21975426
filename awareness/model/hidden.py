"""Text -> unit vectors from the decoder's own hidden states: what it thinks of a chunk half-way up.

The states after one middle layer, in the pass that makes the latents (behind the sink), are pooled by attention: some
learned vectors look at all tokens, and what they see is projected to D numbers. Only this head is learned
(train/hidden.py); the decoder stays as it is. Middle layers tell texts apart better than the last one (Skean et al.
2025, arXiv 2502.02013).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from awareness.errors import UsageError
from awareness.model import hf
from awareness.model.assemble import assemble
from awareness.model.batches import by_length
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached
from awareness.model.load import Decoder, load
from awareness.model.prompts import encode
from awareness.model.sources import ModelFolder
from awareness.types import Chunk, digest

MAX_TOKENS = 160  # of a chunk or a question that are read
CHUNKS, QUESTIONS = 0, 1
"""Whose pool it is: `Head.queries[CHUNKS]` looks at code, `Head.queries[QUESTIONS]` at what is asked."""
_FORMAT = "awareness-hidden-router"
_WINDOW = 1024  # texts that are sorted by length together


class Head(nn.Module):
    """What is learned. hidden: H, of the decoder's states. dim: D. queries: Q vectors a side that look at the tokens.

    The two sides have queries of their own and share the projection.
    """

    def __init__(self, hidden: int, dim: int = 256, queries: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.queries = nn.Parameter(torch.randn(2, queries, hidden) * hidden**-0.5)
        self.project = nn.Linear(queries * hidden, dim, bias=False)

    def forward(self, states: Tensor, mask: Tensor, side: int) -> Tensor:
        """states [B, T, H]; mask [B, T], True where a token is; side: `CHUNKS` or `QUESTIONS` -> unit [B, D]."""
        normed = self.norm(states)
        scores = normed @ self.queries[side].T  # [B, T, Q]
        weights = scores.masked_fill(~mask.unsqueeze(-1), -torch.inf).softmax(dim=1)
        return F.normalize(self.project((weights.transpose(1, 2) @ normed).flatten(1)), dim=-1)


class MiddleStates:
    """Texts -> hidden states after `layer` layers (from 1), behind the sink, as latents are made.

    Raises UsageError for a layer that the decoder does not have.
    """

    def __init__(self, decoder: Decoder, layer: int) -> None:
        self.model, self.tokenizer, self.layer = decoder.model, decoder.tokenizer, layer
        layers = self.model.config.num_hidden_layers
        if not 0 < layer <= layers:
            raise UsageError(f"{decoder.folder.name} has no layer {layer}", hint=f"a layer from 1 to {layers}")
        everywhere = SelfEncoder(self.model, self.tokenizer, fingerprint="", layers=range(layers))
        self.sink = assemble(self.model, everywhere.spec, everywhere.sink, [])
        self.batch_tokens = everywhere.batch_tokens

    def __call__(self, texts: Sequence[str], max_tokens: int = MAX_TOKENS) -> Iterator[Tensor]:
        """[T, H] a text, in order, T at most max_tokens and at least 1."""
        for start in range(0, len(texts), _WINDOW):
            # An empty text is read as the start of a line.
            rows = [encode(self.tokenizer, text)[:max_tokens] for text in texts[start : start + _WINDOW]]
            rows = [row or encode(self.tokenizer, "\n") for row in rows]
            found: dict[int, Tensor] = {}
            for batch in by_length(rows, self.batch_tokens):
                found |= zip(batch, self._run([rows[i] for i in batch]), strict=True)
            yield from (found[i] for i in range(len(rows)))

    @torch.inference_mode()
    def _run(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """Runs the lower layers over right-padded rows; being causal, they need no mask for what is kept."""
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for row, own in zip(ids, rows, strict=True):
            row[: len(own)] = torch.tensor(own)
        states: list[Tensor] = []

        def hook(module: nn.Module, args: Any, output: Any) -> None:
            states.append(output if isinstance(output, Tensor) else output[0])
            raise _Reached

        handle = hf.decoder_layers(self.model)[self.layer - 1].register_forward_hook(hook)
        try:
            with attached(self.model, self.sink), suppress(_Reached):
                hf.body(self.model)(ids.to(self.model.device), use_cache=False)
        finally:
            handle.remove()
        return [own[: len(row)].clone() for own, row in zip(states[0], rows, strict=True)]


class _Reached(Exception):
    """Ends a forward pass whose upper layers nobody needs."""


class HiddenStateEmbedder:
    """`Embedder` by a decoder and a head that was learned for one of its layers."""

    def __init__(self, decoder: Decoder, head: Head, layer: int) -> None:
        self.decoder, self.layer = decoder, layer
        self.head = head.to(decoder.model.device).eval()
        self.states = MiddleStates(decoder, layer)

    @cached_property
    def fingerprint(self) -> str:
        tensors = self.head.state_dict().items()
        weights = digest(*(part for name, t in tensors for part in (name, t.cpu().float().numpy().tobytes())))
        return f"{self.decoder.folder.fingerprint}-layer{self.layer}-{weights[:16]}"

    def question(self, text: str) -> np.ndarray:
        """float32 [D]"""
        return next(self._embed([text], QUESTIONS))

    def chunks(self, chunks: Sequence[Chunk]) -> Iterator[np.ndarray]:
        """float32 [D] a chunk, in order."""
        return self._embed([chunk.encoded_text for chunk in chunks], CHUNKS)

    def _embed(self, texts: Sequence[str], side: int) -> Iterator[np.ndarray]:
        for states in self.states(texts):
            with torch.inference_mode():
                mask = torch.ones(1, len(states), dtype=torch.bool, device=states.device)
                yield self.head(states[None].float(), mask, side)[0].cpu().numpy()

    def save(self, path: Path) -> None:
        """The head as safetensors, with the layer and the decoder that it belongs to."""
        folder = self.decoder.folder
        about = {"format": _FORMAT, "layer": self.layer, "name": folder.name, "decoder": folder.fingerprint}
        tensors = {name: tensor.cpu().float().contiguous() for name, tensor in self.head.state_dict().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path, metadata={name: json.dumps(value) for name, value in about.items()})

    @classmethod
    def of_file(cls, path: Path, find: Callable[[str], ModelFolder]) -> HiddenStateEmbedder:
        """A head that was saved, with its decoder, which `find` brings by name.

        Raises UsageError for a file that holds no head, or the head of another decoder than the one of that name.
        """
        try:
            with safe_open(path, framework="pt") as file:
                about = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            if about.get("format") != _FORMAT:
                raise ValueError("it is another kind of file")
            _, queries, hidden = tensors["queries"].shape
            head = Head(hidden, tensors["project.weight"].shape[0], queries)
            head.load_state_dict(tensors)
            layer, name, made_for = int(about["layer"]), str(about["name"]), str(about["decoder"])
        except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise UsageError(f"{path} holds no head for hidden states: {error}", hint="train one") from error
        folder = find(name)
        if made_for != folder.fingerprint:
            raise UsageError(
                f"{path} was trained for {made_for}, not for {folder.fingerprint}", hint="train one for it"
            )
        return cls(load(folder), head, layer)
