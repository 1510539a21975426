"""The `model:` section: the decoder that reads memory, an existing one or one made from scratch."""

from __future__ import annotations

from pydantic import Field, model_validator

from awareness.config.base import Rate, Section

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

    @model_validator(mode="after")
    def _fits(self) -> ModelConfig:
        if self.base_model_name is not None:
            if without_effect := sorted(self.model_fields_set - set(OF_ANY_BASE)):
                raise ValueError(
                    f"{', '.join(without_effect)}: only for a decoder made from scratch, but base_model_name is"
                    f" '{self.base_model_name}'; set base_model_name: null, or remove these settings"
                )
            return self
        if self.hidden_dim % self.num_heads:
            raise ValueError(f"hidden_dim {self.hidden_dim} is not divisible by num_heads {self.num_heads}")
        if self.use_rope and self.hidden_dim // self.num_heads % 2:
            raise ValueError(
                f"hidden_dim {self.hidden_dim} / num_heads {self.num_heads} is odd: RoPE rotates pairs of numbers"
            )
        if self.num_kv_heads is not None and self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is not divisible by num_kv_heads {self.num_kv_heads}")
        return self
