"""Packs: what comes out is what went in, damage is found wherever it is, and a stranger's pack can do no harm.

No torch: the encoder is a stand-in whose latents are bytes that follow from the text. The commands that write and read
packs are tested in tests/cli/test_care.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import socket
import struct
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from awareness.cli.app import run
from awareness.errors import AwarenessError, IndexCorrupt, UsageError
from awareness.index import build
from awareness.index.files.repository import Repository
from awareness.index.search.ranking import HybridRouter
from awareness.index.store import pack
from awareness.index.store.layout import FORMAT_VERSION, IndexLayout, indexes_dir
from awareness.index.store.lock import writing
from awareness.index.store.pack import About, OpenPack, is_pack, open_pack, write_pack
from awareness.index.store.shards import read_places, tensor_info
from awareness.index.store.store import Store
from awareness.index.store.tensorfile import ITEMSIZE, checksum_of
from awareness.types import SINK, Chunk, Latent, MemorySpec, digest

SPEC = MemorySpec(model="fake", layers=(1, 2), num_kv_heads=1, head_dim=4)
SINK_TOKENS = 3
ABOUT = About(model="smollm2-135m", repository="sample", rev=None, chunking="1:256:fake")
QUERIES = ("sign cookie", "HTTPConnectionPool acquire", "guide", "hmac", "nothing of the kind")
SOAK = os.environ.get("AWARENESS_SOAK") == "1"
ESCAPES = "\x1b[31m\x1b]0;title\x07\x9b2J\u202e\r"


@dataclass
class FakeEncoder:
    """`KVEncoder` whose latents are the text's digest, stretched."""

    spec: MemorySpec = SPEC
    seen: list[str] = field(default_factory=list)

    @property
    def sink(self) -> Latent:
        return Latent(SINK_TOKENS, stretched("sink", self.spec.raw.latent_bytes(SINK_TOKENS)))

    def encode(self, texts: Sequence[str]) -> Iterator[Latent]:
        for text in texts:
            self.seen.append(text)
            yield latent_of(text, self.spec)


def stretched(text: str, size: int) -> bytes:
    return hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(size)


def starts(text: str) -> range:
    return range(0, len(text), 4)


def latent_of(text: str, spec: MemorySpec) -> Latent:
    tokens = len(starts(text))
    return Latent(tokens, stretched(text, spec.latent_bytes(tokens)))


def index(root: Path, layout: IndexLayout, encoder: FakeEncoder, *, encode: bool = True) -> int:
    """Brings an index of the repository up to date; the id of its snapshot."""
    with writing(layout), Store.create(layout) as store:
        snapshot = build.refresh(
            store, Repository.open(root), model="fake", fingerprint="fake", token_starts=lambda: starts
        ).snapshot
        if encode:
            build.encode_pending(store, snapshot, encoder, budget=1 << 30)
    return snapshot


def write(path: Path, layout: IndexLayout, snapshot: int, encoder: FakeEncoder, about: About = ABOUT, **options):
    with writing(layout), Store.open(layout) as store:
        return write_pack(
            path,
            store,
            snapshot,
            encoder.spec,
            encoder.sink,
            lambda chunks: build.encode_chunks(encoder, chunks),
            about,
            **options,
        )


@dataclass(frozen=True)
class Packed:
    """A repository's index and its pack."""

    layout: IndexLayout
    snapshot: int
    path: Path


@pytest.fixture
def packed(sample: Path, tmp_path: Path) -> Packed:
    layout, encoder = IndexLayout(tmp_path / "index"), FakeEncoder()
    snapshot = index(sample, layout, encoder)
    write(tmp_path / "sample.awm", layout, snapshot, encoder)
    return Packed(layout, snapshot, tmp_path / "sample.awm")


@pytest.fixture
def new_cache(tmp_path_factory, monkeypatch) -> Callable[[], None]:
    """Forgets every pack that was opened."""

    def renew() -> None:
        monkeypatch.setenv("AWARENESS_INDEX_DIR", str(tmp_path_factory.mktemp("cache")))

    return renew


def read_all(opened: OpenPack) -> dict[str, Latent]:
    return opened.store.latents.read(opened.spec, opened.store.chunk_digests(opened.snapshot))


def open_and_read(path: Path) -> dict[str, bytes]:
    """chunk digest -> bytes of its latent."""
    opened = open_pack(path)
    with opened.store:
        return {name: bytes(latent.data) for name, latent in read_all(opened).items()}


# what comes out


@pytest.mark.parametrize("quant", ["none", "int8", "int4", "int2", "fp8", "pca"])
def test_a_pack_gives_what_the_index_gives(sample, tmp_path, quant):
    layout, encoder = IndexLayout(tmp_path / "index"), FakeEncoder(replace(SPEC, quant=quant))
    snapshot = index(sample, layout, encoder)
    written = write(tmp_path / "p.awm", layout, snapshot, encoder)
    opened = open_pack(tmp_path / "p.awm")
    with opened.store, Store.open(layout) as own:
        assert (opened.about, opened.spec, opened.path) == (ABOUT, encoder.spec, tmp_path / "p.awm")
        want = [(c.chunk, c.tokens, c.digest) for c in own.chunks(snapshot)]
        assert [(c.chunk, c.tokens, c.digest) for c in opened.store.chunks(opened.snapshot)] == want
        assert [f[1:] for f in opened.store.files(opened.snapshot)] == [f[1:] for f in own.files(snapshot)]
        found = read_all(opened)
        assert found == {c.digest: latent_of(c.encoded_text, encoder.spec) for c, _, _ in want}
        assert opened.store.latents.read(encoder.spec.raw, [SINK]) == {SINK: encoder.sink}
        for query in QUERIES:
            hits = HybridRouter(opened.store, opened.snapshot).search(query, top_k=8)
            assert hits == HybridRouter(own, snapshot).search(query, top_k=8)
        assert (written.files, written.chunks) == (4, len(want))
        assert written.tokens == sum(tokens for _, tokens, _ in want)
    assert written.bytes == (tmp_path / "p.awm").stat().st_size


