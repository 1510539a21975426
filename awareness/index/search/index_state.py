"""Tells whether an index has changed, for what a process keeps of it between questions."""

from __future__ import annotations

from typing import cast

import apsw


def index_state(connection: apsw.Connection) -> tuple[int, int]:
    """Another value after any change of the index, by this connection or by another one."""
    return cast(int, connection.pragma("data_version")), connection.total_changes()
