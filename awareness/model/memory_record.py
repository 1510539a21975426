"""memory.json of a checkpoint: the repository memory that it was trained with, and how to make it again.

The chunks themselves are not in it, only their digests, so it is small and holds no text of the sources.
train/repository_memory.py makes it, and makes the memory again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError, field_validator

from awareness.config.base import Section
from awareness.config.training import DataConfig
from awareness.errors import UsageError
from awareness.types import MemorySpec, digest, numbered, printable

MEMORY_RECORD = "memory.json"
FORMAT_VERSION = 1


class RecordedSource(Section):
    """place: a folder or an archive, or `pypi:NAME==VERSION`. commit: that was checked out there, null without git.
    split: `train` or `validation`. files: of source code. chunks: in them. kept: chunks that were used. content: digest
    of paths and bytes of all files that were read. memory: digest of the chunks that were used."""

    name: str
    place: str
    commit: str | None
    licence: str
    split: str
    files: int
    chunks: int
    kept: int
    content: str
    memory: str

    @property
    def label(self) -> str:
        return printable(f"{self.name} ({self.place})")


class MemoryRecord(Section):
    """base, fingerprint: of the decoder that was trained. encoder: the MemorySpec of the latents, null if no latents
    were read. learned: the training changed the encoder, so that each checkpoint makes latents of its own. data: the
    section `data:` with every source by its place; null for a training on texts. seed: of the training."""

    base: str
    fingerprint: str
    encoder: dict[str, Any] | None
    learned: bool
    data: DataConfig | None
    seed: int
    sources: tuple[RecordedSource, ...]

    @field_validator("encoder")
    @classmethod
    def _is_a_spec(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            return value if value is None else cls.spec_fields(MemorySpec.from_json(json.dumps(value)))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("not a MemorySpec") from error

    @staticmethod
    def spec_fields(spec: MemorySpec) -> dict[str, Any]:
        """A spec, without quantisation, as `encoder` holds it."""
        fields: dict[str, Any] = json.loads(spec.raw.to_json())
        return fields

    @property
    def spec(self) -> MemorySpec | None:
        return None if self.encoder is None else MemorySpec.from_json(json.dumps(self.encoder))

    @property
    def digest(self) -> str:
        """Of the memory: its chunks by source and split, and the encoder."""
        parts = [part for source in self.sources for part in (source.name, source.split, source.memory)]
        return digest(json.dumps(self.encoder, sort_keys=True), *parts)

    @property
    def summary(self) -> str:
        """The memory in one line."""
        if self.data is None:
            return "no repository, it was trained on texts"
        parts = []
        for split in ("train", "validation"):
            own = [source for source in self.sources if source.split == split]
            kept = numbered(sum(source.kept for source in own), "chunk")
            parts.append(f"{kept} of {numbered(len(own), 'source')} for {split}")
        return f"{', '.join(parts)}, digest {self.digest[:16]}"

    def write(self, folder: Path) -> None:
        content = {"format_version": FORMAT_VERSION, "digest": self.digest, **self.model_dump(mode="json")}
        (folder / MEMORY_RECORD).write_text(json.dumps(content, indent=1) + "\n", "utf-8")

    @classmethod
    def read(cls, checkpoint: Path) -> MemoryRecord | None:
        """None for a checkpoint that has no record: an earlier version wrote it. Raises UsageError for a damaged one,
        and for one of an unknown version."""
        path = checkpoint / MEMORY_RECORD
        hint = "train again, or delete it: then the checkpoint's memory is unknown"
        try:
            content: dict[str, Any] = json.loads(path.read_text("utf-8"))
            version, written = content.pop("format_version"), content.pop("digest")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"{path} can't be read: {type(error).__name__}", hint=hint) from error
        if version != FORMAT_VERSION or type(version) is not int:
            raise UsageError(f"{path} has format {version!r}; this program reads {FORMAT_VERSION}", hint=hint)
        try:
            record = cls(**content)
        except (ValidationError, TypeError) as error:
            why = " ".join(str(error).split())
            raise UsageError(f"{path} is damaged or of another program: {why:.200}", hint=hint) from error
        if record.digest != written:
            raise UsageError(f"{path} is damaged: its digest is {record.digest[:16]}, not {written!s:.16}", hint=hint)
        return record

    def differences(self, other: MemoryRecord) -> list[str]:
        """What another memory has otherwise than this one, a line each; none if both are the same memory."""
        lines = list(_of_sources(self.sources, other.sources))
        if self.spec != other.spec:
            lines.append(f"the encoder was {_named(self)}, now {_named(other)}")
        return lines


def _named(record: MemoryRecord) -> str:
    spec = record.spec
    if spec is None:
        return "none"
    layers = numbered(len(spec.layers), "layer")
    return f"{spec.encoder} of {printable(record.base)}, {layers}, {spec.dtype} ({spec.key[:12]})"


def _of_sources(first: tuple[RecordedSource, ...], second: tuple[RecordedSource, ...]) -> Iterator[str]:
    before, after = ({source.name: source for source in sources} for sources in (first, second))
    for name in dict.fromkeys((*before, *after)):
        was, is_now = before.get(name), after.get(name)
        if is_now is None:
            assert was is not None
            yield f"{was.label} is missing"
        elif was is None:
            yield f"{is_now.label} is new"
        elif was.content != is_now.content:
            commits = ""
            if was.commit and is_now.commit and was.commit != is_now.commit:
                commits = f": commit {was.commit[:12]} was checked out, now {is_now.commit[:12]}"
            yield f"{was.label} has other files{commits}"
        elif was.split != is_now.split:
            yield f"{was.label} was for {was.split}, now for {is_now.split}"
        elif was.memory != is_now.memory:
            yield f"{was.label} has the same files, but other chunks ({was.kept} were used, now {is_now.kept})"
