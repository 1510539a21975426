"""Index runs without torch in processes that can be killed, and what must be true of an index after whatever happened.

A latent's bytes follow from the chunk's text, so that each one can be verified. A file of the tree carries its version,
and a version of the tree is a whole: an index that shows two of them is broken. `Workers` starts this module as a
process that forks a child for every command, so that one costs milliseconds. What is done to an index, by whom and
when, is the affair of the tests.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awareness.errors import AwarenessError, IndexCorrupt
from awareness.index import build
from awareness.index.chunks.chunking import chunk_file
from awareness.index.files.repository import Repository
from awareness.index.search.ranking import HybridRouter
from awareness.index.store import garbage
from awareness.index.store.check import check, drop_damage, find_damage, is_sound, remake_manifest
from awareness.index.store.layout import IndexLayout
from awareness.index.store.lock import writing
from awareness.index.store.store import Store
from awareness.types import SINK, Chunk, Latent, MemorySpec, digest
from tests.reliability import faults

SOAK = os.environ.get("AWARENESS_SOAK") == "1"
GIB = 1 << 30
SPEC = MemorySpec(model="hash", layers=(1, 2), num_kv_heads=2, head_dim=4, dtype="float32", sink=digest("the sink"))
MAX_TOKENS = 256
PATHS = ("src/a.py", "src/b.py", "src/deep/c.py", "tests/test_a.py", "docs/guide.md")
LIMIT_S = 300  # a command that takes longer hangs


def shards_of(size: int) -> None:
    """Small shards, so that a run has many commits."""
    build.SHARD_BYTES = garbage.SHARD_BYTES = size  # type: ignore[misc]
    garbage.SMALL_SHARD = size // 4


# --- the encoder and the tree ----------------------------------------------------------------------------------


def token_starts(text: str) -> range:
    return range(0, len(text), 4)


def latent_of(text: str) -> Latent:
    tokens = len(token_starts(text))
    return Latent(tokens, bytearray(hashlib.shake_128(text.encode()).digest(SPEC.latent_bytes(tokens))))


class HashEncoder:
    """A `KVEncoder` that remembers what it was given. A latent is the hash of its text."""

    spec = SPEC
    sink = latent_of("the sink")

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str]) -> Iterator[Latent]:
        for text in texts:
            self.seen.append(text)
            yield latent_of(text)


def text_of(path: str, version: int) -> str:
    """Its first lines change with every version, some of its parts with every third, the others never."""
    name = re.sub(r"\W", "_", path)
    if path.endswith(".md"):
        parts = [f"# Guide\n\nVERSION = {version}\n"]
        parts += [f"## Part {i}\n\n{f'{name} tells part {i}. ' * 12}\n" for i in range(2)]
        return "\n".join(parts)
    parts = [f'"""Part of {name}."""\n\nVERSION = {version}\n']
    for i in range(3):
        since = version // 3 if i == 1 else 0
        lines = "".join(f"    total_{line} = value * {line + since} + len('{name}')\n" for line in range(14))
        parts.append(f"\ndef {name}_{i}_since_{since}(value):\n{lines}    return total_0\n")
    return "\n".join(parts)


def write_version(root: Path, version: int) -> None:
    for path in PATHS:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text_of(path, version))


@functools.cache
def chunks_of(version: int) -> dict[str, list[Chunk]]:
    """What an index of this version must show."""
    return {path: list(chunk_file(path, text_of(path, version), token_starts, max_tokens=MAX_TOKENS)) for path in PATHS}


@functools.cache
def _texts(version: int) -> dict[str, str]:
    return {chunk.digest: chunk.encoded_text for chunks in chunks_of(version).values() for chunk in chunks}


def text_by_digest(name: str, newest: int) -> str:
    """The text of a chunk of any version up to the newest."""
    return next(_texts(v)[name] for v in range(newest, -1, -1) if name in _texts(v))


# --- what must be true -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What a reader finds. version: of the tree, None if it is not indexed. latents: digests of the chunks."""

    version: int | None
    chunks: frozenset[str]
    latents: frozenset[str]


NOTHING = Seen(None, frozenset(), frozenset())


