"""A key changes with everything that decides what is kept under it, and what is kept is what was made."""

from __future__ import annotations

import pytest

from awareness.train.data import prepared_sources as module
from awareness.train.data.disk_cache import DiskCache
from awareness.train.data.prepared_sources import PreparedSources, content_digest, making, prepared_sources
from awareness.types import Chunk, digest
from tests.conftest import write_tree

FILES = {"LICENSE": b"MIT", "a.py": b"a = 1\n", "b.py": b"b = 2\n"}
CHUNKS = (Chunk("caf\u00e9 \udcff.py", 1, 2, "a.b", "x = '\u2192'\n\ty"), Chunk("b.py", 3, 3, "", "b"))


@pytest.fixture
def prepared(tmp_path) -> PreparedSources:
    return PreparedSources(DiskCache(tmp_path / "cache"), "tokenizer")


def key_of(prepared, files, chunk_tokens):
    return prepared.chunks_key(content_digest(files), chunk_tokens)


def test_the_key_of_chunks_is_of_every_byte_the_size_the_tokenizer_and_the_code(prepared, monkeypatch):
    keys = [key_of(prepared, FILES, 64), key_of(prepared, FILES, 65)]
    keys += [
        key_of(prepared, {**FILES, "a.py": b"a = 2\n"}, 64),
        key_of(prepared, {**FILES, "c.py": b""}, 64),
    ]
    moved = {"LICENSE": b"MIT", "c.py": b"a = 1\n", "b.py": b"b = 2\n"}
    keys += [
        key_of(prepared, moved, 64),
        key_of(PreparedSources(prepared.cache, "other"), FILES, 64),
    ]
    assert key_of(prepared, dict(reversed(FILES.items())), 64) == keys[0]
    monkeypatch.setattr(module, "making", lambda: "other code")
    assert len({*keys, key_of(prepared, FILES, 64)}) == 7


def test_the_code_that_cuts_is_part_of_the_key(tmp_path, monkeypatch):
    assert all((module._PACKAGE / name).exists() for name in module._CODE)
    tree = {"index/chunks/a.py": "1", "index/files/deep/b.py": "2", "train/data/c.yaml": "3"}
    write_tree(tmp_path, {**tree, "model/token_offsets.py": "4", "types.py": "5"})
    monkeypatch.setattr(module, "_PACKAGE", tmp_path)
    seen = set()
    for name in (None, *tree, "model/token_offsets.py", "types.py"):
        if name:
            (tmp_path / name).write_text("changed")
        making.cache_clear()
        seen.add(making())
    monkeypatch.setattr(module.metadata, "version", lambda name: f"{name} 99")
    making.cache_clear()
    assert len(seen | {making()}) == 7
    making.cache_clear()


def test_chunks_are_found_as_they_were(prepared):
    assert prepared.chunks("k") is None
    prepared.keep_chunks("k", 2, CHUNKS)
    assert prepared.chunks("k") == (2, CHUNKS)
    prepared.keep_chunks("none", 5, ())
    assert prepared.chunks("none") == (5, ())


def test_near_duplicates_are_found_as_they_were(prepared):
    sources = [("one", CHUNKS), ("two", CHUNKS[:1])]
    key = prepared.duplicates_key(sources, 0.8)
    others = {prepared.duplicates_key(sources, 0.7), prepared.duplicates_key(sources[::-1], 0.8)}
    others |= {prepared.duplicates_key([("three", CHUNKS), sources[1]], 0.8), prepared.duplicates_key(sources[:1], 0.8)}
    assert len(others | {key}) == 5
    assert prepared.duplicates(key) is None
    prepared.keep_duplicates(key, [[], [(0, "one b.py:3-3")]])
    assert prepared.duplicates(key) == [[], [(0, "one b.py:3-3")]]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "x",
        {},
        {"files": "many", "chunks": [], "dropped": 1},
        {"files": 1, "chunks": [["a.py", 1, 2, "a"]], "dropped": [[[1]]]},
        {"files": 1, "chunks": [["a.py", "1", 2, "a", "text"]], "dropped": [[["1", "a"]]]},
        {"files": 1, "chunks": [["a.py", 1, 2, None, "text"]], "dropped": [[[1, 2]]]},
    ],
)
def test_an_entry_of_another_form_counts_as_missing(prepared, value):
    prepared.cache.put("k", value)
    assert prepared.chunks("k") is None and prepared.duplicates("k") is None


def test_the_tokenizer_is_known_by_its_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    found = prepared_sources(tmp_path)
    assert found.tokenizer == digest(b"{}")
    assert found.cache.folder == tmp_path / "cache/awareness/sources-prepared" and not found.cache.folder.exists()
