"""The `awareness` program: its commands, and the only place where their exceptions are caught."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from awareness import __version__
from awareness.cli import render, streams
from awareness.cli.free_text import BadCommandLine, FreeTextCommand
from awareness.errors import SURROUNDINGS, AwarenessError, StorageFailed, UsageError, reason, storage_failed

# A command is the function or the Typer app of this name in the module of this name. The module is imported only when
# the command runs, so the first line of its help is repeated here.
COMMANDS = {
    "index": "Build or refresh the index: only what changed is encoded again.",
    "ask": "Ask a question about a repository; indexes it first if there is no index.",
    "chat": "Talk about a repository: questions that follow each other, sources to open by number.",
    "serve": "Serve a page and an API (OpenAI's too) that answer questions, with the model kept in memory.",
    "search": "Find the code that a question is about, without a language model.",
    "map": "Show the most important files and definitions of a repository, in a number of tokens.",
    "status": "Show what is indexed, what has changed since, its size on disk, and secrets in the text.",
    "check": "Check the index for damage; exit code 1 if there is any. Changes nothing.",
    "repair": "Repair a damaged index: only what is damaged is encoded again.",
    "gc": "Delete latents that no indexed commit or work tree needs, and reclaim the disk space.",
    "pack": "Write a repository's memory into one file, as in `awareness pack repo.awm --repo ./repo`.",
    "fleet": "Index many repositories on Ray into one memory, in a bucket or a folder.",
    "mcp": "Serve search and answers to agents: an MCP server on stdin and stdout, or over HTTP.",
    "install": "Tell an agent or editor to use awareness: claude, cursor, vscode, codex, gemini, zed and others.",
    "train": "Train a memory, LoRA, a decoder or a router from a YAML configuration.",
    "checkpoints": "List, inspect, merge and export training checkpoints.",
    "models": "List and download models.",
    "eval": "Measure whether the memory is read, and how well.",
}


FREE_TEXT = {"ask", "search"}
"""Commands whose argument is text, which may begin with a dash."""


def load_command(name: str) -> Any:
    """The click command of this name."""
    module = importlib.import_module(f"awareness.cli.{name}")
    group = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        group.command(name, cls=FreeTextCommand if name in FREE_TEXT else None)(getattr(module, name))
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


WRONG_USAGE, OURS, INTERRUPTED, READER_GONE, TERMINATED = 2, 70, 130, 141, 143


class _Terminated(BaseException):
    """SIGTERM, which ends the program as Ctrl-C does: locks and temporary files are cleaned up."""


def run(arguments: list[str] | None = None) -> int:
    """Runs one command line and returns its exit code."""
    render.set_volume(quiet=False, verbose=False)
    try:
        return _run(arguments)
    except streams.ReaderGone:
        streams.discard_all()
        return READER_GONE


def _run(arguments: list[str] | None) -> int:
    """As `run`. Raises ReaderGone."""
    try:
        code = app(arguments, standalone_mode=False) or 0
        if code == INTERRUPTED:  # how some versions of Typer report Ctrl-C
            raise KeyboardInterrupt
        streams.flush()
        return code
    except streams.ReaderGone:
        raise
    except AwarenessError as error:
        return _refused(error)
    except (KeyboardInterrupt, typer.Abort):
        render.error("interrupted; what was committed stays", "the same command again, which continues from there")
        return INTERRUPTED
    except _Terminated:
        render.error("terminated; what was committed stays", "the same command again, which continues from there")
        return TERMINATED
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # how Typer and Rich end when they print help into a pipe
            raise streams.ReaderGone from end
        raise
    except Exception as error:  # noqa: BLE001 - the only place that may; --verbose shows the traceback
        if isinstance(error, BadCommandLine):
            render.error(error.format_message(), getattr(error, "hint", f"awareness {_command_of(arguments)}--help"))
            return WRONG_USAGE
        if known := _blamed(error):
            return _refused(known)
        render.error(f"{type(error).__name__}: {reason(error)} ({_described()})", _how_to_report())
        return OURS


def _refused(error: AwarenessError) -> int:
    if isinstance(error.__cause__, FileNotFoundError):  # of a relative path, perhaps
        error = _blamed(error.__cause__) or error
    if error.exit_code == OURS:
        render.error(f"{error.message} ({_described()})", error.hint or _how_to_report())
    else:
        render.error(error.message, error.hint, error.details)
    return error.exit_code


def _blamed(error: Exception) -> AwarenessError | None:
    """The same error if the surroundings are to blame for it: a disk, memory, the working folder. None if we are."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _NO_MEMORY in str(error):
        return StorageFailed("there is not enough memory", hint="a smaller --model, or a smaller --top-k")
    if isinstance(error, OSError):
        if isinstance(error, FileNotFoundError) and not _has_working_folder() and not os.path.isabs(_place(error)):
            return UsageError("the working folder was deleted", hint="cd to a folder that exists, then the same again")
        if error.filename is None and (failed := streams.failed()):
            return failed
        if "temporary directory" in str(error):  # of `tempfile`, whose list of folders is long
            return StorageFailed("no folder for temporary files can be written", hint="export TMPDIR=FOLDER")
        place = error.filename or "a stream or file"
        return storage_failed(place, error) if error.errno in SURROUNDINGS else None
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # of `expanduser`
        return UsageError(reason(error), hint="export HOME=FOLDER, or a path without ~")
    if (apsw := sys.modules.get("apsw")) and isinstance(error, apsw.Error):
        from awareness.index.store.manifest import failures

        try:
            with failures(Path("the index")):
                raise error
        except AwarenessError as known:
            return known
        except apsw.Error:
            return None
    return None


_NO_MEMORY = "can't allocate memory"  # in the RuntimeError of torch's allocator for the CPU


def _place(error: OSError) -> str:
    return os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""


def _has_working_folder() -> bool:
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


def _described() -> str:
    """The versions that a report has to name."""
    import platform

    return f"awareness {__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}"


def _how_to_report() -> str:
    """What to type to report an error of ours, and the address for it if the package names one."""
    from importlib import metadata  # imported late, as it imports much

    urls = []
    with contextlib.suppress(metadata.PackageNotFoundError):
        urls = metadata.metadata("awareness").get_all("Project-URL") or []
    addresses = dict(tuple(url.split(", ", 1)) for url in urls if ", " in url)
    address = next((addresses[name] for name in ("Issues", "Bug Tracker", "Repository") if name in addresses), "")
    return "the same command with --verbose, and report what it prints" + (f" to {address}" if address else "")


def _command_of(arguments: list[str] | None) -> str:
    """The command in the arguments, for the hint."""
    words = sys.argv[1:] if arguments is None else arguments
    return next((f"{word} " for word in words if word in COMMANDS), "")


def _terminate(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it at once
    raise _Terminated


def main() -> None:
    streams.prepare()
    signal.signal(signal.SIGTERM, _terminate)
    code = run()
    if processes := sys.modules.get("awareness.train.processes"):
        processes.leave_with(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
