"""The base class of all sections of a training file: immutable, without unknown keys, and with all errors at once.

pydantic checks fields one by one and stops a section's own rules at the first wrong field. `Section` checks its rules
on the fields that are right, so that one reading of a file finds every error in it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_core import InitErrorDetails, PydanticCustomError

Place = tuple[int | str, ...]
"""The keys that lead to a setting, as pydantic's `loc`."""
CONFLICT = "conflict"
"""pydantic's type of an error that a `Conflict` became."""


@dataclass(frozen=True)
class Conflict:
    """Settings that do not go together. key: of the one to change, with dots, below the section. reason: read after
    the key, with full names. others: the other keys that it is about. fix: full key -> a value that resolves it."""

    key: str
    reason: str
    others: tuple[str, ...] = ()
    fix: Mapping[str, Any] = field(default_factory=dict)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def examples(cls) -> dict[str, Any]:
        """An example of each required setting."""
        return {name: info.examples[0] for name, info in cls.model_fields.items() if info.examples}

    def conflicts(self) -> Iterator[Conflict]:
        """The settings of the section that do not go together."""
        return iter(())

    @model_validator(mode="wrap")
    @classmethod
    def _with_every_error(cls, given: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        given = {} if given is None else given  # `memory:` with nothing below it
        if isinstance(given, Mapping):
            lists = {name for name, info in cls.model_fields.items() if isinstance(info.default, list | tuple)}
            given = {
                key: _canonical(value, _words(cls).get(key, {}))
                for key, value in given.items()
                if not (value is None and key in lists)  # a list with nothing below it
            }
        errors: list[InitErrorDetails] = []
        section: Section | None = None
        try:
            section = handler(given)
        except ValidationError as error:
            errors = [_details(one) for one in error.errors(include_url=False)]
            section = _of_the_rest(given, [one["loc"] for one in errors], handler)
        wrong: list[Place] = [one["loc"] for one in errors]
        for conflict in [] if section is None else section.conflicts():
            keys = [tuple(key.split(".")) for key in (conflict.key, *conflict.others)]
            if not any(_contains(loc, key) or _contains(key, loc) for loc in wrong for key in keys):
                errors.append(_conflict(section, conflict))
        if errors or section is None:
            raise ValidationError.from_exception_data(cls.__name__, errors)
        return section


def value_at(section: Any, place: Sequence[int | str]) -> Any:
    """The value at these keys of a section or a mapping; None below what has none."""
    for key in place:
        section = section.get(key) if isinstance(section, Mapping) else getattr(section, str(key), None)
    return section


def options_of(annotation: Any) -> tuple[Any, ...]:
    """The words of a `Literal`, also of one that may be None."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((words for inner in get_args(annotation) if (words := options_of(inner))), ())


@functools.cache
def _words(section: type[Section]) -> dict[str, dict[str, Any]]:
    """Setting -> its words in lower case, and the words as they are."""
    options = {name: options_of(info.annotation) for name, info in section.model_fields.items()}
    return {name: {str(word).casefold(): word for word in words} for name, words in options.items() if words}


def _canonical(value: Any, words: Mapping[str, Any]) -> Any:
    """One of the words whatever its case (FULL_SHARD) and quotes ("8"). YAML reads a bare `no` as false."""
    if value is False:
        return words.get("no", value)
    return words.get(value.strip().casefold().replace("-", "_"), value) if isinstance(value, str) else value


def _details(error: Any) -> InitErrorDetails:
    """An error of pydantic that can be raised again."""
    context = {**error.get("ctx", {}), "reason": error["msg"]}
    return InitErrorDetails(
        type=PydanticCustomError(error["type"], "{reason}", context), loc=error["loc"], input=error["input"]
    )


def _conflict(section: Section | None, conflict: Conflict) -> InitErrorDetails:
    place = tuple(conflict.key.split("."))
    context = {"reason": conflict.reason, "fix": dict(conflict.fix)}
    error = PydanticCustomError(CONFLICT, "{reason}", context)
    return InitErrorDetails(type=error, loc=place, input=value_at(section, place))


def _contains(outer: Place, inner: Place) -> bool:
    return inner[: len(outer)] == outer


def _of_the_rest(given: Any, wrong: Sequence[Place], handler: ModelWrapValidatorHandler[Any]) -> Any:
    """The section without the settings that are wrong; without everything at the top that holds one, if more is wrong
    than these; None if that is no section either."""
    if not isinstance(given, Mapping):
        return None
    for depth in (None, 1):
        rest: Any = given
        for loc in wrong:
            rest = _without(rest, loc[:depth])
        try:
            return handler(rest)
        except ValidationError:
            continue
    return None


def _without(content: Any, loc: Place) -> Any:
    """The content without the deepest key of `loc` that it has."""
    if not isinstance(content, Mapping) or not loc or loc[0] not in content:
        return content
    key, *below = loc
    inner = content[key]
    if isinstance(inner, Mapping) and below and below[0] in inner:
        return {**content, key: _without(inner, tuple(below))}
    return {name: value for name, value in content.items() if name != key}


Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
"""A dropout rate."""
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""numpy takes no other."""
