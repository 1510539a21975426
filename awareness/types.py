"""The values that pass between the packages: what they hold, in which shape, in which unit.

Frozen dataclasses and two protocols, nothing that does work. `index` and `model` never import each other; they
meet in these types. Torch is named in annotations only, so that importing this module costs nothing.

Shapes use B (batch), T (tokens of the prompt), M (tokens of memory), H (query heads), D (head_dim).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Union

if TYPE_CHECKING:
    import numpy as np
    import torch

Buffer = bytes | bytearray | memoryview

Progress = Callable[[str, int, "int | None"], None]
"""(what is being done, how much is done, out of how much if known)"""


def silent(what: str, done: int, total: int | None) -> None:
    """The `Progress` that nobody watches."""


ENCODING_VERSION = 1
"""Of the way K and V are made: raised whenever the same text would give other bytes."""

QUANT_BITS = {"int8": 8, "int4": 4, "int2": 2, "fp8": 8}
"""Ways of storing latents in fewer bits than their dtype has (model/quantisation.py), and the bits of one number."""
QUANT_GROUP = 64
"""Tokens that share one scale of a key channel."""


def digest(*parts: bytes | str) -> str:
    """blake2b-256 of the parts, each framed by its length, in hex: what content is addressed by everywhere."""
    hasher = hashlib.blake2b(digest_size=32)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.hexdigest()


def printable(text: str) -> str:
    r"""`text` on one line, safe for terminals and tokenizers: control, bidi and surrogate characters become `\x..`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@dataclass(frozen=True)
class Chunk:
    """A span of whole lines of one file, the unit that is routed to, encoded and cited.

    `path` is relative to the root of the repository, with `/`; bytes that are not UTF-8 are held as surrogates
    (PEP 383). Lines count from 1 and `end_line` is included. `text` is those lines with `\\n` ends, without the last
    one. `symbol` is the qualified name of the definition it shows (`Class.method`, a Markdown heading) or empty.
    """

    path: str
    start_line: int
    end_line: int
    symbol: str
    text: str

    @property
    def header(self) -> str:
        """The line that is encoded before the text, so that the latent knows where it comes from."""
        where = f"{self.path} · {self.symbol}" if self.symbol else self.path
        return f"# file: {printable(where)}"

    @property
    def encoded_text(self) -> str:
        """Exactly what the model reads."""
        return f"{self.header}\n{self.text}\n"

    @property
    def place(self) -> str:
        """`path:first-last`, as editors and people write it; on one line, whatever the path holds."""
        return f"{printable(self.path)}:{self.start_line}-{self.end_line}"

    @cached_property
    def digest(self) -> str:
        """Identity of the encoded text: the same code under the same path and name is the same chunk on any branch."""
        return digest(self.encoded_text)


