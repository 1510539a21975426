"""Read YAML of a person: one-line errors with the line, and no key twice, where YAML silently takes the last."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import yaml


class BadYaml(ValueError):
    """The text is no YAML, or has a key twice. The message is one line."""


def read_yaml(text: str) -> Any:
    """The value of a YAML text, None of an empty one. Raises BadYaml."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if twice := list(_given_twice(node, (), set())):
            raise BadYaml("; ".join(twice))
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        problem = error.problem or error.context or "it is no YAML"
        if repr("\t") in problem:  # YAML's words for a tab at the beginning of a line
            problem = "a tab indents this line; YAML takes spaces only"
        raise BadYaml(place + problem) from error
    except yaml.reader.ReaderError as error:
        raise BadYaml(f"character {error.position}: {error.reason}") from error
    except (ValueError, RecursionError) as error:  # a date that does not exist, or a thousand brackets
        raise BadYaml(str(error).splitlines()[0]) from error
    finally:
        loader.dispose()


def _given_twice(node: yaml.Node, above: tuple[str, ...], seen: set[int]) -> Iterator[str]:
    """`memory.lora_rank is given twice, in lines 4 and 9`, for every key."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _given_twice(item, above, seen)
    if isinstance(node, yaml.MappingNode):
        lines: dict[Hashable, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if key.tag != "tag:yaml.org,2002:merge" and name in lines:
                yield f"{'.'.join((*above, name))} is given twice, in lines {lines[name]} and {line}"
            lines.setdefault(name, line)
            yield from _given_twice(value, (*above, name), seen)
