"""One line before the first step of a run: what is trained, on what, where, and where it is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from awareness.config.training import TrainConfig
from awareness.train.trainer import PARTS, MemoryTrainer, part_of

_NAMES = dict(zip(PARTS, ("adapter", "gates", "LoRA", "base"), strict=True))


def run_summary(
    config: TrainConfig, trainer: MemoryTrainer, *, base: str, report: Mapping[str, Any], resumed: Path | None
) -> str:
    """base: name of the model. report: what was read, as in data.json. resumed: the checkpoint that the run goes on
    from."""
    module = trainer.model.module
    sizes = Counter[str]()
    for name, parameter in module.trainable().items():
        sizes[part_of(name)] += parameter.numel()
    parts = ", ".join(f"{_NAMES[part]} {sizes[part]:,}" for part in PARTS if part in sizes)
    samples = len(trainer.train_dataset)  # type: ignore[arg-type]
    computes = str(module.decoder.get_input_embeddings().weight.dtype).removeprefix("torch.")
    return (
        f"training {sizes.total():,} parameters of {base} ({parts}): {config.training.max_steps:,} steps, {samples:,} "
        f"samples, {_size(report)}, {trainer.args.device.type} in {computes}, into {config.output_dir}"
        + (f", from {resumed.name}" if resumed else "")
    )


def _size(report: Mapping[str, Any]) -> str:
    """`1,700 chunks`, or `500 rows` of a data set."""
    if "rows" in report:
        return f"{report['rows']:,} rows"
    return f"{sum(source['kept'] for source in report['sources'] if source['split'] == 'train'):,} chunks"
