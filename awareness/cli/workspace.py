"""What every command on a repository needs: the repository, its index, its model, each made when first asked for.

Here `index` and `model` are handed to each other. Torch is imported only by `load_model` and what follows from it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from awareness.cli import options, render
from awareness.errors import IndexCorrupt, NoIndex, UsageError
from awareness.index import build
from awareness.index.files.repository import Repository, decode
from awareness.index.store.layout import IndexLayout, layout_for
from awareness.index.store.store import Snapshot, Store
from awareness.model import sources
from awareness.types import Chunk, digest

if TYPE_CHECKING:
    from awareness.model.encoder import SelfEncoder
    from awareness.model.load import Decoder
    from awareness.model.memory_decoder import MemoryDecoder
    from awareness.model.projected import ProjectedEncoder


@dataclass
class Workspace:
    """A repository (its work tree, or the commit `rev`) together with its index."""

    repository: Repository
    layout: IndexLayout
    rev: str | None

    @classmethod
    def open(cls, path: Path, *, rev: str | None = None, local: bool = False) -> Workspace:
        repository = Repository.open(path)
        commit = repository.resolve(rev) if rev else None
        return cls(repository, layout_for(repository.key, repository.root, local=local), commit)

    @property
    def snapshot_name(self) -> str:
        return build.snapshot_name(self.repository, self.rev)

    def existing_layout(self) -> IndexLayout:
        """Where the index is. Raises NoIndex."""
        if not self.layout.exists:
            raise NoIndex(f"{self.repository.root} is not indexed yet", hint=f"awareness index {self.repository.root}")
        return self.layout

    def open_snapshot(self) -> tuple[Store, Snapshot]:
        """The index and this workspace's snapshot in it. Raises NoIndex."""
        command = f"awareness index {self.repository.root}" + (f" --rev {self.rev[:12]}" if self.rev else "")
        try:
            store = Store.open(self.layout)
        except NoIndex:
            raise NoIndex(f"{self.repository.root} is not indexed yet", hint=command) from None
        snapshot = store.snapshot(self.snapshot_name)
        if snapshot is None:
            store.close()
            raise NoIndex(f"{self.rev or self.repository.root} is not in the index yet", hint=command)
        return store, snapshot

    def model_name(self, asked_for: str | None) -> str:
        """The model asked for, else the one the snapshot was indexed for, else the default."""
        if asked_for:
            return asked_for
        if self.layout.exists:
            with contextlib.suppress(IndexCorrupt), Store.open(self.layout) as store:
                if known := store.snapshot(self.snapshot_name):
                    return known.model
        return sources.DEFAULT_MODEL

    def shows(self, chunk: Chunk) -> bool:
        """Reads the chunk's lines again: are they what was encoded?"""
        data = self.repository.read(chunk.path, rev=self.rev)
        if data is None:
            return False
        lines = decode(data).split("\n")[chunk.start_line - 1 : chunk.end_line]
        now = "\n".join(lines)
        return now == chunk.text or (chunk.start_line == chunk.end_line and chunk.text in now)

    def refresh(self, store: Store, folder: sources.ModelFolder, *, scope: Sequence[str] = ()) -> build.Refreshed:
        """Brings the routing index up to date. Call inside `writing(layout)`."""
        with render.progress() as progress:
            return build.refresh(
                store,
                self.repository,
                model=folder.name,
                fingerprint=folder.fingerprint,
                token_starts=lambda: sources.token_starts(folder),
                rev=self.rev,
                scope=scope,
                progress=progress,
            )


def pull_model(name: str) -> sources.ModelFolder:
    """The model's folder, fetched with a bar if it is missing."""
    if found := sources.find(name):
        return found
    render.note(f"fetching {name}, once")
    with render.progress() as progress:
        return sources.pull(name, progress)


