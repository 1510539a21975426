"""Share the cases of a measure among the processes that a launcher started, and gather what each measured.

`torchrun` tells each process its number and how to reach the others in the environment, from which Accelerate makes
the process group. In one process nothing of it happens.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from accelerate import PartialState

Case = TypeVar("Case")
Result = TypeVar("Result")


def share_of_this_process(cases: Sequence[Case]) -> list[Case]:
    """A run of neighbouring cases; the shares of all processes, in their order, are all cases. Cases of one repository
    read the same chunks, which one process then encodes once."""
    state = _processes()
    if state is None:
        return list(cases)
    count, rest = divmod(len(cases), state.num_processes)
    start = state.process_index * count + min(state.process_index, rest)
    return list(cases[start : start + count + (state.process_index < rest)])


def gathered(results: Sequence[Result]) -> list[Result]:
    """The results of all processes, in the order of the processes. Every process has to call it."""
    if _processes() is None:
        return list(results)
    from accelerate.utils import gather_object

    everything: list[Any] = gather_object(list(results))
    return everything


@cache
def _processes() -> PartialState | None:
    """None if this is the only one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        return None
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())
