"""Bits that flip and files that are cut: all damage is found, and mended without encoding anything that is still sound.

Every byte of a shard is live, and every page of the manifest but the leaves of its freelist, which hold nothing: a flip
there may stay unseen, and must do no harm.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from awareness.index.store.layout import IndexLayout
from awareness.index.store.store import Store
from tests.reliability.worker import SOAK, Seen, Workers, text_by_digest, verify, write_version

NEWEST = 3
FLIPS = 500 if SOAK else 60
CUTS = 50 if SOAK else 20


@dataclass(frozen=True)
class Index:
    """An index of four versions. shards: name of the file -> (begin, end, chunk digest) of each latent."""

    root: Path
    layout: IndexLayout
    workers: Workers
    seen: Seen
    shards: dict[str, list[tuple[int, int, str]]]

    def damaged(self, name: str, edits: list[list[int]]) -> list:
        folder = str(self.layout.root.with_name("copy"))
        arguments = {"root": str(self.root), "pristine": str(self.layout.root), "folder": folder, "newest": NEWEST}
        return self.workers.call("at_damage", name=name, edits=edits, **arguments)

    def size(self, name: str) -> int:
        return (self.layout.root / name).stat().st_size

    def texts(self, digests: set[str]) -> list[str]:
        """What has to be encoded if these latents are lost: those that are shown. The sink costs nothing."""
        return sorted(text_by_digest(name, NEWEST) for name in digests & self.seen.chunks)


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("damage")
    layout = IndexLayout(folder / "index")
    with Workers() as workers:
        for version in range(NEWEST + 1):
            write_version(folder / "tree", version)
            workers.call("index", root=str(folder / "tree"), folder=str(layout.root))
        seen = verify(layout, newest=NEWEST)
        with Store.open(layout) as store:
            shards = {
                f"shards/{shard.path.name}": [
                    (place.offset, place.offset + place.length, name)
                    for (_, name), place in store.latents.of_shard(shard).items()
                ]
                for shard in store.latents.shards()
            }
        assert not list(layout.root.glob("manifest.db-*"))
        yield Index(folder / "tree", layout, workers, seen, shards)


def test_flips_in_shards(index):
    choose = random.Random(1)
    names = sorted(index.shards)
    flips: dict[str, list[list[int]]] = {name: [] for name in names}
    for number in range(FLIPS // 2):
        name = names[number % len(names)]
        header_ends = min(begin for begin, _, _ in index.shards[name])
        end = index.size(name) if number // len(names) % 2 else header_ends
        flips[name].append([choose.randrange(end), 1 << choose.randrange(8)])
    for name, edits in flips.items():
        for (at, _), (kinds, _, encoded) in zip(edits, index.damaged(name, edits), strict=True):
            hit = {chunk for begin, end, chunk in index.shards[name] if begin <= at < end}
            assert kinds == (["latent"] if hit else ["shard"])
            assert encoded == index.texts(hit)


def test_flips_in_the_manifest(index):
    choose = random.Random(2)
    data = index.layout.manifest.read_bytes()
    page_size = int.from_bytes(data[16:18], "big")
    unused = _freelist_leaves(data, page_size)
    assert unused
    edits = [[at, 1 << choose.randrange(8)] for at in (16, 17, 18, 19, 20, 28, 40, 100)]
    edits += [[choose.randrange(len(data)), 1 << choose.randrange(8)] for _ in range(FLIPS // 2 - len(edits))]
    for (at, _), (kinds, _, encoded) in zip(edits, index.damaged("manifest.db", edits), strict=True):
        assert kinds == ([] if at // page_size + 1 in unused else ["manifest"])
        assert encoded == []


def test_truncated_shards(index):
    choose = random.Random(3)
    names = sorted(index.shards)
    for number, name in enumerate(names):
        size, latents = index.size(name), index.shards[name]
        edits = [[choose.randrange(size)] for _ in range(CUTS // len(names) + (number < CUTS % len(names)))]
        for (cut,), (kinds, told, encoded) in zip(edits, index.damaged(name, edits), strict=True):
            lost = {chunk for _, end, chunk in latents if end > cut}
            assert kinds == ["shard"]
            assert told == "IndexCorrupt"
            assert encoded == index.texts(lost)


def test_shards_with_trailing_bytes(index):
    for name in sorted(index.shards)[:: 1 if SOAK else 3]:
        ((kinds, _, encoded),) = index.damaged(name, [[index.size(name) + 1]])
        assert (kinds, encoded) == (["shard"], [])


def test_a_truncated_manifest(index):
    size = index.size("manifest.db")
    for kinds, told, encoded in index.damaged("manifest.db", [[size * part // 7] for part in range(7)]):
        assert (kinds, told, encoded) == (["manifest"], "IndexCorrupt", [])


def _freelist_leaves(data: bytes, page_size: int) -> set[int]:
    """Numbers of the pages that hold nothing (SQLite file format, section 1.5)."""

    def number(at: int) -> int:
        return int.from_bytes(data[at : at + 4], "big")

    leaves: set[int] = set()
    trunk = number(32)
    while trunk:
        begin = (trunk - 1) * page_size
        leaves |= {number(begin + 8 + 4 * i) for i in range(number(begin + 4))}
        trunk = number(begin)
    return leaves
