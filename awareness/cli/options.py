"""Options that several commands share, with their help."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from awareness.cli import render
from awareness.config.environment import DEFAULTS, variable
from awareness.errors import UsageError


class Quant(str, Enum):
    none = "none"
    int8 = "int8"
    int4 = "int4"
    int2 = "int2"
    fp8 = "fp8"
    pca = "pca"


class Weights(str, Enum):
    none = "none"
    int8 = "int8"
    int4 = "int4"
    fp8 = "fp8"
    nf4 = "nf4"


class Format(str, Enum):
    text = "text"
    json = "json"


class ListFormat(str, Enum):
    text = "text"
    json = "json"
    jsonl = "jsonl"


class AnswerFormat(str, Enum):
    text = "text"
    json = "json"
    lines = "lines"


def _set_quiet(value: bool) -> bool:
    if value:
        render.set_volume(quiet=True)
    return value


def _set_verbose(value: bool) -> bool:
    if value:
        render.set_volume(verbose=True)
    return value


def _not_empty(rev: str | None) -> str | None:
    if rev is not None and not rev.strip():  # a variable without a value would mean the work tree
        raise UsageError("--rev is empty", hint="--rev HEAD, or without --rev for the work tree")
    return rev


RepoOption = Annotated[
    Path | None,
    typer.Option("--repo", "-r", help="The repository. Default: the one around this folder.", show_default=False),
]
ReposOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--repo",
        "-r",
        help="A repository, a folder or file inside one (only that is searched), or a folder of clones; repeatable."
        " Default: the whole repository around this folder.",
    ),
]
ReposArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[REPO]...",
        help="Repositories, parts of them, folders of clones, or packs. Default: the repository around this folder.",
        show_default=False,
    ),
]
AllowedRootOption = Annotated[
    list[Path] | None,
    typer.Option("--root", help="Also allow every repository below this folder; repeatable."),
]
MemoryOption = Annotated[
    list[str] | None,
    typer.Option(
        "--memory",
        help="A file that `awareness pack` wrote, or what `awareness fleet` wrote (s3://BUCKET/FOLDER, a folder);"
        " repeatable, with or without --repo.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Preset, hub id or folder. Default: the index's own.", envvar=variable("model")),
]
RevOption = Annotated[
    str | None,
    typer.Option("--rev", callback=_not_empty, help="A commit, branch or tag instead of the work tree."),
]
ScopeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        help="Only these paths: a folder, a file or a glob ('src/**/*.py') from the top folder of the repository;"
        " ./PATH counts from the working folder. Repeatable; a leading ! excludes.",
    ),
]
KindOption = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        help="Only files of this kind: source, test, example, docs, other, legacy, changelog, generated, vendored,"
        " translation. Repeatable; a leading ! excludes.",
    ),
]
IncludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        help="Also index the paths that match this glob ('vendor/**'), although they are dependencies, build or cache,"
        " generated, minified or ignored by git. Secrets and binaries stay out. Repeatable.",
    ),
]
TopKOption = Annotated[int, typer.Option("--top-k", "-k", min=1, max=256, help="Maximum number of chunks.")]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="Output format on stdout.")]
ListFormatOption = Annotated[
    ListFormat, typer.Option("--format", "-f", help="Output format on stdout; jsonl has one hit a line.")
]
AnswerFormatOption = Annotated[
    AnswerFormat,
    typer.Option(
        "--format",
        "-f",
        help="Output format on stdout; lines has one JSON object a line as things happen, for editors.",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", callback=_set_quiet, help="Print only errors on stderr.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", callback=_set_verbose, help="Print details and tracebacks on stderr.")
]
RouterOption = Annotated[
    str | None,
    typer.Option(
        "--router",
        envvar=variable("router"),
        help="The vectors that the index is searched with: shipped, a file that `awareness train` wrote, or an"
        " embedding model (all-minilm-l6-v2, a hub id, a folder). Default: the index's own.",
    ),
]
BudgetOption = Annotated[
    str,
    typer.Option("--budget", envvar=variable("latents_budget"), help="Disk for latents, like 512MiB or 2GiB."),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        "--minutes",
        envvar=variable("index_minutes"),
        help="How long to encode latents; the next run continues where this one stopped. 0: as --lazy. Default: 3.",
    ),
]
DEFAULT_MINUTES = float(DEFAULTS.index_minutes)
AdapterOption = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        envvar=variable("adapter"),
        help="The adapter that the decoder reads with: a checkpoint folder, shipped, or none. Default: the one shipped"
        " for the model, if there is one, for short answers.",
    ),
]
WeightsOption = Annotated[
    Weights | None,
    typer.Option(
        "--weights",
        help="The weights that the decoder decodes with: as published (none) or in fewer bits. fp8 and nf4 need the"
        " extra `deploy` of the package. Default: the model's own choice.",
    ),
]
DEFAULT_BUDGET = DEFAULTS.latents_budget
QuantOption = Annotated[
    Quant | None,
    typer.Option("--quant", envvar=variable("latents_quant"), help="How latents are stored. Default: the index's own."),
]