def test_the_same_snapshot_gives_the_same_bytes(packed, sample, tmp_path):
    """Whether its latents are there, are not yet there, or some of them are."""
    want = packed.path.read_bytes()
    write(tmp_path / "again.awm", packed.layout, packed.snapshot, FakeEncoder())
    assert (tmp_path / "again.awm").read_bytes() == want
    lazy, encoder = IndexLayout(tmp_path / "lazy"), FakeEncoder()
    snapshot = index(sample, lazy, encoder, encode=False)
    write(tmp_path / "lazy.awm", lazy, snapshot, encoder)
    assert encoder.seen and (tmp_path / "lazy.awm").read_bytes() == want
    with writing(lazy), Store.open(lazy) as store:
        some = list(store.chunks(snapshot))[::2]
        store.latents.write(SPEC, {c.digest: latent_of(c.chunk.encoded_text, SPEC) for c in some}, eager=True)
    encoder = FakeEncoder()
    write(tmp_path / "half.awm", lazy, snapshot, encoder)
    assert 0 < len(encoder.seen) < len(set(encoder.seen)) + len(some)
    assert (tmp_path / "half.awm").read_bytes() == want


def test_is_pack(packed, tmp_path):
    assert is_pack(packed.path)
    for name, data in {"empty": b"", "text": b"x = 1\n" * 9, "short": packed.path.read_bytes()[:99]}.items():
        (tmp_path / name).write_bytes(data)
        assert not is_pack(tmp_path / name)
    assert not is_pack(tmp_path / "missing") and not is_pack(tmp_path)


def test_a_pack_is_plain_safetensors(packed):
    from safetensors import safe_open

    with safe_open(packed.path, "pt") as opened:
        said = opened.metadata()
        assert (said["format"], said["version"]) == ("awareness-pack", str(FORMAT_VERSION))
        assert MemorySpec.from_json(said["spec"]) == SPEC
        names = {SPEC.latent_key(name) for name in json.loads(said["latents"])}
        assert set(opened.keys()) == {"chunks", "sink"} | names


def test_a_scope_limits_the_pack(packed, tmp_path):
    write(
        tmp_path / "src.awm",
        packed.layout,
        packed.snapshot,
        FakeEncoder(),
        in_scope=lambda path: path.startswith("src/"),
    )
    opened = open_pack(tmp_path / "src.awm")
    with opened.store:
        assert {c.chunk.path for c in opened.store.chunks(opened.snapshot)} == {"src/auth.py", "src/pool.py"}
        assert set(read_all(opened)) == set(opened.store.chunk_digests(opened.snapshot))
    with pytest.raises(UsageError, match="nothing to pack"):
        write(tmp_path / "no.awm", packed.layout, packed.snapshot, FakeEncoder(), in_scope=lambda path: False)
    assert not (tmp_path / "no.awm").exists()


def test_file_names_that_are_not_utf8_can_be_packed(sample, tmp_path):
    """File names that are not UTF-8, and a repository whose name would spoil a terminal."""
    name = os.fsencode(sample) + b"/src/caf\xe9.py"
    Path(os.fsdecode(name)).write_text("def coffee():\n    return 1\n")
    layout, encoder = IndexLayout(tmp_path / "index"), FakeEncoder()
    about = replace(ABOUT, repository=os.fsdecode(b"\x1b[2J\xff"), rev="a" * 40)
    write(tmp_path / "p.awm", layout, index(sample, layout, encoder), encoder, about)
    opened = open_pack(tmp_path / "p.awm")
    with opened.store:
        assert "src/caf\udce9.py" in {c.chunk.path for c in opened.store.chunks(opened.snapshot)}
        assert opened.about == replace(about, repository="\\x1b[2J\\udcff")
        assert len(read_all(opened)) == opened.store.totals(opened.snapshot).chunks


def test_files_that_are_not_read_line_by_line_can_be_packed(sample, tmp_path):
    """A summary of data has fewer rows than lines, a notebook in one line has more."""
    records = [{"input": f"http://host/{i}", "base": None, "failure": i % 7 == 0} for i in range(400)]
    (sample / "records.json").write_text(json.dumps(records, indent=2))
    cells = [{"cell_type": "code", "source": ["x = 1\n", "y = 2\n"], "outputs": [], "metadata": {}}]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (sample / "short.ipynb").write_text(json.dumps(notebook))
    (sample / "long.ipynb").write_text(json.dumps(notebook, indent=1))
    layout, encoder = IndexLayout(tmp_path / "index"), FakeEncoder()
    write(tmp_path / "p.awm", layout, index(sample, layout, encoder), encoder)
    opened = open_pack(tmp_path / "p.awm")
    with opened.store:
        chunks = [stored.chunk for stored in opened.store.chunks(opened.snapshot)]
    assert any("lines left out" in chunk.text for chunk in chunks if chunk.path == "records.json")
    assert {"short.ipynb", "long.ipynb"} <= {chunk.path for chunk in chunks}


