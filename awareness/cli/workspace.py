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
from awareness.index.layout import IndexLayout, layout_for
from awareness.index.repo import Repository, decode
from awareness.index.store import Snapshot, Store
from awareness.model import sources
from awareness.types import Chunk

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
    """A decoder and the encoder that makes latents with it. quant: how those are stored. trained: with its adapter."""

    decoder: Decoder
    quant: str
    trained: MemoryDecoder | None = None

    @cached_property
    def encoder(self) -> SelfEncoder | ProjectedEncoder:
        if self.trained is not None:
            return self.trained.encoder(self.decoder, self.quant)
        from awareness.model.encoder import SelfEncoder

        fingerprint = self.decoder.folder.fingerprint
        return SelfEncoder(self.decoder.model, self.decoder.tokenizer, fingerprint=fingerprint, quant=self.quant)


def load_model(folder: sources.ModelFolder, quant: str = "none", weights: str = "none") -> LoadedModel:
    """weights: in how many bits the decoder's are held, one of `options.Weights`."""
    from awareness.model.load import load

    render.detail(f"loading {folder.name} from {folder.path}")
    return LoadedModel(_in_few_bits(load(folder), weights), quant)


def load_trained(checkpoint: Path, weights: str = "none") -> LoadedModel:
    """The decoder of a checkpoint, with what was trained. Raises UsageError."""
    from awareness.model.checkpoint import load_for_use

    render.detail(f"loading {checkpoint}")
    module, decoder = load_for_use(checkpoint, pull=pull_known)
    return LoadedModel(_in_few_bits(decoder, weights), "none", module)


def _in_few_bits(decoder: Decoder, weights: str) -> Decoder:
    """Latents that such a decoder makes are its own, so its fingerprint says so."""
    if weights == "none":
        return decoder
    from awareness.model.weights import quantise_weights

    folder = replace(decoder.folder, fingerprint=f"{decoder.folder.fingerprint}-{weights}")
    return replace(decoder, model=quantise_weights(decoder.model, weights), folder=folder)


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
