"""Fit the tables of `--quant pca` to a decoder, from the code of repositories."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from awareness.engine.models import load_model
from awareness.engine.reporter import SILENT, Reporter
from awareness.errors import UsageError
from awareness.index.chunks.chunking import chunk_file
from awareness.index.files.repository import Repository, SourceFile
from awareness.model.model_files import ModelFolder
from awareness.model.pca.tables import calibrated_file, write
from awareness.model.token_offsets import token_starts
from awareness.types import Chunk, last_name, printable

CHUNKS = 260
"""Chunks to fit to, of all repositories together: about 45,000 tokens."""
TOGETHER = 8
"""Chunks of one memory that questions are asked about."""
LEAST = 4
"""Tokens that are needed, for each number that a layer has for a token."""


@dataclass(frozen=True)
class Calibrated:
    """The result. file: with the tables. tokens: that they were fitted to. token_bytes: of a latent, with the default
    layers."""

    file: Path
    chunks: int
    tokens: int
    token_bytes: int
    seconds: float


def calibrate(folder: ModelFolder, repositories: Sequence[Path], reporter: Reporter = SILENT) -> Calibrated:
    """Encodes up to `CHUNKS` chunks, the same number of each repository, asks questions about them to find which of
    their numbers count, fits the tables and keeps them. The same code and the same model give the same tables on the
    same machine. Raises UsageError if there is too little code."""
    from awareness.model.pca.answer_gradients import answer_weights
    from awareness.model.pca.fit import fit
    from awareness.model.quantisation import to_tensor

    started = time.perf_counter()
    each = -(-CHUNKS // len(repositories))
    chosen = [_chosen(path, folder, each) for path in repositories]
    texts = sorted({chunk.encoded_text for chunks in chosen for chunk in chunks}, key=lambda text: (len(text), text))
    loaded = load_model(folder, reporter=reporter)
    encoder = loaded.encoder.storing_as("int4").for_many().storing_as("none")  # as `index` encodes
    spec, tensors = encoder.spec, {}
    with reporter.progress() as progress:
        for text, latent in zip(texts, encoder.encode(texts), strict=True):
            tensors[text] = to_tensor(latent, spec)
            progress("encoding chunks", len(tensors), len(texts))
        tokens = sum(tensor.shape[3] for tensor in tensors.values())
        if tokens < (needed := LEAST * spec.num_kv_heads * spec.head_dim):
            raise UsageError(
                f"{tokens:,} tokens of code are too few to fit tables to; at least {needed:,} are needed",
                hint="--repo with a larger repository, or several of them",
            )
        groups = [
            [(_called(chunk), tensors[chunk.encoded_text]) for chunk in chunks[at : at + TOGETHER]]
            for chunks in chosen
            for at in range(0, len(chunks), TOGETHER)
        ]
        sink = to_tensor(encoder.sink, spec)
        weights = answer_weights(loaded.decoder, loaded.settings, spec, sink, groups, progress=progress)
        progress("fitting", 0, None)
        codec, _ = fit(list(tensors.values()), spec.layers, spec.pca_bytes, weights)
    file = calibrated_file(spec.model)
    write(file, codec)
    token_bytes = len(spec.layers) * spec.pca_bytes
    return Calibrated(file, len(texts), tokens, token_bytes, time.perf_counter() - started)


def _chosen(path: Path, folder: ModelFolder, count: int) -> list[Chunk]:
    """`count` chunks of a repository, chosen by their digest: at random, and always the same."""
    starts = token_starts(folder.path)
    chunks = {
        chunk.digest: chunk
        for file in Repository.open(path).scan()
        if isinstance(file, SourceFile)
        for chunk in chunk_file(file.path, file.text, starts)
    }
    return [chunks[name] for name in sorted(chunks)[:count]]


def _called(chunk: Chunk) -> str:
    """What a question calls a chunk: its symbol's last name, or the name of its file."""
    return printable(last_name(chunk.symbol) or chunk.path.rpartition("/")[2])
