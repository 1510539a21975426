"""Packages of the extra `serve`, looked for before a command begins."""

from __future__ import annotations

import importlib.util

from awareness.engine.units import named_list
from awareness.errors import UsageError


def require(command: str, *packages: str) -> None:
    """Raises UsageError if one of the packages that the command needs is not installed."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise UsageError(f"`{command}` needs {named_list(missing)}", hint='pip install "awareness[serve]"')
