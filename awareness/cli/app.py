"""The `awareness` program: its commands, and the only place where their exceptions are caught."""

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

# A command is the function or the Typer app of this name in the module of this name. The module is imported only when
# the command runs, so the first line of its help is repeated here.
COMMANDS = {
    "index": "Build or refresh the index: only what changed is encoded again.",
    "ask": "Ask a question about a repository; indexes it first if there is no index.",
    "search": "Find the code that a question is about, without a language model.",
    "status": "Show what is indexed, what has changed since, its size on disk, and secrets in the text.",
    "check": "Check the index for damage; exit code 1 if there is any. Changes nothing.",
    "repair": "Repair a damaged index: only what is damaged is encoded again.",
    "gc": "Delete latents that no indexed commit or work tree needs, and reclaim the disk space.",
    "pack": "Write a repository's memory into one file, as in `awareness pack repo.awm --repo ./repo`.",
    "train": "Train a memory, LoRA, a decoder or a router from a YAML configuration.",
    "checkpoints": "List, inspect, merge and export training checkpoints.",
    "models": "List and download models.",
    "eval": "Measure whether the memory is read, and how well.",
}


def load_command(name: str) -> Any:
    """The click command of this name."""
    module = importlib.import_module(f"awareness.cli.{name}")
    group = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        group.command(name)(getattr(module, name))
    command = typer.main.get_command(group)
    command.name = name
    return command


class _Commands(TyperGroup):
    """Lists the commands by the first lines of their help, and imports the one that is called."""

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
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        render.text(__version__)
        raise typer.Exit


# Depending on its version, Typer has its own copy of click or uses the installed one: the base class in either case.
_BadCommandLine: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
INTERRUPTED = 130


def run(arguments: list[str] | None = None) -> int:
    """Runs one command line and returns its exit code."""
    render.set_volume(quiet=False, verbose=False)
    try:
        code = app(arguments, standalone_mode=False) or 0
        if code == INTERRUPTED:  # how some versions of Typer report Ctrl-C
            raise KeyboardInterrupt
        return code
    except AwarenessError as error:
        render.error(error.message, error.hint)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        render.error("interrupted; what was committed stays", "the same command again, which continues from there")
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the only place that may; --verbose shows the traceback
        if isinstance(error, _BadCommandLine):
            render.error(error.format_message(), f"awareness {_command_of(arguments)}--help")
            return error.exit_code
        reason = (str(error).strip() or "no message").splitlines()[0]
        render.error(f"{type(error).__name__}: {reason}", "the same command with --verbose, and report what it shows")
        return 1


def _command_of(arguments: list[str] | None) -> str:
    """The command in the arguments, for the hint."""
    words = sys.argv[1:] if arguments is None else arguments
    return next((f"{word} " for word in words if word in COMMANDS), "")


def main() -> None:
    sys.exit(run())


if __name__ == "__main__":
    main()
