"""`awareness checkpoints`: list, inspect, merge and export training checkpoints."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from awareness.cli import options, render
from awareness.engine.models import pull_known, pull_model
from awareness.engine.units import counted, human_bytes
from awareness.errors import NothingFound, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from awareness.model.load import Decoder
    from awareness.model.memory_decoder import MemoryDecoder
    from awareness.train.data.repostack import SourceRepository
    from awareness.train.resuming.saved_steps import SavedStep
    from awareness.types import Chunk

app = typer.Typer(no_args_is_help=True, help="List, inspect, merge and export training checkpoints.")
LARGEST = 10  # differences of tensors that are shown
FolderArgument = Annotated[Path, typer.Argument(help="A folder that training wrote.")]
OutArgument = Annotated[Path, typer.Argument(help="The file or folder to write; it must not exist yet.")]


class GgufType(str, Enum):
    """Types of `awareness.model.gguf_tensors`."""

    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    q8_0 = "q8_0"
    q4_0 = "q4_0"


@app.command()
def show(
    checkpoint: FolderArgument,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Show the base model, the settings, the size and the repository memory of a checkpoint."""
    from awareness.model.checkpoint import WEIGHTS, Checkpoint
    from awareness.model.memory_record import MemoryRecord

    read, record = Checkpoint.read(checkpoint), MemoryRecord.read(checkpoint)
    parts: dict[str, int] = defaultdict(int)
    for name, tensor in read.tensors(checkpoint).items():
        parts["lora" if "lora_" in name else ".".join(name.split(".")[:2])] += tensor.numel()
    latents = _kept_latents(checkpoint)
    description = {
        "base": read.base,
        "fingerprint": read.fingerprint,
        "bank_quant": read.bank,
        "parameters": parts,
        "bytes": (checkpoint / WEIGHTS).stat().st_size,
        "model": read.model.model_dump(exclude_unset=True),  # for an existing decoder, only what was set
        "memory": read.memory.model_dump(mode="json"),
        "latents": latents,
        "repository_memory": None if record is None else {"digest": record.digest, **record.model_dump(mode="json")},
    }
    if format is options.Format.json:
        render.data(description)
        return
    render.text(f"{checkpoint}: trained on {read.base}, {description['bytes']} bytes")
    render.table(("part", "parameters"), [(part, f"{size:,}") for part, size in sorted(parts.items())])
    settings = {**read.model.model_dump(exclude_defaults=True), **read.memory.model_dump(exclude_defaults=True)}
    render.table(("setting that is not the default", "value"), [(name, str(value)) for name, value in settings.items()])
    if latents is not None:
        size = human_bytes(latents["bytes"])
        render.text(
            f"latents kept in it: {counted(latents['documents'], 'document')}, {size}, quant {latents['quant']}"
        )
    if record is None:
        render.text("repository memory: unknown, as an earlier version wrote this checkpoint")
        return
    render.text(f"repository memory: {record.summary}")
    if record.sources:
        columns = ("source", "licence", "for", "chunks used", "of", "place")
        rows = [(s.name, s.licence, s.split, s.kept, s.chunks, _pinned(s.place, s.commit)) for s in record.sources]
        render.table(columns, rows)
        render.note(f"compare it with the sources of now: awareness checkpoints memory {checkpoint}")


def _kept_latents(checkpoint: Path) -> dict[str, Any] | None:
    """What the LatentMemoryStore in a checkpoint has; None if there is none."""
    from awareness.engine.document_store import MEMORY_FOLDER, LatentMemoryStore

    if not (checkpoint / MEMORY_FOLDER).is_dir():
        return None
    store = LatentMemoryStore.load(checkpoint)
    documents = store.documents()
    size = sum(document.nbytes for document in documents)
    tokens = sum(document.tokens for document in documents)
    return {"documents": len(documents), "tokens": tokens, "bytes": size, "quant": store.quant}


def _pinned(place: str, commit: str | None) -> str:
    return place if commit is None else f"{place} @ {commit[:12]}"


