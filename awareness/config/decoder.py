"""The `model:` section: the decoder that reads memory, an existing one or one made from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, PrivateAttr, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler

from awareness.config.base import Conflict, Rate, Section

OF_ANY_BASE = ("base_model_name", "freeze_base_model", "use_flash_attention")
"""The settings of any decoder. All others are for one made from scratch."""


class ModelConfig(Section):
    """base_model_name: preset, hub id or folder of a decoder. It stays frozen unless freeze_base_model is false.

    With `base_model_name: null` the other settings define a decoder of the Qwen3 architecture (model/scratch.py).
    num_kv_heads: num_heads by default. intermediate_dim: by default 8/3 of hidden_dim, rounded up to a multiple of 64
    (SwiGLU, Shazeer 2020). vocab_size: the tokenizer's by default. tokenizer_name: preset, hub id or folder of a model
    that has the tokenizer. max_seq_len: in tokens. use_rope false: no positions except those implied by the causal mask
    (NoPE, Kazemnejad et al. 2023). use_rms_norm false: LayerNorm. dropout: of the embeddings and of the outputs of
    attention and MLP. use_flash_attention false: the eager kernel.
    """

    base_model_name: str | None = "smollm2-135m"
    freeze_base_model: bool = True
    hidden_dim: int = Field(default=512, ge=8)
    num_heads: int = Field(default=8, ge=1)
    num_kv_heads: int | None = Field(default=None, ge=1)
    num_layers: int = Field(default=8, ge=1)
    intermediate_dim: int | None = Field(default=None, ge=1)
    vocab_size: int | None = Field(default=None, ge=1)
    max_seq_len: int = Field(default=2048, ge=8)
    tokenizer_name: str = "smollm2-135m"
    use_rope: bool = True
    rope_theta: float = Field(default=10_000.0, gt=0, allow_inf_nan=False)
    dropout: Rate = 0.0
    attention_dropout: Rate = 0.0
    norm_eps: float = Field(default=1e-6, gt=0, allow_inf_nan=False)
    use_rms_norm: bool = True
    use_flash_attention: bool = True

    _ignored: Mapping[str, Any] = PrivateAttr(default={})

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_kind(cls, given: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        """`model: qwen3-0.6b` is short for the section with that base_model_name. Files of the earlier system hold the
        settings of a new decoder beside a base model; they are left out, and not even checked."""
        given = {"base_model_name": given} if isinstance(given, str) else given
        ignored: dict[str, Any] = {}
        if isinstance(given, Mapping) and given.get("base_model_name") is not None:
            ignored = {n: given[n] for n in cls.model_fields if n in given and n not in OF_ANY_BASE}
            given = {name: value for name, value in given.items() if name not in ignored}
        section: ModelConfig = handler(given)
        if ignored:
            section._ignored = ignored
        return section

    def conflicts(self) -> Iterator[Conflict]:
        if self.base_model_name is not None:
            for name in sorted(self.model_fields_set - set(OF_ANY_BASE)):
                yield Conflict(
                    name,
                    "is only for a decoder made from scratch: set model.base_model_name: null (or a base model, which"
                    " ignores it)",
                    ("base_model_name",),
                    {"model.base_model_name": None},
                )
            return
        if self.hidden_dim % self.num_heads:
            yield Conflict(
                "hidden_dim",
                f"is not divisible by model.num_heads {self.num_heads}",
                ("num_heads",),
                {"model.hidden_dim": -(-self.hidden_dim // (2 * self.num_heads)) * 2 * self.num_heads},
            )
        elif self.use_rope and self.hidden_dim // self.num_heads % 2:
            yield Conflict(
                "hidden_dim",
                f"divided by model.num_heads {self.num_heads} is odd: RoPE rotates pairs of numbers",
                ("num_heads", "use_rope"),
                {"model.hidden_dim": self.hidden_dim + self.num_heads},
            )
        if self.num_kv_heads is not None and self.num_heads % self.num_kv_heads:
            yield Conflict(
                "num_kv_heads",
                f"does not divide model.num_heads {self.num_heads}",
                ("num_heads",),
                {"model.num_kv_heads": self.num_heads},
            )


def ignored_settings(config: ModelConfig) -> Mapping[str, Any]:
    """The settings of a decoder from scratch that stand beside a base model: name -> value, as it was given."""
    return config._ignored
