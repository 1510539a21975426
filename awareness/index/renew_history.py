"""Reads the commits that led to a snapshot into its index, for history.py; those that are there are not read again.

Nothing depends on it, so a repository whose commits cannot be read is searched without them, and one that would take
long is read on at the next refresh.
"""

from __future__ import annotations

from awareness.errors import UsageError
from awareness.index.files.repository import Repository
from awareness.index.search.history import Change
from awareness.index.store.store import Store

MAX_COMMITS = 3000
MAX_PATHS = 30  # of a commit; one that changed more files was hardly about any of them
MAX_PATHS_CHARS = 1 << 13  # of all of them
MAX_RENAMED_CHARS = 1 << 22  # of the older and newer names of all files that moved
SECONDS = 5.0


def renew_history(
    store: Store, repository: Repository, snapshot: int, rev: str | None = None, *, seconds: float = SECONDS
) -> None:
    """Brings the past of a snapshot up to date. rev: its commit, None for the one that is checked out. seconds: how
    long commits are read. Call inside `writing(layout)`."""
    try:
        tip, objects = rev or repository.head(), repository.objects
    except UsageError:
        return
    if tip is None or objects is None or store.history.tip(snapshot) == tip:
        return
    from awareness.index.files.git.past_commits import PastCommits  # imported late: mostly there is nothing to do

    past = PastCommits(objects, seconds)
    known = store.history.known()
    order: list[str] = []
    new: list[Change] = []
    followed = 0
    for sha, commit in past.newest(tip, MAX_COMMITS):
        if sha not in known:
            changed = past.changed(commit)
            if past.is_late:
                break
            paths = changed.paths if changed else ()
            if len(paths) > MAX_PATHS or sum(map(len, paths)) > MAX_PATHS_CHARS:
                paths = ()
            renamed = changed.renamed if changed else {}
            followed += sum(len(old) + len(new_name) for old, new_name in renamed.items())
            if followed > MAX_RENAMED_CHARS:
                renamed = {}
            new.append(Change(sha, commit.message if paths else "", paths, renamed))
        order.append(sha)
    with store.changing():
        store.history.write(snapshot, "" if past.is_late else tip, order, new)
