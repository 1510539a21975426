"""Compare ways to store latents: bytes on disk, needles found, error, and times to encode, decode and attach.

    python benchmarks/quant.py --repo PATH [--samples 20] [--chunks 4,8,16] [--rows none,int8,int4/8-23/-header]

A row is `QUANT[/LAYERS][/DROP]`: how numbers are stored, which layers have memory (`8-23`, default the upper five
sixths) and which tokens are left out (`-header`: the line with the path; `-blank`: that line and white space; `norm50`:
the half of the tokens whose keys have the largest norm, after Devoto et al. 2024). Every row gets the same needles,
encoded once. The error is the norm of the difference as a share of the norm, of keys and of values. Encode and decode
are `to_latent` and `to_tensor`, in milliseconds of processor time for 1024 tokens. For Qwen3-0.6B the bytes follow from
its geometry (28 layers, 8 KV heads of 128).
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from common import table

from awareness.engine.models import load_model
from awareness.evals.needle import make_cases, share_found
from awareness.evals.setup import source_chunks
from awareness.index.files.repository import Repository
from awareness.model import model_files, presets
from awareness.model.assemble import assemble
from awareness.model.encoder import SelfEncoder, with_quant
from awareness.model.generate import generate
from awareness.model.load import Decoder
from awareness.model.prompts import encode, sample_ids
from awareness.model.quantisation import to_latent, to_tensor
from awareness.types import Latent, MemorySpec, Sample, default_layers

ROWS = (
    "none,fp8,int8,int4,int2,pca,int8/8-23,int4/8-23,int2/8-23,int4/8-29,int4//-header,int4//-blank,int4//norm50"
    ",int4/8-23/-blank,int2/8-23/-blank"
)


@dataclass(frozen=True)
class Row:
    name: str
    quant: str
    layers: tuple[int, ...]
    drop: str

    @classmethod
    def parse(cls, text: str, num_layers: int) -> Row:
        quant, layers, drop = (*text.split("/"), "", "")[:3]
        first, _, last = layers.partition("-")
        chosen = tuple(range(int(first), int(last) + 1)) if layers else default_layers(num_layers)
        return cls(text, quant, chosen, drop)


def kept(row: Row, tokens: list[str], latent: torch.Tensor) -> torch.Tensor:
    """The tokens that stay, as indices into `tokens`. latent: [2, L, H_kv, T, D]."""
    if row.drop == "norm50":
        norms = latent[0].float().norm(dim=-1).mean(dim=(0, 1))
        return norms.topk(max(1, len(tokens) // 2), largest=False).indices.sort().values
    if not row.drop:
        return torch.arange(len(tokens))
    header = next((i + 1 for i, token in enumerate(tokens) if "\n" in token), 0)
    body = range(header, len(tokens))
    return torch.tensor([i for i in body if row.drop == "-header" or tokens[i].strip()])


@dataclass(frozen=True)
class Stored:
    """errors: of K and of V. encode, decode: ms for 1024 tokens."""

    errors: tuple[float, float]
    encode: float
    decode: float


def store(tensor: torch.Tensor, spec: MemorySpec) -> tuple[Latent, Stored]:
    times = [time.process_time()]
    latent = to_latent(tensor, spec)
    times.append(time.process_time())
    back = to_tensor(latent, spec)
    times.append(time.process_time())
    encode_ms, decode_ms = ((end - start) * 1e3 * 1024 / tensor.shape[3] for start, end in itertools.pairwise(times))
    off, whole = back.float() - tensor.float(), tensor.float()
    return latent, Stored(tuple((off[i].norm() / whole[i].norm()).item() for i in (0, 1)), encode_ms, decode_ms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--model", default=presets.DEFAULT_MODEL)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--chunks", default="4,8,16")
    parser.add_argument("--rows", default=ROWS)
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    folder = model_files.pull(options.model)
    loaded = load_model(folder)
    decoder = loaded.decoder
    num_layers = decoder.model.config.num_hidden_layers
    rows = [Row.parse(text, num_layers) for text in options.rows.split(",")]
    every = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint=folder.fingerprint, layers=range(num_layers))
    pool = source_chunks(Repository.open(options.repo), folder, 120)
    numbers = [int(number) for number in options.chunks.split(",")]
    found: dict[tuple[str, int], list[bool]] = {}
    sizes: dict[str, list[float]] = {row.name: [] for row in rows}
    attaching: dict[str, list[float]] = {row.name: [] for row in rows}
    stored: dict[str, list[Stored]] = {row.name: [] for row in rows}
    for number in numbers:
        for case in make_cases(pool, chunks=number, samples=options.samples, seed=options.seed):
            sample = case.sample
            whole = [to_tensor(latent, every.spec) for latent in every.encode(sample.texts)]
            for row in rows:
                spec = with_quant(replace(every.spec, layers=row.layers), row.quant)
                sink = to_latent(to_tensor(every.sink, every.spec)[:, list(row.layers)], spec.raw)
                latents, before = [], 0
                for text, tensor in zip(sample.texts, whole, strict=True):
                    tokens = [decoder.tokenizer.decode(i) for i in encode(decoder.tokenizer, text)]
                    before += len(tokens)
                    mine = tensor[:, list(row.layers)]
                    latent, measured = store(mine[:, :, :, kept(row, tokens, mine)], spec)
                    latents.append(latent)
                    stored[row.name].append(measured)
                sizes[row.name].append(sum(len(latent.data) for latent in latents) / before)
                right, seconds = ask(decoder, spec, sink, latents, sample)
                found.setdefault((row.name, number), []).append(right)
                attaching[row.name].append(seconds * 1e3 / before * 1024)
        print(f"{number} chunks:", {row.name: mean(found[row.name, number]) for row in rows}, flush=True)
    chunks = (f"{number} chunks" for number in numbers)
    header = ("row", "KiB a token", *chunks, "mean", "error K, V", "encode", "decode", "attach, ms for 1024 tokens")
    lines = []
    for row in rows:
        accuracy = [mean(found[row.name, number]) for number in numbers]
        size, attach = mean(sizes[row.name]) / 1024, statistics.median(attaching[row.name])
        found_s = stored[row.name]
        errors = ", ".join(f"{mean([one.errors[side] for one in found_s]):.3f}" for side in (0, 1))
        encode_ms, decode_ms = (
            statistics.median(getattr(one, name) for one in found_s) for name in ("encode", "decode")
        )
        lines.append((row.name, size, *accuracy, mean(accuracy), errors, encode_ms, decode_ms, attach))
    print(
        f"\nneedles in {options.repo.resolve().name}, {folder.name}, n={options.samples} a cell, seed {options.seed}\n"
    )
    table(header, lines)
    print("\nQwen3-0.6B, by arithmetic:\n")
    table(("row", "KiB a token"), [(f"{q}{'' if n == 28 else ' ' + str(n)}", qwen(q, n)) for q, n in QWEN])


QWEN = [(quant, layers) for layers in (24, 15) for quant in ("none", "int8", "int4", "int2")]


def qwen(quant: str, layers: int) -> float:
    spec = MemorySpec("qwen3-0.6b", tuple(range(layers)), 8, 128, dtype="bfloat16", quant=quant)
    return spec.latent_bytes(256) / 256 / 1024


def mean(numbers: list[bool] | list[float]) -> float:
    return sum(numbers) / len(numbers)


def ask(decoder: Decoder, spec: MemorySpec, sink: Latent, latents: list[Latent], sample: Sample) -> tuple[bool, float]:
    """(True if the needle was found, seconds to attach)"""
    started = time.perf_counter()
    memory = assemble(decoder.model, spec, sink, latents)
    seconds = time.perf_counter() - started
    prompt = sample_ids(decoder.tokenizer, sample, with_system=False)
    said = generate(decoder, prompt, memory, max_new_tokens=8).text
    return share_found(sample, said) == 1.0, seconds


if __name__ == "__main__":
    main()
