"""The store: damage is found, nothing half-written is seen, formats are told apart."""

from __future__ import annotations

import stat

import apsw
import pytest

from awareness.errors import IndexCorrupt, NoIndex
from awareness.index.store.layout import IndexLayout, layout_for
from awareness.index.store.lock import writing
from awareness.index.store.manifest import checksum_vfs
from awareness.index.store.store import IndexedFile, Store
from awareness.types import Chunk, Latent, MemorySpec

SPEC = MemorySpec(model="m", layers=(1, 2), num_kv_heads=2, head_dim=4, dtype="float32")
CHUNKS = [Chunk(f"f{i}.py", 1, 2, "f", f"def f():\n    return {i}") for i in range(3)]


def latent(tokens: int, fill: int) -> Latent:
    return Latent(tokens, bytearray([fill]) * (SPEC.latent_bytes(tokens)))


@pytest.fixture
def layout(tmp_path) -> IndexLayout:
    layout = IndexLayout(tmp_path / "index")
    with writing(layout), Store.create(layout) as store:
        files = [IndexedFile(c.path, f"digest of {c.path}", [(c, 9)]) for c in CHUNKS]
        store.write_snapshot("tree:x", files, chunking="1", model="m", rev=None)
        store.latents.write(SPEC, {c.digest: latent(i + 1, i) for i, c in enumerate(CHUNKS)}, eager=True)
    return layout


def read(layout: IndexLayout) -> dict[str, Latent]:
    with Store.open(layout) as store:
        return store.latents.read(SPEC, [c.digest for c in CHUNKS])


def test_latents_come_back_as_they_were(layout):
    found = read(layout)
    assert {name: bytes(x.data) for name, x in found.items()} == {
        c.digest: bytes(latent(i + 1, i).data) for i, c in enumerate(CHUNKS)
    }


def test_shards_are_plain_safetensors_that_describe_themselves(layout):
    from safetensors import safe_open

    (shard,) = layout.shards.iterdir()
    assert stat.S_IMODE(shard.stat().st_mode) == 0o600
    with safe_open(shard, "pt") as opened:
        assert MemorySpec.from_json(opened.metadata()["spec"]) == SPEC
        assert set(opened.keys()) == {SPEC.latent_key(c.digest) for c in CHUNKS}
        assert tuple(opened.get_tensor(SPEC.latent_key(CHUNKS[1].digest)).shape) == SPEC.shape(2)


def test_every_flipped_bit_of_a_latent_is_found(layout):
    (shard,) = layout.shards.iterdir()
    whole = shard.read_bytes()
    body = 8 + int.from_bytes(whole[:8], "little")
    for at in range(body, len(whole), 37):
        shard.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(IndexCorrupt, match="is damaged"):
            read(layout)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_shard_is_an_error(layout, keep):
    (shard,) = layout.shards.iterdir()
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(IndexCorrupt, match="bytes, not"):
        read(layout)


def test_a_missing_shard_is_an_error(layout):
    (shard,) = layout.shards.iterdir()
    shard.unlink()
    with pytest.raises(IndexCorrupt, match="No such file"):
        read(layout)


def test_only_files_without_a_row_are_swept(layout):
    (shard,) = layout.shards.iterdir()
    (layout.shards / "0000.safetensors").write_bytes(b"x")
    (layout.shards / "half.123.tmp").write_bytes(b"x")
    with writing(layout), Store.open(layout) as store:
        store.latents.sweep()
    assert list(layout.shards.iterdir()) == [shard]


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to have a header" * 20])
def test_a_file_that_is_not_a_manifest_is_refused(layout, content):
    layout.manifest.write_bytes(content)
    for extra in layout.root.glob("manifest.db-*"):
        extra.unlink()
    with pytest.raises(IndexCorrupt) as raised:
        Store.open(layout)
    assert raised.value.hint == "awareness repair"
    assert raised.value.exit_code == 12


def test_an_unknown_format_version_is_refused(layout):
    apsw.Connection(str(layout.manifest), vfs=checksum_vfs()).execute(
        "UPDATE meta SET value = '99' WHERE key = 'format_version'"
    )
    with pytest.raises(IndexCorrupt, match="format version 99, this program reads 3"):
        Store.open(layout)


def test_every_connection_is_durable_and_checks_references(layout):
    with Store.open(layout) as store:
        got = {name: store.db.pragma(name) for name in ("journal_mode", "synchronous", "foreign_keys")}
    assert got == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_no_index(tmp_path):
    with pytest.raises(NoIndex):
        Store.open(IndexLayout(tmp_path / "nothing"))


def test_file_names_that_are_not_utf8(layout):
    name = b"caf\xe9.py".decode("utf-8", "surrogateescape")
    chunk = Chunk(name, 1, 1, "", "x = 1")
    with writing(layout), Store.open(layout) as store:
        files = [IndexedFile(name, "d", [(chunk, 5)])]
        snapshot = store.write_snapshot("tree:y", files, chunking="1", model="m", rev=None)
        assert [c.chunk.path for c in store.chunks(snapshot)] == [name]
    assert chunk.header == "# file: caf\\udce9.py"


def test_a_local_index_is_used_only_with_local(tmp_path):
    tree = tmp_path / "repo"
    (tree / ".awareness").mkdir(parents=True)
    (tree / ".awareness" / "manifest.db").write_bytes(b"planted")
    assert layout_for(tree, tree).root.parent != tree
    assert layout_for(tree, tree, local=True).root == tree / ".awareness"
    assert layout_for(tree, tree).root == tree / ".awareness"


def test_paths_are_read_again_only_after_a_change(layout):
    with Store.open(layout) as store:
        snapshot = store.snapshot("tree:x").id
        paths = store.paths(snapshot)
        assert list(paths.ids) == ["f0.py", "f1.py", "f2.py"]
        assert store.paths(snapshot) is paths
        with writing(layout), Store.open(layout) as other:
            other.write_snapshot("tree:x", [IndexedFile("new.py", "d", [])], chunking="1", model="m", rev=None)
        assert list(store.paths(snapshot).ids) == ["new.py"]
        assert store.paths(snapshot) is not paths