def test_a_pack_that_is_opened_twice_is_imported_once(packed, monkeypatch):
    imports = []
    do_import = pack._import
    monkeypatch.setattr(pack, "_import", lambda *given: (imports.append(given), do_import(*given)))
    first, second = open_and_read(packed.path), open_and_read(packed.path)
    assert first == second and len(imports) == 1


def test_a_pack_that_moved_still_works(packed, tmp_path):
    before = open_and_read(packed.path)
    moved = packed.path.rename(tmp_path / "moved.awm")
    assert open_and_read(moved) == before
    (tmp_path / "link.awm").symlink_to(moved)
    assert open_and_read(tmp_path / "link.awm") == before
    # Its latents are its own: nothing of them was copied into the cache.
    held = sum(path.stat().st_size for path in indexes_dir().rglob("*.safetensors"))
    assert held < SPEC.latent_bytes(SINK_TOKENS) + 2000


def test_the_cached_index_of_a_deleted_pack_is_deleted(packed, tmp_path):
    open_and_read(packed.path)
    (other,) = indexes_dir().glob("packs/*")
    packed.path.unlink()
    forge(tmp_path / "new.awm")
    open_and_read(tmp_path / "new.awm")
    (left,) = indexes_dir().glob("packs/*")
    assert left != other


def test_a_damaged_cached_index_is_created_again(packed):
    want = open_and_read(packed.path)
    (manifest,) = indexes_dir().glob("packs/*/manifest.db")
    manifest.write_bytes(b"garbage" * 3000)
    for log in manifest.parent.glob("manifest.db-*"):
        log.unlink()
    assert open_and_read(packed.path) == want


# damage


def spread(size: int, count: int) -> list[int]:
    return random.Random(7).sample(range(size), min(count, size))


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]


def test_every_flipped_bit_is_found(packed, new_cache):
    whole = packed.path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    per_part = 250 if SOAK else 60
    places = [*range(8), *spread(header, per_part), *(header + at for at in spread(len(whole) - header, per_part))]
    found = 0
    for at in places:
        new_cache()
        packed.path.write_bytes(flip(whole, at))
        with pytest.raises((IndexCorrupt, UsageError)) as raised:
            open_and_read(packed.path)
        assert raised.value.hint == "download or create the pack again"
        found += 1
    assert found == len(places) >= 120


@pytest.mark.parametrize("seed", range(20))
def test_a_truncated_pack_is_refused(packed, seed):
    whole = packed.path.read_bytes()
    edges = [0, 1, 7, 8, 9, len(whole) - 1, len(whole) - 8]
    keep = edges[seed] if seed < len(edges) else random.Random(seed).randrange(len(whole))
    packed.path.write_bytes(whole[:keep])
    assert refusal_of(packed.path)


def test_a_pack_with_trailing_bytes_is_refused(packed):
    packed.path.write_bytes(packed.path.read_bytes() + b"\0")
    assert refusal_of(packed.path)


def test_latents_flipped_after_the_import_are_found_on_reading(packed):
    open_and_read(packed.path)
    whole = packed.path.read_bytes()
    opened = open_pack(packed.path)
    with opened.store:
        places = opened.store.latents.places(SPEC, opened.store.chunk_digests(opened.snapshot))
    for place in places.values():
        packed.path.write_bytes(flip(whole, place.offset + place.length // 2))
        with pytest.raises(IndexCorrupt, match="is damaged"):
            open_and_read(packed.path)
    packed.path.write_bytes(whole)
    assert len(open_and_read(packed.path)) == len(places)


# packs that lie

ROWS = [
    {"path": "src/a.py", "file": "1", "start_line": 1, "end_line": 2, "symbol": "", "tokens": 5, "text": "def f():\n1"},
    {"path": "src/b.py", "file": "2", "start_line": 3, "end_line": 3, "symbol": "", "tokens": 2, "text": "needle = 1"},
]  # fmt: skip


def tensor(spec: MemorySpec, name: str, tokens: int) -> tuple[str, list[int], bytes]:
    info = tensor_info(spec, name, tokens)
    return info.dtype, list(info.shape), stretched(name, info.nbytes)


def seal(metadata: dict[str, Any], tensors: dict[str, tuple[str, list[int], bytes]], **also: Any) -> bytes:
    """A file of these tensors. also: entries of the header that replace the right ones."""
    entries: dict[str, Any] = {"__metadata__": metadata}
    begin = 0
    for name, (dtype, shape, data) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin := begin + len(data)]}
    text = json.dumps({**entries, **also}).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values())


