"""What is shared stays, what nothing needs goes, and readers notice nothing of it.

No torch: the stand-in encoder of test_pack.py. The command is tested in tests/cli/test_care.py.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from awareness.index import build
from awareness.index.files.repository import Repository
from awareness.index.store import garbage
from awareness.index.store.check import check
from awareness.index.store.garbage import Collected, collect_garbage
from awareness.index.store.layout import IndexLayout
from awareness.index.store.lock import writing
from awareness.index.store.store import Store
from awareness.types import SINK, MemorySpec
from tests.conftest import git, write_tree
from tests.index.store.test_pack import SINK_TOKENS, SPEC, FakeEncoder, latent_of, starts


class CountingEncoder(FakeEncoder):
    """As if the same text could be met twice: an assertion that it is not."""

    def encode(self, texts):
        again = set(texts) & set(self.seen)
        assert not again, f"encoded twice: {again}"
        return super().encode(texts)


@pytest.fixture
def layout(tmp_path: Path) -> IndexLayout:
    return IndexLayout(tmp_path / "index")


def index(root: Path, layout: IndexLayout, encoder: FakeEncoder, *, rev: str | None = None) -> str:
    """Indexes a work tree or a commit; returns the name of its snapshot."""
    repository = Repository.open(root)
    commit = repository.resolve(rev) if rev else None
    with writing(layout), Store.create(layout) as store:
        refreshed = build.refresh(
            store, repository, model="fake", fingerprint="fake", token_starts=lambda: starts, rev=commit
        )
        build.encode_pending(store, refreshed.snapshot, encoder, budget=1 << 30)
    return build.snapshot_name(repository, commit)


def collect(layout: IndexLayout, *drop: str, quant: str = "none", dry_run: bool = False) -> Collected:
    with writing(layout), Store.open(layout) as store:
        return collect_garbage(store, quant=quant, drop=drop, dry_run=dry_run)


def held(layout: IndexLayout) -> set[tuple[str, str]]:
    """(quant, chunk digest) of every latent that the manifest has."""
    with Store.open(layout) as store:
        rows = store.rows("SELECT p.json, l.chunk_digest FROM latent l JOIN spec p ON p.id = l.spec_id")
        return {(MemorySpec.from_json(spec).quant, name) for spec, name in rows}


def shown(layout: IndexLayout, *names: str) -> dict[str, str]:
    """chunk digest -> text that was encoded, of some snapshots or of all."""
    with Store.open(layout) as store:
        snapshots = [s for s in store.snapshots() if not names or s.name in names]
        return {c.digest: c.chunk.encoded_text for s in snapshots for c in store.chunks(s.id)}


def assert_sound(layout: IndexLayout, encoder: FakeEncoder) -> None:
    """Every chunk that is shown has its latent and the right bytes, and nothing is damaged."""
    texts = shown(layout)
    with Store.open(layout) as store:
        found = store.latents.read(encoder.spec, list(texts))
    assert {name: (x.tokens, bytes(x.data)) for name, x in found.items()} == {
        name: (latent_of(text, encoder.spec).tokens, latent_of(text, encoder.spec).data) for name, text in texts.items()
    }
    report = check(layout, read_data=True)
    assert (report.problems, report.orphans) == ([], 0)


def state(layout: IndexLayout) -> dict[str, bytes]:
    """All that a reader can learn, and every shard's bytes."""
    with Store.open(layout) as store:
        tables = {
            table: repr(list(store.rows(f"SELECT * FROM {table} ORDER BY 1, 2"))).encode()
            for table in ("snapshot", "snapshot_file", "file", "chunk", "shard", "latent", "spec", "meta")
        }
    return tables | {path.name: path.read_bytes() for path in layout.shards.iterdir()}


def shards_written(layout: IndexLayout, encoder: FakeEncoder, texts: dict[str, str], per_shard: int) -> None:
    names = list(texts)
    with writing(layout), Store.open(layout) as store:
        for start in range(0, len(names), per_shard):
            group = names[start : start + per_shard]
            made = {name: latent_of(texts[name], encoder.spec) for name in group}
            store.latents.write(encoder.spec, made, eager=True)


def test_worktrees_and_branches_share_chunks_and_latents(sample, tmp_path, layout):
    """Of two worktrees and two branches only what differs is encoded, once."""
    git(sample, "checkout", "-q", "-b", "other")
    write_tree(sample, {"src/pool.py": "class Pool:\n    other = 1\n", "src/new.py": "def new():\n    return 1\n"})
    git(sample, "add", "-A")
    git(sample, "commit", "-qm", "other")
    git(sample, "checkout", "-q", "main")
    git(sample, "worktree", "add", "-q", str(tmp_path / "tree"), "other")
    encoder = CountingEncoder()
    index(sample, layout, encoder)
    first = len(encoder.seen)
    assert first == len(shown(layout))
    index(sample, layout, encoder, rev="main")
    assert len(encoder.seen) == first
    index(tmp_path / "tree", layout, encoder)
    fresh = {text.splitlines()[0].partition(" · ")[0] for text in encoder.seen[first:]}
    assert fresh == {"# file: src/pool.py", "# file: src/new.py"}
    second = len(encoder.seen)
    index(sample, layout, encoder, rev="other")
    assert len(encoder.seen) == second
    with Store.open(layout) as store:
        assert len(store.snapshots()) == 4
        files = [file_id for s in store.snapshots() for file_id, _, _ in store.files(s.id)]
        assert len(set(files)) == 6 < len(files)  # four files, and two that differ, whoever shows them
    assert {name for _, name in held(layout)} == {SINK, *shown(layout)}
    assert_sound(layout, encoder)


