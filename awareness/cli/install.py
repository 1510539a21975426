"""`awareness install`: tells an agent or editor to start `awareness mcp`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from awareness.cli import extras, options, render
from awareness.config.environment import Environment, variable
from awareness.engine.units import named_list
from awareness.errors import UsageError


def install(
    client: Annotated[
        str,
        typer.Argument(
            metavar="CLIENT",
            help="claude, claude-desktop, cursor, vscode, codex, gemini, zed, windsurf or opencode.",
            show_default=False,
        ),
    ],
    project: Annotated[
        bool | None,
        typer.Option(
            "--project/--user",
            help="For this repository only, or for all of yours. Default: --user, where the client can.",
            show_default=False,
        ),
    ] = None,
    root: options.AllowedRootOption = None,
    prints: Annotated[
        bool, typer.Option("--print", help="Print the files and what would be put in; change nothing.")
    ] = False,
    uninstall: Annotated[bool, typer.Option("--uninstall", help="Take out what was put in.")] = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Tell an agent or editor to use awareness: claude, cursor, vscode, codex, gemini, zed and others.

    Writes the server into the configuration that the client reads, and rules that say when to use it. What is not ours
    is never changed.
    """
    from awareness.serve.clients import installing
    from awareness.serve.clients.known_clients import clients

    known = clients()
    if client not in known:
        raise UsageError(f"there is no client '{client[:80]}'", hint=f"one of {named_list(list(known), 20)}")
    chosen = known[client]
    is_project = bool(project)
    if is_project and chosen.project is None:
        raise UsageError(f"{chosen.title} has no configuration of a project", hint=f"awareness install {client} --user")
    if not (uninstall or prints):
        extras.require("mcp", "mcp", "uvicorn")
    roots = [_folder(path) for path in root or ()]
    if not (chosen.knows_project or roots or uninstall):
        raise UsageError(
            f"{chosen.title} starts its servers outside of your projects, so name the folder of your repositories",
            hint=f"awareness install {client} --root FOLDER",
        )
    top = _top_of_the_repository() if is_project else Path.home()
    command, *arguments = _program()
    arguments += ["mcp", *([chosen.folder] if chosen.folder else []), *(f"--root={path}" for path in roots)]
    server = installing.Server(command, tuple(arguments), _variables())
    if prints:
        for path, text in installing.preview(chosen, server, top, is_project=is_project):
            render.text(f"{path}\n{text}")
        return
    changes = installing.plan(chosen, server, top, is_project=is_project, removes=uninstall)
    needed = [change for change in changes if change.is_needed]
    for change in needed:
        installing.write(change)
        render.text(f"{'removed' if change.text is None else 'changed' if change.before else 'written'}: {change.path}")
    if not needed:
        render.text("nothing to remove" if uninstall else "already there: nothing changed")
    elif not uninstall:
        render.note(f"restart {chosen.title}, or reload its servers; then ask it where something is in your code")


def _folder(path: Path) -> Path:
    real = Path(os.path.realpath(path.expanduser()))
    if not real.is_dir():
        raise UsageError(f"{path} is not a folder", hint="--root with the folder of your repositories")
    return real


def _top_of_the_repository() -> Path:
    from awareness.index.files.repository import Repository

    repository = Repository.open(Path())
    if repository.common_git_dir is None:
        raise UsageError(f"{repository.root} is in no git repository", hint="cd to one, or --user")
    return repository.root


def _program() -> list[str]:
    """The command that starts this program from anywhere: a client has another PATH than a terminal."""
    started = Path(sys.argv[0])
    if started.name == "awareness" and started.is_file() and os.access(started, os.X_OK):
        return [os.path.abspath(started)]
    if found := shutil.which("awareness"):
        return [os.path.abspath(found)]
    return [sys.executable, "-m", "awareness.cli.app"]


def _variables() -> dict[str, str]:
    """The settings by environment that are set here: a client that was not started from this terminal has them not."""
    from dataclasses import fields

    names = [variable(field.name) for field in fields(Environment)]
    return {name: value for name in names if (value := os.environ.get(name))}