@dataclass(frozen=True)
class MemorySpec:
    """Everything that decides what a latent's bytes mean; two latents with equal specs can be read together.

    layers: the decoder layers that read memory, ascending. dtype: of the stored tensor (`bfloat16`, `float32`).
    encoder: how K/V were made (`self`: the decoder's own). sink: digest of the prefix all chunks were encoded after.
    quant: how the numbers are stored, `none` (as they are) or one of `QUANT_BITS`; the sink is never quantised.
    version: of the way K/V are made, raised whenever the same text would give other bytes. Keys are stored before RoPE.
    """

    model: str
    layers: tuple[int, ...]
    num_kv_heads: int
    head_dim: int
    dtype: str = "bfloat16"
    encoder: str = "self"
    sink: str = ""
    quant: str = "none"
    version: int = ENCODING_VERSION

    @property
    def raw(self) -> MemorySpec:
        """The same without quantisation: what the sink is stored by, and what is attended to."""
        return replace(self, quant="none")

    def latent_bytes(self, tokens: int) -> int:
        """Size of a latent of so many tokens. Quantised: codes of K and V, and a scale and an offset (float16 each, fp8
        without the offset) for each key channel and group of tokens, and for each token of a value head."""
        heads = len(self.layers) * self.num_kv_heads
        numbers = heads * self.head_dim * tokens
        if self.quant == "none":
            return 2 * numbers * {"bfloat16": 2, "float16": 2, "float32": 4}[self.dtype]
        groups = -(-tokens // QUANT_GROUP)
        parameters = 2 if self.quant == "fp8" else 4
        return 2 * numbers * QUANT_BITS[self.quant] // 8 + heads * parameters * (self.head_dim * groups + tokens)

    def shape(self, tokens: int) -> tuple[int, int, int, int, int]:
        """[2 (K, V), layers, kv_heads, tokens, head_dim]."""
        return (2, len(self.layers), self.num_kv_heads, tokens, self.head_dim)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> MemorySpec:
        """Raises ValueError, TypeError or KeyError for what no `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        spec = cls(**{**values, "layers": tuple(values["layers"])})
        numbers = (spec.num_kv_heads, spec.head_dim, spec.version, *(layer + 1 for layer in spec.layers))
        texts = (spec.model, spec.dtype, spec.encoder, spec.sink, spec.quant)
        if not all(type(n) is int and 0 < n < 1 << 20 for n in numbers) or not all(type(t) is str for t in texts):
            raise ValueError(f"not a MemorySpec: {text:.80}")
        return spec

    @cached_property
    def key(self) -> str:
        """Identity of the spec, part of every latent's key."""
        return digest(self.to_json())

    def latent_key(self, chunk_digest: str) -> str:
        """What a latent is stored under: chunk text with header, model fingerprint, geometry, quantisation."""
        return digest(chunk_digest, self.key)


def default_layers(num_layers: int) -> tuple[int, ...]:
    """The upper five sixths. An untrained model whose memory starts higher finds fewer needles."""
    return tuple(range(num_layers // 6, num_layers))


@dataclass(frozen=True)
class Latent:
    """K and V of one chunk as bytes: the tensor `spec.shape(tokens)`, row-major, in `spec.dtype`, or quantised."""

    tokens: int
    data: Buffer


SINK = "sink"
"""What the sink is called where chunks are called by their digest."""


@dataclass(frozen=True)
class Span:
    """Which tokens of a memory belong to one source: `[start, stop)`; `name` is a chunk's digest, or `SINK`."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Memory:
    """The latents chosen for one question, in order, ready to attend to.

    keys, values: decoder layer -> [B or 1, num_kv_heads, M, head_dim], the keys already rotated to their positions.
    mask: [B, M], True where a row may look, or None if every row sees all. M may be 0.
    """

    keys: Mapping[int, torch.Tensor]
    values: Mapping[int, torch.Tensor]
    spans: tuple[Span, ...] = ()
    mask: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        """M, the tokens of the longest row."""
        return next((k.shape[2] for k in self.keys.values()), 0)

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for side in (self.keys, self.values) for t in side.values())


@dataclass(frozen=True)
class Sample:
    """A question put to a memory, and what is to be said: what training learns from and evaluations ask.

    texts: the chunks as they are encoded, in reading order. gold: the places in `texts` of those that hold the answer,
    none where the memory does not help. With an empty question `context`, code, is continued instead. answer_prefix:
    the first words of the answer, put into the model's mouth; `answer` is what follows them. kind: how it was made.
    """

    texts: tuple[str, ...]
    gold: tuple[int, ...]
    question: str
    answer: str
    answer_prefix: str = ""
    context: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Hit:
    """A chunk that the router found. `score` is in [0, 1], higher is better, and orders the hits of one query."""

    chunk: Chunk
    score: float


@dataclass(frozen=True)
class Citation:
    """A place that an answer rests on.

    attention: the share of memory attention that the answer's tokens gave the chunk, None if no memory was attached.
    verified: the lines were read again, from the repository or from the pack, and are what was encoded. rev: the commit
    they are from, or None for the work tree. origin: which pack or repository, None where only one repository is asked.
    """

    path: str
    start_line: int
    end_line: int
    symbol: str
    score: float
    attention: float | None
    verified: bool
    rev: str | None = None
    origin: str | None = None


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: at temperature 0 the likeliest, else drawn from the top_k likeliest (0: from all)
    that together have at least the probability top_p (Holtzman et al. 2020). seed: of the draw."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """For transformers' `generate()`."""
        if self.temperature == 0.0:
            return {"do_sample": False}
        return {"do_sample": True, "temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}


class KVEncoder(Protocol):
    """Text -> latents by `spec`. `encode` yields one a text, in order; fastest if neighbours are of like length."""

    @property
    def spec(self) -> MemorySpec: ...

    @property
    def sink(self) -> Latent:
        """Latent, by `spec.raw`, of the fixed prefix that every text is encoded after, its own keys before RoPE."""
        ...

    def encode(self, texts: Sequence[str]) -> Iterator[Latent]: ...


Vector = Union[Sequence[float], "np.ndarray"]


class Embedder(Protocol):
    """Text -> unit vectors, near each other where a question and a chunk are about the same thing.

    fingerprint: of whatever decides the vectors; those of two fingerprints can't be compared.
    """

    @property
    def fingerprint(self) -> str: ...

    def question(self, text: str) -> Vector: ...

    def chunks(self, chunks: Sequence[Chunk]) -> Iterator[Vector]:
        """One a chunk, in order; fastest if many are given at once."""
        ...


class Router(Protocol):
    """Question -> the chunks worth attaching, best first."""

    def search(self, query: str, *, top_k: int) -> list[Hit]: ...
