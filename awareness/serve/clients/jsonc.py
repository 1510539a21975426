"""JSON with comments (as VS Code and Zed read it): one member is put in or taken out, and every other byte stays.

Comments and a comma after the last member are accepted, as those clients do. What is put in follows the indentation of
the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_BLANK = re.compile(r"(?:[\s\ufeff]|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_SCALAR = re.compile(r"-?\d[\d.eE+-]*|true|false|null")
_INDENT = re.compile(r"^([ \t]+)\S", re.MULTILINE)
MAX_DEPTH = 100


@dataclass
class Node:
    """A value and where it stands. members: of an object, in order."""

    start: int
    end: int
    value: Any
    members: list[Member] = field(default_factory=list)


@dataclass
class Member:
    """start: of its key. comma: the place of the comma after it, None if there is none."""

    key: str
    start: int
    node: Node
    comma: int | None = None


def parse(text: str) -> Node:
    """The one value of a file. Raises ValueError, which says where the text is no JSON."""
    node, end = _value(text, _blank(text, 0), 0)
    if _blank(text, end) != len(text):
        raise ValueError(_place(text, _blank(text, end), "the end of the file was expected"))
    return node


def with_member(text: str, path: Sequence[str], value: Any) -> str:
    """The text with the member at this path set, and the objects around it made where they are missing. Raises
    ValueError if something on the way is no object."""
    if not text.strip("\ufeff \t\r\n"):
        text = "{}\n"
    node = parse(text)
    for depth, key in enumerate(path):
        if not isinstance(node.value, dict):
            raise ValueError(f"{'.'.join(path[:depth]) or 'the file'} is not an object")
        member = _last(node, key)
        if member is None:
            for outer in reversed(path[depth + 1 :]):
                value = {outer: value}
            return _inserted(text, node, key, value)
        node = member.node
    if node.value == value:
        return text
    return text[: node.start] + _dumped(text, value, _indent_at(text, node.start)) + text[node.end :]


def without_member(text: str, path: Sequence[str]) -> str:
    """The text without the member at this path, and without the objects around it that are empty then."""
    node = parse(text)
    way: list[tuple[Node, Member]] = []
    for key in path:
        member = _last(node, key)
        if member is None:
            return text
        way.append((node, member))
        node = member.node
    taken = way.pop()
    while way and len(taken[0].members) == 1 and not _has_comment(text, taken[0], taken[1]):
        taken = way.pop()
    return _removed(text, *taken)


def _last(node: Node, key: str) -> Member | None:
    return next((member for member in reversed(node.members) if member.key == key), None)


def _has_comment(text: str, node: Node, member: Member) -> bool:
    around = text[node.start + 1 : member.start] + text[member.node.end : node.end - 1]
    return bool(around.replace(",", "").strip())


def _inserted(text: str, node: Node, key: str, value: Any) -> str:
    outer = _indent_at(text, node.start)
    newline = "\r\n" if "\r\n" in text else "\n"
    if not node.members:
        inner = outer + _unit(text)
        inside = text[node.start + 1 : node.end - 1].rstrip()
        member = f"{json.dumps(key)}: {_dumped(text, value, inner)}"
        return text[: node.start + 1] + f"{inside}{newline}{inner}{member}{newline}{outer}" + text[node.end - 1 :]
    last = node.members[-1]
    begin = text.rfind("\n", 0, last.start) + 1
    if text[begin : last.start].strip():  # it shares its line with others
        member = f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
        at = last.node.end if last.comma is None else last.comma + 1
        added = f", {member}" if last.comma is None else f" {member},"
        return text[:at] + added + text[at:]
    inner = text[begin : last.start]
    member = f"{newline}{inner}{json.dumps(key)}: {_dumped(text, value, inner)}"
    at = last.node.end if last.comma is None else last.comma + 1
    rest = re.compile(r"[ \t]*(?://[^\n\r]*|/\*[^\n]*?\*/[ \t]*)?").match(text, at)
    after = rest.end() if rest and rest[0].strip() else at  # a comment on the same line stays there
    if last.comma is None:
        return f"{text[:at]},{text[at:after]}{member}{text[after:]}"
    return f"{text[:after]}{member},{text[after:]}"


def _removed(text: str, node: Node, member: Member) -> str:
    place = next(i for i, other in enumerate(node.members) if other is member)
    start, end = member.start, member.node.end if member.comma is None else member.comma + 1
    before = len(text[:start].rstrip(" \t"))
    if len(node.members) == 1:
        inside = text[node.start + 1 : start].rstrip() + text[end : node.end - 1].strip()
        closing = text[end : node.end - 1] if inside else ""
        return text[: node.start + 1] + (inside + closing.rstrip(" \t") if inside else "") + text[node.end - 1 :]
    if text[before - 1 : before] == "\n":  # with its line
        start = before - (2 if text[before - 2 : before] == "\r\n" else 1)
    elif place:
        start = before
    else:
        end = _spaces(text, end)
    text = text[:start] + text[end:]
    previous = node.members[place - 1]
    if place == len(node.members) - 1 and member.comma is None and previous.comma is not None:
        text = text[: previous.comma] + text[previous.comma + 1 :]
    return text


def _spaces(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t":
        at += 1
    return at


def _indent_at(text: str, at: int) -> str:
    """The white space that begins the line."""
    begin = text.rfind("\n", 0, at) + 1
    return text[begin : _spaces(text, begin)]


def _unit(text: str) -> str:
    """What one level is indented by."""
    match = _INDENT.search(text)
    return match[1] if match else "  "


def _dumped(text: str, value: Any, indent: str) -> str:
    unit = _unit(text)
    dumped = json.dumps(value, indent=unit if unit.strip(" ") else len(unit), ensure_ascii=False)
    return dumped.replace("\n", ("\r\n" if "\r\n" in text else "\n") + indent)


def _blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _place(text: str, at: int, what: str) -> str:
    return f"line {text.count(chr(10), 0, at) + 1}: {what}"


def _value(text: str, at: int, depth: int) -> tuple[Node, int]:
    if depth > MAX_DEPTH:
        raise ValueError(_place(text, at, "too many levels"))
    opening = text[at : at + 1]
    if opening == "{":
        return _object(text, at, depth)
    if opening == "[":
        return _array(text, at, depth)
    match = _STRING.match(text, at) or _SCALAR.match(text, at)
    if match is None:
        raise ValueError(_place(text, at, "a value was expected"))
    return Node(at, match.end(), json.loads(match[0])), match.end()


def _object(text: str, start: int, depth: int) -> tuple[Node, int]:
    members: list[Member] = []
    at = _blank(text, start + 1)
    while text[at : at + 1] != "}":
        if members and members[-1].comma is None:
            raise ValueError(_place(text, at, "a comma was expected"))
        key = _STRING.match(text, at)
        if key is None:
            raise ValueError(_place(text, at, "a name in quotes was expected"))
        colon = _blank(text, key.end())
        if text[colon : colon + 1] != ":":
            raise ValueError(_place(text, colon, "a colon was expected"))
        node, end = _value(text, _blank(text, colon + 1), depth + 1)
        members.append(Member(json.loads(key[0]), at, node))
        at = _blank(text, end)
        if text[at : at + 1] == ",":
            members[-1].comma = at
            at = _blank(text, at + 1)
    value = {member.key: member.node.value for member in members}
    return Node(start, at + 1, value, members), at + 1


def _array(text: str, start: int, depth: int) -> tuple[Node, int]:
    items: list[Any] = []
    at, has_comma = _blank(text, start + 1), True
    while text[at : at + 1] != "]":
        if not has_comma:
            raise ValueError(_place(text, at, "a comma was expected"))
        node, end = _value(text, at, depth + 1)
        items.append(node.value)
        at = _blank(text, end)
        if has_comma := text[at : at + 1] == ",":
            at = _blank(text, at + 1)
    return Node(start, at + 1, items), at + 1
