"""The types that lines of code name: of a variable, of what a function returns, of the base classes of a class.

These are read off the text of single lines and heads, by the rules of each language: enough to tell whose method is
called, and nothing is proven by them where several types fit.
"""

from __future__ import annotations

import re
from itertools import islice

from awareness.index.structure.references import CodeFile, Reference, Role, words_at

_LONGEST = 300  # characters of a line that are read
_MOST_PLACES = 2_000  # of a variable in a file
_ROWS = 12  # that the head of a definition is read from
_WRAPPER = (
    r"(?:(?:\w+\.)?(?:Optional|Awaitable|Promise|Result|Option|Box|Arc|Rc|Self)[\[<]\s*|&(?:'\w+\s+)?(?:mut\s+)?|\*)*"
)
_RETURNED = {
    "python": re.compile(rf"->\s*[\"']?{_WRAPPER}[\"']?(?P<kind>[A-Za-z_][\w.]*)"),
    "go": re.compile(r"\s*\(?\s*(?:\w+\s+)?\*?(?P<kind>[A-Za-z_][\w.]*)"),
    "rust": re.compile(rf"\s*->\s*{_WRAPPER}(?:dyn\s+|impl\s+)?(?P<kind>[A-Za-z_][\w:]*)"),
    "": re.compile(rf"\s*:\s*{_WRAPPER}(?P<kind>[A-Za-z_$][\w.$]*)"),
}


def declared_types(file: CodeFile, name: str) -> list[tuple[int, str]]:
    """(row, text) of each line that declares a variable: its type, or what is called to make it; in order."""
    found: list[tuple[int, str]] = []
    patterns = _DECLARATIONS.get(file.language or "", _DECLARATIONS[""])
    for row in dict.fromkeys(map(file.row_of, islice(words_at(file.text, name), _MOST_PLACES))):
        matches = (match for pattern in patterns for match in pattern.finditer(file.lines[row], 0, _LONGEST))
        kinds = [match["kind"] for match in matches if match["name"] == name]
        if kinds and any(each.role in (Role.bound, Role.other) for each in file.references(name, (row, row + 1))):
            found += [(row, kind) for kind in kinds]
    return found


_DECLARATIONS = {
    language: tuple(re.compile(pattern) for pattern in patterns)
    for language, patterns in {
        "python": (
            r"(?<![\w.])(?:self\.)?(?P<name>\w+)\s{0,4}=\s{0,4}(?:await\s+)?(?P<kind>[A-Za-z_][\w.]*)\(",
            r"(?<![\w.])(?:self\.)?(?P<name>\w+)\s{0,4}:\s{0,4}[\"']?(?P<kind>[A-Za-z_][\w.]*)",
            r"\b(?P<kind>[A-Za-z_][\w.]*)\([^()\n]{0,100}\)\s+as\s+(?P<name>\w+)\b",
        ),
        "go": (
            r"\b(?P<name>\w+)\s{0,4}:?=\s{0,4}[&*]?(?P<kind>[\w.]+)\{",
            r"\b(?P<name>\w+)\s{0,4}(?:,\s?\w+\s)?:?=\s{0,4}\*?(?P<kind>[\w.]+)\(",
            r"(?<![\w.])(?P<name>\w+)\s{1,8}(?:\.\.\.)?(?:\[\])?\*?(?P<kind>[A-Za-z][\w.]*)(?=[\s,)\[]|$)",
        ),
        "rust": (
            r"\b(?P<name>\w+)\s{0,4}:\s{0,4}&?(?:'\w+\s+)?(?:mut\s+)?(?:dyn\s+|impl\s+)?(?P<kind>[A-Z]\w*)",
            r"\b(?P<name>\w+)\s{0,4}=\s{0,4}&?(?:mut\s+)?(?:\w+::)*(?P<kind>[A-Z]\w*)(?:::\w+|\s*\{|\()",
            r"\b(?P<name>\w+)\s{0,4}=\s{0,4}(?P<kind>(?:[a-z_]\w*::)*[a-z_]\w*)(?=\()",
        ),
        "java": (
            r"\b(?P<kind>[A-Z][\w.]*)(?:<[^;=(){}]{0,100}>)?(?:\[\]|\.\.\.)*\s+(?P<name>\w+)\b",
            r"\b(?P<name>\w+)\s{0,4}=\s{0,4}new\s+(?P<kind>[A-Z][\w.]*)",
        ),
        "": (
            r"\b(?P<name>[\w$]+)\s{0,4}=\s{0,4}(?:await\s+)?new\s+(?P<kind>[\w.]+)",
            r"\b(?P<name>[\w$]+)\s{0,4}=\s{0,4}(?:await\s+)?(?P<kind>[\w.$]+)(?=\()",
            r"\b(?P<name>[\w$]+)[?!]?\s{0,4}:\s{0,4}(?P<kind>[A-Z][\w.]*)",
        ),
    }.items()
}


