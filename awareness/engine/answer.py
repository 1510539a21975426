"""What `Engine.ask` returns or raises, and the JSON form that front ends share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awareness.engine.corpus import CorpusHit
from awareness.engine.question_options import Mode
from awareness.errors import NothingFound
from awareness.types import AS_IT_IS, Citation, QuestionReading, printable

if TYPE_CHECKING:
    from awareness.model.sentences import Sentence


@dataclass(frozen=True)
class MemorySize:
    """What was attached: chunks in any mode, tokens and bytes of their latents. dropped: hits that did not fit into the
    decoder's positions, the worst ones. read: chunks whose latents the answer was read from; recomputed: their tokens
    that were computed again for the question."""

    chunks: int = 0
    tokens: int = 0
    bytes: int = 0
    dropped: int = 0
    read: int = 0
    recomputed: int = 0


@dataclass(frozen=True)
class Timings:
    """Seconds: searching; loading the model and latents; from then to the first token; the whole question. prepare_s:
    the part of first_token_s in which the memory was prepared for the question."""

    route_s: float = 0.0
    load_s: float = 0.0
    first_token_s: float = 0.0
    total_s: float = 0.0
    prepare_s: float = 0.0

    def to_json(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class AnswerTokens:
    """What an answer was generated from and as, so that what it looked at can be computed again (`Engine.attention`).
    prompt, answer: token ids. reading: how the memory was prepared for the question."""

    prompt: tuple[int, ...] = ()
    answer: tuple[int, ...] = ()
    reading: QuestionReading = AS_IT_IS


@dataclass(frozen=True)
class Answer:
    """An answer with its sources.

    sentences: each with the place of its source in `hits`. hits: the chunks that were attached, best first; citations:
    the same, as they are printed. adapter: the checkpoint that the decoder read with. weights: what it decoded with.
    is_cancelled: True if the caller ended it early. cut: tokens that were cut out of the question. reused: tokens of
    earlier turns whose keys and values were kept from the question before. tokens: it and its prompt as the decoder saw
    them.
    """

    question: str
    sentences: tuple[Sentence, ...]
    hits: tuple[CorpusHit, ...]
    citations: tuple[Citation, ...]
    mode: Mode
    model: str
    adapter: Path | None
    weights: str
    memory: MemorySize
    timings: Timings
    tokens_per_s: float
    is_cancelled: bool = False
    cut: int = 0
    reused: int = 0
    tokens: AnswerTokens = field(default=AnswerTokens(), repr=False)

    @property
    def text(self) -> str:
        """The answer, with `[n]` after what rests on source n and `(not in the sources)` after unknown names."""
        return "".join(sentence.marked for sentence in self.sentences).strip()

    @property
    def abstained(self) -> bool:
        """Whether the answer says no more than that the attached chunks do not answer the question."""
        return bool(self.hits) and bool(self.sentences) and all(s.is_refusal for s in self.sentences)

    @property
    def cited(self) -> list[int]:
        """Places in `hits` of the sources that sentences rest on, ascending."""
        return sorted({sentence.source for sentence in self.sentences if sentence.source is not None})

    @property
    def shown(self) -> list[dict[str, Any]]:
        """What a person wants to see of each hit: `place`, narrowed to the first evidence, `symbol`, and `lines`: the
        numbers and texts of the lines that sentences rest on."""
        return [
            {
                "place": hit.place_of(*citation.evidence[0]) if citation.evidence else hit.place,
                "symbol": hit.symbol,
                "lines": hit.lines_between(citation.evidence),
            }
            for hit, citation in zip(self.hits, self.citations, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "question": self.question,
            "answer": self.text,
            "sentences": [sentence_json(sentence) for sentence in self.sentences],
            "abstained": self.abstained,
            "mode": self.mode.value,
            "model": self.model,
            "adapter": None if self.adapter is None else str(self.adapter),
            "weights": self.weights,
            "citations": [asdict(citation) for citation in self.citations],
            "memory": asdict(self.memory),
            "cut": self.cut,
            "timings": self.timings.to_json(),
            "tokens_per_s": round(self.tokens_per_s, 2),
        }


def sentence_json(sentence: Sentence) -> dict[str, object]:
    """source: the number of the citation that the sentence rests on, counted from 1. lines: the first and the last one
    of its file that it rests on, with the confidence in them; null if they are uncertain. marked: as it is shown, with
    what stands before it."""
    return {
        "text": sentence.text.strip(),
        "marked": sentence.marked,
        "source": None if sentence.source is None else sentence.source + 1,
        "unknown": list(sentence.unknown),
        "lines": None if sentence.lines is None else list(sentence.lines),
        "confidence": None if sentence.confidence is None else round(sentence.confidence, 2),
    }


def cite(
    hits: Sequence[CorpusHit], attention: dict[str, float], sentences: Sequence[Sentence] = ()
) -> tuple[Citation, ...]:
    """attention: the share of memory attention of each hit, by its place in `hits`. sentences: of the answer."""
    citations = []
    for place, hit in enumerate(hits):
        chunk, share = hit.chunk, attention.get(str(place))
        citations.append(
            Citation(
                chunk.path,
                chunk.start_line,
                chunk.end_line,
                chunk.symbol,
                hit.score,
                None if share is None else round(share, 4),
                verified=True,
                rev=hit.corpus.rev,
                origin=hit.corpus.name,
                evidence=tuple(sorted({s.lines for s in sentences if s.source == place and s.lines is not None})),
            )
        )
    return tuple(citations)


class NotAnswered(NothingFound):
    """No chunk seems to answer the question, so the decoder was not asked.

    nearest: the hits that come nearest, best first. looked_at: how many chunks were searched. no_match: the message if
    the scope has no file at all.
    """

    def __init__(
        self,
        question: str,
        nearest: Sequence[CorpusHit],
        looked_at: int,
        mode: Mode,
        model: str,
        timings: Timings,
        no_match: str | None = None,
    ) -> None:
        chunks = f"{looked_at} chunk" if looked_at == 1 else f"{looked_at} chunks"
        super().__init__(
            no_match or f"none of {chunks} seems to answer '{printable(question[:80])}'",
            hint="another --scope, or none"
            if no_match
            else "name a file, class or function you know of, or look yourself: awareness search WORDS",
        )
        self.question, self.nearest, self.looked_at = question, tuple(nearest), looked_at
        self.mode, self.model, self.timings = mode, model, timings

    @property
    def shown(self) -> list[dict[str, Any]]:
        """What a person wants to see of each of the nearest: `place`, `symbol`, `score` and the first line; and what an
        editor wants."""
        return [hit.listed() | {"place": hit.place, "preview": hit.preview(lines=1).strip()} for hit in self.nearest]

    def to_json(self) -> dict[str, Any]:
        return {
            "question": self.question,
            "answer": "",
            "sentences": [],
            "abstained": True,
            "mode": self.mode.value,
            "model": self.model,
            "citations": [],
            "nearest": [hit.to_json(with_preview=False) for hit in self.nearest],
            "looked_at": {"chunks": self.looked_at},
            "memory": asdict(MemorySize()),
            "timings": self.timings.to_json(),
            "tokens_per_s": 0.0,
        }
