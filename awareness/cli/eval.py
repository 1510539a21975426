"""`awareness eval`: one command for each measure of awareness.evals; tables or JSON on stdout, files in --out."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from awareness.cli import options, render
from awareness.cli.training_file import read_training_file
from awareness.config.environment import variable
from awareness.engine.models import pull_model
from awareness.errors import UsageError, make_writable
from awareness.evals.report import NOT_MEASURED, Report
from awareness.evals.setup import DEFAULT_QUANT, Setup

if TYPE_CHECKING:
    from awareness.config.training import TrainConfig
    from awareness.evals.compare import Run

_SHARED = ("perplexity",)
"""The measures that several processes share."""
_PULL = functools.partial(pull_model, reporter=render.REPORTER)
app = typer.Typer(no_args_is_help=True, help="Measure whether the memory is read, and how well.")
ModelOption = Annotated[
    str | None,
    Option("--model", "-m", envvar=variable("model"), help="Untrained model. Default: the first checkpoint's."),
]
CheckpointsOption = Annotated[list[Path] | None, Option(help="A trained checkpoint: one more arm; repeatable.")]
ArmsOption = Annotated[
    str,
    Option(
        help="How the model gets the chunks, separated by commas: none, text, joint (untrained). `eval needle` also has"
        " bm25 (ranks the chunks by words). text@MODEL is another model, joint@KEY=NUMBER another setting of reading."
        " Those of --checkpoint are added."
    ),
]
ChunkTokensOption = Annotated[int, Option(min=32, help="Maximum tokens of a chunk.")]
LatentsOption = Annotated[
    Path | None, Option("--latents", help="Folder that keeps the latents of drawn chunks for the next run.")
]
OutOption = Annotated[Path | None, Option("--out", "-o", help="Folder for the JSON and the pictures.")]


def _run(
    measure: Callable[[Setup], Report],
    repo: options.ReposOption = None,
    model: ModelOption = None,
    checkpoint: CheckpointsOption = None,
    seed: Annotated[int, Option(help="Random seed.")] = 0,
    quant: options.QuantOption = None,
    arms: ArmsOption = "none,text,joint",
    latents: LatentsOption = None,
    out: OutOption = None,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """What all commands do, with the options that they share."""
    if out:
        make_writable(out)
    if latents:
        make_writable(latents)
    repos = [repo] if isinstance(repo, Path) else repo or ()
    stored = quant.value if quant else DEFAULT_QUANT
    setup = Setup(repos, model, checkpoint or (), _names(arms), stored, seed, latents, render.REPORTER)
    if "RANK" in os.environ:
        report = _one_of_several(measure, setup)
        if report is None:
            return
    else:
        report = measure(setup)
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
        render.note(f"wrote {', '.join(written)} to {out}")


def _one_of_several(measure: Callable[[Setup], Report], setup: Setup) -> Report | None:
    """Measures in a process that a launcher started. The first one reports; None for the others."""
    from awareness.train.processes import number_of_processes, one_of_several, process_index

    name = getattr(getattr(measure, "func", measure), "__name__", "")
    if process_index():
        render.set_volume(quiet=True)
    with one_of_several():
        if number_of_processes() > 1 and name not in _SHARED:
            raise UsageError(
                f"eval {name} runs in one process; a launcher started {number_of_processes()}",
                hint=f"awareness eval {name}, without the launcher",
            )
        report = measure(setup)
    return None if process_index() else report


def _command(*, without: tuple[str, ...] = (), **changed: Any) -> Callable[[Callable[..., Report]], Any]:
    """Registers a function (setup, own options) -> Report as a command that also has the options of `_run`.

    without: shared options that it does not have. changed: other defaults of shared options.
    """
    shared = list(inspect.signature(_run, eval_str=True).parameters.values())[1:]

    def register(measure: Callable[..., Report]) -> Callable[..., Report]:
        own = list(inspect.signature(measure, eval_str=True).parameters.values())[1:]
        kept = [p.replace(default=changed.get(p.name, p.default)) for p in shared if p.name not in without]
        place = next((i for i, p in enumerate(kept) if p.name == "seed"), 0)
        every = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*kept[:place], *own, *kept[place:])]
        if isinstance(changed.get("repo"), Path):
            every[0] = every[0].replace(annotation=options.RepoOption)

        @functools.wraps(measure)
        def command(**values: Any) -> None:
            _run(functools.partial(measure, **{p.name: values.pop(p.name) for p in own}), **values)

        command.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in every}
        app.command(measure.__name__)(command)
        return measure

    return register


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


@_command(repo=Path("."))
def needle(
    setup: Setup,
    samples: Annotated[int, Option("--samples", "-n", min=1, help="Needles for each number of chunks.")] = 20,
    chunks: Annotated[str, Option(help="Numbers of chunks in memory, separated by commas.")] = "1,4,16",
    chunk_tokens: ChunkTokensOption = 120,
    shapes: Annotated[
        str,
        Option(
            help="Shapes of needles, separated by commas: held-out (none is in the training data), ruler (RULER's four"
            " forms), two_hop (answers need two places), constant (the reference, which is in the training data), or"
            " names of shapes."
        ),
    ] = "held-out",
) -> Report:
    """Hide a fact in real code and ask for it, by number of chunks. Run this first if memory seems not to work."""
    numbers = _numbers(chunks, "--chunks")
    from awareness.evals.needle import measure

    return measure(setup, samples=samples, chunks=numbers, chunk_tokens=chunk_tokens, shapes=_names(shapes))


@_command(repo=Path("."))
def refusals(
    setup: Setup,
    samples: Annotated[int, Option("--samples", "-n", min=1, help="Questions for each number of chunks.")] = 20,
    chunks: Annotated[str, Option(help="Numbers of chunks, separated by commas.")] = "4,16",
    chunk_tokens: ChunkTokensOption = 120,
    shapes: Annotated[str, Option(help="As for `eval needle`.")] = "held-out",
    max_new_tokens: Annotated[int, Option(min=1, help="Tokens to generate.")] = 32,
) -> Report:
    """Ask what the chunks do not say: does the model say so, and does it answer where they do say it?

    Every question is asked as `awareness ask` asks, with the invented lines that answer it and without them.
    """
    numbers = _numbers(chunks, "--chunks")
    from awareness.evals.refusals import measure

    size = {"samples": samples, "chunk_tokens": chunk_tokens, "max_new_tokens": max_new_tokens}
    return measure(setup, chunks=numbers, shapes=_names(shapes), **size)


@_command(without=("latents",))
def answers(
    setup: Setup,
    questions: Annotated[list[Path], Option(help="A file of questions, one JSON object a line; repeatable.")],
    top_k: Annotated[str, Option("--top-k", "-k", help="Numbers of chunks, separated by commas.")] = "8",
    samples: Annotated[
        int | None, Option("--samples", "-n", min=1, help="Maximum questions per repository. Default: all.")
    ] = None,
    max_new_tokens: Annotated[int, Option(min=1, help="Tokens to generate.")] = 128,
    weights: options.WeightsOption = None,
    unanswerable: Annotated[
        bool, Option("--unanswerable", help="Leave out the chunks that answer: a reader should say so (`refused`).")
    ] = False,
) -> Report:
    """Count right answers to short questions, as `awareness ask` answers them, and measure how long one waits.

    A line of --questions: {"question": "what is the default port", "expected": "5000.", "contains": ["5000"], "place":
    "src/cli.py:880-890"}. An answer is right if it holds a string of `contains`. place: the lines that say it. The file
    is named after the folder of the repository, or a line has "repo".
    """
    numbers = _numbers(top_k, "--top-k")
    from awareness.evals.answers import measure

    return measure(
        setup,
        questions=questions,
        top_k=numbers,
        samples=samples,
        max_new_tokens=max_new_tokens,
        weights=weights.value if weights else None,
        unanswerable=unanswerable,
    )


@_command()
def perplexity(
    setup: Setup,
    samples: Annotated[int, Option("--samples", "-n", min=1, help="Maximum lines per repository.")] = 50,
    chunks: Annotated[int, Option(min=1, help="Chunks in memory, including the one with the definition.")] = 4,
    chunk_tokens: ChunkTokensOption = 120,
    processes: Annotated[
        int | None,
        Option(
            "--processes", min=1, help="Share the lines among this number of processes, each on a GPU if there are."
        ),
    ] = None,
) -> Report:
    """Measure the perplexity of Python lines that depend on another file, with and without that file in memory.

    Conditions: gold (the chunk with the definition, among others), shuffled (only others, the control), none.
    torchrun and accelerate launch work, too.
    """
    if number := _to_start(processes):
        from awareness.train.processes import launch

        raise typer.Exit(launch(number, sys.argv[1:]))
    from awareness.evals.perplexity import measure

    return measure(setup, samples=samples, chunks=chunks, chunk_tokens=chunk_tokens)


def _to_start(wanted: int | None) -> int:
    """The number of processes that this one has to start; 0 if it measures itself. Raises UsageError."""
    if wanted in (None, 1) and not {"RANK", "MASTER_ADDR"} & os.environ.keys():
        return 0
    import torch

    from awareness.train.processes import (
        asked_of_accelerate,
        is_of_accelerate,
        number_of_processes,
        started_by_launcher,
    )

    if started_by_launcher():
        if wanted not in (None, number_of_processes()):
            raise UsageError(
                f"--processes {wanted}, but the launcher started {number_of_processes()}", hint="without --processes"
            )
        return 0
    if wanted is None and is_of_accelerate():  # without GPUs it starts one, whatever it was asked for
        wanted = asked_of_accelerate()
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted is not None and gpus and wanted > gpus:
        raise UsageError(f"--processes {wanted}, but the number of GPUs here is {gpus}", hint=f"--processes {gpus}")
    return 0 if wanted is None or wanted == 1 else wanted


@_command(arms="joint")
def retrieval(
    setup: Setup,
    questions: Annotated[Path | None, Option(help="Ask these questions (as `eval qa`), not needles.")] = None,
    shuffle: Annotated[
        bool,
        Option("--shuffle", help="Shuffle the chunks of real questions; else the best is last, as in `ask`."),
    ] = False,
    samples: Annotated[int, Option("--samples", "-n", min=1, help="Needles, or maximum number of questions.")] = 40,
    chunks: Annotated[int, Option(min=2, help="Chunks in memory; for a question, the best hits.")] = 16,
    chunk_tokens: ChunkTokensOption = 120,
    shapes: Annotated[str, Option(help="As for `eval needle`. single: one held-out shape.")] = "single",
    max_new_tokens: Annotated[int, Option(min=2, help="Tokens to generate for a real question.")] = 32,
) -> Report:
    """Measure whether attention finds the chunk that answers, by layer, compared with the search score alone."""
    from awareness.evals.retrieval import measure

    size = {"samples": samples, "chunks": chunks, "chunk_tokens": chunk_tokens, "max_new_tokens": max_new_tokens}
    return measure(setup, questions=questions, shuffle=shuffle, shapes=_names(shapes), **size)


@_command(repo=Path("."), without=("latents",))
def latency(
    setup: Setup,
    tokens: Annotated[str, Option(help="Sizes of the memory in tokens, separated by commas.")] = "1024,2048,4096",
    rounds: Annotated[int, Option(min=1, help="Rounds; the median is reported.")] = 5,
    decode: Annotated[int, Option(min=2, help="Tokens to generate.")] = 32,
    chunk_tokens: ChunkTokensOption = 256,
) -> Report:
    """Measure the time to the first token and the decoding speed, by the size of the memory.

    The latents are encoded beforehand; the time includes attaching them and reading the question.
    """
    sizes = _numbers(tokens, "--tokens")
    from awareness.evals.latency import measure

    return measure(setup, tokens=sizes, rounds=rounds, decode=decode, chunk_tokens=chunk_tokens)


@_command()
def qa(
    setup: Setup,
    questions: Annotated[Path, Option(help="The questions, one JSON object a line.")],
    top_k: options.TopKOption = 8,
    max_new_tokens: Annotated[int, Option(min=1, help="Tokens to generate.")] = 48,
) -> Report:
    """Measure answers (token F1) and citations (recall@3 of the gold files) on questions from a file.

    A line of --questions: {"question": "How is a cookie signed?", "answer": "With HMAC.", "gold": ["src/auth.py:5-7",
    "src/keys.py"], "repo": "sample"}. gold: paths, with or without lines. repo: the folder name of one of --repo, which
    may be left out if there is only one.
    """
    from awareness.evals.qa import measure

    return measure(setup, questions=questions, top_k=top_k, max_new_tokens=max_new_tokens)


@_command(without=("repo", "model", "checkpoint", "arms", "latents"), seed=1)
def compare(
    setup: Setup,
    config: Annotated[
        list[Path] | None,
        Option(
            "--config",
            "-c",
            help="YAML file of a run; repeatable. Default: those that come with awareness (configs/compare-*.yaml):"
            " vanilla, memory, lora, both.",
        ),
    ] = None,
    settings: Annotated[list[str] | None, Option("--set", help="Overrides a value of every file; repeatable.")] = None,
    runs: Annotated[
        Path | None, Option("--runs", help="Folder of the trainings, one below it for each file, in place of theirs.")
    ] = None,
    samples: Annotated[int, Option("--samples", "-n", min=1, help="Number of held-out samples, over all kinds.")] = 64,
) -> Report:
    """Train the comparison runs and measure them on the same held-out repositories.

    A run that is trained already, with the same settings, is not trained again. For repositories of your own:
    --set 'data.sources=[./a, ./b, ./c]' --set data.validation=0.3
    """
    from awareness.evals.compare import measure
    from awareness.train.log import LOG, draw_losses
    from awareness.train.run_data import held_out_samples

    configs = _compared(config, settings, runs)
    first = next(iter(configs.values()))
    with render.progress() as progress:  # before the trainings, as there may be none
        held_out = held_out_samples(first, pull=_PULL, count=samples, seed=setup.seed, progress=progress)
    trained = [_trained(name, read) for name, read in configs.items()]
    logs = [read.output_dir for read in configs.values() if (read.output_dir / LOG).exists()]
    draw = functools.partial(draw_losses, logs)
    return measure(setup, runs=trained, held_out=held_out, draw_losses=draw)


def _compared(files: list[Path] | None, settings: list[str] | None, runs: Path | None) -> dict[str, TrainConfig]:
    """Name of a run -> its settings. Raises UsageError for files that cannot be compared, and for a run that is there
    already with other settings."""
    from awareness.config.training_files import COMPARED
    from awareness.train.resuming.finished_run import must_be_of

    configs: dict[str, TrainConfig] = {}
    for path in files or map(Path, COMPARED):
        read = read_training_file(path, settings)
        name = path.stem.removeprefix("compare-")
        if read.task != "memory" or read.data is None:
            raise UsageError(f"{path}: only trainings on repositories are compared", hint="task: memory, with data:")
        if name in configs:
            raise UsageError(f"two of the files are called {name}", hint="rename one of them")
        if runs is not None:
            read = read.model_copy(update={"output_dir": runs / name})
        if shared := [other for other, own in configs.items() if own.output_dir == read.output_dir]:
            raise UsageError(
                f"the runs {shared[0]} and {name} have the same output_dir: {read.output_dir}", hint="--runs FOLDER"
            )
        if (read.output_dir / "final").exists():
            must_be_of(read.output_dir, read.model_dump(mode="json"))
        configs[name] = read
    return configs


def _trained(name: str, config: TrainConfig) -> Run:
    """A run of the comparison, trained now if it has no result yet."""
    from awareness.evals.compare import Run
    from awareness.train.run import train_memory
    from awareness.train.tell_unused import tell_unused

    assert config.data is not None
    base = config.model.base_model_name or config.model.tokenizer_name
    settings = config.model_dump(mode="json", include={"memory", "training"})
    if not (config.memory.has_memory or config.memory.has_lora) and config.model.freeze_base_model:
        tell_unused(config, render.note)
        return Run(name, base, "text" if config.data.reads == "text" else "none", None, settings)
    result = config.output_dir / "final"
    if result.exists():
        render.note(f"{name}: {result} is there, and is not trained again")
    else:
        render.note(f"training {name}")
        with render.progress() as progress:
            train_memory(config, pull=_PULL, resume="latest", progress=progress, say=render.note)
    return Run(name, base, config.data.reads, result, settings)