def pull_known(name: str) -> sources.ModelFolder:
    """As `pull_model`, of what a file names that may come from a stranger: a preset, or a model that is here already.
    Raises UsageError."""
    if name not in (*sources.PRESETS, *sources.EMBEDDERS) and sources.find(name) is None:
        raise UsageError(f"it needs the model '{name}'", hint=f"awareness models pull {name}, if you trust it")
    return pull_model(name)


@dataclass(frozen=True)
class LoadedModel:
    """A decoder and the encoder that makes latents with it. quant: how those are stored. weights: by which it decodes.
    trained: with its adapter."""

    decoder: Decoder
    quant: str
    weights: str
    trained: MemoryDecoder | None = None

    @cached_property
    def encoder(self) -> SelfEncoder | ProjectedEncoder:
        if self.trained is not None:
            return self.trained.encoder(self.decoder, self.quant)
        from awareness.model.encoder import SelfEncoder

        fingerprint = self.decoder.folder.fingerprint
        return SelfEncoder(self.decoder.model, self.decoder.tokenizer, fingerprint=fingerprint, quant=self.quant)


def load_model(
    folder: sources.ModelFolder, quant: str = "none", weights: options.Weights | None = options.Weights.none
) -> LoadedModel:
    """weights: by which it decodes, None for the model's own."""
    from awareness.model.load import load
    from awareness.model.threads import use_idle_cores

    use_idle_cores()
    render.detail(f"loading {folder.name} from {folder.path}")
    decoder, how = _decoding_by(load(folder), weights)
    return LoadedModel(decoder, quant, how)


def load_trained(checkpoint: Path, weights: options.Weights | None = options.Weights.none) -> LoadedModel:
    """The decoder of a checkpoint, with what was trained. Raises UsageError."""
    from awareness.model.checkpoint import load_for_use
    from awareness.model.threads import use_idle_cores

    use_idle_cores()
    render.detail(f"loading {checkpoint}")
    module, decoder = load_for_use(checkpoint, pull=pull_known)
    decoder, how = _decoding_by(decoder, weights, is_trained=True)
    return LoadedModel(decoder, "none", how, module)


def _decoding_by(
    decoder: Decoder, asked_for: options.Weights | None, *, is_trained: bool = False
) -> tuple[Decoder, str]:
    """The decoder with the weights that it decodes by, and which those are. Latents are made by the published weights
    where those are still there (weights.py); where they were replaced, the latents of such a decoder are its own, so
    its fingerprint says so. is_trained: its weights may be others than those of the folder, whose packed ones are kept.
    """
    from awareness.model.settings import settings_of
    from awareness.model.weights import is_packed, quantise_weights

    own = settings_of(decoder.folder.name).weights if decoder.model.device.type == "cpu" else "none"
    how = own if asked_for is None else asked_for.value
    if how == "none":
        return decoder, how
    packed = sources.models_dir() / "packed" / f"{digest(decoder.folder.fingerprint)[:32]}-{how}.safetensors"
    with render.progress() as progress:
        model = quantise_weights(decoder.model, how, keep=None if is_trained else packed, progress=progress)
    if is_packed(model):
        return replace(decoder, model=model), how
    folder = replace(decoder.folder, fingerprint=f"{decoder.folder.fingerprint}-{how}")
    return replace(decoder, model=model, folder=folder), how


DEFAULT_QUANT = "int4"
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def parse_bytes(text: str) -> int:
    """'512MiB' -> 536870912. Raises UsageError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if not found or found[2].lower() not in _UNITS:
        raise UsageError(f"'{text}' is not a size", hint="a number with a unit, like --budget 512MiB")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def quant_of(store: Store, asked_for: options.Quant | None = None) -> str:
    """How this index stores latents: as asked for now, which is remembered, else as before, else the default."""
    if asked_for is None:
        return store.setting("quant") or DEFAULT_QUANT
    if store.setting("quant") != asked_for.value:
        store.remember("quant", asked_for.value)
    return asked_for.value