@pytest.fixture
def two(sample, tmp_path, layout) -> tuple[str, str, CountingEncoder]:
    """A work tree and an older commit, which share most files."""
    git(sample, "rm", "-q", "src/pool.py")
    git(sample, "commit", "-qm", "second")
    encoder = CountingEncoder()
    return index(sample, layout, encoder), index(sample, layout, encoder, rev="HEAD~1"), encoder


def test_dropping_a_snapshot_frees_what_no_other_uses(two, layout):
    tree, old, encoder = two
    only_old = shown(layout, old).keys() - shown(layout, tree).keys()
    assert only_old
    before = held(layout)
    done = collect(layout, old)
    assert (done.latents, done.orphans) == (len(only_old), 0)
    assert before - held(layout) == {("none", name) for name in only_old}
    assert set(shown(layout)) == set(shown(layout, tree))
    assert_sound(layout, encoder)


def test_dropping_a_snapshot_keeps_latents_of_another(two, layout):
    tree, _, encoder = two
    before = held(layout)
    done = collect(layout, tree)
    assert done.latents == 0
    assert held(layout) == before
    assert_sound(layout, encoder)


def test_dropping_everything_leaves_the_sink(two, layout):
    tree, old, _ = two
    collect(layout, tree, old)
    assert held(layout) == {("none", SINK)}
    with Store.open(layout) as store:
        sink = store.latents.read(SPEC, [SINK])[SINK]
        assert (store.count("SELECT count(*) FROM chunk"), store.count("SELECT count(*) FROM file")) == (0, 0)
    assert (sink.tokens, bytes(sink.data)) == (SINK_TOKENS, bytes(FakeEncoder().sink.data))
    assert check(layout, read_data=True).problems == []


def test_many_small_shards_become_one(sample, layout):
    encoder = FakeEncoder()
    index(sample, layout, encoder)
    texts = shown(layout)
    shards_written(layout, encoder, texts, per_shard=1)
    collect(layout)
    shards_written(layout, encoder, texts, per_shard=1)
    with Store.open(layout) as store:
        shards = [shard for shard in store.latents.shards() if store.latents.of_shard(shard)]
    assert len(shards) == len(texts) + 1  # and the sink's
    done = collect(layout)
    # Those that were emptied are dropped as well; the sink is left alone.
    assert done.shards_rewritten >= len(texts) and done.latents == 0
    assert len(list(layout.shards.iterdir())) == 2
    assert_sound(layout, encoder)
    again = collect(layout)
    assert (again.latents, again.orphans, again.shards_rewritten) == (0, 0, 0)
    assert again.bytes >= 0


def test_shards_with_holes_are_rewritten_and_others_are_not(sample, layout, monkeypatch):
    """From a quarter of a shard on; shards count as large here."""
    monkeypatch.setattr(garbage, "SMALL_SHARD", 0)
    write_tree(sample, {f"src/m{i}.py": f"def f{i}(x):\n    return {i}\n" * 4 for i in range(24)})
    encoder = FakeEncoder(replace(SPEC, num_kv_heads=8))  # latents much larger than their entry in the header
    index(sample, layout, encoder)

    def remove(*numbers: int) -> tuple[Collected, set[str]]:
        before = {path.name for path in layout.shards.iterdir()}
        for i in numbers:
            (sample / f"src/m{i}.py").unlink()
        index(sample, layout, encoder)
        done = collect(layout)
        assert_sound(layout, encoder)
        return done, before - {path.name for path in layout.shards.iterdir()}

    done, gone = remove(0, 1)
    assert (done.latents > 0, done.shards_rewritten, gone) == (True, 0, set())
    done, gone = remove(*range(2, 14))
    assert done.latents > 0
    assert (done.shards_rewritten, len(gone)) == (1, 1)
    assert done.bytes > 0


def test_the_sink_stays_in_a_shard_of_its_own(sample, layout):
    """Among other latents it would keep them from ever making room."""
    encoder = FakeEncoder()
    index(sample, layout, encoder)
    shards_written(layout, encoder, shown(layout), per_shard=2)
    collect(layout)
    with Store.open(layout) as store:
        held_with = [
            {name for _, name in store.latents.of_shard(shard)} for shard in store.latents.shards()
        ]  # fmt: skip
    assert {SINK} in held_with


