"""`awareness eval compare`: the comparison runs, trained from one seed on the same data, side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from awareness.cli import options, render
from awareness.cli.eval_estimates import as_json, cell
from awareness.cli.eval_shared import OutOption, SeedOption, stored_as, write_json
from awareness.engine.models import pull_known, pull_model
from awareness.errors import UsageError

if TYPE_CHECKING:
    from awareness.config.training import TrainConfig
    from awareness.evals.arms import Arm

DEFAULT_RUNS = ("vanilla", "memory", "lora", "both")


def compare(
    config: Annotated[
        list[Path] | None,
        typer.Option("--config", "-c", help="A run's YAML file; repeatable. Default: configs/compare-*.yaml of four."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Lays a value over every file; repeatable.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Held-out samples, of all kinds.")] = 64,
    seed: SeedOption = 1,
    quant: options.QuantOption = None,
    out: OutOption = None,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Train what is not trained yet, and measure all runs on the same repositories that none learned from.

    A run whose output_dir has a result already is not trained again.
    """
    from awareness.evals.compare import run
    from awareness.train.run import held_out_samples

    files = config or [Path("configs") / f"compare-{name}.yaml" for name in DEFAULT_RUNS]
    runs = {path.stem.removeprefix("compare-"): _read(path, settings or []) for path in files}
    arms = [_arm(name, read, stored_as(quant)) for name, read in runs.items()]
    first = next(iter(runs.values()))
    with render.progress() as progress:
        drawn = held_out_samples(first, pull=pull_model, count=samples, seed=seed, progress=progress)
        found = run(arms, drawn, seed=seed, progress=progress)
    result: dict[str, Any] = {
        "seed": seed,
        "samples": samples,
        "left_out": found[0].left_out,
        "runs": {name: read.model_dump(mode="json", include={"memory", "training"}) for name, read in runs.items()},
        "perplexity": [
            {"run": one.arm, **{kind or "all": as_json(estimate) for kind, estimate in one.perplexity.items()}}
            for one in found
        ],
    }
    if out:
        from awareness.evals.pictures import compare_bars
        from awareness.train.log import draw_losses

        write_json(out, "compare", result)
        compare_bars(found, f"{samples} held-out samples, seed {seed}", out / "compare.png")
        trained = [read.output_dir for read in runs.values() if (read.output_dir / "log.jsonl").exists()]
        draw_losses(trained, out / "compare_loss.png")
    if format is options.Format.json:
        render.data(result)
        return
    render.text(f"perplexity of the answer (95 % interval), {samples} samples of held-out repositories, seed {seed}")
    render.table(
        ("run", "all", "samples"), [(one.arm, cell(one.perplexity[""]), one.perplexity[""].n) for one in found]
    )
    if out:
        render.note(f"{out}: compare.json, compare.png and compare_loss.png written")


def _read(path: Path, settings: list[str]) -> TrainConfig:
    from awareness.config.read import read_config

    read = read_config(path, settings)
    if read.task != "memory" or read.data is None:
        raise UsageError(f"{path}: only trainings on repositories are compared", hint="task: memory, with data:")
    return read


def _arm(name: str, config: TrainConfig, quant: str) -> Arm:
    """Of a run; trained first if it is not yet."""
    from awareness.evals.arms import open_arms
    from awareness.train.run import train_memory

    assert config.data is not None
    if not (config.memory.has_memory or config.memory.has_lora) and config.model.freeze_base_model:  # nothing to train
        base = config.model.base_model_name
        folder = pull_model(base or config.model.tokenizer_name, render.REPORTER)
        reads = "text" if config.data.reads == "text" else "none"
        (arm,) = open_arms([reads], model=folder, pull=pull_known, quant=quant)
        return replace(arm, name=name)
    result = config.output_dir / "final"
    if not result.exists():
        render.note(f"training {name}")
        with render.progress() as progress:
            train_memory(config, pull=pull_model, resume="latest", progress=progress, say=render.note)
    (arm,) = open_arms([], [result], model=pull_model(config.model.base_model_name or ""), pull=pull_known, quant=quant)
    return replace(arm, name=name)