@app.command()
def memory(
    checkpoint: FolderArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for the latents (a LatentMemoryStore); it must not exist yet."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the latents in the checkpoint, for LatentMemoryStore.load.")
    ] = False,
    quant: options.QuantOption = None,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Make the repository memory of a checkpoint again and compare it with the one it was trained with.

    Names each source that is missing or has changed, and exits with 1 then. With --out or --keep, the checkpoint's
    encoder writes the latents of the chunks it was trained with.
    """
    from awareness.engine.document_store import MEMORY_FOLDER
    from awareness.model.checkpoint import Checkpoint
    from awareness.model.memory_record import MemoryRecord
    from awareness.model.token_offsets import token_starts
    from awareness.train.data.prepared_sources import prepared_sources
    from awareness.train.repository_memory import remake

    if out is not None and keep:
        raise UsageError("--out and --keep are both places for the latents", hint="one of them")
    target = checkpoint / MEMORY_FOLDER if keep else out
    if out is not None:
        _must_be_new(out)
    read, record = Checkpoint.read(checkpoint), MemoryRecord.read(checkpoint)
    if record is None or not record.sources:
        why = "is unknown, as an earlier version wrote it" if record is None else "has no repository in it"
        raise UsageError(f"the memory of {checkpoint} {why}", hint=f"awareness checkpoints show {checkpoint}")
    if target is not None and record.spec is None:
        raise UsageError(
            f"{checkpoint} was trained with the chunks as {read.reads}, not as latents: there are none to write",
            hint=f"awareness checkpoints memory {checkpoint}",
        )
    model = pull_known(read.model.base_model_name or read.model.tokenizer_name, render.REPORTER).path
    with render.progress() as progress:
        remade = remake(record, token_starts=token_starts(model), prepared=prepared_sources(model), progress=progress)
    written = 0
    if target is not None and not remade.problems:
        written = _write_memory(checkpoint, remade.repositories, target, quant.value if quant else "none")
    if format is options.Format.json:
        where = {"out": str(target), "documents": written} if written else {}
        fits = not remade.problems
        render.data({"checkpoint": str(checkpoint), "fits": fits, "problems": remade.problems, **where})
    else:
        for problem in remade.problems:
            render.text(problem)
        if not remade.problems:
            render.text(f"{checkpoint}: the sources give the memory that it was trained with: {record.summary}")
        if written:
            render.text(f"{target}: {counted(written, 'document')}")
    if remade.problems:
        raise NothingFound(
            f"{checkpoint} was trained with another memory than its sources give now",
            hint=f"awareness checkpoints show {checkpoint}, which has the place and the commit of each source",
        )


def _write_memory(
    checkpoint: Path, repositories: Iterable[tuple[str, SourceRepository]], target: Path, quant: str
) -> int:
    """Writes the latents of the chunks, a document for each file; returns their number."""
    from awareness.engine.document_store import LatentMemoryStore
    from awareness.model.checkpoint import written_aside
    from awareness.model.context_encoder import ContextEncoder

    documents: dict[str, list[Chunk]] = defaultdict(list)
    metadata = {}
    for split, repository in repositories:
        for chunk in repository.chunks:
            name = f"{repository.name}/{chunk.path}"
            documents[name].append(chunk)
            metadata[name] = {"source": repository.name, "licence": repository.licence, "split": split}
    encoder = ContextEncoder(adapter=checkpoint)
    with written_aside(target) as partial, render.progress() as progress:
        LatentMemoryStore(partial, quant=quant).add_chunks(documents, encoder, metadata=metadata, progress=progress)
    return len(documents)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A folder that training wrote.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Compare two checkpoints: settings key by key, repository memory, and trained tensors."""
    from awareness.model.checkpoint_differences import compare_checkpoints

    found = compare_checkpoints(first, second)
    if format is options.Format.json:
        render.data({"first": str(first), "second": str(second), **found.to_json()})
        return
    if found.settings:
        rows = [(key, str(was), str(now)) for key, was, now in found.settings]
        render.table(("setting", str(first), str(second)), rows)
    else:
        render.text("settings: the same")
    if found.memory is None:
        render.text("repository memory: unknown, as an earlier version wrote one of them")
    else:
        render.text("repository memory: " + ("the same" if not found.memory else "another one"))
        for line in found.memory:
            render.text(f"  {line}")
    for line in found.shapes:
        render.text(line)
    largest = found.tensors[:LARGEST]
    if largest:
        cells = [(t.name, f"{t.norm:.4g}", f"{t.other_norm:.4g}", f"{t.difference:.2%}") for t in largest]
        render.table(("tensor", "norm in the first", "in the second", "|second - first| / |first|"), cells)
    same = f"tensors: {counted(found.same, 'tensor')} of {found.shared} equal to the last bit"
    render.text(f"{same}; all together differ by {found.difference:.2%}" if found.shared else "no tensor is in both")


