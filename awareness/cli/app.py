"""The `awareness` program: registers the commands, and catches what they raise in the one place that does."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from awareness import __version__
from awareness.cli import ask, check, eval, gc, index, models, pack, render, repair, search, status
from awareness.errors import AwarenessError

app = typer.Typer(
    name="awareness",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Gives a language model a memory of a git repository.",
)
app.command()(index.index)
app.command()(ask.ask)
app.command()(search.search)
app.command()(status.status)
app.command()(check.check)
app.command()(repair.repair)
app.command()(gc.gc)
app.command()(pack.pack)
app.add_typer(models.app, name="models")
app.add_typer(eval.app, name="eval")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        render.text(__version__)
        raise typer.Exit


# Typer brings its own copy of click or uses the installed one, by version: this is the base class in either case.
_BadCommandLine: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
INTERRUPTED = 130


def run(arguments: list[str] | None = None) -> int:
    """One command line -> its exit code."""
    render.set_volume(quiet=False, verbose=False)
    try:
        code = app(arguments, standalone_mode=False) or 0
        if code == INTERRUPTED:  # how some versions of Typer pass Ctrl-C on
            raise KeyboardInterrupt
        return code
    except AwarenessError as error:
        render.error(error.message, error.hint)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        render.error("interrupted; what was committed stays", "the same command again, which goes on from there")
        return INTERRUPTED
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the one place that may; a user never sees a traceback unasked
        if isinstance(error, _BadCommandLine):
            render.error(error.format_message(), f"awareness {_command_of(arguments)}--help")
            return error.exit_code
        reason = (str(error).strip() or "no message").splitlines()[0]
        render.error(f"{type(error).__name__}: {reason}", "the same command with --verbose, and report what it shows")
        return 1


def _command_of(arguments: list[str] | None) -> str:
    """The command that was meant, for the hint."""
    words = sys.argv[1:] if arguments is None else arguments
    known = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    return next((f"{word} " for word in words if word in known), "")


def main() -> None:
    sys.exit(run())


if __name__ == "__main__":
    main()
