"""What `ask` shows of an answer, whichever process gives it: text, one JSON object, or lines of events."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from awareness.cli import render
from awareness.cli.event_lines import EventLines
from awareness.cli.options import AnswerFormat
from awareness.engine.units import counted
from awareness.errors import NothingFound
from awareness.types import printable

COLUMNS = 80
"""Of a line that a sentence rests on."""


class Output(Protocol):
    """What is told of one question, in this order; one of `answer` and `refusal` comes last, after the block of
    `answering`. hits, nearest: `CorpusHit.listed`. answer, refusal: their JSON. places: `Answer.shown`. searched: what,
    in words."""

    def hits(self, hits: Sequence[dict[str, Any]]) -> None: ...

    def begun(self, text: str) -> None: ...

    def sentence(self, sentence: dict[str, Any]) -> None: ...

    def answer(self, answer: dict[str, Any], places: Sequence[dict[str, Any]]) -> None: ...

    def refusal(
        self, refusal: dict[str, Any], nearest: Sequence[dict[str, Any]], searched: str, message: str
    ) -> None: ...


@contextlib.contextmanager
def answering(format: AnswerFormat) -> Iterator[Output]:
    """Inside the block the answer is shown while it is generated, where the format does so."""
    if format is AnswerFormat.lines:
        yield EventLines()
    elif format is AnswerFormat.json:
        yield _Json()
    else:
        with render.answering(is_shown=True) as shown:
            yield _Text(shown)


class _Json:
    """One object at the end."""

    def hits(self, hits: Sequence[dict[str, Any]]) -> None:
        pass

    def begun(self, text: str) -> None:
        pass

    def sentence(self, sentence: dict[str, Any]) -> None:
        pass

    def answer(self, answer: dict[str, Any], places: Sequence[dict[str, Any]]) -> None:
        render.data(answer)

    def refusal(self, refusal: dict[str, Any], nearest: Sequence[dict[str, Any]], searched: str, message: str) -> None:
        render.data(refusal)


class _Text:
    """Sentences as they come, then their sources, or what comes nearest."""

    def __init__(self, shown: render.Shown) -> None:
        self._shown = shown

    def hits(self, hits: Sequence[dict[str, Any]]) -> None:
        pass

    def begun(self, text: str) -> None:
        self._shown.begun(text)

    def sentence(self, sentence: dict[str, Any]) -> None:
        self._shown.sentence(sentence["marked"])

    def answer(self, answer: dict[str, Any], places: Sequence[dict[str, Any]]) -> None:
        _print_sources(answer, places)

    def refusal(self, refusal: dict[str, Any], nearest: Sequence[dict[str, Any]], searched: str, message: str) -> None:
        if not nearest:
            return
        chunks = counted(refusal["looked_at"]["chunks"], "chunk")
        render.text(f"Not found in {searched} ({chunks} searched). Nearest:")
        for hit in nearest[:3]:
            render.text(f"  {hit['place']}  {hit['symbol']}  score {hit['score']:.2f}")
            render.text(f"      {hit['preview']}")


def not_there(answer: dict[str, Any], top_k: int) -> NothingFound:
    """The error for an answer that says no more than that the code does not answer."""
    return NothingFound(
        f"the model read {counted(answer['memory']['chunks'], 'chunk')} and says that the answer is not there",
        hint=f"--top-k {2 * top_k}, or name a file, class or function you know of",
    )


def _print_sources(answer: dict[str, Any], places: Sequence[dict[str, Any]]) -> None:
    """The sources that sentences rest on, by number, each with these lines; then the other attached places; then how
    long it took."""
    cited = sorted({sentence["source"] for sentence in answer["sentences"] if sentence["source"] is not None})
    if places:
        render.text("\nSources", style="bold")
        for number in cited:
            shown, attention = places[number - 1], answer["citations"][number - 1]["attention"]
            read = "" if attention is None else f"  read {attention:.0%}"
            render.text(f"  [{number}] {shown['place']}  {shown['symbol']}{read}")
            for line_number, line in shown["lines"]:
                text = f"      {line_number}  {line.strip().expandtabs(4)}"
                render.text(text, style="dim", columns=COLUMNS)
        others = [shown["place"] for number, shown in enumerate(places, 1) if number not in cited]
        if others:
            render.text(f"  also attached: {', '.join(others)}", style="dim")
    note_times(answer)


def note_times(answer: dict[str, Any]) -> None:
    """How much was read and how long it took, on stderr. answer: its JSON."""
    timings = answer["timings"]
    render.note(
        f"\n{printable(answer['model'])}, {answer['mode']}{', trained' if answer['adapter'] else ''}:"
        f" {answer['memory']['tokens']} tokens of memory,"
        f" first token {timings['first_token_s']:.2f} s after loading, {answer['tokens_per_s']:.0f} tokens/s,"
        f" {timings['total_s']:.1f} s in all"
    )
