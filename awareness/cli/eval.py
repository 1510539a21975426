"""`awareness eval`: measurements, each a table on stdout, JSON and pictures in --out.

Each command is the function of its name in a module of its own, `eval_NAME.py`; what they share is eval_shared.py.
"""

from __future__ import annotations

import importlib

import typer

COMMANDS = ("needle", "perplexity", "retrieval", "latency", "qa", "compare")

app = typer.Typer(no_args_is_help=True, help="Measure whether the memory is read, and how well.")


@app.callback()
def _group() -> None:
    """Measure whether the memory is read, and how well."""


for _name in COMMANDS:
    app.command(_name)(getattr(importlib.import_module(f"awareness.cli.eval_{_name}"), _name))
