"""Components and pages that hold several languages (Vue, Svelte, Astro, HTML) -> parts.

Scripts and styles are cut at their own syntax, in the language of their `lang` or `type`. The component is named after
its file, so `Cart.vue` has `Cart.total`, and its markup is `Cart > <template>`. Markup, also what stands between the
blocks in Svelte, Astro and HTML, is cut at its indentation, or at its elements if HTML has a grammar.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import groupby
from pathlib import PurePosixPath

from awareness.index.chunks.embedded import code_parts, language_named, led_by
from awareness.index.chunks.syntax import Part

_COMPONENTS = frozenset([".vue", ".svelte", ".astro"])
_PAGES = frozenset([".html", ".htm", ".xhtml"])
_MAX_TAG = 1000  # characters of a line that are read
_TAG_ROWS = 20  # of a tag with its attributes
_BLOCK = re.compile(r"([ \t]*)<(script|style|template)\b", re.IGNORECASE)
_LANGUAGE = re.compile(r"\b(lang|type)\s*=\s*[\"']?(?:text/|application/)?(?:x-)?([\w+]+)", re.IGNORECASE)
_ASTRO = "typescript"


def is_component(path: str) -> bool:
    suffix = PurePosixPath(path).suffix.lower()
    return suffix in _COMPONENTS or suffix in _PAGES


def component_parts(path: str, lines: list[str]) -> list[Part]:
    """The scripts of a component, and what stands between them: parts that are cut one by one. Each has the name of the
    component. A page is one part without a name. lines: of the whole file."""
    name = PurePosixPath(path)
    blocks = _blocks(lines, name.suffix.lower())
    if name.suffix.lower() in _PAGES:
        parts = [part for _, block in blocks for part in block]
        return [Part(0, len(lines), open=True, children=partial(list, parts))]
    parts = []
    for _, run in groupby(blocks, key=lambda block: block[0]):
        inner = [part for _, block in run for part in block]
        parts.append(Part(inner[0].start, inner[-1].stop, name.stem, open=True, children=partial(list, inner)))
    return parts


def _blocks(lines: list[str], suffix: str) -> list[tuple[bool, list[Part]]]:
    """(is it a script, its parts): the scripts, styles and templates that start a line, the code at the top of an Astro
    file, and the rest."""
    blocks: list[tuple[bool, list[Part]]] = []
    done = row = 0  # rows that have a part; the row being looked at
    if suffix == ".astro" and lines[0].strip() == "---":
        end = next((at for at in range(1, len(lines)) if lines[at].strip() == "---"), 0)
        if end:
            blocks.append((True, led_by(0, code_parts(_ASTRO, lines[1:end], 1), end + 1) or [Part(0, end + 1)]))
            done = row = end + 1
    unclosed: set[str] = set()  # kinds of block whose end is not found below
    while row < len(lines):
        tag = _BLOCK.match(lines[row][:_MAX_TAG])
        kind = tag[2].lower() if tag else ""
        if tag is None or kind in unclosed or (kind == "template" and (suffix != ".vue" or tag[1])):
            row += 1
            continue
        first = next((at for at in range(row, min(len(lines), row + _TAG_ROWS)) if ">" in lines[at]), row)
        end = _end(lines, row, first, kind)
        if not end:
            unclosed.add(kind)
        if end > row + 1:
            blocks += _markup(lines, done, row)
            blocks.append((kind == "script", _block(lines, row, first + 1, end, kind)))
            done = end
        row = max(end, row + 1)
    return blocks + _markup(lines, done, len(lines))


def _markup(lines: list[str], start: int, stop: int) -> list[tuple[bool, list[Part]]]:
    """Rows `[start, stop)` between the blocks, if any of them has text."""
    if not any(line.strip() for line in lines[start:stop]):
        return []
    return [(False, [Part(start, stop, children=partial(code_parts, "html", lines[start:stop], start, named=False))])]


def _end(lines: list[str], row: int, first: int, kind: str) -> int:
    """The row after the block of this kind whose tag reaches from one row to another; 0 if it is not closed."""
    close = f"</{kind}>"
    if kind != "template" and close in lines[row].lower():
        return row + 1
    for at in range(first + 1, len(lines)):
        line = lines[at][:_MAX_TAG].lower()
        if line.startswith(close) or (kind != "template" and line.lstrip().startswith(close)):
            return at + 1
    return 0


def _block(lines: list[str], row: int, first: int, end: int, kind: str) -> list[Part]:
    """The parts of rows `[row, end)`, of which `[first, end - 1)` are between the tags."""
    tag = " ".join(line[:_MAX_TAG] for line in lines[row:first])
    named = {match[1].lower(): match[2].lower() for match in _LANGUAGE.finditer(tag)}
    language = named.get("lang") or named.get("type") or ""
    code = lines[first : end - 1]
    if kind == "script":
        script = language_named("js" if language in ("", "module", "babel", "ecmascript") else language)
        return led_by(row, code_parts(script, code, first), end) or [Part(row, end)]
    inner = language_named(language or ("html" if kind == "template" else "css"))
    children = partial(code_parts, inner, code, first, named=False)
    return [Part(row, end, f"<{kind}>", children=children, prose=True)]