def bases_in(file: CodeFile, definition: Reference) -> list[str]:
    """The last names of the base classes in the head of a class."""
    head = " ".join(line[:300] for line in file.lines[definition.row : min(definition.stop, definition.row + 12)])
    if file.language == "go":
        body = [line[:300].split("//")[0].strip() for line in file.lines[definition.row + 1 : definition.stop][:80]]
        return [last_identifier(line.lstrip("*")) for line in body if re.fullmatch(r"\*?[\w.]+", line)]
    if file.language == "ruby":
        head = file.lines[definition.row][:_LONGEST]
    at = re.search(rf"\b{re.escape(definition.name)}\b", head)
    head = head[at.end() :] if at else head
    if file.language == "python":
        match = re.match(r"(?:\[[^\]]*\])?\s*\(([^)]*)\)", head)
        words = match[1].split(",") if match else []
        return [last_identifier(word.partition("[")[0].strip()) for word in words if "=" not in word and word.strip()]
    head = head.partition("{")[0]
    for _ in range(4):
        head = re.sub(r"<[^<>]*>", "", head)
    match = re.search(r"\bextends\b|\bimplements\b|:|<", head)
    if match is None:
        return []
    words = re.split(
        r",|\bextends\b|\bimplements\b|\bwith\b|\b(?:public|private|protected|virtual)\b|[:<]", head[match.start() :]
    )
    return [last_identifier(word.partition("(")[0].strip()) for word in words if word.partition("(")[0].strip()]


def returned_type(file: CodeFile, definition: Reference) -> str:
    """The last name of the type that a function declares to return; empty if it declares none."""
    head = " ".join(
        line[:_LONGEST] for line in file.lines[definition.row : min(definition.stop, definition.row + _ROWS)]
    )
    if file.language == "java":
        match = re.search(
            rf"([A-Z][\w.]*)(?:<[^;=(){{}}]{{0,100}}>)?(?:\[\])*\s+{re.escape(definition.name)}\s*\(", head
        )
        return last_identifier(match[1]) if match else ""
    if file.language != "python":  # what follows the arguments
        at = head.find("(", head.find(f"{definition.name}"))
        depth = 0
        for end in range(max(at, 0), len(head)):
            depth += (head[end] in "([{") - (head[end] in ")]}")
            if depth == 0:
                head = head[end + 1 :]
                break
        head = head.partition("{")[0]
    pattern = _RETURNED.get(file.language or "", _RETURNED[""])
    found = pattern.search(head) if file.language == "python" else pattern.match(head)
    return last_identifier(found["kind"]) if found else ""


def called_in(text: str) -> str:
    """What the last call of a text calls: `a.Foo(x)` -> `a.Foo`, `b::Foo::new(x)` -> `b::Foo`; empty without one."""
    depth = 0
    for at in range(len(text) - 1, -1, -1):
        depth += (text[at] in ")]}") - (text[at] in "([{")
        if depth == 0:
            match = re.search(r"[\w.$:]+$", text[:at].rstrip())
            return re.sub(r"::(?:new|default)$", "", match[0]) if match else ""
    return ""


def last_identifier(text: str) -> str:
    """The last name of a dotted text; empty if it ends with anything else."""
    match = re.search(r"((?:[^\W\d]|\$)[\w$]*)[?!]?$", text[-200:])
    return match[1] if match else ""