def observe(store: Store) -> Seen:
    """Reads all that the index shows, in one transaction, and asserts that it is a whole version of the tree."""
    with store.reading():
        snapshots = [snapshot for snapshot in store.snapshots() if snapshot.name.startswith("tree:")]
        latents = frozenset(name for (name,) in store.rows("SELECT chunk_digest FROM latent")) - {SINK}
        found: dict[str, list[Chunk]] = {}
        if not snapshots:
            return Seen(None, frozenset(), latents)
        (snapshot,) = snapshots
        for stored in store.chunks(snapshot.id):
            assert stored.chunk.digest == stored.digest
            found.setdefault(stored.chunk.path, []).append(stored.chunk)
        version = version_of(found)
        assert found == chunks_of(version)
        hits = HybridRouter(store, snapshot.id).search("version", top_k=len(PATHS))
        assert sorted(hit.chunk.path for hit in hits) == sorted(PATHS)
        assert {hit.chunk for hit in hits} <= {chunk for chunks in found.values() for chunk in chunks}
        return Seen(version, frozenset(_texts(version)), latents)


def version_of(found: dict[str, list[Chunk]]) -> int:
    text = "\n".join(chunk.text for chunks in found.values() for chunk in chunks)
    (version,) = {int(number) for number in re.findall(r"VERSION = (\d+)", text)}  # one, in all files
    return version


def verify(layout: IndexLayout, *, newest: int) -> Seen:
    """Asserts that every byte of the index is right; returns what it shows."""
    if not layout.exists:
        return NOTHING
    report = check(layout, read_data=True)
    assert report.problems == []
    with Store.open(layout) as store:
        seen = observe(store)
        for name, latent in store.latents.read(SPEC, sorted(seen.latents)).items():
            expected = latent_of(text_by_digest(name, newest))
            assert (latent.tokens, bytes(latent.data)) == (expected.tokens, bytes(expected.data))
        if not store.latents.missing(SPEC, [SINK]):
            assert bytes(store.latents.read(SPEC, [SINK])[SINK].data) == bytes(HashEncoder.sink.data)
    return seen


# --- runs ------------------------------------------------------------------------------------------------------


def index(root: str, folder: str, *, collect: bool = False, budget: int = GIB) -> dict[str, Any]:
    """What `awareness index` does, and with `collect` `awareness gc`."""
    encoder = HashEncoder()
    layout = IndexLayout(Path(folder))
    with writing(layout), Store.create(layout) as store:
        store.latents.sweep()
        refreshed = refresh(store, root)
        if not build.is_encoded(store, refreshed.snapshot, SPEC, budget):
            build.encode_pending(store, refreshed.snapshot, encoder, budget=budget)
        if collect:
            garbage.collect_garbage(store, quant="none")
    return {"encoded": encoder.seen}


def refresh(store: Store, root: str) -> build.Refreshed:
    return build.refresh(
        store,
        Repository.open(Path(root)),
        model="hash",
        fingerprint=SPEC.model,
        token_starts=lambda: token_starts,
        max_tokens=MAX_TOKENS,
    )


def repair(root: str, folder: str) -> dict[str, Any]:
    """What `awareness repair` does."""
    encoder = HashEncoder()
    layout = IndexLayout(Path(folder))
    with writing(layout):
        sound = is_sound(layout)
        if not sound:
            remake_manifest(layout)
        with Store.create(layout) as store:
            if not sound:
                refresh(store, root)
            store.latents.sweep()
            damage = find_damage(store)
            drop_damage(store, damage)
            lost = store.chunks_by_digest({name.chunk for name in damage.latents} - {SINK})
            build.keep_sink(store, encoder)
            build.encode(store, encoder, list(lost.values()))
    return {"sound": sound, "encoded": sorted(encoder.seen), "lost": len(damage.latents)}