def forge(
    path: Path,
    rows: Sequence[Any] = ROWS,
    *,
    table: bytes | None = None,
    said: dict[str, Any] | None = None,
    also: dict[str, Any] | None = None,
    spec: MemorySpec = SPEC,
    without: Sequence[str] = (),
    tokens: dict[str, int] | None = None,
    change: Callable[[dict[str, Any], dict[str, Any]], None] = lambda metadata, tensors: None,
) -> Path:
    """A pack that is right in all that it is not told to lie about.

    table, said, also: the chunk table, metadata and entries of the header as they shall be. without: chunks whose
    latents are left out. change: gets the metadata and the tensors before the file is made.
    """
    table = b"".join(json.dumps(row).encode() + b"\n" for row in rows) if table is None else table
    chunks = {}
    for row in rows:
        names = ("path", "start_line", "end_line", "symbol", "text")
        if isinstance(row, dict) and all(isinstance(row.get(n), str) for n in ("path", "symbol", "text")):
            name = Chunk(*(row.get(n) for n in names)).digest
            chunks[name] = row["tokens"] if type(row.get("tokens")) is int and 0 <= row["tokens"] < 9999 else 2
    chunks = {name: (tokens or {}).get(name, count) for name, count in chunks.items() if name not in without}
    sink_data = stretched(SINK, spec.raw.latent_bytes(SINK_TOKENS))
    tensors = {"chunks": ("U8", [len(table)], table), "sink": (*tensor(spec.raw, SINK, SINK_TOKENS)[:2], sink_data)}
    tensors |= {spec.latent_key(name): tensor(spec, name, count) for name, count in chunks.items()}
    latents = {name: [count, checksum_of(tensors[spec.latent_key(name)][2])] for name, count in chunks.items()}
    metadata = {
        "format": "awareness-pack",
        "version": str(FORMAT_VERSION),
        "spec": spec.to_json(),
        "latents": json.dumps(latents),
        "chunks": digest(table),
        "sink": json.dumps([SINK_TOKENS, checksum_of(sink_data)]),
        "model": ABOUT.model,
        "repository": ABOUT.repository,
        "rev": "",
        "chunking": ABOUT.chunking,
        **(said or {}),
    }
    change(metadata, tensors)
    metadata = {name: value for name, value in metadata.items() if value is not None}
    if all(isinstance(value, str) for value in metadata.values()):
        metadata.setdefault("metadata", pack.metadata_digest(metadata))
    path.write_bytes(seal(metadata, tensors, **also or {}))
    return path


def test_a_consistent_pack_of_a_stranger_is_read(tmp_path):
    assert len(open_and_read(forge(tmp_path / "p.awm"))) == 2


def refusal_of(path: Path) -> AwarenessError:
    """Opens a pack that must be refused: nothing is left behind, little memory taken, one clear line said."""
    size = path.stat().st_size if path.is_file() else 0
    before = sorted(path.parent.rglob("*"))
    tracemalloc.start()
    try:
        with pytest.raises((IndexCorrupt, UsageError)) as raised:
            open_pack(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    error = raised.value
    assert error.message.isprintable() and len(error.message) < 400
    assert str(path) in error.message
    assert peak < 50 * size + (4 << 20), f"{peak} bytes for a file of {size}"
    assert sorted(path.parent.rglob("*")) == before
    assert not list(indexes_dir().glob("packs/*")), "what was refused is not kept"
    return error


def row(**fields: Any) -> list[dict[str, Any]]:
    """The rows with a first one that lies."""
    return [{**ROWS[0], **fields}, ROWS[1]]


def lacking(name: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in ROWS[0].items() if k != name}, ROWS[1]]


def line(text: str) -> dict[str, Any]:
    """A chunk table with a second line that lies, as text."""
    return {"table": json.dumps(ROWS[0]).encode() + b"\n" + text.encode() + b"\n"}


def spec_said(**fields: Any) -> dict[str, Any]:
    return {"said": {"spec": json.dumps({**json.loads(SPEC.to_json()), **fields})}}


