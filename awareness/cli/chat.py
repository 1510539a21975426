"""`awareness chat`: asks one question after the other, with what was said before."""

from __future__ import annotations

from typing import Annotated

import typer

from awareness.cli import memories, options, render
from awareness.cli.chat_commands import completions
from awareness.cli.chatting import Chatting
from awareness.cli.typed_lines import PlainLines, TerminalLines, Typed, edits_lines, is_terminal
from awareness.config.environment import environment, state_dir
from awareness.engine.engine import DEFAULT_TOP_K, Engine
from awareness.engine.modes import Mode
from awareness.engine.units import counted, parse_bytes
from awareness.model.presets import PRESETS

HISTORY = "chat_history"
"""The file in the user's state folder."""


def chat(
    repo: options.ReposArgument = None,
    memory: options.MemoryOption = None,
    model: options.ModelOption = None,
    adapter: options.AdapterOption = None,
    mode: Annotated[
        Mode | None, typer.Option("--mode", help="How the model reads the chunks.", show_default="joint")
    ] = None,
    rev: options.RevOption = None,
    scope: options.ScopeOption = None,
    top_k: options.TopKOption = DEFAULT_TOP_K,
    long: Annotated[bool, typer.Option("--long", help="Explain at length instead of in three sentences.")] = False,
    no_history: Annotated[
        bool, typer.Option("--no-history", help="Neither read nor keep the questions of other chats.")
    ] = False,
    weights: options.WeightsOption = None,
    budget: options.BudgetOption = options.DEFAULT_BUDGET,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Talk about a repository: questions that follow each other, sources to open by number.

    Where there is no terminal, every line of standard input is a question or a command.
    """

    def opened(name: str | None) -> Engine:
        packs, stores = memories.split(memory, parse_bytes(budget))
        return Engine.open(
            *(repo or ()),
            *packs,
            model=name or model,
            adapter=adapter,
            mode=mode,
            rev=rev,
            weights=None if weights is None else weights.value,
            router=environment().router,
            budget=parse_bytes(budget),
            memories=stores,
            reporter=render.REPORTER,
        )

    with Chatting(opened, scope=scope, top_k=top_k, is_long=long) as chatting:
        chatting.begin()
        files = counted(len(chatting.names.paths), "file")
        render.note(f"{chatting.engine.searched}: {files}; /help lists the commands, Ctrl-D leaves")
        lines: Typed
        if edits_lines():
            history = None if no_history else state_dir() / HISTORY
            lines = TerminalLines(history, lambda line: completions(line, chatting.names, sorted(PRESETS)))
        else:
            lines = PlainLines()
        while chatting.goes_on:
            try:
                line = lines.read("> ")
            except EOFError:
                return
            except KeyboardInterrupt:
                if not is_terminal():
                    raise
                continue
            chatting.take(line)
