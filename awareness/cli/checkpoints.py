"""`awareness checkpoints`: list, inspect, merge and export training checkpoints."""

from __future__ import annotations

import functools
from collections import defaultdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from awareness.cli import options, render
from awareness.engine.models import pull_known, pull_model
from awareness.engine.units import counted, human_bytes
from awareness.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from awareness.model.load import Decoder
    from awareness.model.memory_decoder import MemoryDecoder
    from awareness.train.resume import SavedStep

app = typer.Typer(no_args_is_help=True, help="List, inspect, merge and export training checkpoints.")
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
    """Show the base model, the settings and the size of a checkpoint."""
    from awareness.model.checkpoint import WEIGHTS, Checkpoint

    read = Checkpoint.read(checkpoint)
    parts: dict[str, int] = defaultdict(int)
    for name, tensor in read.tensors(checkpoint).items():
        parts["lora" if "lora_" in name else ".".join(name.split(".")[:2])] += tensor.numel()
    description = {
        "base": read.base,
        "fingerprint": read.fingerprint,
        "bank_quant": read.bank,
        "parameters": parts,
        "bytes": (checkpoint / WEIGHTS).stat().st_size,
        "model": read.model.model_dump(exclude_unset=True),  # for an existing decoder, only what was set
        "memory": read.memory.model_dump(mode="json"),
    }
    if format is options.Format.json:
        render.data(description)
        return
    render.text(f"{checkpoint}: trained on {read.base}, {description['bytes']} bytes")
    render.table(("part", "parameters"), [(part, f"{size:,}") for part, size in sorted(parts.items())])
    settings = {**read.model.model_dump(exclude_defaults=True), **read.memory.model_dump(exclude_defaults=True)}
    render.table(("setting that is not the default", "value"), [(name, str(value)) for name, value in settings.items()])


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
    from awareness.train.resume import outdated, rotate

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
    from awareness.train.resume import saved_steps

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

    read = Checkpoint.read(checkpoint)
    module, base = _loaded(checkpoint)
    if module.adapter is not None and isinstance(module.adapter.bank, MemoryBank) and read.memory.quantize_memory:
        module.adapter.bank = module.adapter.bank.quantised(f"int{read.memory.memory_quant_bits}")
    save_checkpoint(out, module, base.folder, read.model)
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
