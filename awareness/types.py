"""The types that the packages exchange: frozen dataclasses and two protocols.

`index` and `model` do not import each other; they share these types. Torch appears in annotations only, so that
importing this module is cheap. Shapes use B (batch), M (tokens of memory), D (dimension).
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
"""(what is being done, amount done, total amount or None if unknown). After ` · ` stands what changes meanwhile, as in
`training · loss 0.51`."""


def silent(what: str, done: int, total: int | None) -> None:
    """A `Progress` that shows nothing."""


ENCODING_VERSION = 1
"""Version of the encoding: raised whenever the same text would give other bytes."""

QUANT_BITS = {"int8": 8, "int4": 4, "int2": 2, "fp8": 8}
"""Quantisation (model/quantisation.py) -> bits of one number."""
QUANT_GROUP = 64
"""Number of tokens that share one scale of a key channel."""
PCA = "pca"
"""Quantisation by tables that were fitted to a decoder (model/pca/codec.py)."""
QUANTS = ("none", *QUANT_BITS, PCA)
"""Every way to store the numbers of latents."""


def digest(*parts: bytes | str) -> str:
    """The blake2b-256 of the parts, each preceded by its length, in hex. It identifies content everywhere."""
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


def numbered(number: int, noun: str) -> str:
    """`1 chunk`, `1,700 chunks`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


TITLE = " > "
"""Between the titles of a symbol (`Guide > Setup`), and between a title and a name of code (`cell 3 > Model.fit`)."""


def last_name(symbol: str) -> str:
    """The last title or name of a symbol: `cell 3 > Model.fit` -> `fit`, `Guide > Version 2.0` -> `Version 2.0`."""
    scope, _, last = symbol.rpartition(TITLE)
    return last if scope and " " in last else last.rpartition(".")[2]


@dataclass(frozen=True)
class Chunk:
    """A span of whole lines of one file: the unit that is searched, encoded and cited.

    path: relative to the root of the repository, with `/`; bytes that are not UTF-8 are surrogates (PEP 383).
    start_line, end_line: from 1, inclusive. symbol: qualified name of the definition or heading (`Class.method`), or
    empty. text: the lines, joined by `\\n`.
    """

    path: str
    start_line: int
    end_line: int
    symbol: str
    text: str

    @property
    def header(self) -> str:
        """The line that is encoded before the text, with its path and symbol."""
        where = f"{self.path} · {self.symbol}" if self.symbol else self.path
        return f"# file: {printable(where)}"

    @property
    def encoded_text(self) -> str:
        """The text that the model reads."""
        return f"{self.header}\n{self.text}\n"

    @property
    def place(self) -> str:
        """`path:first-last`, always printable on one line."""
        return f"{printable(self.path)}:{self.start_line}-{self.end_line}"

    @cached_property
    def digest(self) -> str:
        """Identifies the encoded text: equal code with equal path and symbol is the same chunk on every branch."""
        return digest(self.encoded_text)


