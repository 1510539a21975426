"""`awareness eval`: one command for each measure of awareness.evals; table or JSON on stdout, files in --out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from awareness.cli import options, render
from awareness.engine.models import pull_model
from awareness.errors import UsageError
from awareness.evals.report import NOT_MEASURED, Report
from awareness.evals.setup import DEFAULT_QUANT, Setup

if TYPE_CHECKING:
    from awareness.config.training import TrainConfig
    from awareness.evals.compare import Run

app = typer.Typer(no_args_is_help=True, help="Measure whether the memory is read, and how well.")
ChunkTokensOption = Annotated[int, typer.Option("--chunk-tokens", min=32, help="Tokens of a chunk at most.")]
_SHARED: dict[str, tuple[Any, Any]] = {
    "repo": (options.ReposOption, None),
    "model": (
        Annotated[
            str | None,
            typer.Option(
                "--model",
                "-m",
                envvar="AWARENESS_MODEL",
                help="Model of the untrained arms. Default: the first checkpoint's, else the default model.",
            ),
        ],
        None,
    ),
    "checkpoint": (
        Annotated[
            list[Path] | None,
            typer.Option("--checkpoint", help="Folder of a training's result, compared as one more arm; repeatable."),
        ],
        None,
    ),
    "seed": (Annotated[int, typer.Option("--seed", help="Random seed for everything that is drawn.")], 0),
    "quant": (options.QuantOption, None),
    "arms": (
        Annotated[
            str,
            typer.Option(
                "--arms",
                help="Ways to give the model the chunks, separated by commas: none, text, joint (untrained); for needle"
                " also bm25 (ranks the chunks by words). Those of --checkpoint are added.",
            ),
        ],
        "none,text,joint",
    ),
    "out": (Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the JSON and the pictures.")], None),
    "format": (options.FormatOption, options.Format.text),
    "quiet": (options.QuietOption, False),
    "verbose": (options.VerboseOption, False),
}
"""Options of every command: name -> (type with its help, default)."""


def _command(*, without: tuple[str, ...] = (), **defaults: Any) -> Callable[[Callable[..., Report]], Any]:
    """Registers a function (setup, its own options) -> Report as a command that also has the shared options.

    without: shared options that it does not have. defaults: of shared options; with (type, default) also the type.
    """

    def register(measure: Callable[..., Report]) -> Callable[..., Report]:
        own = list(inspect.signature(measure, eval_str=True).parameters.values())[1:]
        shared = {name: option for name, option in _SHARED.items() if name not in without}
        for name, default in defaults.items():
            shared[name] = default if isinstance(default, tuple) else (shared[name][0], default)
        parameters = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for name, (annotation, default) in shared.items()
        ]
        place = sum(name in shared for name in ("repo", "model", "checkpoint"))
        parameters[place:place] = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]

        @functools.wraps(measure)
        def command(**values: Any) -> None:
            run = functools.partial(measure, **{parameter.name: values.pop(parameter.name) for parameter in own})
            _run(run, **values)

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(measure.__name__)(command)
        return measure

    return register


def _run(
    measure: Callable[[Setup], Report],
    *,
    seed: int,
    quant: options.Quant | None,
    out: Path | None,
    format: options.Format,
    repo: list[Path] | Path | None = None,
    model: str | None = None,
    checkpoint: list[Path] | None = None,
    arms: str = "",
    **_: bool,
) -> None:
    repos = [repo] if isinstance(repo, Path) else repo or ()
    stored = quant.value if quant else DEFAULT_QUANT
    report = measure(Setup(repos, model, checkpoint or (), _names(arms), stored, seed, render.REPORTER))
    written = report.write(out) if out else []
    if format is options.Format.json:
        render.data(dict(report.json))
    else:
        for place, table in enumerate(report.tables):
            render.text(f"\n{table.heading}" if place else table.heading)
            render.table(
                table.columns, [[NOT_MEASURED if cell is None else cell for cell in row] for row in table.rows]
            )
        for note in report.notes:
            render.note(note)
    if written:
        render.note(f"{out}: {', '.join(written[:-1])} and {written[-1]} written")


def _names(text: str) -> list[str]:
    """'none, text' -> none, text"""
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str, option: str) -> list[int]:
    """'1,4,16' -> 1, 4, 16, each once and ascending. Raises UsageError."""
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise UsageError(f"{option} '{text}' is not a list of positive numbers", hint=f"{option} 1,4,16")
    return numbers


@app.callback()
def _group() -> None:
    """Measure whether the memory is read, and how well."""


@_command(repo=(options.RepoOption, Path(".")))
def needle(
    setup: Setup,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Needles for each number of chunks.")] = 20,
    chunks: Annotated[
        str, typer.Option("--chunks", help="Numbers of chunks in memory, separated by commas.")
    ] = "1,4,16",
    chunk_tokens: ChunkTokensOption = 120,
    shapes: Annotated[
        str,
        typer.Option(
            "--shapes",
            help="What is hidden, separated by commas: held-out (all that training never shows), ruler (RULER's four"
            " forms), constant (the reference, which training shows), or shapes by name.",
        ),
    ] = "held-out",
) -> Report:
    """Hide needles in real code and ask for them: the first thing to run when memory seems not to work."""
    numbers = _numbers(chunks, "--chunks")
    from awareness.evals.needle import measure

    return measure(setup, samples=samples, chunks=numbers, chunk_tokens=chunk_tokens, shapes=_names(shapes))


@_command()
def perplexity(
    setup: Setup,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Lines of a repository at most.")] = 50,
    chunks: Annotated[int, typer.Option("--chunks", min=1, help="Chunks to read, the definition's among them.")] = 4,
    chunk_tokens: ChunkTokensOption = 120,
) -> Report:
    """How much less surprising is a line of Python if the file that it rests on can be read?

    Conditions: gold (the chunk with the definition, among others), shuffled (only others, the control), none.
    """
    from awareness.evals.perplexity import measure

    return measure(setup, samples=samples, chunks=chunks, chunk_tokens=chunk_tokens)


@_command(arms="joint")
def retrieval(
    setup: Setup,
    questions: Annotated[
        Path | None,
        typer.Option("--questions", help="Real questions instead of needles; the format is that of `eval qa`."),
    ] = None,
    shuffle: Annotated[
        bool,
        typer.Option("--shuffle", help="Chunks of real questions in random order; else as `ask` has them, best last."),
    ] = False,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Needles, or questions at most.")] = 40,
    chunks: Annotated[int, typer.Option("--chunks", min=2, help="In memory; for a question the best routed.")] = 16,
    chunk_tokens: ChunkTokensOption = 120,
    shapes: Annotated[
        str, typer.Option("--shapes", help="Needles, as for `eval needle`. single: one that training never shows.")
    ] = "single",
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=2, help="Length of the answers to real questions, in tokens.")
    ] = 32,
) -> Report:
    """Does attention look most at the chunk that answers? In which layers, and better than routing alone?"""
    from awareness.evals.retrieval import measure

    size = {"samples": samples, "chunks": chunks, "chunk_tokens": chunk_tokens, "max_new_tokens": max_new_tokens}
    return measure(setup, questions=questions, shuffle=shuffle, shapes=_names(shapes), **size)


@_command(repo=(options.RepoOption, Path(".")))
def latency(
    setup: Setup,
    tokens: Annotated[
        str, typer.Option("--tokens", help="Sizes of what is read, in tokens, separated by commas.")
    ] = "1024,2048,4096",
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="The median of this many is taken.")] = 5,
    decode: Annotated[int, typer.Option("--decode", min=2, help="Length of an answer in tokens.")] = 32,
    chunk_tokens: ChunkTokensOption = 256,
) -> Report:
    """How long does an answer take, by the size of what is read?

    The latents of a memory are encoded before; what is measured is attaching them and reading the question.
    """
    sizes = _numbers(tokens, "--tokens")
    from awareness.evals.latency import measure

    return measure(setup, tokens=sizes, rounds=rounds, decode=decode, chunk_tokens=chunk_tokens)


@_command()
def qa(
    setup: Setup,
    questions: Annotated[Path, typer.Option("--questions", help="The questions, one JSON object a line.")],
    top_k: options.TopKOption = 8,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Length of an answer in tokens.")] = 48,
) -> Report:
    """Are answers right (token F1), and do the first three citations show the gold files (recall@3)?

    A line of --questions: {"question": "How is a cookie signed?", "answer": "With HMAC.", "gold": ["src/auth.py:5-7",
    "src/keys.py"], "repo": "sample"}. gold: paths, with or without lines. repo: the folder name of one of --repo, which
    may be left out if there is only one.
    """
    from awareness.evals.qa import measure

    return measure(setup, questions=questions, top_k=top_k, max_new_tokens=max_new_tokens)


@_command(without=("repo", "model", "checkpoint", "arms"), seed=1)
def compare(
    setup: Setup,
    config: Annotated[
        list[Path] | None,
        typer.Option("--config", "-c", help="A run's YAML file; repeatable. Default: the four configs/compare-*.yaml."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Overrides a value of every file; repeatable.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Held-out samples, of all kinds.")] = 64,
) -> Report:
    """Train what is not trained yet, and measure all runs on the same repositories that none learned from.

    A run whose output_dir has a result already is not trained again.
    """
    from awareness.config.read import read_config
    from awareness.evals.compare import measure
    from awareness.train.log import LOG, draw_losses
    from awareness.train.run import held_out_samples

    files = config or [Path("configs") / f"compare-{name}.yaml" for name in ("vanilla", "memory", "lora", "both")]
    configs = {}
    for path in files:
        read = read_config(path, settings or [])
        if read.task != "memory" or read.data is None:
            raise UsageError(f"{path}: only trainings on repositories are compared", hint="task: memory, with data:")
        configs[path.stem.removeprefix("compare-")] = read
    runs = [_trained(name, read) for name, read in configs.items()]
    logs = [read.output_dir for read in configs.values() if (read.output_dir / LOG).exists()]
    held_out = functools.partial(held_out_samples, next(iter(configs.values())), pull=pull_model)
    draw = functools.partial(draw_losses, logs)
    return measure(setup, runs=runs, held_out=held_out, draw_losses=draw, samples=samples)


def _trained(name: str, config: TrainConfig) -> Run:
    """A run of the comparison; trained first if it has no result yet."""
    from awareness.evals.compare import Run
    from awareness.train.run import train_memory

    assert config.data is not None
    base = config.model.base_model_name or config.model.tokenizer_name
    settings = config.model_dump(mode="json", include={"memory", "training"})
    if not (config.memory.has_memory or config.memory.has_lora) and config.model.freeze_base_model:
        reads = "text" if config.data.reads == "text" else "none"
        return Run(name, base, reads, None, settings)
    result = config.output_dir / "final"
    if not result.exists():
        render.note(f"training {name}")
        with render.progress() as progress:
            train_memory(config, pull=pull_model, resume="latest", progress=progress, say=render.note)
    return Run(name, base, config.data.reads, result, settings)