def test_orphans_are_deleted_and_nothing_outside_the_folder(sample, layout, tmp_path):
    encoder = FakeEncoder()
    index(sample, layout, encoder)
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine" * 100)
    (layout.shards / "0000.safetensors").write_bytes(b"x" * 5000)
    (layout.shards / "half.safetensors.123.tmp").write_bytes(b"x" * 3000)
    (layout.shards / "link.safetensors").symlink_to(precious)
    (layout.shards / "folder").mkdir()
    done = collect(layout)
    assert (done.orphans, done.latents) == (3, 0)
    assert done.bytes >= 7000
    assert precious.read_bytes() == b"mine" * 100
    (layout.shards / "folder").rmdir()
    assert_sound(layout, encoder)


def test_a_dry_run_changes_nothing_and_reports_the_same(two, layout):
    _, old, encoder = two
    shards_written(layout, encoder, shown(layout), per_shard=2)
    (layout.shards / "0000.safetensors").write_bytes(b"x" * 500_000)
    before = state(layout)
    foretold = collect(layout, old, dry_run=True)
    assert state(layout) == before
    done = collect(layout, old)
    assert (foretold.latents, foretold.orphans, foretold.shards_rewritten) == (
        done.latents,
        done.orphans,
        done.shards_rewritten,
    )
    assert foretold.latents > 0 and foretold.orphans == 1 and foretold.shards_rewritten > 1
    assert foretold.bytes == pytest.approx(done.bytes, abs=20_000) and done.bytes > 400_000
    assert_sound(layout, encoder)


def test_a_latent_with_another_quantisation_is_garbage(sample, layout):
    plain, small = FakeEncoder(), FakeEncoder(replace(SPEC, quant="int8"))
    index(sample, layout, plain)
    texts = shown(layout)
    index(sample, layout, small)
    both = {(quant, name) for quant in ("none", "int8") for name in texts} | {("none", SINK)}
    assert held(layout) == both
    done = collect(layout, quant="int8")
    assert done.latents == len(texts)
    assert held(layout) == {("int8", name) for name in texts} | {("none", SINK)}
    assert_sound(layout, small)
    seen = len(small.seen)
    index(sample, layout, small)
    assert len(small.seen) == seen


def test_a_latent_of_an_older_encoding_version_is_garbage(sample, layout):
    new, old = FakeEncoder(), FakeEncoder(replace(SPEC, version=SPEC.version + 7))
    index(sample, layout, old)
    index(sample, layout, new)
    assert collect(layout).latents == len(shown(layout))
    assert_sound(layout, new)


def test_a_reader_with_outdated_places_gets_the_right_bytes(sample, layout, monkeypatch):
    """Its rows were read, then gc moves the latents and deletes the shards: it looks again."""
    encoder = FakeEncoder()
    index(sample, layout, encoder)
    texts = shown(layout)
    shards_written(layout, encoder, texts, per_shard=1)
    with Store.open(layout) as reader:
        places = reader.latents.places
        asked = []

        def collecting(*given):
            found = places(*given)
            if not asked:
                collect(layout)
                assert not any(place.path.exists() for place in found.values())
            asked.append(given)
            return found

        monkeypatch.setattr(reader.latents, "places", collecting)
        found = reader.latents.read(SPEC, list(texts))
    assert len(asked) > 1
    assert {n: bytes(x.data) for n, x in found.items()} == {n: latent_of(t, SPEC).data for n, t in texts.items()}


def test_readers_go_on_while_garbage_is_collected(sample, layout):
    encoder = FakeEncoder()
    index(sample, layout, encoder)
    texts = shown(layout)
    want = {name: latent_of(text, SPEC).data for name, text in texts.items()}
    stop, failures, reads = threading.Event(), [], []

    def reading() -> None:
        try:
            with Store.open(layout) as store:
                while not stop.is_set():
                    found = store.latents.read(SPEC, list(texts))
                    if {name: bytes(x.data) for name, x in found.items()} != want:
                        failures.append("other bytes")
                    reads.append(1)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test fails by it
            failures.append(error)

    threads = [threading.Thread(target=reading) for _ in range(2)]
    for thread in threads:
        thread.start()
    for round_ in range(8):
        shards_written(layout, encoder, texts, per_shard=1 + round_ % 3)
        collect(layout)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(reads) > 2
    assert_sound(layout, encoder)


def test_a_killed_collection_loses_nothing(sample, layout, monkeypatch):
    """It stops after the new shard is written, before the old ones are forgotten: all is there, and the next one ends
    it."""
    encoder = FakeEncoder()
    index(sample, layout, encoder)
    shards_written(layout, encoder, shown(layout), per_shard=1)
    with writing(layout), Store.open(layout) as store, monkeypatch.context() as patch:
        patch.setattr(store.latents, "drop_shards", lambda ids: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            collect_garbage(store, quant="none")
    assert_sound(layout, encoder)
    collect(layout)
    assert_sound(layout, encoder)
    assert len(list(layout.shards.iterdir())) == 2