@dataclass(frozen=True)
class MemorySpec:
    """Everything that decides what the bytes of a latent mean. Latents with equal specs can be read together.

    model: fingerprint. layers: the decoder layers that read memory, ascending. dtype: `bfloat16`, `float16` or
    `float32`. encoder: what made K and V (`self`: the decoder). sink: digest of the prefix that all chunks are encoded
    after. quant: one of `QUANTS`; the sink is never quantised. version: `ENCODING_VERSION`. codec: digest of the tables
    that `pca` needs, empty for others. Keys are stored before RoPE.
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
    codec: str = ""

    @property
    def raw(self) -> MemorySpec:
        """The spec without quantisation, which the sink is stored with."""
        return replace(self, quant="none", codec="")

    @property
    def pca_bytes(self) -> int:
        """Bytes of one token of one layer with `pca`: 1.6 bits for each number of K and V."""
        return 2 * self.num_kv_heads * self.head_dim // 5

    def latent_bytes(self, tokens: int) -> int:
        """The size in bytes of a latent with this number of tokens.

        Quantised: the codes of K and V, with a scale and an offset (float16 each; fp8 has no offset) for each key
        channel and group of tokens, and for each token of a value head. `pca` has codes only.
        """
        heads = len(self.layers) * self.num_kv_heads
        numbers = heads * self.head_dim * tokens
        if self.quant == "none":
            return 2 * numbers * {"bfloat16": 2, "float16": 2, "float32": 4}[self.dtype]
        if self.quant == PCA:
            return len(self.layers) * self.pca_bytes * tokens
        groups = -(-tokens // QUANT_GROUP)
        parameters = 2 if self.quant == "fp8" else 4
        return 2 * numbers * QUANT_BITS[self.quant] // 8 + heads * parameters * (self.head_dim * groups + tokens)

    def shape(self, tokens: int) -> tuple[int, int, int, int, int]:
        """[2 (K, V), layers, kv_heads, tokens, head_dim]."""
        return (2, len(self.layers), self.num_kv_heads, tokens, self.head_dim)

    def to_json(self) -> str:
        fields = asdict(self)
        if not self.codec:  # as it was before there was a codec: the JSON is part of the key of every latent
            del fields["codec"]
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> MemorySpec:
        """Raises ValueError, TypeError or KeyError for text that is not from `to_json`."""
        fields: dict[str, Any] = json.loads(text)
        spec = cls(**{**fields, "layers": tuple(fields["layers"])})
        numbers = (spec.num_kv_heads, spec.head_dim, spec.version, *(layer + 1 for layer in spec.layers))
        texts = (spec.model, spec.dtype, spec.encoder, spec.sink, spec.quant, spec.codec)
        if not all(type(n) is int and 0 < n < 1 << 20 for n in numbers) or not all(type(t) is str for t in texts):
            raise ValueError(f"not a MemorySpec: {text:.80}")
        return spec

    @cached_property
    def key(self) -> str:
        """Identifies the spec; part of every `latent_key`."""
        return digest(self.to_json())

    def latent_key(self, chunk_digest: str) -> str:
        """The name a latent is stored under."""
        return digest(chunk_digest, self.key)


def default_layers(num_layers: int) -> tuple[int, ...]:
    """The upper five sixths. With fewer layers, an untrained model finds fewer needles."""
    return tuple(range(num_layers // 6, num_layers))


@dataclass(frozen=True)
class Latent:
    """K and V of one chunk as bytes: a tensor of `spec.shape(tokens)`, row-major, in `spec.dtype` or quantised."""

    tokens: int
    data: Buffer


SINK = "sink"
"""The name of the sink where chunks are named by their digest."""


@dataclass(frozen=True)
class Span:
    """The tokens `[start, stop)` of a memory that belong to one chunk. name: the chunk's digest, or `SINK`."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Memory:
    """The latents chosen for one question, in order, ready to attend to.

    keys, values: decoder layer -> [B or 1, num_kv_heads, M, head_dim], keys after RoPE. spans: the source of each
    token. mask: bool [B, M] or [B, T, M], True where a row, or each of its T tokens, may attend, or None if every row
    attends to all. M may be 0. sharpness: the factor that the chunks' keys were multiplied by. recomputed: the number
    of tokens that were computed again for the question.
    """

    keys: Mapping[int, torch.Tensor]
    values: Mapping[int, torch.Tensor]
    spans: tuple[Span, ...] = ()
    mask: torch.Tensor | None = None
    sharpness: float = 1.0
    recomputed: int = 0

    @property
    def tokens(self) -> int:
        """M, including padding."""
        return next((k.shape[2] for k in self.keys.values()), 0)

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for side in (self.keys, self.values) for t in side.values())


@dataclass(frozen=True)
class Sample:
    """A question to a memory with its answer, for training and evaluation.

    texts: the encoded texts of the chunks, in reading order. gold: indices in `texts` of the chunks with the answer,
    empty if none has it. answer_prefix: the start of the answer that the model is given; `answer` follows it. context:
    code to continue in place of a question, which is empty then. kind: which generator made the sample.
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
    """A search result. score: in [0, 1], higher is better. copies: other chunks with the same text, which would have
    been hits too; translations: the same for the document in other languages. kind: of its file (`FileKind.word`)."""

    chunk: Chunk
    score: float
    copies: tuple[Chunk, ...] = ()
    translations: tuple[Chunk, ...] = ()
    kind: str = ""


@dataclass(frozen=True)
class Citation:
    """A source of an answer.

    attention: the chunk's share of the memory attention of the answer's tokens, None without memory. verified: the
    lines were read again and equal those that were encoded. rev: their commit, None for the work tree. origin: the pack
    or repository they are from, None if only one is searched. evidence: the first and the last line of each part that
    sentences of the answer rest on, ascending.
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
    evidence: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: at temperature 0 the most likely one, else at random.

    top_k: sample from the k most likely tokens; 0 is all. top_p: nucleus sampling, from the most likely tokens up to
    this total probability (Holtzman et al. 2020). seed: random seed.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """The arguments for `generate()` of transformers."""
        if self.temperature == 0.0:
            return {"do_sample": False}
        return {"do_sample": True, "temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}


@dataclass(frozen=True)
class QuestionReading:
    """How a memory is prepared for a question (model/reading/question_reading.py); by default not at all.

    top_chunks: leave only this many chunks, those that the question looks at most; None for all. recompute: then the
    share of the memory's tokens, from 0 to 1, that are computed again for the question.
    """

    recompute: float = 0.0
    top_chunks: int | None = None


AS_IT_IS = QuestionReading()
"""Nothing is prepared."""


class KVEncoder(Protocol):
    """Text -> latents by `spec`."""

    @property
    def spec(self) -> MemorySpec: ...

    @property
    def sink(self) -> Latent:
        """The latent, by `spec.raw`, of the fixed prefix that every text is encoded after."""
        ...

    def encode(self, texts: Sequence[str]) -> Iterator[Latent]:
        """One latent for each text, in order; fastest if neighbours are of similar length."""
        ...


Vector = Union[Sequence[float], "np.ndarray"]


class Embedder(Protocol):
    """Text -> unit vectors, similar where a question and a chunk have the same topic.

    fingerprint: of everything that decides the vectors; vectors of different fingerprints do not compare.
    """

    @property
    def fingerprint(self) -> str: ...

    def question(self, text: str) -> Vector: ...

    def chunks(self, chunks: Sequence[Chunk]) -> Iterator[Vector]:
        """One vector for each chunk, in order; fastest with many chunks at once."""
        ...
