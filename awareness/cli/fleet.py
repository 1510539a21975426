"""`awareness fleet`: many repositories, indexed on Ray into a bucket or a folder."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from awareness.cli import options, render
from awareness.engine.units import counted, human_bytes, named_list

if TYPE_CHECKING:
    from awareness.fleet.catalogue import Catalogue
    from awareness.fleet.cluster import Workers
    from awareness.fleet.object_store import ObjectStore
    from awareness.fleet.run_report import RunReport
    from awareness.fleet.sources import Source

app = typer.Typer(no_args_is_help=True, help="Index many repositories on Ray into one memory, in a bucket or a folder.")
StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="s3://BUCKET/FOLDER, gs://…, az://… or a folder.")]
OutOption = Annotated[str, typer.Option("--out", "-o", help="s3://BUCKET/FOLDER, gs://…, az://… or a folder.")]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", help="A running Ray cluster (`auto`, ray://HOST:PORT). Default: Ray on this machine."),
]
EncodersOption = Annotated[
    int | None, typer.Option("--encoders", min=1, help="Processes with a model. Default: as many as there is room for.")
]
CpusOption = Annotated[float, typer.Option("--cpus-per-encoder", min=0.1, help="CPU cores of each.")]
GpusOption = Annotated[float, typer.Option("--gpus-per-encoder", min=0.0, help="GPUs of each; 0.25: four on one GPU.")]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=1.0, help="Seconds that git may take for a repository.")]
MostTextOption = Annotated[int, typer.Option("--most-text", min=1, help="MiB of text that a repository may have.")]
BatchOption = Annotated[
    int, typer.Option("--batch-tokens", min=256, help="Tokens of a batch: what is lost when a worker is killed.")
]
ReportOption = Annotated[Path | None, typer.Option("--report", help="Also write what the run did into this JSON file.")]
MOST_TEXT_MIB = 1024
TIMEOUT_S = 600.0
DEFAULT_BATCH = 4096


@dataclass(frozen=True)
class _Asked:
    """What the user said about a run; None for as the store was indexed before. most_text: MiB."""

    model: str | None
    quant: str | None
    scope: list[str] | None
    include: list[str] | None
    batch_tokens: int
    timeout: float
    most_text: int
    repair: bool = False
    folders: bool = False


@app.command("index")
def index_fleet(
    repositories: Annotated[
        list[str],
        typer.Argument(
            metavar="REPOSITORY...",
            help="Addresses to clone, folders (one of clones stands for all of them), or files that list them.",
        ),
    ],
    out: OutOption,
    model: options.ModelOption = None,
    quant: options.QuantOption = None,
    scope: options.ScopeOption = None,
    include: options.IncludeOption = None,
    address: AddressOption = None,
    encoders: EncodersOption = None,
    cpus_per_encoder: CpusOption = 1.0,
    gpus_per_encoder: GpusOption = 0.0,
    batch_tokens: BatchOption = DEFAULT_BATCH,
    timeout: TimeoutOption = TIMEOUT_S,
    most_text: MostTextOption = MOST_TEXT_MIB,
    report: ReportOption = None,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> int:
    """Index repositories into a store; what it has already, of these or of others, is not encoded again.

    The same command goes on where it was interrupted. Exit code 1 if a repository could not be indexed.
    """
    from awareness.fleet.cluster import Workers

    workers = Workers(address, encoders, cpus_per_encoder, gpus_per_encoder)
    asked = _Asked(model, quant.value if quant else None, scope, include, batch_tokens, timeout, most_text)
    return _run(repositories, out, asked, workers, report, format)


@app.command("refresh")
def refresh_fleet(
    store: StoreArgument,
    repair: Annotated[
        bool, typer.Option("--repair", help="Read all of the store first, and make again what is damaged.")
    ] = False,
    folders: Annotated[
        bool,
        typer.Option("--folders", help="Also read the folders of this machine that a bucket names: trust its writers."),
    ] = False,
    address: AddressOption = None,
    encoders: EncodersOption = None,
    cpus_per_encoder: CpusOption = 1.0,
    gpus_per_encoder: GpusOption = 0.0,
    batch_tokens: BatchOption = DEFAULT_BATCH,
    timeout: TimeoutOption = TIMEOUT_S,
    most_text: MostTextOption = MOST_TEXT_MIB,
    report: ReportOption = None,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> int:
    """Look at every repository of a store again, and index those that have changed.

    Exit code 1 if a repository could not be reached; what the store has of it stays.
    """
    from awareness.fleet.cluster import Workers

    workers = Workers(address, encoders, cpus_per_encoder, gpus_per_encoder)
    asked = _Asked(None, None, None, None, batch_tokens, timeout, most_text, repair, folders)
    return _run(None, store, asked, workers, report, format)


def _run(
    words: list[str] | None, place: str, asked: _Asked, workers: Workers, file: Path | None, format: options.Format
) -> int:
    """words: None for the repositories of the store."""
    from awareness.engine.workspace import DEFAULT_QUANT
    from awareness.errors import make_writable
    from awareness.evals.report import REPORT_MARK
    from awareness.fleet import catalogue as catalogues
    from awareness.fleet.cutting import Rules
    from awareness.fleet.driver import run_fleet
    from awareness.fleet.object_store import FolderStore, open_store
    from awareness.fleet.run_report import RunReport
    from awareness.fleet.sources import Source, is_address, read_sources
    from awareness.index.files.scopes import rooted
    from awareness.model.presets import DEFAULT_MODEL

    if file is not None:
        make_writable(file.absolute().parent)
    store = open_store(place)
    known: Catalogue | None
    if words is None:
        known, _ = catalogues.read(store)
        sources = [Source(name, e.source, not is_address(e.source)) for name, e in sorted(known.repositories.items())]
        if not (asked.folders or isinstance(store, FolderStore)):
            sources = _without_folders(sources)
    else:
        known, _ = catalogues.read_if_any(store)
        taken = {} if known is None else {name: entry.source for name, entry in known.repositories.items()}
        sources = read_sources(words, taken)
    again = _damaged(store) if asked.repair else set()
    model = asked.model or (known.model if known else DEFAULT_MODEL)
    quant = asked.quant or (known.spec.quant if known else DEFAULT_QUANT)
    scope = known.scope if asked.scope is None and known else rooted(asked.scope or (), None)
    include = known.include if asked.include is None and known else tuple(asked.include or ())
    rules = Rules(model, scope, include, asked.timeout, asked.most_text << 20)
    report = RunReport()
    try:
        run_fleet(
            store,
            sources,
            model=model,
            quant=quant,
            rules=rules,
            workers=workers,
            again=again,
            batch_tokens=asked.batch_tokens,
            reporter=render.REPORTER,
            report=report,
        )
    finally:
        if file is not None:
            file.write_text(json.dumps(dict((REPORT_MARK, *report.to_json().items())), indent=2) + "\n", "utf-8")
        if format is options.Format.json:
            render.data({"store": place, **report.to_json()})
        else:
            _show(report, place)
    return 1 if report.failed else 0


def _without_folders(sources: list[Source]) -> list[Source]:
    """Who can write the catalogue of a bucket does not decide which folders of this machine are read."""
    local = [source.name for source in sources if source.is_folder or source.place.startswith("file:")]
    if local:
        render.note(f"not looked at, as they are folders: {named_list(local)}; --folders reads them")
    return [source for source in sources if source.name not in set(local)]


def _damaged(store: ObjectStore) -> set[str]:
    """The repositories that have to be made again; what is damaged is deleted."""
    from awareness.fleet.checking import check, make_way

    with render.progress() as progress:
        found = check(store, sample=None, progress=progress)
        again = make_way(store, found.problems, progress) if found.problems else set()
    render.note(f"{counted(len(found.problems), 'damaged object')}; {counted(len(again), 'repository')} to index again")
    return again


def _show(report: RunReport, place: str) -> None:
    for failure in report.failed:
        render.text(f"not indexed: {failure.name}: {failure.message}")
    saved = report.saved_tokens / report.tokens if report.tokens else 0.0
    render.text(
        f"{place}: {counted(len(report.indexed), 'repository')} indexed,"
        f" {len(report.unchanged)} unchanged, {len(report.failed)} failed, in {report.wall_s:.1f} s"
    )
    if report.tokens:
        render.text(
            f"{counted(report.files, 'file')}, {counted(report.chunks, 'chunk')}, {report.tokens:,} tokens;"
            f" {report.encoded_tokens:,} encoded ({saved:.0%} saved: they were there already), by"
            f" {counted(report.workers, 'worker')}, {report.tokens_per_s:,.0f} tokens/s"
        )
    if report.bytes_written:
        written = ", ".join(f"{human_bytes(size)} {kind}" for kind, size in sorted(report.bytes_written.items()))
        render.text(f"written: {written}")


@app.command("status")
def show_status(
    store: StoreArgument,
    repositories: Annotated[bool, typer.Option("--repositories", help="Also list the repositories.")] = False,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Show what a store holds: repositories, tokens, and its size by kind of object."""
    from awareness.fleet import catalogue as catalogues
    from awareness.fleet.object_store import open_store

    opened = open_store(store)
    known, _ = catalogues.read(opened)
    sizes = {kind: [one.bytes for one in opened.list(kind)] for kind in catalogues.KINDS}
    entries = sorted(known.repositories.items())
    if format is options.Format.json:
        render.data(
            {
                "store": store,
                "model": known.model,
                "quant": known.spec.quant,
                "repositories": len(entries),
                "files": sum(entry.files for _, entry in entries),
                "chunks": known.chunks,
                "tokens": known.tokens,
                "generation": known.generation,
                "objects": {kind: {"objects": len(each), "bytes": sum(each)} for kind, each in sizes.items()},
                **({"listed": {name: asdict(entry) for name, entry in entries}} if repositories else {}),
            }
        )
        return
    render.text(
        f"{store}: {counted(len(entries), 'repository')}, {counted(known.chunks, 'chunk')},"
        f" {known.tokens:,} tokens, encoded by {known.model} ({known.spec.quant})"
    )
    shown = [f"{human_bytes(sum(each))} in {counted(len(each), 'object')} of {kind}" for kind, each in sizes.items()]
    render.text("; ".join(shown))
    if entries:
        newest = max(entry.indexed for _, entry in entries)
        written = time.strftime("%Y-%m-%d %H:%M", time.localtime(newest))
        render.text(f"last repository indexed {written}; the catalogue is in its generation {known.generation:,}")
    if repositories:
        rows = [(name, entry.rev[:12] if entry.rev else "files", entry.chunks, entry.tokens) for name, entry in entries]
        render.table(("repository", "commit", "chunks", "tokens"), rows)


