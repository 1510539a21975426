"""What is wrong in a training file: one line for each error, in the order of the file, and a hint that works.

pydantic finds the errors. Here each gets the full name of its setting, the value that was given, the nearest known name
of a setting that does not exist, and a value that is accepted. `corrections` tries those values before it names them.
"""

from __future__ import annotations

import copy
import difflib
import re
import reprlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from awareness.config.base import CONFLICT, Conflict, Place, Section, options_of, value_at
from awareness.errors import UsageError

_MEANT = {
    "hybrid_shard": "full_shard",
    **dict.fromkeys(("fp32", "float32", "none", "false", "fp8"), "no"),
    **dict.fromkeys(("bfloat16", "bf16-mixed"), "bf16"),
    **dict.fromkeys(("float16", "half", "16-mixed"), "fp16"),
    **dict.fromkeys(("adam", "adamw_torch", "adamw_8bit", "adamw_hf"), "adamw"),
    **dict.fromkeys(("sft", "instruction", "finetuning"), "instruction_finetuning"),
}
"""Words of other trainers -> ours."""
_REASONS = {"hybrid_shard": "does not exist here: full_shard shards over all processes"}
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80
_MOST_CORRECTIONS = 8
"""More values than these are not shown in a hint."""


@dataclass(frozen=True)
class Problem:
    """place: keys in the file. reason: read after them. given: the value, as it is shown; empty if there is none.
    fix: setting -> a value that may be accepted. renamed: the setting that a wrong name means, or the place it belongs
    to; empty if the setting should be removed, None if its name is right."""

    place: Place
    reason: str
    given: str = ""
    fix: Mapping[str, Any] = field(default_factory=dict)
    renamed: str | None = None

    @property
    def name(self) -> str:
        """`data.chunks[1]`"""
        return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.place).removeprefix(".")

    @property
    def line(self) -> str:
        given = f" (got {self.given})" if self.given else ""
        return f"{self.name}: {self.reason}{given}" if self.place else self.reason


def problems_of(error: ValidationError, section: type[Section], content: Mapping[str, Any]) -> list[Problem]:
    """One problem for each wrong setting of `content`, in its order."""
    found: dict[Place, list[Any]] = {}
    for one in error.errors(include_url=False):
        place = _place_in(content, one)
        found.setdefault((*place, one["msg"]) if one["type"] == CONFLICT else place, []).append((place, one))
    problems = [_problem(errors, section, content) for errors in found.values()]
    return sorted(problems, key=lambda problem: _order(content, problem.place))


def problem_of_conflict(section: Section, conflict: Conflict) -> Problem:
    """Of settings that were read already. section: the whole file."""
    place = tuple(conflict.key.split("."))
    given = _is_given(section.model_dump(exclude_unset=True), place)
    value = value_at(section, place)
    shown = "" if value is None else _shown(value) + ("" if given else ", the default")
    return Problem(place, conflict.reason, shown, conflict.fix)


def refusal(source: str, problems: Sequence[Problem], hint: str) -> UsageError:
    """The error of a `source` (a file, or empty) with these problems."""
    prefix = f"{source}: " if source else ""
    if len(problems) == 1:
        return UsageError(prefix + problems[0].line, hint=hint)
    return UsageError(
        f"{prefix}{len(problems)} settings are wrong", details=[problem.line for problem in problems], hint=hint
    )


def corrections(
    problems: Sequence[Problem],
    content: Mapping[str, Any],
    check: Callable[[dict[str, Any]], Sequence[Problem]],
    written_in: Callable[[Place], str] = lambda _: "the file",
) -> str:
    """The hint: values to type that `check` accepted, and names to correct in a file. check: content -> its problems.
    written_in: the file that a setting stands in, `--set` for the command line."""
    trial = copy.deepcopy(dict(content))
    values: dict[str, Any] = {}
    orders: list[str] = []
    left: Sequence[Problem] = problems
    for _ in range(4):  # a value that is right may show another that is wrong
        found = [item for problem in left for item in problem.fix.items()]
        new = {name: value for name, value in found if name not in values or values[name] != value}
        renamed = [problem for problem in left if problem.renamed is not None]
        if not new and not renamed:
            break
        for problem in renamed:
            order, typed = _rename(trial, problem, written_in(problem.place))
            orders += order
            values |= typed
        for name, value in new.items():
            set_value(trial, name, value)
        values |= new
        left = check(trial)
        if not left:
            break
    if left or len(values) > _MOST_CORRECTIONS:
        names = list(dict.fromkeys(problem.name for problem in problems))
        what = ", ".join(names) if len(names) <= _MOST_CORRECTIONS else f"these {len(names)} settings"
        sources = dict.fromkeys(written_in(problem.place) for problem in problems)
        return f"correct {what} in {' and '.join(sources)}"
    typed_values = [f"--set {_quoted(f'{name}={_typed(value)}')}" for name, value in values.items()]
    return "; ".join([*dict.fromkeys(orders), *([" ".join(typed_values)] if typed_values else [])])


