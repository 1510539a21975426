"""The command line of commands that take free text: a question may begin with a dash, like `--dry-run`."""

from __future__ import annotations

import shlex
from typing import Any

import typer
from typer.core import TyperCommand

from awareness.errors import UsageError

# Depending on its version, Typer has its own copy of click or uses the installed one: the base class in either case.
BadCommandLine: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

IN_PLACE = ("callers", "callees", "tests_of", "similar")
"""Options of `search` that ask for something else than a text."""


class FreeTextCommand(TyperCommand):
    """A command with one argument, which is text.

    A word that begins with a dash, is no option of the command and resembles none is the text, if there is no other.
    Elsewhere the error says which command takes the word as text.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = self._parsed(ctx, list(args))
        for parameter in self.params:
            value = ctx.params.get(parameter.name)
            if parameter.param_type_name == "argument" and isinstance(value, str) and not value.strip():
                raise UsageError(f"the {parameter.name} is empty", hint=f"awareness {self.name} 'session cookie'")
        return rest

    def _parsed(self, ctx: Any, given: list[str]) -> list[str]:
        try:
            rest = super().parse_args(ctx, list(given))
            self._require_text(ctx)
            return rest
        except BadCommandLine as error:
            if (at := self._text_at(given)) is None:
                error.hint = self._quoted(given)
                raise
            line = [*given[:at], *given[at + 1 :], "--", given[at]]
            is_unknown = type(error).__name__ == "NoSuchOption"
            if is_unknown and not getattr(error, "possibilities", None):
                try:
                    return super().parse_args(ctx, list(line))
                except BadCommandLine:
                    line = ["--", " ".join(given)]
            raise UsageError(
                f"{error.format_message().rstrip('.')}; '{given[at]}' looks like an option: as text it goes after --",
                hint=f"awareness {self.name} {shlex.join(line)}",
            ) from error

    def _require_text(self, ctx: Any) -> None:
        """Raises BadCommandLine where the text is missing, and no option of `IN_PLACE` stands for it."""
        for parameter in self.params:
            is_missing = parameter.param_type_name == "argument" and ctx.params.get(parameter.name) is None
            if is_missing and not any(ctx.params.get(name) is not None for name in IN_PLACE):
                raise BadCommandLine(f"Missing argument '{parameter.name.upper()}'.")

    def _text_at(self, given: list[str]) -> int | None:
        """The place of the word that is most likely meant as text, though it begins with a dash; None if there is
        none: first a word that is no option, then the last option."""
        end = given.index("--") if "--" in given else len(given)
        dashed = [at for at, word in enumerate(given[:end]) if word.startswith("-") and len(word) > 1]
        unknown = [at for at in dashed if not self._is_option(given[at])]
        is_alone = len(dashed) == 1 and len(given) == 1
        return unknown[0] if unknown else dashed[0] if is_alone else None

    def _is_option(self, word: str) -> bool:
        names = {name for parameter in self.params for name in (*parameter.opts, *parameter.secondary_opts)}
        if word.startswith("--"):
            return word.partition("=")[0] in names
        return word[:2] in names and not word[2:3].isspace()

    def _quoted(self, given: list[str]) -> str:
        """The hint for words that were not quoted: the command with quotes."""
        if len(given) > 1 and not any(word.startswith("-") for word in given):
            return f"awareness {self.name} {shlex.quote(' '.join(given))}"
        return f"awareness {self.name} --help"
