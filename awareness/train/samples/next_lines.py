"""Lines of code that use what another file defines: code to be continued with that definition in memory."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from awareness.train.samples.pool import Pool
from awareness.types import Sample

MAX_LINE = 90  # characters of a line that is to be written
_CALL = re.compile(r"(?<!\w)([A-Za-z_]\w{4,})\(")


@dataclass(frozen=True)
class Line:
    """A line of the chunk `user` that uses what the chunk `gold` defines: `context` goes on with `answer`."""

    user: int
    gold: int
    name: str
    context: str
    answer: str


def lines_of(pool: Pool) -> list[Line]:
    found = []
    for user, chunk in enumerate(pool.chunks):
        rows = chunk.text.split("\n")
        for row, text in enumerate(rows):
            call = _CALL.search(text)
            if row == 0 or call is None or len(text.strip()) > MAX_LINE or re.match(r"\s*(?:def|class|func)\b", text):
                continue
            defined = pool.definitions.get(call[1], frozenset())
            if len(defined) != 1 or text.strip().startswith(("#", "//", "*", '"')):
                continue
            (gold,) = defined
            above = f"{chunk.header}\n" + "\n".join(rows[:row]) + "\n"
            if pool.chunks[gold].path == chunk.path or not _defines(pool.chunks[gold].text, call[1]):
                continue
            indent = len(text) - len(text.lstrip())
            cuts = {indent, call.start(1)} if not re.search(rf"\b{call[1]}\b", above) else set()
            cuts |= {call.end()} if len(text) - call.end() > 3 else set()
            for cut in sorted(cuts):
                found.append(Line(user, gold, call[1], above + text[:cut], text[cut:] + "\n"))
    return found


def _defines(text: str, name: str) -> bool:
    return re.search(rf"\b(?:def|class|func|function|fn)\s+(?:\([^()\n]*\)\s*)?{re.escape(name)}\b", text) is not None


def next_line(rng: random.Random, pool: Pool, count: int) -> Sample | None:
    """Code that goes on with something another file defines, with that definition in memory."""
    found = pool.once(lines_of)
    if not found:
        return None
    line = rng.choice(found)
    texts, gold = pool.scattered(rng, [pool.texts[line.gold]], count, {line.user, line.gold})
    return Sample(texts, gold, "", line.answer, context=line.context)
