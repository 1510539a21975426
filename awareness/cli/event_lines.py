"""`awareness ask --format lines`: what happens while a question is answered, as JSON objects, one a line, for editors.

Places are as in the Language Server Protocol: a `uri`, and a `range` whose lines and characters are counted from 0 and
whose end is exclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from awareness.cli import render


class EventLines:
    """Writes the events of one question, each as soon as it happens.

    `source` for each attached chunk, before the answer; `begun` with the text of the sentence that is being written;
    `sentence` for each complete one, with the place that it rests on; at the end `answer` or `refusal`.
    """

    def __init__(self) -> None:
        self._hits: Sequence[dict[str, Any]] = ()
        self._begun = ""

    def hits(self, hits: Sequence[dict[str, Any]]) -> None:
        self._hits = hits
        _write_places("source", hits)

    def begun(self, text: str) -> None:
        if text != self._begun:
            self._begun = text
            _write("begun", text=text)

    def sentence(self, sentence: dict[str, Any]) -> None:
        self._begun = ""
        number, place = sentence["source"], {"uri": None, "path": None, "range": None}
        if number is not None:
            place = _place(self._hits[number - 1], sentence["lines"])
        said = {name: sentence[name] for name in ("text", "source", "unknown", "confidence")}
        _write("sentence", **said, marked=sentence["marked"].strip(), **place)

    def answer(self, answer: dict[str, Any], places: Sequence[dict[str, Any]]) -> None:
        _write("answer", **answer)

    def refusal(self, refusal: dict[str, Any], nearest: Sequence[dict[str, Any]], searched: str, message: str) -> None:
        _write_places("nearest", nearest)
        _write("refusal", message=message, **refusal)


def _write(event: str, **values: Any) -> None:
    render.data({"event": event, **values})


def _write_places(event: str, hits: Sequence[dict[str, Any]]) -> None:
    for number, hit in enumerate(hits, 1):
        _write(event, number=number, **_place(hit), symbol=hit["symbol"], score=round(hit["score"], 4))


def _place(hit: dict[str, Any], lines: Sequence[int] | None = None) -> dict[str, Any]:
    """lines: the first and the last of its file, counted from 1; None for the whole chunk. uri: null for what is no
    file on disk. path: relative to the repository."""
    first, last = lines or (hit["start_line"], hit["end_line"])
    return {
        "uri": hit["uri"],
        "path": hit["path"],
        "range": {"start": {"line": first - 1, "character": 0}, "end": {"line": last, "character": 0}},
    }
