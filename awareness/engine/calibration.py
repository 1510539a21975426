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
from awareness.model.pca_tables import calibrated_file, write
from awareness.model.token_offsets import token_starts

CHUNKS = 260
"""Chunks to fit to, of all repositories together: about 45,000 tokens."""
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
    """Encodes up to `CHUNKS` chunks, the same number of each repository, fits the tables and keeps them. The same code
    and the same model give the same tables on the same machine. Raises UsageError if there is too little code."""
    from awareness.model.pca_fit import fit
    from awareness.model.quantisation import to_tensor

    started = time.perf_counter()
    each = -(-CHUNKS // len(repositories))
    texts = sorted({text for path in repositories for text in _texts(path, folder, each)}, key=lambda t: (len(t), t))
    loaded = load_model(folder, reporter=reporter)
    encoder = loaded.encoder.storing_as("int4").for_many().storing_as("none")  # as `index` encodes
    spec, tensors = encoder.spec, []
    with reporter.progress() as progress:
        for done, latent in enumerate(encoder.encode(texts), 1):
            tensors.append(to_tensor(latent, spec))
            progress("encoding chunks", done, len(texts))
        tokens, needed = sum(tensor.shape[3] for tensor in tensors), LEAST * spec.num_kv_heads * spec.head_dim
        if tokens < needed:
            raise UsageError(
                f"{tokens:,} tokens of code are too few to fit tables to; at least {needed:,} are needed",
                hint="--repo with a larger repository, or several of them",
            )
        progress("fitting", 0, None)
        codec, _ = fit(tensors, spec.layers, spec.pca_bytes)
    file = calibrated_file(spec.model)
    write(file, codec)
    token_bytes = len(spec.layers) * spec.pca_bytes
    return Calibrated(file, len(texts), tokens, token_bytes, time.perf_counter() - started)


def _texts(path: Path, folder: ModelFolder, count: int) -> list[str]:
    """The encoded texts of `count` chunks of a repository, chosen by their digest: at random, and always the same."""
    starts = token_starts(folder.path)
    chunks = {
        chunk.digest: chunk.encoded_text
        for file in Repository.open(path).scan()
        if isinstance(file, SourceFile)
        for chunk in chunk_file(file.path, file.text, starts)
    }
    return [chunks[name] for name in sorted(chunks)[:count]]
