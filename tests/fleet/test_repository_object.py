from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest

from awareness.errors import IndexCorrupt
from awareness.fleet.object_store import open_store
from awareness.fleet.repository_object import Place, pack, read, read_shards, unpack
from awareness.index.store.chunk_table import to_line
from awareness.index.store.store import StoredChunk
from awareness.index.store.tensorfile import Malformed
from awareness.types import Chunk, digest
from tests.fleet.test_catalogue import ENTRY, SPEC

CHUNKS = [Chunk("a.py", 1, 2, "f", "def f():\n    pass"), Chunk("b\udcff.py", 3, 3, "", "x = 1")]
LINES = [to_line(StoredChunk(0, chunk, 5, chunk.digest), "f" * 64) for chunk in CHUNKS]
PLACES = {chunk.digest: Place("a" * 64, 8, 100, 5, "xxh3:1") for chunk in CHUNKS}


def packed(lines=LINES, places=PLACES):
    data, size = pack("a", "c" * 40, "1.3:256:x", "model", SPEC.to_json(), places, lines)
    return data, replace(ENTRY, object=digest(data), text_bytes=size)


def test_what_is_packed_is_read_back(tmp_path):
    data, entry = packed()
    store = open_store(str(tmp_path))
    store.create(entry.key, data)
    repository = read(store, entry)
    assert [chunk for file in repository.files() for chunk, _ in file.chunks or ()] == CHUNKS
    assert repository.places == PLACES and repository.description.shards == ("a" * 64,)
    assert read_shards(store, entry) == ("a" * 64,)
    assert packed()[0] == data


def test_many_shards_are_read_from_the_start_of_the_object(tmp_path):
    places = {digest(str(i)): Place(digest(f"s{i}"), 0, 1, 1, "xxh3:1") for i in range(3000)}
    data, entry = packed(places=places)
    store = open_store(str(tmp_path))
    store.create(entry.key, data)
    assert len(read_shards(store, entry)) == 3000


def test_other_bytes_than_the_catalogue_names_are_refused():
    data, entry = packed()
    for other in (data[:-1], data + b"x", data[:40] + b"x" + data[41:], b""):
        with pytest.raises(IndexCorrupt, match="digest"):
            unpack(other, entry, "s3://x")


def named(data, size):
    return data, replace(ENTRY, object=digest(data), text_bytes=size)


def test_a_few_bytes_that_unpack_to_many_are_refused():
    data, entry = named(gzip.compress(b"\n" * 10_000_000), 1000)
    with pytest.raises(IndexCorrupt, match="size"):
        unpack(data, entry, "s3://x")


FIRST, SECOND = (json.loads(line) for line in gzip.decompress(packed()[0]).splitlines()[:2])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({**FIRST, "format": "x"}, SECOND),
        ({**FIRST, "shards": ["../x"]}, SECOND),
        ({**FIRST, "model": "\x1b"}, SECOND),
        ({k: v for k, v in FIRST.items() if k != "spec"}, SECOND),
        ([], SECOND),
        (FIRST, {"0" * 64: [7, 0, 1, 1, "xxh3:1"]}),
        (FIRST, {"0" * 64: [0, -1, 1, 1, "xxh3:1"]}),
        (FIRST, {"0" * 64: [0, 0, 1, 1, 5]}),
        (FIRST, {"x": [0, 0, 1, 1, "xxh3:1"]}),
        (FIRST, []),
    ],
)
def test_a_description_of_a_stranger_is_refused(first, second):
    text = b"\n".join(json.dumps(value).encode() for value in (first, second)) + b"\n" + b"".join(LINES)
    data, entry = named(gzip.compress(text), len(text))
    with pytest.raises(IndexCorrupt):
        unpack(data, entry, "s3://x")


def test_a_text_that_says_that_lines_were_left_out_is_a_text_as_any_other():
    told = Chunk("a.md", 1, 2, "", "… 12 lines left out\nas it says")
    line = to_line(StoredChunk(0, told, 5, told.digest), "f" * 64)
    data, entry = packed([line], {told.digest: Place("a" * 64, 8, 100, 5, "xxh3:1")})
    assert [chunk for file in unpack(data, entry, "s3://x").files() for chunk, _ in file.chunks or ()] == [told]


def test_chunks_without_latents_and_paths_that_lead_out_are_refused():
    data, entry = packed(places={})
    with pytest.raises(Malformed, match="latents"):
        list(unpack(data, entry, "s3://x").files())
    data, entry = packed(lines=[LINES[0].replace(b"a.py", b"../a.py")])
    with pytest.raises(Malformed, match="path"):
        list(unpack(data, entry, "s3://x").files())
