"""The sizes of a decoder, read from its config.json: what settings have to fit is known before weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig

from awareness.config.decoder import ModelConfig
from awareness.model import hf
from awareness.model.model_files import ModelFolder
from awareness.model.scratch import qwen3_config


@dataclass(frozen=True)
class DecoderShape:
    """name: as a message calls it. linears: name of a projection -> its numbers of inputs and outputs, in every layer.
    positions: the most tokens of a text."""

    name: str
    num_layers: int
    hidden_size: int
    linears: dict[str, tuple[int, int]]
    positions: int

    @classmethod
    def of_folder(cls, folder: ModelFolder) -> DecoderShape | None:
        """None for what is not a decoder that can read memory; loading it says why."""
        try:
            config = AutoConfig.from_pretrained(folder.path, trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError, KeyError):
            return None
        return cls.of_config(folder.name, config) if hf.is_supported(config) else None

    @classmethod
    def of_settings(cls, config: ModelConfig) -> DecoderShape:
        """Of a decoder that is made from scratch."""
        return cls.of_config("the decoder from scratch", qwen3_config(config))

    @classmethod
    def of_config(cls, name: str, config: Any) -> DecoderShape:
        """config: of transformers."""
        return cls(
            name,
            config.num_hidden_layers,
            config.hidden_size,
            hf.linear_sizes(config),
            config.max_position_embeddings,
        )

    def full_rank(self, *names: str) -> int:
        """The largest rank that one of these projections can have."""
        return max(min(self.linears[name]) for name in names)
