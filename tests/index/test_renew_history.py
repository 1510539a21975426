"""renew_history: the commits that led to a snapshot, read once each."""

from __future__ import annotations

from pathlib import Path

import pytest

from awareness.index import renew_history as renewing
from awareness.index.files.git.git_objects import GitObjects
from awareness.index.files.repository import Repository
from awareness.index.renew_history import renew_history
from awareness.index.search.terms import weighted_terms
from awareness.index.store.layout import IndexLayout
from awareness.index.store.lock import writing
from awareness.index.store.store import Store
from tests.index.files.test_repository import commit, git, make_repo, no_user_config, write  # noqa: F401

FILES = {"a.py", "b.py", "c.py"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_repo(tmp_path / "repo", {f"{number}.txt": str(number) for number in range(9)})
    for name, message in (("a.py", "Retry a dropped connection"), ("b.py", "Parse a quoted path")):
        write(tmp_path / "repo", {name: "1"})
        commit(tmp_path / "repo", message)
    for number in range(6):
        commit(tmp_path / "repo", f"nothing {number}")
    return tmp_path / "repo"


@pytest.fixture
def store(tmp_path: Path):
    layout = IndexLayout(tmp_path / "index")
    with writing(layout), Store.create(layout) as store:
        store.write_snapshot("s", [], chunking="1", model="m", rev=None)
        yield store


def files(store: Store, question: str) -> list[str]:
    return [path for path, _ in store.history.files(1, weighted_terms(question), FILES)]


def read_by(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes of the trees that are read from now on."""
    trees: list[str] = []
    original = GitObjects.entries
    monkeypatch.setattr(GitObjects, "entries", lambda self, sha, *limit: trees.append(sha) or original(self, sha))
    return trees


def test_the_past_is_read_once_and_only_what_is_new(root: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository.open(root)
    renew_history(store, repository, 1)
    assert store.history.tip(1) == git(root, "rev-parse", "HEAD")
    assert files(store, "connection is dropped") == ["a.py"] and files(store, "quoted path") == ["b.py"]
    trees = read_by(monkeypatch)
    renew_history(store, repository, 1)
    assert trees == []
    write(root, {"c.py": "1"})
    sha = commit(root, "Escape a quote")
    renew_history(store, repository, 1)
    assert trees == git(root, "rev-parse", "HEAD~^{tree}", "HEAD^{tree}").split()
    assert store.history.tip(1) == sha and files(store, "escape") == ["c.py"] and files(store, "dropped") == ["a.py"]


def test_a_commit_has_the_past_that_led_to_it(root: Path, store: Store) -> None:
    renew_history(store, Repository.open(root), 1, git(root, "rev-parse", "HEAD~7"))
    assert files(store, "connection is dropped") == ["a.py"] and files(store, "quoted path") == []


def test_a_commit_of_many_files_is_not_searched(root: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, {"a.py": "2", "c.py": "2"})
    commit(root, "Format everything")
    monkeypatch.setattr(renewing, "MAX_PATHS", 1)
    renew_history(store, Repository.open(root), 1)
    assert files(store, "format everything") == [] and files(store, "quoted path") == ["b.py"]


def test_very_long_paths_are_not_kept(root: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewing, "MAX_PATHS_CHARS", 3)
    renew_history(store, Repository.open(root), 1)
    assert store.history.tip(1) and files(store, "quoted path") == []


def test_older_names_are_followed_up_to_a_limit(root: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    git(root, "mv", "b.py", "c.py")
    commit(root, "Move it")
    monkeypatch.setattr(renewing, "MAX_RENAMED_CHARS", 7)
    renew_history(store, Repository.open(root), 1)
    assert store.history.files(1, weighted_terms("quoted path"), {"c.py"}) == []


def test_the_newest_commits_are_read(root: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewing, "MAX_COMMITS", 7)
    renew_history(store, Repository.open(root), 1)
    assert files(store, "connection is dropped") == [] and files(store, "quoted path") == ["b.py"]


def test_what_there_was_no_time_for_is_read_the_next_time(root: Path, store: Store) -> None:
    repository = Repository.open(root)
    renew_history(store, repository, 1, seconds=-1)
    assert not store.history.tip(1) and files(store, "quoted path") == []
    renew_history(store, repository, 1)
    assert store.history.tip(1) and files(store, "quoted path") == ["b.py"]


def test_a_file_that_moved_is_found_where_it_is(root: Path, store: Store) -> None:
    git(root, "mv", "b.py", "c.py")
    commit(root, "Move it")
    renew_history(store, Repository.open(root), 1)
    assert [path for path, _ in store.history.files(1, weighted_terms("quoted path"), {"c.py"})] == ["c.py"]


@pytest.mark.parametrize("head", ["", "ref: refs/heads/none", "f" * 40])
def test_without_readable_commits_there_is_no_history(root: Path, store: Store, head: str) -> None:
    repository = Repository.open(root)
    (root / ".git/HEAD").write_text(f"{head}\n")
    renew_history(store, repository, 1)
    assert files(store, "quoted path") == []


def test_a_folder_without_git_has_no_history(tmp_path: Path, store: Store) -> None:
    (tmp_path / "plain").mkdir()
    renew_history(store, Repository.open(tmp_path / "plain"), 1)
    assert store.history.tip(1) is None
