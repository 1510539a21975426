"""How a hit of a search is shown, and told in JSON."""

from __future__ import annotations

from collections.abc import Sequence

from awareness.cli import render
from awareness.engine.corpus import CorpusHit
from awareness.engine.units import named_list

STALE = "  (changed or gone since it was indexed)"
"""After a hit whose lines are no longer those that were indexed."""


def listed(hits: Sequence[CorpusHit], stale: Sequence[bool]) -> list[dict[str, object]]:
    """The JSON of each hit."""
    return [hit.to_json() | {"stale": is_stale} for hit, is_stale in zip(hits, stale, strict=True)]


def show(hit: CorpusHit, *, is_stale: bool) -> None:
    """Prints the place, the symbol and the first lines of a hit, and where else the same text stands."""
    mark = STALE if is_stale else ""
    kind = "" if hit.hit.kind in ("", "source", "other") else f"  {hit.hit.kind}"
    render.text(f"{hit.place}  {hit.symbol}  {hit.score:.2f}{kind}{mark}", style="bold")
    for line in hit.preview().split("\n"):
        render.text(f"    {line}")
    if copies := hit.hit.copies:
        render.text(f"    the same in {named_list([copy.place for copy in copies])}", style="dim")
    if others := hit.hit.translations:
        render.text(f"    in other languages: {named_list([other.place for other in others])}", style="dim")
