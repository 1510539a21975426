"""What decides an answer besides the question. A server answers for the command line only if both have the same."""

from __future__ import annotations

import json
import os

from awareness.config.environment import environment


def ask_settings(
    *,
    model: str | None = None,
    adapter: str | None = None,
    mode: str | None = None,
    weights: str | None = None,
    budget: str,
    router: str | None = None,
) -> str:
    """One text of all of them, with the folders and variables that this process has. Raises UsageError."""
    now = environment()
    paths = {"index_dir": now.index_dir, "models_dir": now.models_dir}
    return json.dumps(
        {
            "model": _absolute(model),
            "adapter": _absolute(adapter),
            "mode": mode,
            "weights": weights,
            "budget": budget,
            "router": _absolute(router or now.router),
            "second_stage": now.second_stage,
            "home": os.path.expanduser("~"),
            **{name: None if path is None else os.path.abspath(path) for name, path in paths.items()},
        },
        sort_keys=True,
    )


def _absolute(name: str | None) -> str | None:
    """The name of a preset stays, a path becomes absolute."""
    return os.path.abspath(name) if name and os.path.exists(name) else name
