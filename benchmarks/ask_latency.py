"""Measure time to first token and decoding speed: latents against the same chunks as text in the prompt.

    python benchmarks/ask_latency.py [--sizes 1024,2048,4096,8192] [--png ask_latency.png]

One warm process; for each size of memory the arms alternate. Latents are read from the store with every digest checked,
assembled (keys rotated), and the prompt is prefilled over them. Text is the prompt with the chunks in it, prefilled.
Both times end at the first token. Decoding: tokens/s after the first token, with memory and without.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

from common import source_file, table

from awareness.engine.models import load_model
from awareness.engine.workspace import DEFAULT_QUANT
from awareness.index import build
from awareness.index.chunks.chunking import chunk_file
from awareness.index.store.layout import IndexLayout
from awareness.index.store.lock import writing
from awareness.index.store.store import IndexedFile, Store
from awareness.model import model_files, presets, token_offsets
from awareness.model.assemble import assemble
from awareness.model.generate import generate
from awareness.model.prompts import question_ids
from awareness.types import Chunk

QUESTION = "Where is the retry budget of the upload queue computed?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1024,2048,4096,8192")
    parser.add_argument("--model", default=presets.DEFAULT_MODEL)
    parser.add_argument("--quant", default=DEFAULT_QUANT, help="how latents are stored")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decode", type=int, default=48, help="tokens decoded to measure the speed")
    parser.add_argument("--png", type=Path)
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    folder = model_files.pull(options.model)
    model = load_model(folder, weights=None)  # as `ask` does
    decoder, encoder = model.decoder, model.encoder.storing_as(options.quant)
    token_starts = token_offsets.token_starts(folder.path)
    chunks = make_chunks(token_starts, max(sizes))
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        layout = IndexLayout(Path(scratch))
        with writing(layout), Store.create(layout) as store:
            files = [IndexedFile("a.py", "a", [(c, len(token_starts(c.encoded_text))) for c in chunks])]
            snapshot = store.write_snapshot("s", files, chunking="1", model="m", rev=None, scope="")
            build.encode_pending(store, snapshot, encoder, budget=64 << 30)
        with Store.open(layout) as store:
            for size in sizes:
                rows.append((size, *measure(decoder, encoder, store, take(chunks, token_starts, size), options)))
    header = ("memory tokens", "latents, s", "text, s", "ratio", "decode with, tok/s", "decode without, tok/s", "ratio")
    table(header, rows)
    if options.png:
        draw(rows, folder.name, options.png)


def make_chunks(token_starts: build.TokenStarts, tokens: int) -> list[Chunk]:
    rng, chunks, done, number = random.Random(0), [], 0, 0
    while done < tokens:
        for chunk in chunk_file(f"src/module_{number}.py", source_file(rng, functions=20), token_starts):
            chunks.append(chunk)
            done += len(token_starts(chunk.encoded_text))
        number += 1
    return chunks


def take(chunks: list[Chunk], token_starts: build.TokenStarts, tokens: int) -> list[Chunk]:
    taken, done = [], 0
    for chunk in chunks:
        if done >= tokens:
            break
        taken.append(chunk)
        done += len(token_starts(chunk.encoded_text))
    return taken


def measure(decoder, encoder, store, chunks, options) -> tuple[float, ...]:  # type: ignore[no-untyped-def]
    bare_prompt = question_ids(decoder.tokenizer, QUESTION)
    text_prompt = question_ids(decoder.tokenizer, QUESTION, chunks=[c.encoded_text for c in chunks])
    short_prompt = question_ids(decoder.tokenizer, QUESTION, with_system=False)

    def attach():  # type: ignore[no-untyped-def]
        latents = build.load_latents(store, encoder, chunks, budget=64 << 30)
        return assemble(decoder.model, encoder.spec, encoder.sink, latents)

    def first_token(memory_of, prompt) -> float:  # type: ignore[no-untyped-def]
        started = time.perf_counter()
        generate(decoder, prompt, memory_of(), max_new_tokens=1)
        return time.perf_counter() - started

    memory = attach()
    times: dict[str, list[float]] = {"latents": [], "text": [], "with": [], "without": []}
    for i in range(options.rounds + 1):
        latent_s = first_token(attach, short_prompt)
        text_s = first_token(lambda: None, text_prompt)
        speeds = [
            generate(decoder, prompt, mem, max_new_tokens=options.decode, min_new_tokens=options.decode).tokens_per_s
            for prompt, mem in ((short_prompt, memory), (bare_prompt, None))
        ]
        if i:  # the first round warms up
            for name, value in zip(times, (latent_s, text_s, *speeds), strict=True):
                times[name].append(value)
    latents, text, with_, without = (statistics.median(values) for values in times.values())
    return latents, text, latents / text, with_, without, with_ / without


def draw(rows: list[tuple[float, ...]], model: str, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    sizes = [row[0] for row in rows]
    axes.plot(sizes, [row[2] for row in rows], "o-", label="text in the prompt")
    axes.plot(sizes, [row[1] for row in rows], "o-", label="latents")
    for size, latents, _, ratio, *_ in rows:
        axes.annotate(
            f"×{ratio:.2f}", (size, latents), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size // 1024}k" for size in sizes])
    axes.set_yscale("log")
    axes.set_xlabel("tokens of memory")
    axes.set_ylabel("seconds to first token")
    axes.set_title(f"{model}: time to first token", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, bbox_inches="tight")


if __name__ == "__main__":
    main()
