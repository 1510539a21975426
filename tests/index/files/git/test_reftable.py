"""reftable: tables that git wrote, and tables that are damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from awareness.index.files.git import reftable
from awareness.index.files.git.random_access import NotRegular
from awareness.index.files.git.reftable import Table, look_up
from tests.index.files.git.reftable_repository import HASHES, LONG_NAME, TOPICS, make_reftable_repo, tables_of
from tests.index.files.test_repository import no_user_config  # noqa: F401

HASH_BYTES = {"sha1": 20, "sha256": 32}
DAMAGE = (OSError, EOFError, LookupError, ValueError)


@pytest.mark.parametrize("hash_name", HASHES)
def test_every_ref_that_git_wrote(tmp_path: Path, hash_name: str) -> None:
    hashes = make_reftable_repo(tmp_path, hash_name)
    commits = ["main", LONG_NAME, *(f"topic/{number}" for number in range(1, TOPICS + 1))]
    expected = {
        **{f"refs/heads/{name}": hashes["commit"] for name in commits},
        **{"HEAD": "ref: refs/heads/main", "refs/tags/v1": hashes["tag"], "refs/remotes/origin/main": hashes["commit"]},
        "refs/remotes/origin/HEAD": "ref: refs/remotes/origin/main",
        **dict.fromkeys(("A", "refs/heads/gone", "refs/heads/topic/0", "refs/heads/topic", "refs/z", "é"), None),
    }
    folder = tmp_path / "r/.git/reftable"
    assert {name: look_up(folder, name, HASH_BYTES[hash_name]) for name in expected} == expected
    work_tree = tmp_path / "r/.git/worktrees/w/reftable"
    assert look_up(work_tree, "HEAD", HASH_BYTES[hash_name]) == hashes["commit"]
    assert look_up(work_tree, "refs/bisect/bad", HASH_BYTES[hash_name]) == hashes["commit"]


def test_a_ref_that_a_newer_table_deletes_is_in_the_older_one(tmp_path: Path) -> None:
    make_reftable_repo(tmp_path, "sha1")
    older, newer = (tmp_path / "r/.git" / path for path in list(tables_of("sha1"))[:2])
    assert Table(str(older), 20).look_up(b"refs/heads/gone")
    assert Table(str(newer), 20).look_up(b"refs/heads/gone") == ""


def test_the_tables_of_the_test_have_several_blocks_and_both_versions() -> None:
    for hash_name, version in (("sha1", 1), ("sha256", 2)):
        table = next(iter(tables_of(hash_name).values()))
        assert table[4] == version and table[4096:4097] == b"r"


@pytest.mark.parametrize("hash_name", HASHES)
def test_damage_raises_one_of_a_few_exceptions(tmp_path: Path, hash_name: str) -> None:
    """Each byte in turn is another one, and the file ends at each place: no endless loop, no other exception."""
    data = list(tables_of(hash_name).values())[2]
    path = tmp_path / "t.ref"
    raised = 0
    for position in range(len(data)):
        for wrong in (
            data[:position],
            *(data[:position] + bytes([byte]) + data[position + 1 :] for byte in (0, 127, 255)),
        ):
            path.write_bytes(wrong)
            try:
                value = Table(str(path), HASH_BYTES[hash_name]).look_up(b"refs/bisect/bad")
            except DAMAGE:
                raised += 1
            else:
                assert value is None or isinstance(value, str)
    assert raised > len(data)


def test_a_table_of_another_hash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.ref").write_bytes(next(iter(tables_of("sha1").values())))
    with pytest.raises(ValueError, match="damaged"):
        Table(str(tmp_path / "t.ref"), 32)


def test_what_is_not_a_table_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0x1-0x1-a.ref")
    (tmp_path / "tables.list").write_text("0x1-0x1-a.ref\n")
    with pytest.raises(NotRegular):
        look_up(tmp_path, "HEAD", 20)
    for name in ("../0x1-0x1-a.ref", "/etc/passwd", ".ref", "a.txt"):
        (tmp_path / "tables.list").write_text(f"{name}\n")
        with pytest.raises(ValueError, match="list"):
            look_up(tmp_path, "HEAD", 20)
    (tmp_path / "tables.list").write_text("0x1-0x1-gone.ref\n")
    with pytest.raises(FileNotFoundError):
        look_up(tmp_path, "HEAD", 20)
    (tmp_path / "tables.list").unlink()
    assert look_up(tmp_path, "HEAD", 20) is None


def test_a_table_that_git_replaces_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = make_reftable_repo(tmp_path, "sha1")
    folder = tmp_path / "r/.git/reftable"
    names = (folder / "tables.list").read_text()
    (folder / "tables.list").write_text("0x1-0x1-gone.ref\n")
    real = reftable.read_small

    def replace_after_reading(path: str, limit: int) -> bytes:
        data = real(path, limit)
        (folder / "tables.list").write_text(names)
        return data

    monkeypatch.setattr(reftable, "read_small", replace_after_reading)
    assert look_up(folder, "refs/heads/main", 20) == hashes["commit"]


def test_a_table_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.ref").write_bytes(next(iter(tables_of("sha1").values())))
    monkeypatch.setattr(reftable, "MAX_TABLE_BYTES", 1000)
    with pytest.raises(ValueError, match="too large"):
        Table(str(tmp_path / "t.ref"), 20)