def write_for(root: str, folder: str, seconds: float) -> dict[str, Any]:
    """The writer of test_concurrency.py: version after version, now and then with too little room, or collecting."""
    layout = IndexLayout(Path(folder))
    encoder = HashEncoder()
    version, until = 1, time.monotonic() + seconds
    while time.monotonic() < until:
        write_version(Path(root), version)
        with writing(layout), Store.open(layout) as store:
            store.latents.sweep()
            snapshot = refresh(store, root).snapshot
            budget = store.latents.total_bytes() if version % 3 == 0 else GIB
            build.encode_pending(store, snapshot, encoder, budget=budget)
            if version % 4 == 0:
                store.latents.make_room(budget, budget)
            if version % 5 == 0:
                garbage.collect_garbage(store, quant="none", drop=["tree:/elsewhere"])
                chunks = [(chunk, 1) for chunk in chunks_of(version)["src/a.py"]]
                files = [build.IndexedFile("src/a.py", f"elsewhere {version}", chunks)]
                store.write_snapshot("elsewhere", files, chunking=str(version), model="hash", rev="0" * 40)
        version += 1
    return {"version": version - 1}


def read_for(folder: str, seconds: float) -> dict[str, Any]:
    """A reader of test_concurrency.py: opens, looks, reads latents, checks; what it sees never goes back."""
    layout = IndexLayout(Path(folder))
    reads = latents = version = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with Store.open(layout) as store:
            for _ in range(5):
                with store.reading():
                    ours = next(s.id for s in store.snapshots() if s.name.startswith("tree:"))
                    found: dict[str, list[Chunk]] = {}
                    for stored in store.chunks(ours):
                        found.setdefault(stored.chunk.path, []).append(stored.chunk)
                    now = version_of(found)
                assert found == chunks_of(now)
                assert now >= version
                version = now
                texts = _texts(version)
                for name, latent in store.latents.read(SPEC, list(texts)).items():
                    assert bytes(latent.data) == bytes(latent_of(texts[name]).data)
                    latents += 1
                reads += 1
        problems = check(layout, read_data=True).problems
        assert problems == [], problems
    return {"reads": reads, "latents": latents, "version": version}


def hold(folder: str) -> dict[str, Any]:
    """Holds the writer's lock until it is killed."""
    with writing(IndexLayout(Path(folder))):
        signal.pause()
    return {}


def at_fault(
    action: str, root: str, pristine: str, folder: str, versions: Sequence[int | None], fault: dict[str, Any]
) -> dict[str, Any]:
    """Does `index` or `repair` with a fault in a copy of an index, and asserts that the index then shows one of the
    versions, that nothing is lost, and that the next run without a fault makes it whole and encodes only what is new.

    pristine: the index that is copied, or "" for none. versions: of the tree, the index before and the index after.
    """
    layout = IndexLayout(Path(folder))
    shutil.rmtree(layout.root, ignore_errors=True)
    if pristine:
        shutil.copytree(pristine, layout.root)
    newest = versions[-1]
    assert newest is not None
    had = frozenset(_texts(versions[0])) if versions[0] is not None else frozenset()
    status, told = _forked(lambda: _faulty(action, root, layout, fault))
    assert status in (0, faults.DEAD, 12, 13), told
    if action == "repair":
        assert repair(root, folder)["encoded"] == []
    between = verify(layout, newest=newest)
    assert between.version in (None, *versions)
    assert between.latents >= had & (between.chunks or had)
    encoded = index(root, folder, collect=True)["encoded"]
    assert sorted(encoded) == sorted(text for name, text in _texts(newest).items() if name not in between.latents)
    after = verify(layout, newest=newest)
    assert after.version == newest
    assert after.latents >= after.chunks
    assert [path.name for path in layout.root.rglob("*.tmp*")] == []
    return {"status": status, "told": told}


def at_damage(root: str, pristine: str, folder: str, newest: int, name: str, edits: list[list[int]]) -> list[Any]:
    """Damages a file of a copy of the index in each of the ways, has it found and mended, and asserts that it is whole.

    edits: [place, bits to flip there], or [size] to cut the file, or to make it longer, to that. Returns for each the
    kinds of problems that were found, how reading all latents ended, and the texts that were encoded.
    """
    layout, done = IndexLayout(Path(folder)), []
    for edit in edits:
        shutil.rmtree(layout.root, ignore_errors=True)
        shutil.copytree(pristine, layout.root)
        path = layout.root / name
        data = bytearray(path.read_bytes())
        if len(edit) == 1:
            path.write_bytes(data[: edit[0]].ljust(edit[0], b"x"))
        else:
            data[edit[0]] ^= edit[1]
            path.write_bytes(data)
        kinds = sorted({problem.kind for problem in check(layout, read_data=True).problems})
        told = "read"
        try:
            with Store.open(layout) as store:
                store.latents.read(SPEC, [name for (name,) in store.rows("SELECT chunk_digest FROM latent")])
        except IndexCorrupt as error:
            told = type(error).__name__
        encoded = repair(root, folder)["encoded"]
        after = verify(layout, newest=newest)
        assert (after.version, after.latents >= after.chunks) == (newest, True)
        done.append([kinds, told, encoded])
    return done


