"""What all measures need: repositories, a model, and the readers to compare."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awareness.engine.models import pull_known, pull_model
from awareness.engine.reporter import SILENT, Reporter
from awareness.engine.workspace import DEFAULT_QUANT
from awareness.errors import UsageError
from awareness.index.files.file_kinds import FileKind, kind_of
from awareness.index.files.repository import Repository, SourceFile
from awareness.model.model_files import ModelFolder
from awareness.model.presets import DEFAULT_MODEL
from awareness.model.token_offsets import token_starts
from awareness.types import Chunk, Progress

if TYPE_CHECKING:
    from awareness.evals.readers import Reader


@dataclass(frozen=True)
class Setup:
    """repos: folders; without any, the current one. model: of the untrained readers, by name; None for that of the
    first checkpoint, else the default. reader_names: of readers beside those of the checkpoints. quant: how latents are
    stored. seed: for everything that is drawn. latents: a folder that keeps those of drawn chunks for other runs."""

    repos: Sequence[Path] = ()
    model: str | None = None
    checkpoints: Sequence[Path] = ()
    reader_names: Sequence[str] = ()
    quant: str = DEFAULT_QUANT
    seed: int = 0
    latents: Path | None = None
    reporter: Reporter = SILENT

    @cached_property
    def folder(self) -> ModelFolder:
        """Of the model, whose tokens bound all chunks; downloaded if necessary. Raises ModelNotAvailable."""
        if self.model is None and self.checkpoints:
            from awareness.model.checkpoint import Checkpoint

            return pull_known(Checkpoint.read(self.checkpoints[0]).base, self.reporter)
        return pull_model(self.model or DEFAULT_MODEL, self.reporter)

    @cached_property
    def repositories(self) -> list[Repository]:
        """Raises UsageError for a folder outside of any repository."""
        return [Repository.open(path) for path in self.repos or [Path()]]

    @property
    def repository_folder(self) -> str:
        """Name of the first folder of `repos`, as it was given."""
        return next(iter(self.repos), Path()).resolve().name

    @property
    def repository_names(self) -> list[str]:
        return [repository.root.name for repository in self.repositories]

    @property
    def settings(self) -> dict[str, Any]:
        """As they stand in the JSON of most measures."""
        return {"model": self.folder.name, "quant": self.quant, "seed": self.seed}

    def chunks(self, chunk_tokens: int) -> list[Chunk]:
        """Those of all repositories, as `source_chunks` gives them."""
        return [c for repository in self.repositories for c in source_chunks(repository, self.folder, chunk_tokens)]

    def open_readers(self, *, without: Sequence[str] = (), weights: str | None = "none") -> list[Reader]:
        """Loads the readers of these names and those of the checkpoints. weights: what they decode with, None for the
        choice of `ask`. Raises UsageError."""
        from awareness.evals.readers import open_readers

        if not self.reader_names and not self.checkpoints:
            raise UsageError("no arms to compare", hint="--arms none,text,joint, or --checkpoint FOLDER")
        names = [name for name in self.reader_names if name not in without]
        options: dict[str, Any] = {
            "quant": self.quant,
            "weights": weights,
            "latents": self.latents,
            "reporter": self.reporter,
        }
        return open_readers(names, self.checkpoints, model=self.folder, **options)

    def progress(self) -> AbstractContextManager[Progress]:
        return self.reporter.progress()


def source_chunks(repository: Repository, folder: ModelFolder, chunk_tokens: int) -> list[Chunk]:
    """The repository's chunks of source code, of at most `chunk_tokens` tokens and at least half as many."""
    from awareness.index.chunks.chunking import chunk_file

    starts = token_starts(folder.path)
    chunks: dict[str, Chunk] = {}
    for file in repository.scan():
        if isinstance(file, SourceFile) and kind_of(file.path) is FileKind.SOURCE:
            for chunk in chunk_file(file.path, file.text, starts, max_tokens=chunk_tokens):
                if len(starts(chunk.encoded_text)) * 2 >= chunk_tokens:
                    chunks[chunk.digest] = chunk
    return list(chunks.values())
