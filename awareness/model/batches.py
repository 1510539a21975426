"""Rows of tokens -> batches of like length, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def by_length(rows: Sequence[Sequence[int]], limit: int) -> Iterator[list[int]]:
    """Where the rows of each batch are, the shortest first. limit: tokens of a batch, padding included; a row that is
    longer by itself is a batch of one."""
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if batch and len(rows[i]) * (len(batch) + 1) > limit:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
