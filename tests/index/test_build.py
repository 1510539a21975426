"""Index building: an incremental index is the index built from nothing, and only what is new is encoded."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from awareness.errors import IndexLocked
from awareness.index import build
from awareness.index.files.repository import Repository
from awareness.index.search import routing_index
from awareness.index.search.ranking import HybridRouter
from awareness.index.store.layout import IndexLayout, layout_for
from awareness.index.store.lock import writing
from awareness.index.store.store import Store
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import fuse
from awareness.types import SINK
from tests.conftest import git, tiny_model, tiny_tokenizer, write_tree

GIB = 1 << 30


class CountingEncoder(SelfEncoder):
    """The real encoder, which also remembers what it was given."""

    def __init__(self) -> None:
        super().__init__(fuse(tiny_model("llama")), tiny_tokenizer(), fingerprint="tiny", layers=[2, 3])
        self.seen: list[str] = []

    def encode(self, texts):
        self.seen += texts
        return super().encode(texts)


@pytest.fixture(scope="module")
def encoder() -> CountingEncoder:
    return CountingEncoder()


def starts(text: str) -> range:
    return range(len(text.encode("utf-8")))


def index(root: Path, layout: IndexLayout, encoder, *, budget: int = GIB, rev: str | None = None, **options):
    repository = Repository.open(root)
    with writing(layout), Store.create(layout) as store:
        refreshed = build.refresh(
            store, repository, model="tiny", fingerprint="tiny", token_starts=lambda: starts, rev=rev, **options
        )
        encoded = build.encode_pending(store, refreshed.snapshot, encoder, budget=budget)
    return refreshed, encoded


def contents(layout: IndexLayout, name: str, encoder) -> dict[tuple, tuple]:
    """Everything that a reader can learn of a snapshot."""
    with Store.open(layout) as store:
        snapshot = store.snapshot(name).id
        chunks = list(store.chunks(snapshot))
        latents = store.latents.read(encoder.spec, [c.chunk.digest for c in chunks])
        found = {}
        for c in chunks:
            latent = latents[c.chunk.digest]
            found[c.chunk.path, c.chunk.start_line, c.chunk.text] = (
                c.chunk.symbol, c.tokens, latent.tokens, len(latent.data),
            )  # fmt: skip
        assert store.routing.postings.count() == store.count("SELECT count(*) FROM chunk")
    return found


def hits(layout: IndexLayout, name: str) -> list[tuple[str, int, float]]:
    with Store.open(layout) as store:
        found = HybridRouter(store, store.snapshot(name).id).search("return note g in notes", top_k=20)
    return [(hit.chunk.path, hit.chunk.start_line, hit.score) for hit in found]


def test_first_index_holds_every_chunk(sample, encoder):
    layout = layout_for(sample, sample)
    refreshed, encoded = index(sample, layout, encoder)
    assert (refreshed.files, refreshed.added, refreshed.reused, refreshed.removed) == (4, refreshed.chunks, 0, 0)
    assert encoded.latents == refreshed.chunks
    found = contents(layout, build.snapshot_name(Repository.open(sample), None), encoder)
    assert {path for path, *_ in found} == {"src/auth.py", "src/pool.py", "tests/test_auth.py", "docs/guide.md"}
    assert all(tokens == latent_tokens for _, tokens, latent_tokens, _ in found.values())
    assert layout.root.stat().st_mode & 0o777 == 0o700


def test_only_new_text_is_encoded(sample, encoder):
    layout = layout_for(sample, sample)
    index(sample, layout, encoder)
    encoder.seen.clear()
    refreshed, encoded = index(sample, layout, encoder)
    assert (refreshed.added, refreshed.removed, encoded.latents, encoder.seen) == (0, 0, 0, [])

    (sample / "src/pool.py").unlink()
    write_tree(sample, {"src/new.py": "LIMIT = 5\n"})
    refreshed, encoded = index(sample, layout, encoder)
    assert [text.split("\n")[0] for text in encoder.seen] == ["# file: src/new.py"]
    assert (refreshed.added, encoded.latents) == (1, 1)
    assert refreshed.removed > 0

    encoder.seen.clear()
    git(sample, "checkout", "-q", "--", "src/pool.py")  # what comes back is still known
    refreshed, encoded = index(sample, layout, encoder)
    assert refreshed.added > 0
    assert encoder.seen == []


@pytest.mark.parametrize("version", ["CHUNKER_VERSION", "TERMS_VERSION"])
def test_an_index_of_an_older_version_is_made_again_and_keeps_its_latents(sample, encoder, monkeypatch, version):
    layout = layout_for(sample, sample)
    with monkeypatch.context() as older:
        older.setattr(build, version, 0)
        older.setattr(routing_index, "stems", lambda text: ["nothing"])
        index(sample, layout, encoder)
    name = build.snapshot_name(Repository.open(sample), None)
    assert not hits(layout, name)
    encoder.seen.clear()
    index(sample, layout, encoder)
    assert hits(layout, name) and encoder.seen == []


def test_removed_files_leave_the_snapshot_and_the_search(sample, encoder):
    layout = layout_for(sample, sample)
    index(sample, layout, encoder)
    (sample / "src/pool.py").unlink()
    index(sample, layout, encoder)
    with Store.open(layout) as store:
        assert len(store.routing.postings.rank(["httpconnectionpool"])) == 0
        assert store.count("SELECT count(*) FROM file") == 3


def test_a_commit_and_the_work_tree_share_latents(sample, encoder):
    layout = layout_for(sample, sample)
    refreshed, _ = index(sample, layout, encoder)
    encoder.seen.clear()
    commit = git(sample, "rev-parse", "HEAD").strip()
    at_commit, encoded = index(sample, layout, encoder, rev=commit)
    assert at_commit.snapshot != refreshed.snapshot
    assert (at_commit.chunks, encoded.latents, encoder.seen) == (refreshed.chunks, 0, [])


def test_scope_limits_what_is_indexed(sample, encoder):
    refreshed, _ = index(sample, layout_for(sample, sample), encoder, scope=["src/**/*.py"])
    assert refreshed.files == 2


def test_source_comes_before_tests_before_docs_within_the_budget(sample, encoder):
    layout = layout_for(sample, sample)
    encoder.seen.clear()
    refreshed, _ = index(sample, layout, encoder)
    with Store.open(layout) as store:
        sizes = {c.chunk.path: 0 for c in store.chunks(refreshed.snapshot)}
        for c in store.chunks(refreshed.snapshot):
            sizes[c.chunk.path] += encoder.spec.latent_bytes(c.tokens)
    room = sizes["src/auth.py"] + sizes["src/pool.py"] + sizes["tests/test_auth.py"]
    small = IndexLayout(layout.root.with_name("small"))
    encoder.seen.clear()
    _, encoded = index(sample, small, encoder, budget=int(room / build.EAGER_SHARE) + 1)
    assert {text.split()[2] for text in encoder.seen} == {"src/auth.py", "src/pool.py", "tests/test_auth.py"}
    assert encoded.postponed == 1
    encoder.seen.clear()
    assert index(sample, small, encoder, budget=int(room / build.EAGER_SHARE) + 1)[1].latents == 0
    assert encoder.seen == []


def test_a_missing_latent_is_encoded_on_demand_and_stored(sample, encoder):
    layout = layout_for(sample, sample)
    refreshed, encoded = index(sample, layout, encoder, budget=0)
    assert encoded.latents == 0
    with Store.open(layout) as store:
        chunks = [c.chunk for c in store.chunks(refreshed.snapshot)][:2]
        latents = build.load_latents(store, encoder, chunks, budget=GIB)
        assert store.latents.missing(encoder.spec, [c.digest for c in chunks]) == []
        encoder.seen.clear()
        again = build.load_latents(store, encoder, chunks[::-1], budget=GIB)
    assert encoder.seen == []
    assert [bytes(x.data) for x in again] == [bytes(x.data) for x in latents[::-1]]
    with Store.open(layout) as store:
        assert bytes(store.latents.read(encoder.spec.raw, [SINK])[SINK].data) == bytes(encoder.sink.data)


def test_on_demand_latents_make_room_by_least_recent_use(sample, encoder):
    layout = layout_for(sample, sample)
    refreshed, _ = index(sample, layout, encoder, budget=0)
    with Store.open(layout) as store:
        one, two, three = [c.chunk for c in store.chunks(refreshed.snapshot)][:3]
        build.load_latents(store, encoder, [one], budget=GIB)
        build.load_latents(store, encoder, [two], budget=GIB)
        build.load_latents(store, encoder, [one], budget=GIB)
        with writing(layout):
            store.latents.touch(encoder.spec, [one.digest])
        size = {
            name: store.count(
                "SELECT s.bytes FROM shard s JOIN latent l ON l.shard_id = s.id WHERE chunk_digest = ?", name
            )
            for name in (one.digest, two.digest)
        }
        needed = len(next(encoder.encode([three.encoded_text])).data)
        assert size[two.digest] < size[one.digest] + needed
        budget = store.count("SELECT sum(bytes) FROM shard") - size[two.digest] + needed
        build.load_latents(store, encoder, [three], budget=budget)
        assert store.latents.missing(encoder.spec, [two.digest]) == [two.digest]
        assert store.latents.missing(encoder.spec, [one.digest, three.digest]) == []
        assert len(list(layout.shards.iterdir())) == store.count("SELECT count(*) FROM shard")


def test_a_question_is_answered_while_another_process_writes(sample, encoder):
    layout = layout_for(sample, sample)
    refreshed, _ = index(sample, layout, encoder, budget=0)
    child = os.fork()
    if child == 0:  # the other process; it is killed below
        with writing(layout):
            time.sleep(60)
        os._exit(0)
    try:
        deadline = time.monotonic() + 20
        while layout.lock_holder.read_text() != str(child) and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(IndexLocked, match=f"pid {child}"), writing(layout):
            pass
        with Store.open(layout) as store:
            chunk = next(c.chunk for c in store.chunks(refreshed.snapshot))
            latents = build.load_latents(store, encoder, [chunk], budget=GIB)
            assert latents[0].tokens > 0
            assert store.latents.missing(encoder.spec, [chunk.digest]) == [chunk.digest]  # not kept, as it could not be
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    with writing(layout):  # a killed writer's lock is free at once
        pass


NAMES = st.sampled_from(["a.py", "b.py", "d/c.py", "notes.md"])


@pytest.mark.parametrize("name", [b"plain", b"caf\xe9", "caf\u00e9".encode(), b"\x80\xff"])
def test_a_folder_of_any_name_is_indexed(tmp_path, encoder, name):
    root = tmp_path / os.fsdecode(name)
    write_tree(root, {"a.py": "x = 1\n"})
    git(root, "init", "-q")
    layout = IndexLayout(tmp_path / "index")
    index(root, layout, encoder)
    with Store.open(layout) as store:
        (snapshot,) = store.snapshots()
    assert snapshot.name == build.tree_name(root) and build.folder_of(snapshot.name) == root


def test_a_new_work_tree_reuses_the_chunks_of_the_others(sample, tmp_path, encoder):
    layout = IndexLayout(tmp_path / "index")
    first, _ = index(sample, layout, encoder)
    git(sample, "worktree", "add", "-q", str(tmp_path / "side"))
    write_tree(tmp_path / "side", {"src/new.py": "new = 1\n"})
    second, encoded = index(tmp_path / "side", layout, encoder)
    assert (second.added, second.reused, second.removed, encoded.latents) == (1, first.chunks, 0, 1)


TEXTS = st.lists(
    st.sampled_from(["x = 1", "def f():\n    return 2", "class A:\n    def g(self):\n        pass", "", "# note"]),
    max_size=4,
).map("\n\n".join)
EDITS = st.lists(st.lists(st.tuples(NAMES, st.none() | TEXTS), min_size=1, max_size=3), min_size=1, max_size=4)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS)
def test_incremental_index_is_a_full_rebuild(tmp_path_factory, encoder, edits):
    root = tmp_path_factory.mktemp("edited")
    git(root, "init", "-q")
    incremental = IndexLayout(tmp_path_factory.mktemp("incremental"))
    for step in edits:
        for name, text in step:
            if text is None:
                (root / name).unlink(missing_ok=True)
            else:
                write_tree(root, {name: text})
        index(root, incremental, encoder)
    full = IndexLayout(tmp_path_factory.mktemp("full"))
    index(root, full, encoder)
    name = build.snapshot_name(Repository.open(root), None)
    assert contents(incremental, name, encoder) == contents(full, name, encoder)
    assert hits(incremental, name) == hits(full, name)
