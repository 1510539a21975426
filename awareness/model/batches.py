"""Rows of token ids -> batches of rows of similar length, padded to tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def by_length(rows: Sequence[Sequence[int]], limit: int) -> Iterator[list[int]]:
    """Indices of the rows of each batch, shortest rows first. limit: tokens of a batch, padding included; a longer row
    is a batch of its own."""
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if batch and len(rows[i]) * (len(batch) + 1) > limit:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padded(
    rows: Sequence[Sequence[int]], device: torch.device, *, fill: int = 0, left: bool = False
) -> tuple[Tensor, Tensor]:
    """Token ids [B, T], shorter rows filled on the right (or left) with `fill`, and lengths [B]. T is at least 1."""
    width = max(1, *map(len, rows))
    ids = torch.full((len(rows), width), fill, dtype=torch.long)
    for row, own in zip(ids, rows, strict=True):
        start = width - len(own) if left else 0
        row[start : start + len(own)] = torch.tensor(own, dtype=torch.long)
    return ids.to(device), torch.tensor([len(row) for row in rows], device=device)
