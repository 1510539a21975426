"""Learns the head that makes vectors of a decoder's hidden states (model/hidden.py), the decoder frozen.

The states of all texts are computed once and kept; the head is small, so that an epoch over them takes seconds. The
loss is InfoNCE in both directions (van den Oord et al. 2018, arXiv 1807.03748) with the other pairs of the batch as
negatives, half of them of the same package.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from awareness.config.routers import HiddenRouterConfig
from awareness.errors import UsageError
from awareness.model.hidden import CHUNKS, QUESTIONS, Head, HiddenStateEmbedder, MiddleStates
from awareness.model.load import Decoder
from awareness.train.data.pairs import Pair, Trained, chosen_pairs
from awareness.train.routers.ranking import copy_of, info_nce, reciprocal_rank
from awareness.types import Progress, silent

SAID_TOKENS, CODE_TOKENS = 48, 160
_PACKAGES = 2  # in a batch
_MEASURED = 200  # pairs of a held-out package


@dataclass(frozen=True)
class States:
    """Hidden states of texts, one behind the other: of text i, `flat[starts[i] : starts[i] + lengths[i]]` [T, H]."""

    flat: Tensor
    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Tensor]) -> States:
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        return cls(torch.cat([row.to(torch.bfloat16).cpu() for row in rows]), np.cumsum(lengths) - lengths, lengths)

    def take(self, which: np.ndarray) -> tuple[Tensor, Tensor]:
        """Of some texts: states float32 [B, T, H], and mask [B, T], True where there is a token."""
        inside = np.arange(self.lengths[which].max())[None]
        mask = inside < self.lengths[which][:, None]
        rows = np.where(mask, self.starts[which][:, None] + inside, self.starts[which][:, None])
        return self.flat[torch.from_numpy(rows)].float(), torch.from_numpy(mask)


@dataclass(frozen=True)
class StatePairs:
    """What is said, and the code, of each pair; package: which package it is of, [n]."""

    said: States
    code: States
    package: np.ndarray


def read_states(
    decoder: Decoder, packages: Sequence[Sequence[Pair]], layer: int, progress: Progress = silent
) -> StatePairs:
    """Runs the decoder over the pairs of some packages, once. About 1200 bytes a token are kept for SmolLM2."""
    states = MiddleStates(decoder, layer)
    said, code = [], []
    for number, pairs in enumerate(packages):
        progress("reading", number, len(packages))
        said += list(states([pair.said for pair in pairs], SAID_TOKENS))
        code += list(states([pair.chunk.encoded_text for pair in pairs], CODE_TOKENS))
    package = np.repeat(np.arange(len(packages)), [len(pairs) for pairs in packages])
    return StatePairs(States.of(said), States.of(code), package)


def train_hidden_router(
    config: HiddenRouterConfig,
    decoder: Decoder,
    *,
    progress: Progress = silent,
    log: Callable[[str], None] = lambda line: None,
) -> Trained:
    """Learns a head as a `hidden_router` file says, and writes it to `config.output`."""
    packages = [pairs for pairs in chosen_pairs(config.data, config.training.seed, progress) if pairs]
    if not packages:
        raise UsageError("nothing is said about code in the folders", hint="data.folders: source code with comments")
    random.Random(config.training.seed).shuffle(packages)
    held_out = round(len(packages) * config.data.held_out)
    embedder, before, after = train_hidden(
        decoder,
        packages,
        layer=config.model.layer,
        held_out=held_out,
        seed=config.training.seed,
        progress=progress,
        log=log,
        dim=config.model.dim,
        queries=config.model.queries,
        epochs=config.training.epochs,
        batch_size=config.training.batch_size,
        learning_rate=config.training.learning_rate,
        temperature=config.training.temperature,
    )
    embedder.save(config.output)
    return Trained(sum(map(len, packages)), len(packages), held_out, before, after)


def train_hidden(
    decoder: Decoder,
    packages: Sequence[Sequence[Pair]],
    *,
    layer: int,
    held_out: int = 10,
    seed: int = 0,
    progress: Progress = silent,
    log: Callable[[str], None] = lambda line: None,
    **settings: float,
) -> tuple[HiddenStateEmbedder, float, float]:
    """Learns a head for `layer` from packages, all but the first `held_out`; settings: those of `train_head`.

    Gives the embedder, and the mean reciprocal rank in the held-out packages before and after.
    """
    pairs = read_states(decoder, packages, layer, progress)
    options: dict[str, Any] = {"seed": seed, "progress": progress, "log": log, **settings}
    head, before, after = train_head(pairs, set(range(held_out)), **options)
    return HiddenStateEmbedder(decoder, head, layer), before, after


def train_head(
    pairs: StatePairs,
    held_out: set[int],
    *,
    dim: int = 256,
    queries: int = 4,
    epochs: int = 8,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    temperature: float = 0.05,
    seed: int = 0,
    progress: Progress = silent,
    log: Callable[[str], None] = lambda line: None,
) -> tuple[Head, float, float]:
    """The head of the epoch that is best in the held-out packages; the mean reciprocal rank there before and after.

    batch_size: pairs a step, from two packages. temperature: of the softmax at the start, it is learned.
    Raises UsageError if there is nothing to learn from.
    """
    groups = [np.flatnonzero(pairs.package == p) for p in np.unique(pairs.package) if p not in held_out]
    groups = [group for group in groups if len(group) >= 2]
    if not groups:
        raise UsageError("no pair to learn from is left", hint="more packages, or fewer that are held out")
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    head = Head(pairs.code.flat.shape[1], dim, queries)
    sharpness = nn.Parameter(torch.tensor(math.log(1 / temperature)))
    optimizer = torch.optim.AdamW([*head.parameters(), sharpness], lr=learning_rate, weight_decay=0.01)
    steps = epochs * len(_batches(groups, batch_size, np.random.default_rng(seed)))
    total = steps + epochs  # cutting into batches is random: an epoch may have one more
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=total, pct_start=0.1)
    before = best = mean_reciprocal_rank(head, pairs, held_out)
    kept = copy_of(head)
    log(f"{len(pairs.package)} pairs, {len(groups)} packages, {len(held_out)} held out, MRR {best:.4f}")
    for epoch in range(1, epochs + 1):
        losses = []
        for which in _batches(groups, batch_size, generator):
            asked = head(*pairs.said.take(which), QUESTIONS)
            loss = info_nce(asked, head(*pairs.code.take(which), CHUNKS), sharpness)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        progress("training", epoch, epochs)
        now = mean_reciprocal_rank(head, pairs, held_out)
        log(f"epoch {epoch}: loss {np.mean(losses):.3f}, held-out MRR {now:.4f}")
        if now > best or not held_out:
            best, kept = now, copy_of(head)
    head.load_state_dict(kept)
    return head.eval(), before, best


def _batches(groups: Sequence[np.ndarray], size: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Every pair about once: batches of pieces of packages, each half a batch or, of small packages, several."""
    share = max(2, size // _PACKAGES)
    pieces: list[np.ndarray] = []
    for group in groups:
        mixed = generator.permutation(group)
        pieces += np.array_split(mixed, -(-len(mixed) // share))
    batches: list[list[np.ndarray]] = [[]]
    for at in generator.permutation(len(pieces)):
        if sum(map(len, batches[-1])) + len(pieces[at]) > size:
            batches.append([])
        batches[-1].append(pieces[at])
    return [np.concatenate(batch) for batch in batches if sum(map(len, batch)) >= 2]


@torch.no_grad()
def mean_reciprocal_rank(head: Head, pairs: StatePairs, packages: set[int]) -> float:
    """Of a pair's code among that of (at most 200 pairs of) its package, mean over packages; 0 without any."""
    found = []
    for package in sorted(packages):
        which = np.flatnonzero(pairs.package == package)[:_MEASURED]
        asked = head(*pairs.said.take(which), QUESTIONS)
        found.append(reciprocal_rank(asked, head(*pairs.code.take(which), CHUNKS)))
    return sum(found) / len(found) if found else 0.0
