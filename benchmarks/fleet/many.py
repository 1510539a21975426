"""Search over many repositories: what it finds, and how long it takes.

    python benchmarks/retrieval/checkouts.py CHECKOUTS --split dev --set packages
    python benchmarks/fleet/many.py CHECKOUTS OUT.png [--packages FOLDER] [--sizes 300,1000] [--chunks 1000]

1. A fleet of the development repositories and of the packages that runs.py has fetched. The questions are those of
   benchmarks/answers about the former. Counted: how often the repository that a question is about is among the 8 that
   are searched, and first; and the same where all are searched.
2. A fleet of synthetic size around them: the others have words drawn from those of the real ones, CHUNKS chunks on
   average, and, where a question chooses them, the files of a real one of about that size, so that the search in them
   costs what it costs. Measured for growing numbers: top-8 with warm caches (median and p95).
Nothing is encoded: a search reads no latents. B of the ranking was chosen on the questions of 1.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from common import processor

from awareness import Engine
from awareness.evals.short_questions import read_short_questions
from awareness.fleet import catalogue as catalogues
from awareness.fleet.catalogue import Catalogue, Entry, RoutingObject
from awareness.fleet.cutting import Cut, Lines, Rules, cut
from awareness.fleet.fleet_memory import FleetMemory
from awareness.fleet.object_store import FolderStore
from awareness.fleet.repository_object import Place, pack
from awareness.fleet.repository_words import Words, WordTable, best_repositories, named
from awareness.fleet.repository_words import pack as pack_words
from awareness.fleet.sources import Source
from awareness.types import MemorySpec, digest

MODEL = "smollm2-135m"  # whose tokens limit the chunks
QUESTIONS = Path(__file__).parent.parent / "answers/questions"
GROUP = 512
SPEC = MemorySpec("none", (0,), 1, 8)
MOST = 8


@dataclass(frozen=True)
class Real:
    """A repository of the checkouts."""

    name: str
    cut: Cut
    lines: Lines


@dataclass(frozen=True)
class Row:
    repositories: int
    median: float
    p95: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--sizes", default="300,1000,3000,10000", help="numbers of repositories, separated by commas")
    parser.add_argument("--chunks", type=int, default=1000)
    parser.add_argument("--questions", type=int, default=40)
    options = parser.parse_args()
    print(f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n", flush=True)
    folders = [path for path in sorted(options.checkouts.iterdir()) if path.is_dir()]
    if options.packages:
        folders += [path for path in sorted(options.packages.iterdir()) if path.name[0] != "."]
    real = []
    for folder in folders:
        done, lines, _ = cut(Source(folder.name, str(folder.resolve()), True), Rules(MODEL))
        real.append(Real(folder.name, done, lines))
    files = {one.name: QUESTIONS / f"{one.name}.jsonl" for one in real}
    asked = [(name, q.question) for name, file in files.items() if file.exists() for q in read_short_questions(file)]
    measure(real, asked, len(real), options.chunks, len(real))
    rows = [measure(real, asked, len(real), options.chunks, MOST)]
    asked = random.Random(7).sample(asked, min(options.questions, len(asked)))
    sizes = [size for size in map(int, options.sizes.split(",")) if size > len(real)]
    rows += [measure(real, asked, size, options.chunks, MOST) for size in sizes]
    draw(rows, options.out)


def measure(real: list[Real], asked: list[tuple[str, str]], size: int, chunks: int, most: int) -> Row:
    """most: repositories that a question looks into."""
    with tempfile.TemporaryDirectory(prefix="aw-many-") as folder:
        store = FolderStore(f"{folder}/store", Path(folder) / "store")
        words = build(store, real, [question for _, question in asked], size, chunks)
        os.environ["AWARENESS_INDEX_DIR"] = f"{folder}/index"
        seconds: list[float] = []
        among = first = 0
        with Engine(memories=[FleetMemory(store.url, budget=64 << 30, most_repositories=most)]) as engine:
            for _, question in asked:  # the caches become warm
                engine.search(question, top_k=8)
        memory = FleetMemory(store.url, budget=64 << 30, most_repositories=most)
        with Engine(memories=[memory]) as engine:
            for name, question in asked:
                started = time.perf_counter()
                hits = engine.search(question, top_k=8)
                seconds.append(time.perf_counter() - started)
                among += any(corpus.name == name for corpus in memory.about(question))
                first += bool(hits) and hits[0].corpus.name == name
    seconds.sort()
    row = Row(size, statistics.median(seconds), seconds[int(0.95 * len(seconds))])
    told = f"; the right one searched {among}, first {first} of {len(asked)}" if size == len(real) else ""
    print(
        f"{size:,} repositories, {most} searched ({size * chunks:,} chunks; {words / 2**20:.0f} MiB of words): top-8 in"
        f" {row.median:.3f} s, p95 {row.p95:.3f} s (n = {len(asked)}){told}",
        flush=True,
    )
    return row


def build(store: FolderStore, real: list[Real], questions: list[str], size: int, chunks: int) -> int:
    """Writes the fleet; the bytes of its routing objects."""
    chance = random.Random(7)
    entries: dict[str, Entry] = {}
    by_object: dict[str, str] = {}
    waiting = []
    for one in real:
        entry = write(store, one, one.name)
        entries[one.name] = entry
        waiting.append(Words(entry.object, entry.chunks, named(one.name, one.cut.words)))
    terms = [item for one in real for item in one.cut.words.items()]
    folder = store.root / "routing"
    folder.mkdir(parents=True, exist_ok=True)
    groups: list[tuple[Path, tuple[str, ...]]] = []
    made = 0
    while waiting or len(real) + made < size:
        while len(waiting) < GROUP and len(real) + made < size:
            made += 1
            n = max(20, int(chance.gauss(chunks, chunks / 2)))
            own: dict[str, int] = {}
            for term, count in chance.choices(terms, k=2 * n + 1000):
                own[term] = min(255, own.get(term, 0) + count)
            name = digest(f"synthetic {made}")
            by_object[name] = f"synthetic/{made}"
            entries[by_object[name]] = Entry("/none", None, name, "", name, 10, n, 100 * n, 1, 0.0)
            waiting.append(Words(name, n, own))
        path = folder / f"{len(groups)}"
        path.write_bytes(pack_words(waiting[:GROUP]))
        groups.append((path, tuple(words.object for words in waiting[:GROUP])))
        waiting = waiting[GROUP:]
    tables = [WordTable(path) for path, _ in groups]
    live = {entry.object for entry in entries.values()}
    chosen = {name for question in questions for name, _ in best_repositories(question, tables, live, MOST)}
    new: dict[str, str] = {}
    usual = sorted(real, key=lambda one: abs(one.cut.chunks - chunks))[:3]
    for number, name in enumerate(sorted(chosen & by_object.keys())):
        entry = write(store, usual[number % len(usual)], by_object[name])
        entries[by_object[name]], new[name] = entry, entry.object
    routing, size_of_words = [], 0
    for path, objects in groups:
        data = path.read_bytes()
        for name in chosen & set(objects):
            if name in new:
                data = data.replace(name.encode(), new[name].encode())
        path.unlink()
        (folder / digest(data)).write_bytes(data)
        size_of_words += len(data)
        routing.append(RoutingObject(digest(data), tuple(new.get(name, name) for name in objects)))
    empty = Catalogue(MODEL, "none", SPEC)
    catalogues.commit(store, empty, lambda _: Catalogue(MODEL, "none", SPEC, (), (), entries, tuple(routing)))
    return size_of_words


def write(store: FolderStore, one: Real, name: str) -> Entry:
    """The repository under a name, with places of latents that are never read."""
    places = {chunk: Place("0" * 64, 0, 1, tokens, "none") for chunk, tokens in one.cut.tokens.items()}
    data, size = pack(name, None, one.cut.chunking, MODEL, SPEC.to_json(), places, one.lines)
    store.create(f"repositories/{digest(data)}", data)
    done = one.cut
    return Entry(
        name, None, name, done.chunking, digest(data), done.files, done.chunks, done.total_tokens, size, time.time()
    )


def draw(rows: list[Row], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sizes = [row.repositories for row in rows]
    figure, axes = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
    axes.plot(sizes, [row.median for row in rows], "o-", label="median")
    axes.plot(sizes, [row.p95 for row in rows], "s--", label="p95")
    axes.axhline(1.0, color="0.6", linewidth=1)
    axes.set(xscale="log", xlabel="repositories", ylabel="seconds", title="top-8 of all, warm caches", ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(out, dpi=150)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