def _faulty(action: str, root: str, layout: IndexLayout, fault: dict[str, Any]) -> dict[str, Any]:
    with faults.injected(layout.root, **fault) as injected:
        ACTIONS[action](root, str(layout.root), **({"collect": True} if action == "index" else {}))
    return {"events": injected.events, "kinds": injected.kinds, "written": injected.written}


def at_limit(root: str, folder: str, size: int) -> dict[str, Any]:
    """A first index with no file larger than `size` bytes: what the kernel, and not a stand-in of ours, refuses."""

    def limited() -> dict[str, Any]:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # Python ignores the signal, so that it is an error
        try:
            return index(root, folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    status, told = _forked(limited)
    verify(IndexLayout(Path(folder)), newest=0)
    return {"status": status, "told": told}


ACTIONS: dict[str, Callable[..., dict[str, Any]]] = {"index": index, "repair": repair}
COMMANDS: dict[str, Callable[..., Any]] = {
    work.__name__: work for work in (index, repair, write_for, read_for, hold, at_fault, at_damage, at_limit)
}


# --- processes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a command ended. status: exit status, negative for a signal. result: what it returned, or its error."""

    status: int
    result: Any


class Workers:
    """The process that forks; used in a `with` block by one test at a time."""

    def __enter__(self) -> Workers:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, **question: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, command: str, **arguments: Any) -> int:
        """Returns the child's pid at once."""
        pid: int = self._ask(command=command, arguments=arguments)
        return pid

    def wait(self, pid: int) -> Ended:
        return Ended(*self._ask(wait=pid))

    def call(self, command: str, **arguments: Any) -> Any:
        """What the command returns; fails with its traceback."""
        ended = self.wait(self.start(command, **arguments))
        assert ended.status == 0, f"{command} {arguments}\n{ended.result}"
        return ended.result


def _fork(work: Callable[[], Any], folder: str) -> int:
    """A child that does the work and leaves what it returned in a file named by its pid."""
    if pid := os.fork():
        return pid
    status, result = 1, None
    try:
        signal.alarm(LIMIT_S)
        status, result = 0, work()
    except AwarenessError as error:
        status, result = error.exit_code, f"{type(error).__name__}: {error.message}"
    except BaseException:  # noqa: BLE001 - whatever it is, the test has to see it
        result = traceback.format_exc()
    finally:
        Path(folder, str(os.getpid())).write_text(json.dumps(result))
        os._exit(status)


def _reaped(pid: int, folder: str) -> tuple[int, Any]:
    _, status = os.waitpid(pid, 0)
    told = Path(folder, str(pid))
    result = json.loads(told.read_text() or "null") if told.exists() else None
    told.unlink(missing_ok=True)
    return os.waitstatus_to_exitcode(status), result


def _forked(work: Callable[[], Any]) -> tuple[int, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return _reaped(_fork(work, folder), folder)


def _warm_up(folder: Path) -> None:
    """Imports what a run imports late, so that the children have it."""
    write_version(folder / "tree", 0)
    index(str(folder / "tree"), str(folder / "index"), collect=True)
    verify(IndexLayout(folder / "index"), newest=0)


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a child's prints are no answers
    shards_of(24 << 10)
    with tempfile.TemporaryDirectory() as folder:
        _warm_up(Path(folder))
        for line in sys.stdin:
            question = json.loads(line)
            if "wait" in question:
                answer: Any = _reaped(question["wait"], folder)
            else:
                work = functools.partial(COMMANDS[question["command"]], **question["arguments"])
                answer = _fork(work, folder)
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