def _typed(value: Any) -> str:
    """A value after `--set KEY=`; a bare `no` is enough, as sections take YAML's false for it."""
    return "no" if value == "no" else as_yaml(value)


def _quoted(text: str) -> str:
    """For a shell; in double quotes where the text has single ones."""
    return f'"{text}"' if "'" in text and not re.search(r'["$`\\!]', text) else shlex.quote(text)


def as_yaml(value: Any) -> str:
    """A value on one line."""
    value = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1 << 20, allow_unicode=True, sort_keys=False)
    return text.removesuffix("...\n").strip()


def set_value(content: dict[str, Any], name: str, value: Any) -> None:
    """Replace the value of a setting. `model: NAME`, and a section with nothing below it, become mappings where a name
    goes below them. Raises UsageError for a name below another value."""
    *above, last = name.split(".")
    section = content
    for key in above:
        inner = section.get(key)
        if inner is None:
            inner = section[key] = {}
        elif key == "model" and isinstance(inner, str):
            inner = section[key] = {"base_model_name": inner}
        if not isinstance(inner, dict):
            raise UsageError(
                f"'{name}': {key} is not a section but the value {inner!r:.60}", hint="--set training.max_steps=100"
            )
        section = inner
    section[last] = value


def settings_of(section: type[Section], *above: str) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every setting of a section and of those below it, with its keys."""
    for name, info in section.model_fields.items():
        yield (*above, name), info
        if (inner := _section_of(info)) is not None:
            yield from settings_of(inner, *above, name)


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name that a misspelt one means."""
    plain = {word.casefold(): word for word in known}
    found = difflib.get_close_matches(name.casefold().replace("-", "_"), plain, 1, 0.7)
    return plain[found[0]] if found else None


def _section_of(info: FieldInfo | None) -> type[Section] | None:
    kinds = (info.annotation, *get_args(info.annotation)) if info is not None else ()
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def _place_in(content: Mapping[str, Any], error: Any) -> Place:
    """The keys in the file of an error. pydantic's `loc` also has the members of unions, which are no keys."""
    place: list[int | str] = []
    node: Any = content
    for i, key in enumerate(error["loc"]):
        has_key = key in node if isinstance(node, Mapping) else isinstance(node, list) and isinstance(key, int)
        if not has_key:
            if error["type"] in ("missing", CONFLICT):
                return (*place, *error["loc"][i:])
            break
        place.append(key)
        node = node[key]
    return tuple(place)


def _order(content: Any, place: Place) -> tuple[int, ...]:
    """Where a place stands in the file; what is not there comes last in its section."""
    order = []
    for key in place:
        keys = list(content) if isinstance(content, Mapping) else []
        if isinstance(key, int) and not isinstance(content, Mapping):
            order.append(key)
            break
        order.append(keys.index(key) if key in keys else len(keys))
        content = content.get(key) if isinstance(content, Mapping) else None
    return tuple(order)


def _problem(errors: Sequence[tuple[Place, Any]], section: type[Section], content: Mapping[str, Any]) -> Problem:
    place, first = errors[0]
    kind, value = first["type"], first["input"]
    if not place:
        return Problem(place, _reason(first))
    if kind == "invalid_key":
        return Problem((*place[:-1], _shown(value)), "is not the name of a setting")
    if kind == "extra_forbidden":
        return _unknown(place, value, section)
    names = tuple(key for key in place if isinstance(key, str))
    info = dict(settings_of(section)).get(names)
    name, of_default = ".".join(map(str, names)), not _is_given(content, place)
    if kind == CONFLICT:
        default = ", the default" if of_default else ""
        shown = "" if value is None or isinstance(value, Section) else _shown(value) + default
        return Problem(place, first["msg"], shown, first["ctx"]["fix"])
    if kind == "missing":
        example = info.examples[0] if info is not None and info.examples else None
        below = {} if (inner := _section_of(info)) is None else inner.examples()
        fix = {name: example} if example is not None else {f"{name}.{key}": value for key, value in below.items()}
        return Problem(place, "is required", "", fix)
    if _section_of(info) is not None:
        return Problem(place, "is a section: its settings stand below it, as KEY: VALUE", _shown(value))
    reason = " or ".join(dict.fromkeys(_reason(error) for _, error in errors))
    if isinstance(value, str) and value.casefold() in _REASONS:
        reason = _REASONS[value.casefold()]
    elif isinstance(value, bool) and info is not None and options_of(info.annotation):
        reason += "; YAML reads a bare yes, no, on or off as true or false"
    return Problem(place, reason, _shown(value), _fix(place, first, info, content))


