"""Keys and values of documents as tensors that know which model made them and where each document begins.

They are for the Python API. A plain tensor does not say which model it belongs to, so a memory of another model could
not be refused. `context_encoder.py` makes them, `engine/document_store.py` stores them, `reasoning_decoder.py` reads
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from awareness.errors import UsageError
from awareness.types import MemorySpec, Span

DOCUMENT = "document"
"""The name of a document that was given none."""


class LatentTensor(Tensor):
    """[layers, kv_heads, tokens, head_dim]: the keys (before RoPE) or the values of documents, one after the other.

    spec: how they were made; index i of the first dimension belongs to decoder layer `spec.layers[i]`. spans: one for
    each piece that was encoded apart, in order, with the name of its document. model: the name of the model.

    The result of every operation on it (slicing, `to`, `cat`) is a plain tensor.
    """

    spec: MemorySpec
    spans: tuple[Span, ...]
    model: str

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # results are plain

    @classmethod
    def of(cls, tensor: Tensor, spec: MemorySpec, spans: Sequence[Span], model: str) -> LatentTensor:
        """`tensor` with these attributes; shares its memory and its gradient."""
        own = tensor.as_subclass(cls)
        own.spec, own.spans, own.model = spec.raw, tuple(spans), model
        return own

    def __deepcopy__(self, memo: dict[int, Any]) -> LatentTensor:
        return LatentTensor.of(self.detach().clone().requires_grad_(self.requires_grad), *_origin(self))


def _origin(tensor: LatentTensor) -> tuple[MemorySpec, tuple[Span, ...], str]:
    return tensor.spec, tensor.spans, tensor.model


@dataclass(frozen=True)
class LatentPair:
    """Keys and values that were checked. tensor: both, [2, layers, kv_heads, tokens, head_dim]. The other fields are
    those of `LatentTensor`."""

    tensor: Tensor
    spec: MemorySpec
    spans: tuple[Span, ...]
    model: str

    @property
    def name(self) -> str:
        """The name of the first document."""
        return self.spans[0].name if self.spans else DOCUMENT

    @property
    def pieces(self) -> list[Tensor]:
        """The pieces that were encoded apart, each [2, layers, kv_heads, tokens, head_dim]."""
        return list(self.tensor.split([span.stop - span.start for span in self.spans], dim=3))

    @property
    def keys_values(self) -> tuple[LatentTensor, LatentTensor]:
        keys, values = (LatentTensor.of(side, self.spec, self.spans, self.model) for side in self.tensor)
        return keys, values


def join_pieces(pieces: Sequence[Tensor], names: Sequence[str], spec: MemorySpec, model: str) -> LatentPair:
    """Joins pieces along the tokens. pieces: in reading order, each [2, layers, kv_heads, tokens, head_dim]. names: the
    document of each piece."""
    spans: list[Span] = []
    for piece, name in zip(pieces, names, strict=True):
        start = spans[-1].stop if spans else 0
        spans.append(Span(name, start, start + piece.shape[3]))
    nothing = torch.empty(spec.shape(0), dtype=getattr(torch, spec.dtype))
    tensor = pieces[0] if len(pieces) == 1 else torch.cat([nothing, *pieces], dim=3)
    return LatentPair(tensor, spec.raw, tuple(spans), model)


def join_documents(documents: Sequence[tuple[Tensor, Tensor]]) -> tuple[LatentTensor, LatentTensor]:
    """The keys and values of several documents as those of one memory, in this order, [layers, kv_heads, all tokens,
    head_dim]. documents: as `encode_document` and `retrieve` return them. Raises UsageError if there are none, or if
    different models made them."""
    pairs = [check_pair(keys, values) for keys, values in documents]
    if not pairs:
        raise UsageError("there are no documents to join")
    first = pairs[0]
    for other in pairs[1:]:
        check_model(other.spec, other.model, first.spec, first.model, f"'{other.name}'")
    pieces = [piece for joined in pairs for piece in joined.pieces]
    names = [span.name for joined in pairs for span in joined.spans]
    return join_pieces(pieces, names, first.spec, first.model).keys_values


def check_pair(keys: Tensor, values: Tensor, spec: MemorySpec | None = None, model: str | None = None) -> LatentPair:
    """Checks keys and values, each [layers, kv_heads, tokens, head_dim], and puts them together.

    spec: how plain tensors were made; a `LatentTensor` has its own. model: the name of the model. Raises UsageError if
    there is no spec, if it does not match that of the tensors, or if the shapes do not fit.
    """
    if not keys.is_floating_point() or keys.ndim != 4 or values.shape != keys.shape or values.dtype != keys.dtype:
        raise UsageError(
            f"keys and values must be two floating-point tensors, each [layers, kv_heads, tokens, head_dim]; they are"
            f" {_form(keys)} and {_form(values)}"
        )
    labelled = [tensor for tensor in (keys, values) if isinstance(tensor, LatentTensor)]
    if len(labelled) == 2 and _origin(labelled[0]) != _origin(labelled[1]):
        raise UsageError("the keys and the values are of different documents", hint="pass both as they were returned")
    if labelled:
        own, spans, name = _origin(labelled[0])
        if spec is not None:
            check_model(own, name, spec, model or spec.model, "the memory")
    elif spec is not None:
        own, spans, name = spec.raw, (Span(DOCUMENT, 0, keys.shape[2]),), model or spec.model
    else:
        raise UsageError(
            "plain tensors do not say which model made them",
            hint="spec=encoder.spec, or the tensors as encode_document and retrieve return them",
        )
    if tuple(keys.shape) != (expected := own.shape(keys.shape[2])[1:]):
        raise UsageError(f"keys and values are {list(keys.shape)}; {name} needs {list(expected)}")
    return LatentPair(torch.stack([keys, values]), own, spans, name)


def check_model(spec: MemorySpec, model: str, expected: MemorySpec, expected_model: str, what: str) -> None:
    """Raises UsageError, naming both models, unless latents of the two specs can be read together. How their numbers
    are stored does not matter. what: the thing that has `spec`, for the message."""
    if spec.raw == expected.raw:
        return
    if spec.model != expected.model:
        raise UsageError(
            f"{what} was made by {model} ({spec.model}), which {expected_model} ({expected.model}) cannot read",
            hint=f"encode it again with {expected_model}",
        )
    names = [f.name for f in fields(MemorySpec) if getattr(spec.raw, f.name) != getattr(expected.raw, f.name)]
    raise UsageError(
        f"{what} was made by {model} with other settings than {expected_model} reads: "
        + ", ".join(f"{name} is {getattr(spec, name)}, not {getattr(expected, name)}" for name in names),
        hint=f"encode it again with {expected_model}, and with its adapter if it has one",
    )


def _form(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} in {str(tensor.dtype).removeprefix('torch.')}"
