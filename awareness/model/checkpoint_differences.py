"""Two checkpoints, compared: settings, repository memory, trained tensors."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awareness.config.setting_changes import changed_settings
from awareness.model.checkpoint import Checkpoint
from awareness.model.memory_record import MemoryRecord


@dataclass(frozen=True)
class TensorDifference:
    """norm, other_norm: Euclidean, of the first and the second. difference: norm of the difference divided by `norm`;
    by `other_norm` if the first is 0."""

    name: str
    norm: float
    other_norm: float
    difference: float


@dataclass(frozen=True)
class CheckpointDifferences:
    """settings: (key, value of the first, value of the second). memory: a line for each difference, None if one of them
    has no record. shapes: a line for each tensor that only one has, or that has another shape. tensors: those that
    differ, the largest difference first. same: number of tensors equal to the last bit, of the `shared` ones with equal
    shapes. difference: as that of a tensor, of all shared ones together."""

    settings: list[tuple[str, Any, Any]]
    memory: list[str] | None
    shapes: list[str]
    tensors: list[TensorDifference]
    same: int
    shared: int
    difference: float

    def to_json(self) -> dict[str, Any]:
        settings = [{"setting": key, "first": was, "second": now} for key, was, now in self.settings]
        return {**asdict(self), "settings": settings}


def compare_checkpoints(first: Path, second: Path) -> CheckpointDifferences:
    """Raises UsageError if one of the folders is not a checkpoint or is damaged."""
    one, other = Checkpoint.read(first), Checkpoint.read(second)
    records = MemoryRecord.read(first), MemoryRecord.read(second)
    changed = changed_settings(_settings(one, records[0]), _settings(other, records[1]))
    memory = None if records[0] is None or records[1] is None else records[0].differences(records[1])
    before, after = one.tensors(first), other.tensors(second)
    shapes, shared = [], []
    for name in sorted(before.keys() | after.keys()):
        if name not in after or name not in before:
            shapes.append(f"{name} is only in {first if name in before else second}")
        elif before[name].shape != after[name].shape:
            shapes.append(f"{name} is {list(before[name].shape)} in {first}, {list(after[name].shape)} in {second}")
        else:
            shared.append(name)
    found = [_difference(name, before[name], after[name]) for name in shared]
    pairs = [(before[name].double(), after[name].double()) for name in shared]
    squares = [float((b - a).square().sum()) for a, b in pairs], [float(a.square().sum()) for a, _ in pairs]
    return CheckpointDifferences(
        [(setting.key, setting.first, setting.second) for setting in changed],
        memory,
        shapes,
        sorted((t for t in found if t.difference), key=lambda t: -t.difference),
        sum(torch.equal(before[name], after[name]) for name in shared),
        len(shared),
        _ratio(sum(squares[0]) ** 0.5, sum(squares[1]) ** 0.5, 1.0),
    )


def _settings(checkpoint: Checkpoint, record: MemoryRecord | None) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(checkpoint.model_dump_json())
    if record is not None:
        settings["seed"] = record.seed
        if record.data is not None:
            settings["data"] = record.data.model_dump(mode="json", exclude={"sources"})
    return settings


def _difference(name: str, first: Tensor, second: Tensor) -> TensorDifference:
    one, other = first.double(), second.double()
    norm, other_norm = float(one.norm()), float(other.norm())
    return TensorDifference(name, norm, other_norm, _ratio(float((other - one).norm()), norm, other_norm))


def _ratio(difference: float, norm: float, other_norm: float) -> float:
    return difference / (norm or other_norm or 1.0)