RunArgument = Annotated[Path, typer.Argument(help="The output_dir of a training run.")]


@app.command("list")
def list_(
    run: RunArgument,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """List the checkpoints of a training run: step, size, validation loss, damage."""
    from awareness.train.log import read_log

    measured = {line["step"]: line["eval_loss"] for line in read_log(run) if "eval_loss" in line}
    steps = _steps(run)
    listed = [
        {
            "path": str(saved.path),
            "step": saved.step,
            "bytes": saved.bytes,
            "validation": measured.get(saved.step),
            "damage": saved.damage,
        }
        for saved in steps
    ]
    if format is options.Format.json:
        render.data({"run": str(run), "final": (run / "final").is_dir(), "checkpoints": listed})
        return
    columns = ("step", "size", "validation loss", "state")
    rows = []
    for entry, saved in zip(listed, steps, strict=True):
        loss = "" if entry["validation"] is None else f"{entry['validation']:.4f}"
        rows.append((saved.step, human_bytes(saved.bytes), loss, saved.damage or "whole"))
    render.table(columns, rows)


@app.command()
def prune(
    run: RunArgument,
    keep: Annotated[int, typer.Option("--keep", min=1, help="How many of the latest checkpoints to keep.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Delete old and damaged checkpoints of a training run; the final and the best one stay."""
    from awareness.train.resuming.saved_steps import outdated, rotate

    before = {saved.path: saved.bytes for saved in _steps(run)}
    deleted = [saved.path for saved in outdated(run, keep)] if dry_run else rotate(run, keep)
    freed = sum(before[path] for path in deleted)
    if format is options.Format.json:
        render.data({"run": str(run), "deleted": [str(path) for path in deleted], "bytes": freed, "dry_run": dry_run})
        return
    for path in deleted:
        render.text(str(path))
    verb = "would be deleted" if dry_run else "deleted"
    render.text(f"{counted(len(deleted), 'checkpoint')} {verb}, {human_bytes(freed)}")


def _steps(run: Path) -> list[SavedStep]:
    """Raises UsageError for a folder that is not the output of a training run."""
    from awareness.train.resuming.saved_steps import saved_steps

    steps = saved_steps(run)
    if not steps and not (run / "log.jsonl").is_file():
        raise UsageError(f"{run} is not the output_dir of a training run", hint="awareness checkpoints list FOLDER")
    return steps


@app.command()
def merge(
    checkpoint: FolderArgument,
    out: OutArgument,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Merge LoRA into the decoder's weights and write a model folder that any program can load."""
    from awareness.model.checkpoint import written_aside

    _must_be_new(out)
    module, base = _loaded(checkpoint)
    if module.adapter is not None:
        raise UsageError(
            f"{checkpoint} has a memory adapter, which cannot be merged into the decoder's weights",
            hint=f"awareness ask --adapter {checkpoint}, or awareness checkpoints export {checkpoint} FOLDER",
        )
    _must_be_of_a_known_form(checkpoint, module)
    with written_aside(out) as partial:
        _plain(module).save_pretrained(partial)
        base.tokenizer.save_pretrained(partial)
    render.text(str(out))
    render.note(f"use it: awareness ask --model {out}")


@app.command()
def export(
    checkpoint: Annotated[
        str, typer.Argument(help="A folder that training wrote, or a model (preset, folder, hub id).")
    ],
    out: Annotated[Path, typer.Argument(help="FILE.gguf, or a folder for `ask --adapter`; it must not exist yet.")],
    drop_memory: Annotated[
        bool, typer.Option("--drop-memory", help="Export the decoder alone, without its memory adapter.")
    ] = False,
    quant: Annotated[
        GgufType | None,
        typer.Option("--quant", help="GGUF only: the type of the weights. Default: as the decoder has them."),
    ] = None,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Export for deployment: a GGUF of the decoder with LoRA merged, or a folder with the bank quantised."""
    _must_be_new(out)
    folder = Path(checkpoint)
    trained = (folder / "config.json").is_file() and (folder / "weights.safetensors").is_file()
    if drop_memory and out.suffix.lower() != ".gguf":
        raise UsageError(f"--drop-memory is for GGUF, and {out} is a folder", hint=f"{out}.gguf")
    if quant is not None and out.suffix.lower() != ".gguf":
        raise UsageError(
            f"--quant {quant.value} is for GGUF, and {out} is a folder",
            hint=f"{out}.gguf; or --weights of `awareness ask`, which quantises while it loads",
        )
    if out.suffix.lower() == ".gguf":
        model, base = _for_gguf(folder, drop_memory) if trained else _base(checkpoint)
        from awareness.model.gguf_export import export_gguf

        with render.progress() as progress:
            export_gguf(model, base.tokenizer, out, quant=quant.value if quant else "none", progress=progress)
    elif not trained:
        raise UsageError(f"{checkpoint} is a model, not a checkpoint: export it as GGUF", hint=f"{out}.gguf")
    else:
        _deploy(folder, out)
    render.text(str(out))


def _deploy(checkpoint: Path, out: Path) -> None:
    """Writes the checkpoint for inference, its bank quantised as `quantize_memory` says."""
    from awareness.model.bank import MemoryBank
    from awareness.model.checkpoint import Checkpoint, save_checkpoint
    from awareness.model.memory_record import MemoryRecord

    read, record = Checkpoint.read(checkpoint), MemoryRecord.read(checkpoint)
    module, base = _loaded(checkpoint)
    if module.adapter is not None and isinstance(module.adapter.bank, MemoryBank) and read.memory.quantize_memory:
        module.adapter.bank = module.adapter.bank.quantised(f"int{read.memory.memory_quant_bits}")
    save_checkpoint(out, module, base.folder, read.model, reads=read.reads, record=record)
    render.note(f"use it: awareness ask --adapter {out}")


def _for_gguf(checkpoint: Path, drop_memory: bool) -> tuple[PreTrainedModel, Decoder]:
    module, base = _loaded(checkpoint)
    _must_be_of_a_known_form(checkpoint, module)
    if module.adapter is not None:
        if not drop_memory:
            raise UsageError(
                f"{checkpoint} has a memory adapter, which GGUF cannot hold",
                hint=f"--drop-memory to export the decoder alone, or awareness checkpoints export {checkpoint} FOLDER",
            )
        from awareness.model.lora import remove_lora

        remove_lora(module.decoder)  # without memory it would be off
    return _plain(module), base


def _base(name: str) -> tuple[PreTrainedModel, Decoder]:
    from awareness.model.fusion import unfuse
    from awareness.model.load import load

    base = load(pull_model(name, render.REPORTER), dtype="auto")
    return unfuse(base.model), base


def _loaded(checkpoint: Path) -> tuple[MemoryDecoder, Decoder]:
    from awareness.model.checkpoint import load_checkpoint

    return load_checkpoint(checkpoint, pull=functools.partial(pull_known, reporter=render.REPORTER), dtype="auto")


def _must_be_of_a_known_form(checkpoint: Path, module: MemoryDecoder) -> None:
    """Raises UsageError for a decoder from scratch that no other program can load."""
    from torch.nn import LayerNorm

    from awareness.model import hf
    from awareness.model.scratch import NoPositions

    has_positions = not isinstance(hf.rotary(module.decoder), NoPositions)
    if not has_positions or isinstance(hf.final_norm(module.decoder), LayerNorm):
        missing = "RMSNorm (model.use_rms_norm)" if has_positions else "RoPE (model.use_rope)"
        raise UsageError(
            f"{checkpoint} is a decoder without {missing}, which no other program can load",
            hint=f"awareness ask --adapter {checkpoint}, which can",
        )


def _plain(module: MemoryDecoder) -> PreTrainedModel:
    """The plain transformers model, with LoRA merged into its weights."""
    from awareness.model.fusion import unfuse
    from awareness.model.lora import merge_lora

    return unfuse(merge_lora(module.decoder))


def _must_be_new(out: Path) -> None:
    if out.exists():
        raise UsageError(f"{out} exists already", hint="another name, or delete it first")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {out.absolute().parent}", hint="create it first")
