"""The `awareness` program: knows the commands, and catches what they raise in the one place that does."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from awareness import __version__
from awareness.cli import render
from awareness.errors import AwarenessError

# A command is the function or the Typer app of this name in the module of this name, which is imported only if it is
# the one that runs: what is said of it here is the first line of its help.
COMMANDS = {
    "index": "Build or refresh the index: only what changed is encoded again.",
    "ask": "Ask a question about a repository; indexes it first if there is no index.",
    "search": "Find the places that a question is about.",
    "status": "Say what is indexed, what has changed, what it takes on disk, and which secrets stand in the text.",
    "check": "Look for damage in the index; exit code 1 if there is any. Changes nothing.",
    "repair": "Mend a damaged index: only what is damaged is encoded again, the rest stays.",
    "gc": "Delete latents that no snapshot shows, and close the gaps; what is still shown anywhere stays.",
    "pack": "Write a repository's memory into one file, as in `awareness pack repo.awm --repo ./repo`.",
    "train": "Train a memory, LoRA, a decoder or a router, as a YAML file says.",
    "checkpoints": "What training wrote: what it is, merged, and ready to deploy.",
    "models": "Presets and where they are.",
    "eval": "Measure whether the memory is read, and how well.",
}


def load_command(name: str) -> Any:
    """The command itself, as click has it."""
    module = importlib.import_module(f"awareness.cli.{name}")
    group = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        group.command(name)(getattr(module, name))
    command = typer.main.get_command(group)
    command.name = name
    return command


class _Commands(TyperGroup):
    """Lists the commands by their first lines, and imports the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name in COMMANDS else command, rest


app = typer.Typer(
    name="awareness",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Gives a language model a memory of a git repository.",
)
for _name, _first_line in COMMANDS.items():
    app.command(_name, help=_first_line)(lambda: None)


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
    return next((f"{word} " for word in words if word in COMMANDS), "")


def main() -> None:
    sys.exit(run())


if __name__ == "__main__":
    main()
