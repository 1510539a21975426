"""Measure how long a large index takes to open, and to route a question.

    python benchmarks/scale.py [--chunks 1000000] [--keep FOLDER]

The index is synthetic and has no latents. A name is two words out of 20,000 of the router's vocabulary. Words and names
are drawn by Zipf's law, as in real code: one name for every three chunks, 25 names per chunk, four chunks per file. The
questions are of five kinds, all about existing chunks: an English sentence with rare and frequent words, a name, a name
with a typo, a literal, and the text of an issue with code and a stack trace. Opening is measured in new processes,
against `python -c "import apsw"`; routing in one warm process, each question once, after ten others. CPU time is that
of the process: on a machine that others use too it tells more. Aims: a million chunks opened in 1 s and routed in 100
ms (p95); 5,000 chunks routed in 5 ms (p50), 200,000 in 50 ms.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import once, table

from awareness.index.search.ranking import HybridRouter
from awareness.index.search.term_vectors import term_embedder
from awareness.index.store.layout import IndexLayout
from awareness.index.store.lock import writing
from awareness.index.store.store import IndexedFile, Store
from awareness.types import Chunk, digest

WORDS, NAMES = 20_000, 50_000
OPEN = "from awareness.index.store.store import *; from pathlib import Path; import sys\n"
OPEN += "with Store.open(IndexLayout(Path(sys.argv[1]))) as store: store.snapshots()"


def vocabulary(rng: random.Random) -> list[str]:
    """Words that have vectors in the router, so that it must compare them."""
    embedder = term_embedder()
    known = (embedder.term(row) for row in range(embedder.terms))
    return rng.sample([word for word in known if word.isascii() and word.isalpha() and len(word) > 2], WORDS)


def files(rng: random.Random, words: list[str], chunks: int) -> Iterator[IndexedFile]:
    frequency = list(itertools.accumulate(1 / (rank + 10) for rank in range(len(words))))
    pairs = rng.choices(words, cum_weights=frequency, k=2 * max(NAMES, chunks // 3))
    pool = ["_".join(pair) for pair in zip(pairs[::2], pairs[1::2], strict=True)]
    for number in range(chunks // 4):
        path = f"src/{number % 97}/{rng.choice(words)}_{number}.py"
        inside = []
        for part in range(4):
            # Half of the names are frequent ones: an exponential rank is quickly drawn and falls off like Zipf's.
            names = [pool[int(len(pool) ** rng.random()) - 1] for _ in range(25)]
            lines = zip(names[1::3], names[2::3], names[3::3], strict=True)
            text = f"def {names[0]}():\n" + "\n".join(f"    {a} = {b}({c})" for a, b, c in lines)
            inside.append((Chunk(path, part * 10 + 1, part * 10 + 9, names[0], text), 120))
        yield IndexedFile(path, digest(path), inside)


def questions(store: Store, rng: random.Random, count: int, chunks: int) -> dict[str, list[tuple[str, str]]]:
    """Kind -> (question, symbol of the chunk that it is about)."""
    found = store.chunks_by_id([rng.randint(1, chunks) for _ in range(count)])
    asked: dict[str, list[tuple[str, str]]] = {}
    for stored in found.values():
        chunk = stored.chunk
        lines = chunk.text.split("\n")[1:]
        names = [name for name in chunk.text.replace("(", " ").replace(")", " ").split() if "_" in name]
        words = " and ".join(rng.sample(names, 2)).replace("_", " ")
        at = rng.randrange(1, len(chunk.symbol) - 1)
        kinds = {
            "sentence": f"where is the {words} of {chunk.symbol}",
            "name": chunk.symbol,
            "typo": chunk.symbol[:at] + chunk.symbol[at + 1 :],
            "literal": rng.choice(lines).strip(),
            "issue": f"{words} fails since the last release\n\nI call it like this:\n\n```python\n"
            + "\n".join(lines[:4])
            + f'\n```\n\nTraceback (most recent call last):\n  File "{chunk.path}", line {chunk.start_line + 2}, in '
            + f"{chunk.symbol}\n{lines[1]}\nValueError: {words} is not known\n",
        }
        for kind, question in kinds.items():
            asked.setdefault(kind, []).append((question, chunk.symbol))
    return asked


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="folder to build the index in, or of an existing index")
    parser.add_argument("--questions", type=int, default=50, help="of each kind")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        layout = IndexLayout(options.keep or Path(scratch))
        rng = random.Random(7)
        if not layout.exists:
            words = vocabulary(rng)
            with writing(layout), Store.create(layout) as store:
                seconds = once(
                    lambda: store.write_snapshot(
                        "tree:synthetic", files(rng, words, options.chunks), chunking="1", model="none", rev=None
                    )
                )
            print(f"built in {seconds:.0f} s, {layout.manifest.stat().st_size / 2**20:.0f} MiB", flush=True)
        opening = statistics.median(
            once(lambda: subprocess.run([sys.executable, "-c", OPEN, str(layout.root)], check=True)) for _ in range(5)
        )
        bare = statistics.median(
            once(lambda: subprocess.run([sys.executable, "-c", "import apsw"], check=True)) for _ in range(5)
        )
        with Store.open(layout) as store:
            total = store.count("SELECT max(id) FROM chunk")
            snapshot = store.snapshot("tree:synthetic")
            assert snapshot
            router = HybridRouter(store, snapshot.id)
            asked = questions(store, random.Random(11), options.questions + 10, total)
            cold = once(lambda: router.search(asked["sentence"][0][0], top_k=8))
            table(("chunks", "open, s", "import apsw, s", "first question, ms"), [(total, opening, bare, cold * 1e3)])
            rows = []
            for kind, of_kind in asked.items():
                for question, _ in of_kind[:10]:
                    router.search(question, top_k=8)
                wall, cpu, first = [], [], 0
                for question, symbol in of_kind[10:]:
                    started, worked = time.perf_counter(), time.process_time()
                    hits = router.search(question, top_k=8)
                    cpu.append((time.process_time() - worked) * 1e3)
                    wall.append((time.perf_counter() - started) * 1e3)
                    first += bool(hits) and hits[0].chunk.symbol == symbol
                spread = (percentile(wall, 0.5), percentile(wall, 0.95), percentile(cpu, 0.5), percentile(cpu, 0.95))
                rows.append((kind, *spread, f"{first}/{len(wall)}"))
            table(("question", "p50, ms", "p95, ms", "CPU p50, ms", "CPU p95, ms", "first hit right"), rows)


if __name__ == "__main__":
    main()