@app.command("check")
def check_fleet(
    store: StoreArgument,
    sample: Annotated[int, typer.Option("--sample", min=1, help="Latents that are read.")] = 256,
    read_data: Annotated[bool, typer.Option("--read-data", help="Read every latent, not a sample.")] = False,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> int:
    """Compare a store with its digests and checksums; exit code 1 if something is damaged. Changes nothing."""
    from awareness.fleet.checking import check
    from awareness.fleet.object_store import open_store

    started = time.perf_counter()
    with render.progress() as progress:
        found = check(open_store(store), sample=None if read_data else sample, progress=progress)
    if format is options.Format.json:
        seconds = round(time.perf_counter() - started, 3)
        render.data({"ok": not found.problems, **asdict(found), "seconds": seconds})
        return 1 if found.problems else 0
    for problem in found.problems:
        render.text(f"{problem.where}: {problem.why}")
    render.text(
        f"{counted(found.repositories, 'repository')}, {counted(found.latents, 'latent')},"
        f" {found.latents_read:,} of them read ({human_bytes(found.bytes_read)}): "
        + (counted(len(found.problems), "problem") if found.problems else "sound")
    )
    if found.problems:
        render.note(f"awareness fleet refresh {store} --repair makes again what is damaged")
    elif not read_data:
        render.note("a sample of the latents was read; --read-data reads all")
    return 1 if found.problems else 0


@app.command("gc")
def collect_fleet(
    store: StoreArgument,
    forget: Annotated[
        list[str] | None, typer.Option("--forget", help="A repository that leaves the store first; repeatable.")
    ] = None,
    older_than: Annotated[
        float, typer.Option("--older-than", min=0.0, help="Hours that an object is kept for runs that may need it.")
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be deleted.")] = False,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Delete what no repository of a store needs any more."""
    from awareness.fleet.collecting import collect
    from awareness.fleet.object_store import open_store

    with render.progress() as progress:
        done = collect(
            open_store(store), forget=forget or (), young_s=older_than * 3600, dry_run=dry_run, progress=progress
        )
    if format is options.Format.json:
        render.data({"dry_run": dry_run, **asdict(done)})
        return
    for name in done.forgotten:
        render.text(f"{'would forget' if dry_run else 'forgot'} {name}")
    render.text(
        f"{'would delete' if dry_run else 'deleted'} {counted(done.objects, 'object')}, {human_bytes(done.bytes)}"
        + (f"; {done.kept_young} more are younger than {older_than:g} hours" if done.kept_young else "")
    )