def latents_said(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    def apply(metadata: dict[str, Any], tensors: dict[str, Any]) -> None:
        metadata["latents"] = json.dumps(change(json.loads(metadata["latents"])))

    return {"change": apply}


def first(value: Any) -> dict[str, Any]:
    """The first latent's [tokens, checksum] replaced; a function gets the right one."""

    def change(latents: dict[str, Any]) -> dict[str, Any]:
        name = next(iter(latents))
        return {**latents, name: value(*latents[name]) if callable(value) else value}

    return latents_said(change)


NAMES = [Chunk(r["path"], r["start_line"], r["end_line"], r["symbol"], r["text"]).digest for r in ROWS]
FIRST = SPEC.latent_key(NAMES[0])
TABLE_BYTES = sum(len(json.dumps(r)) + 1 for r in ROWS)
OVERLAP = {"dtype": "U8", "shape": [TABLE_BYTES], "data_offsets": [0, TABLE_BYTES]}


def entry(**fields: Any) -> dict[str, Any]:
    """The header's entry of the chunk table, changed."""
    return {"also": {"chunks": {**OVERLAP, **fields}}}


def swap_places(metadata: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Each chunk's latent under the other's name."""
    one, other = (SPEC.latent_key(name) for name in NAMES)
    tensors[one], tensors[other] = tensors[other], tensors[one]


def chunk_without_place(metadata: dict[str, Any], tensors: dict[str, Any]) -> None:
    extra = digest("of no chunk")
    tensors[SPEC.latent_key(extra)] = made = tensor(SPEC, extra, 2)
    metadata["latents"] = json.dumps({**json.loads(metadata["latents"]), extra: [2, checksum_of(made[2])]})


def untold_tensor(metadata: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["more"] = ("U8", [100], b"x" * 100)


def sink_as_chunk(metadata: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors[SPEC.latent_key(SINK)] = made = tensor(SPEC, SINK, 2)
    metadata["latents"] = json.dumps({**json.loads(metadata["latents"]), SINK: [2, checksum_of(made[2])]})


def surrogate_name(metadata: dict[str, Any], tensors: dict[str, Any]) -> None:
    name = "\ud800"
    tensors[SPEC.latent_key(name)] = made = tensor(SPEC, name, 2)
    metadata["latents"] = json.dumps({**json.loads(metadata["latents"]), name: [2, checksum_of(made[2])]})


LIES: dict[str, dict[str, Any]] = {
    "an absolute path": {"rows": row(path="/etc/passwd")},
    "a path upwards": {"rows": row(path="src/../../x.py")},
    "a path of dots": {"rows": row(path=".")},
    "a path of git's": {"rows": row(path=".git/config")},
    "a path of git's in capitals": {"rows": row(path="sub/.GIT/hooks/post-checkout")},
    "NUL in a path": {"rows": row(path="a\0b.py")},
    "an empty path": {"rows": row(path="")},
    "an endless path": {"rows": row(path="d/" * 3000 + "a.py")},
    "a lone surrogate in a path": {"rows": row(path="a\ud800.py")},
    "a lone surrogate in a text": {"rows": row(text="a\n\ud800")},
    "a lone surrogate in a symbol": {"rows": row(symbol="\udcff")},
    "a lone surrogate in a file's digest": {"rows": row(file="\ud800")},
    "a path that is a number": {"rows": row(path=1)},
    "a text that is a list": {"rows": row(text=["a", "b"])},
    "a symbol that is null": {"rows": row(symbol=None)},
    "a digest that is an object": {"rows": row(file={})},
    "a line that is text": {"rows": row(start_line="1")},
    "a line that is true": {"rows": row(start_line=True)},
    "a line that is a fraction": {"rows": row(end_line=2.0)},
    "line zero": {"rows": row(start_line=0, end_line=1)},
    "the end before the start": {"rows": row(start_line=3, end_line=2)},
    "a huge line": {"rows": row(end_line=2**63)},
    "lines that the text does not have": {"rows": row(end_line=9)},
    "negative tokens": {"rows": row(tokens=-1)},
    "huge tokens": {"rows": row(tokens=2**31)},
    "tokens that the latent does not have": {"tokens": {NAMES[0]: 7}},
    "no text": {"rows": lacking("text")},
    "no tokens": {"rows": lacking("tokens")},
    "a file that stands twice": {"rows": [ROWS[0], ROWS[1], {**ROWS[0], "start_line": 2, "end_line": 3}]},
    "a chunk that is a list": line("[1, 2]"),
    "a chunk that is no JSON": line("{"),
    "an empty line": line(""),
    "a deeply nested chunk": line("[" * 100_000),
    "a chunk with a number of 5,000 digits": line('{"path": ' + "9" * 5000 + "}"),
    "a chunk with NaN": line(json.dumps(ROWS[1]).replace("2,", "NaN,")),
    "latents that are missing": {"without": [NAMES[0]]},
    "no latents at all": {"without": NAMES},
    "a latent of no chunk": {"change": chunk_without_place},
    "a tensor that nothing tells of": {"change": untold_tensor},
    "the sink as a chunk": {"change": sink_as_chunk},
    "a chunk whose name is no text": {"change": surrogate_name},
    "latents that changed places": {"change": swap_places},
    "latents that are a list": {"said": {"latents": "[]"}},
    "latents that are a number": {"said": {"latents": "7"}},
    "latents that are no JSON": {"said": {"latents": "{"}},
    "deeply nested latents": {"said": {"latents": '{"a":' * 100_000}},
    "a latent of null": first(None),
    "a latent of two letters": first("ab"),
    "a latent of three": first([1, 2, 3]),
    "a latent with negative tokens": first(lambda tokens, checksum: [-tokens, checksum]),
    "a latent with huge tokens": first(lambda tokens, checksum: [10**4000, checksum]),
    "a latent with tokens of text": first(lambda tokens, checksum: ["2", checksum]),
    "a latent with a list of tokens": first(lambda tokens, checksum: [[2], checksum]),
    "a latent with NaN tokens": first(lambda tokens, checksum: [float("nan"), checksum]),
    "a checksum that is a number": first(lambda tokens, checksum: [tokens, 7]),
    "a checksum of another kind": first(lambda tokens, checksum: [tokens, "sha256:" + "0" * 64]),
    "an empty checksum": first(lambda tokens, checksum: [tokens, ""]),
    "a checksum that is no text": first(lambda tokens, checksum: [tokens, "\ud800"]),
    "a spec that is a list": {"said": {"spec": "[]"}},
    "a spec with another field": spec_said(more=1),
    "a spec of negative heads": spec_said(num_kv_heads=-1),
    "a spec of huge heads": spec_said(head_dim=2**62),
    "a spec of no heads": spec_said(num_kv_heads=0),
    "a spec of fractions": spec_said(head_dim=4.0),
    "a spec of true": spec_said(num_kv_heads=True),
    "a spec of negative layers": spec_said(layers=[-5]),
    "a spec of layers of text": spec_said(layers="12"),
    "a spec with NaN": spec_said(head_dim=float("nan")),
    "an unknown quant": spec_said(quant="int3"),
    "a quant that is a list": spec_said(quant=["none"]),
    "an unknown dtype": spec_said(dtype="float64"),
    "another spec than that of its latents": spec_said(head_dim=8),
    "a deeply nested spec": {"said": {"spec": "[" * 100_000}},
    "another version": {"said": {"version": "1"}},
    "no version": {"said": {"version": None}},
    "a version with escapes": {"said": {"version": ESCAPES}},
    "another format": {"said": {"format": "awareness-shard"}},
    "metadata that is a number": {"said": {"model": 7}},
    "no model": {"said": {"model": None}},
    "no chunking": {"said": {"chunking": None}},
    "a commit that is none": {"said": {"rev": "main"}},
    "a commit with a line break": {"said": {"rev": "a" * 40 + "\n"}},
    "a model with escapes": {"said": {"model": f"m{ESCAPES}"}},
    "a repository with escapes": {"said": {"repository": f"r{ESCAPES}"}},
    "a repository of two lines": {"said": {"repository": "r\nerror: none"}},
    "a model that is no text": {"said": {"model": "\ud800"}},
    "a chunking that is no text": {"said": {"chunking": "\udfff"}},
    "a sink that is a number": {"said": {"sink": "7"}},
    "a sink of other tokens": {"said": {"sink": json.dumps([4, "xxh3:0"])}},
    "a sink with another checksum": {"said": {"sink": json.dumps([3, checksum_of(b"")])}},
    "a sink with a checksum of null": {"said": {"sink": "[3, null]"}},
    "metadata with another digest": {"said": {"metadata": digest(b"")}},
    "metadata without a digest": {"said": {"metadata": 1}},
    "chunks with another checksum": {"said": {"chunks": digest(b"")}},
    "tensors that overlap": entry(data_offsets=[0, TABLE_BYTES + 1]),
    "tensors that leave a hole": {"also": {"sink": {"dtype": "U8", "shape": [96], "data_offsets": [400, 496]}}},
    "a tensor beyond the end": entry(data_offsets=[0, 1 << 40], shape=[1 << 40]),
    "negative offsets": entry(data_offsets=[-8, TABLE_BYTES - 8]),
    "offsets that are fractions": entry(data_offsets=[0.0, float(TABLE_BYTES)]),
    "offsets that are NaN": entry(data_offsets=[float("nan"), TABLE_BYTES]),
    "three offsets": entry(data_offsets=[0, 1, TABLE_BYTES]),
    "a shape that overflows to its size": entry(shape=[2**32, 2**32, TABLE_BYTES]),
    "a shape that overflows to nothing": {"also": {"x": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}},
    "a negative shape": entry(shape=[-1, -TABLE_BYTES]),
    "a shape of true": entry(shape=[True, TABLE_BYTES]),
    "a shape that is text": entry(shape="ab"),
    "an unknown dtype of a tensor": entry(dtype="I64"),
    "a dtype that is a list": entry(dtype=["U8"]),
    "another dtype of a latent": {"also": {FIRST: {"dtype": "F16", "shape": [2, 2, 1, 5, 4], "data_offsets": [0, 0]}}},
    "an entry that is a list": {"also": {"x": []}},
    "an entry that is null": {"also": {"x": None}},
    "10,000 tiny tensors": {
        "also": {f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(10_000)}
    },
    "metadata that is a list": {"also": {"__metadata__": []}},
    "metadata that is null": {"also": {"__metadata__": None}},
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_an_inconsistent_pack_is_refused(lie, tmp_path):
    path = forge(tmp_path / "p.awm", **LIES[lie])
    refusal_of(path)


SAID = ("escapes", "two lines", "is no text", "git's", "overlap", "quant", "missing", "twice", "another version")


@pytest.mark.parametrize("lie", [lie for lie in LIES if any(words in lie for words in SAID)])
def test_an_inconsistent_pack_gives_one_line_and_an_exit_code(lie, tmp_path, capfd):
    path = forge(tmp_path / "p.awm", **LIES[lie])
    assert run(["search", "needle", "--memory", str(path)]) in (2, 12)
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: ")
    assert len(err.splitlines()) == 2 and "Traceback" not in err
    assert all(text.isprintable() for text in err.splitlines())


@pytest.mark.parametrize("quant", ["int8", "int4"])
@pytest.mark.parametrize(
    "tokens",
    [
        "a",
        [0],
        1.5,
        None,
        -1,
        1 << 70,
    ],
)
def test_token_counts_are_checked_before_they_are_used(tmp_path, quant, tokens):
    """A text times a number is a long text: a few bytes of header could ask for gigabytes."""
    spec = replace(SPEC, quant=quant, num_kv_heads=1 << 11, head_dim=1 << 12)
    lie = first(lambda _, checksum: [tokens, checksum])
    path = forge(tmp_path / "p.awm", rows=[{**ROWS[1], "tokens": 0}], spec=replace(SPEC, quant=quant), **lie)
    data = path.read_bytes().replace(b'num_kv_heads\\": 1', b'num_kv_heads\\": 2048')
    data = data.replace(b'head_dim\\": 4', b'head_dim\\": 4096')
    size = int.from_bytes(data[:8], "little") + len(data) - path.stat().st_size
    path.write_bytes(size.to_bytes(8, "little") + data[8:])
    assert b"4096" in data and spec.quant == quant
    refusal_of(path)


def header_only(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


FILES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "seven bytes": lambda: b"\0" * 7,
    "a header of no bytes": lambda: header_only(b""),
    "a header of 2^63 bytes": lambda: header_only(b"{}" * 50, 1 << 63),
    "a header of 2^64 - 1 bytes": lambda: header_only(b"{}" * 50, (1 << 64) - 1),
    "a header as long as the file": lambda: header_only(b"{}" + b" " * 98, 108),
    "an empty object": lambda: header_only(b"{}"),
    "a list": lambda: header_only(b"[]"),
    "a number of 5,000 digits": lambda: header_only(b"9" * 5000),
    "no UTF-8": lambda: header_only(b'{"\xff\xfe": 1}'),
    "UTF-16": lambda: header_only('{"__metadata__": {}}'.encode("utf-16")),
    "deeply nested lists": lambda: header_only(b"[" * 500_000),
    "deeply nested objects": lambda: header_only(b'{"a":' * 200_000),
    "many empty lists": lambda: header_only(b"[" + b"[]," * 30_000 + b"[]]"),
    "metadata alone": lambda: header_only(b'{"__metadata__": {"format": "awareness-pack"}}'),
    "the same key twice": lambda: (
        header_only(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
        )
        + b"x"
    ),
    "a zip": lambda: b"PK\x03\x04" + b"\0" * 500,
    "a pickle": lambda: b"\x80\x04\x95" + b"." * 500,
    "text": lambda: b"hello world\n" * 20,
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_not_a_pack_is_refused(kind, tmp_path):
    (tmp_path / "p.awm").write_bytes(FILES[kind]())
    assert refusal_of(tmp_path / "p.awm").exit_code == 12


def test_a_shard_is_not_accepted_as_a_pack(packed):
    shard = next(path for path in packed.layout.shards.iterdir())
    assert "not a pack of awareness" in refusal_of(shard).message


def test_a_fifo_or_folder_is_refused_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(tmp_path, os.O_RDONLY)  # a socket's name has to be short
        try:
            listener.bind(f"/proc/self/fd/{here}/socket")
        except OSError:
            (tmp_path / "socket").symlink_to("/dev/null")
        finally:
            os.close(here)
        for name in ("fifo", "folder", "loop", "socket", "absent"):
            assert refusal_of(tmp_path / name)
    (tmp_path / "zero").symlink_to("/dev/zero")
    assert refusal_of(tmp_path / "zero")


# what a stranger's pack could be after


def test_the_same_header_over_other_chunks_does_not_spoil_the_cache(tmp_path, new_cache):
    """Whichever is opened first: what is kept for a pack is named by its header, and that holds the chunks' digest."""
    honest = forge(tmp_path / "honest.awm")
    data = honest.read_bytes()
    liar = tmp_path / "liar.awm"
    liar.write_bytes(data.replace(b"needle = 1", b"needle = 2"))
    assert liar.read_bytes() != data
    refusal_of(liar)
    want = open_and_read(honest)
    assert open_and_read(liar) == want  # by what was checked
    opened = open_pack(liar)
    with opened.store:
        assert "needle = 1" in {c.chunk.text for c in opened.store.chunks(opened.snapshot)} | {"needle = 1"}
        assert {c.chunk.text for c in opened.store.chunks(opened.snapshot)} == {r["text"] for r in ROWS}
    new_cache()
    refusal_of(liar)
    assert open_and_read(honest) == want


def test_packs_that_differ_in_a_header_field_alone_are_kept_apart(tmp_path):
    texts = {"model": "one", "repository": "two"}
    one = forge(tmp_path / "one.awm", said=texts)
    other = forge(tmp_path / "other.awm", said={"model": "two", "repository": "one"})
    abouts = []
    for path in (one, other):
        opened = open_pack(path)
        opened.store.close()
        abouts.append((opened.about.model, opened.about.repository))
    assert abouts == [("one", "two"), ("two", "one")]
    assert len(list(indexes_dir().glob("packs/*"))) == 2


def test_chunks_with_checksums_alike_are_told_apart(tmp_path, monkeypatch):
    """The checksum can be forged. What is kept of a pack must not hang on it, nor the text that is shown."""
    monkeypatch.setattr("awareness.index.store.tensorfile.checksum_of", lambda data: "xxh3:" + "0" * 32)
    monkeypatch.setattr("awareness.index.store.pack.checksum_of", lambda data: "xxh3:" + "0" * 32)
    monkeypatch.setattr("awareness.index.store.shards.checksum_of", lambda data: "xxh3:" + "0" * 32)
    zero = {"change": lambda metadata, _: metadata.update(
        latents=json.dumps({n: [t, "xxh3:" + "0" * 32] for n, (t, _) in json.loads(metadata["latents"]).items()}),
        sink=json.dumps([SINK_TOKENS, "xxh3:" + "0" * 32]),
    )}  # fmt: skip
    one = forge(tmp_path / "one.awm", **zero)
    moved = [{**ROWS[0], "start_line": 701, "end_line": 702}, {**ROWS[1], "start_line": 700, "end_line": 700}]
    other = forge(tmp_path / "other.awm", moved, **zero)
    for path, lines in ((one, {1, 3}), (other, {701, 700})):
        opened = open_pack(path)
        with opened.store:
            assert {c.chunk.start_line for c in opened.store.chunks(opened.snapshot)} == lines


@pytest.mark.parametrize("honest", [True, False])
def test_a_link_in_the_cache_deletes_nothing(tmp_path, honest):
    """The folder that a pack is kept in is there already, as a link to somebody's folder."""
    path = forge(tmp_path / "p.awm")
    open_and_read(path)
    (kept,) = indexes_dir().glob("packs/*")
    shutil.rmtree(kept)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious.txt").write_text("mine")
    kept.symlink_to(victim)
    if not honest:
        data = path.read_bytes()
        path.write_bytes(data.replace(b"needle = 1", b"needle = 2"))
    try:
        open_and_read(path)
    except AwarenessError:
        assert not honest
    path.unlink()
    open_and_read(forge(tmp_path / "other.awm", ROWS[:1]))  # forgets packs that are gone
    assert (victim / "precious.txt").read_text() == "mine"


def test_only_the_cached_indexes_of_missing_packs_are_deleted(packed, sample, tmp_path):
    own = IndexLayout(indexes_dir() / "sample-0123")
    index(sample, own, FakeEncoder())
    stray = indexes_dir() / "packs" / "stray.txt"
    stray.parent.mkdir()
    stray.write_text("x")
    open_and_read(packed.path)
    open_and_read(forge(tmp_path / "p.awm"))
    assert own.exists and stray.exists() and packed.layout.exists
    assert len(list(indexes_dir().glob("packs/*/manifest.db"))) == 2


WORDS = ('"', "*", "NEAR(a b)", "a OR b", "symbol:x", "'; DROP TABLE chunk; --", "^a", "(" * 200, "\0", "a" * 9999)


def test_no_text_of_a_pack_or_question_is_SQL(tmp_path, capfd):
    rows = [
        {**ROWS[1], "path": f"src/{i}'\";.py", "symbol": word, "text": f"needle {word}"}
        for i, word in enumerate(WORDS)
    ]  # fmt: skip
    path = forge(tmp_path / "p.awm", rows)
    for word in (*WORDS, "needle"):
        code = run(["search", word, "--memory", str(path), "--format", "json"])
        out, err = capfd.readouterr()
        assert code in (0, 1) and "Traceback" not in err
    assert len(json.loads(out)["hits"]) == 8
    assert len(open_and_read(path)) == len(WORDS)


def test_no_control_character_reaches_the_terminal(tmp_path, capfd):
    rows = row(path=f"src/{ESCAPES}.py", symbol=f"f{ESCAPES}", text=f"def needle():\n  '{ESCAPES}\x00'")
    path = forge(tmp_path / "p.awm", rows, said={"rev": "ab" * 20})
    for arguments in ([], ["--format", "json"], ["--verbose"]):
        assert run(["search", "needle", "--memory", str(path), *arguments]) == 0
        out, err = capfd.readouterr()
        assert "needle" in out
        assert all(text.isprintable() for text in (out + err).replace("\n", " ").split())


def test_a_symbol_cannot_look_like_another_hit(tmp_path, capfd):
    path = forge(tmp_path / "p.awm", row(symbol="f\nsrc/login.py:1-2  verified  1.00", text="needle\n"))
    assert run(["search", "needle", "--memory", str(path)]) == 0
    assert not [text for text in capfd.readouterr().out.splitlines() if text.startswith("src/login.py")]


@pytest.mark.parametrize("model", ["evil/model", "/tmp", ".", "../x", "~", "http://example.org/x", "a" * 5000, ""])
def test_the_model_that_a_pack_names_is_neither_loaded_nor_fetched(tmp_path, capfd, monkeypatch, model):
    forbid_models(monkeypatch)
    path = forge(tmp_path / "p.awm", said={"model": model})
    assert run(["ask", "needle", "--memory", str(path)]) == 2
    assert "--model with a model that you trust" in capfd.readouterr().err


def test_no_preset_is_fetched_because_a_pack_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr("awareness.model.model_files.find", lambda name: None)
    forbid_models(monkeypatch, "pull")
    path = forge(tmp_path / "p.awm", said={"model": "qwen2.5-coder-32b"})
    assert run(["ask", "needle", "--memory", str(path)]) in (2, 3)


def forbid_models(monkeypatch, *names: str) -> None:
    """Looking for a model, fetching and loading one are failures."""

    def refuse(*given: Any, **named: Any) -> None:
        raise AssertionError(f"a model was asked for: {given}")

    for name in names or ("find", "pull"):
        monkeypatch.setattr(f"awareness.model.model_files.{name}", refuse)
    monkeypatch.setattr("awareness.engine.model_pool.load_model", refuse)


def test_checking_a_pack_holds_few_latents_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "SHARD_BYTES", 3 * SPEC.latent_bytes(5))
    held = []
    monkeypatch.setattr(pack, "read_places", lambda places: held.append(len(places)) or read_places(places))
    rows = [{**ROWS[0], "path": f"src/{i}.py"} for i in range(10)]
    open_and_read(forge(tmp_path / "p.awm", rows))
    assert held == [3, 3, 3, 1]


def test_all_kinds_of_tensors_are_known_to_the_forger():
    assert {"U8", "BF16"} <= set(ITEMSIZE)