def _fix(place: Place, error: Any, info: FieldInfo | None, content: Mapping[str, Any]) -> dict[str, Any]:
    """A value that may be accepted at a place; of an item of a list, the whole list, as it is typed."""
    limit = _limit(error)
    if not isinstance(place[-1], int):
        if info is not None:
            return {".".join(map(str, place)): _accepted(error["input"], error, info)}
        return {} if limit is None else {".".join(map(str, place)): limit}
    above = place[:-1]
    items = list(_at(content, above))
    items[place[-1]] = limit
    if limit is None:
        items = [] if info is None else info.get_default(call_default_factory=True)
    return {".".join(map(str, above)): items}


def _reason(error: Any) -> str:
    text = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    text = re.sub(r"^\w+ should (have at \w+ \d+ items?) after .*", r"must \1", text).replace(
        "valid tuple", "valid list"
    )
    return text.partition(", unable to parse")[0]


def _shown(value: Any) -> str:
    """As in a YAML file; of a long value the beginning."""
    if isinstance(value, bool | None):
        return as_yaml(value)
    value = list(value) if isinstance(value, tuple) else value
    text = str(value) if isinstance(value, Path) else _REPR.repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _limit(error: Any) -> Any:
    """The limit that a value is beyond, if it may be reached."""
    context = error.get("ctx", {})
    return context.get("ge", context.get("le"))


def _accepted(value: Any, error: Any, info: FieldInfo) -> Any:
    """A value near the given one that may be accepted; the default if none is near."""
    default = info.examples[0] if info.examples else info.get_default(call_default_factory=True)
    if options := options_of(info.annotation):
        word = str(value).casefold()
        meant = _MEANT.get(word)
        known = {str(option): option for option in options}
        return meant if meant in options else known.get(nearest(word, list(known)) or "", default)
    if (limit := _limit(error)) is not None and isinstance(default, int | float) and not _is_union(info.annotation):
        return limit
    if error["type"] in ("tuple_type", "list_type") and not _is_union(info.annotation):
        return [value]
    if error["type"] == "string_type" and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if error["type"] in ("int_parsing", "int_from_float"):
        try:
            return int(float(value))  # 1e4, which YAML reads as a text
        except (ValueError, OverflowError):
            return default
    return default


def _is_union(annotation: Any) -> bool:
    """Whether values of several kinds are accepted, None aside."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()
    return len([kind for kind in kinds if kind is not type(None)]) > 1


def _unknown(place: Place, value: Any, section: type[Section]) -> Problem:
    """A setting that does not exist: the nearest known one, in its section or in another."""
    *above, last = place
    name = str(last)
    known = [keys for keys, _ in settings_of(section)]
    here = [keys for keys in known if list(keys[:-1]) == above]
    plain = name.casefold().replace("-", "_")
    elsewhere = [keys for keys in known if keys[-1] == plain and keys not in here]
    dotted = tuple(name.split("."))
    near: tuple[str, ...] | None = None
    reason = "no such setting"
    if (close := nearest(name, [keys[-1] for keys in here])) is not None and not (elsewhere and close != plain):
        near = (*map(str, above), close)
        reason += f"; did you mean {close}?"
    elif len(dotted) > 1 and (*above, *dotted) in known:
        near = (*map(str, above), *dotted)
        reason += f", as names have no dots; {dotted[-1]} belongs to {'.'.join(near[:-1])}:"
    elif elsewhere:
        near = elsewhere[0]
        places = " or ".join(".".join(keys[:-1]) + ":" if keys[:-1] else "the top of the file" for keys in elsewhere)
        reason += f"; {near[-1]} belongs to {places}"
    elif (close := nearest(name, [keys[-1] for keys in known])) is not None:
        near = next(keys for keys in known if keys[-1] == close)
        reason += f"; did you mean {'.'.join(near)}?"
    return Problem(place, reason, _shown(value), renamed="" if near is None else ".".join(near))


def _is_given(content: Any, place: Place) -> bool:
    for key in place:
        if not isinstance(content, Mapping) or key not in content:
            return isinstance(content, list)
        content = content[key]
    return True


def _at(content: Any, place: Place) -> Any:
    for key in place:
        content = content[key]
    return content


def _rename(trial: dict[str, Any], problem: Problem, written_in: str) -> tuple[list[str], dict[str, Any]]:
    """Give a setting its right name in `trial`: (what to do in the file, what to type instead)."""
    *above, last = problem.place
    value = _at(trial, tuple(above)).pop(last)
    if not problem.renamed:
        return [f"remove {problem.name} from {written_in}"], {}
    set_value(trial, problem.renamed, value)
    if written_in == "--set":
        return [], {problem.renamed: value}
    *section, name = problem.renamed.split(".")
    if section == above:
        return [f"in {written_in}, write {name} instead of {last}"], {}
    below = f"under {'.'.join(section)}:" if section else "at the top"
    return [f"in {written_in}, write {name} {below}"], {}
