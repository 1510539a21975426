"""The `memory:` section: which layers read memory, how, what a bank holds, and LoRA beside it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from awareness.config.base import Rate, Section

Sharing = Literal["shared", "per_layer", "every_k_layers"]
Strategy = Literal["sequence", "rolling", "token", "hybrid"]
Coefficient = Field(default=0.01, ge=0, allow_inf_nan=False)


class MemoryConfig(Section):
    """Settings by what they concern; docs/model.md has each with its formula and the test of its effect.

    What there is. vanilla_mode: a control without any memory and LoRA. use_memory_adapter, use_lora: one of them, or
    with use_both_memory_and_lora the two.

    How a layer reads. memory_form: `joint` softmax or a `tanh` gated block. memory_block_variant (tanh): A between
    self-attention and MLP, B behind the MLP with an MLP of its own. memory_init: projections copied from the layer's
    self-attention, or drawn (`zero`: with W_o zero). wo_init_zero: by default what memory_init says.

    Which layers. memory_layer_placement: all, the first or last memory_layer_k, every memory_layer_n-th, or
    memory_layer_indices (custom); of these the ones from gca_start_layer up, by default 0, and for `all` a sixth of the
    depth.

    Latents. encoder: `self` is the decoder's own, `projected` is bidirectional with learned heads, on encoder_model
    (an embedding model; null: the decoder with a full mask). num_header_tokens, num_trailer_tokens: learned vectors
    around each chunk. latent_sharing: how many layers read one stored set.

    A bank. num_memory_tokens: 0 is none. memory_dim: by default the decoder's hidden size. memory_sharing: how many
    layers read the same tokens. use_low_rank_memory with memory_rank: tokens as a product of two matrices, or of that
    width. use_chapters: a router picks top_k_chapters of num_chapters. quantize_memory: the bank is stored with
    memory_quant_bits a number once training is over.
    """

    vanilla_mode: bool = False
    use_memory_adapter: bool = True

    memory_form: Literal["joint", "tanh"] = "tanh"
    memory_block_variant: Literal["A", "B"] = "A"
    memory_init: Literal["copy", "zero"] = "copy"
    wo_init_zero: bool | None = None
    memory_init_std: float = Field(default=0.02, gt=0, allow_inf_nan=False)
    memory_dropout: Rate = 0.0
    memory_gradient_checkpointing: bool = False
    use_low_rank_projections: bool = False
    projection_rank: int = Field(default=64, ge=1, le=1 << 16)

    gca_start_layer: int | None = Field(default=None, ge=0)
    memory_layer_placement: Literal["all", "first_k", "last_k", "every_n", "custom"] = "all"
    memory_layer_k: int = Field(default=8, ge=1)
    memory_layer_n: int = Field(default=2, ge=1)
    memory_layer_indices: tuple[int, ...] = ()

    encoder: Literal["self", "projected"] = "self"
    encoder_model: str | None = None
    num_header_tokens: int = Field(default=0, ge=0, le=256)
    num_trailer_tokens: int = Field(default=0, ge=0, le=256)
    latent_sharing: Sharing = "per_layer"
    latent_sharing_k: int = Field(default=2, ge=1)

    num_memory_tokens: int = Field(default=1024, ge=0, le=1 << 24)
    memory_dim: int | None = Field(default=None, ge=1, le=1 << 16)
    memory_sharing: Sharing = "shared"
    memory_sharing_k: int = Field(default=2, ge=1)
    use_low_rank_memory: bool = False
    memory_rank: int = Field(default=64, ge=1, le=1 << 16)
    low_rank_mode: Literal["factorized", "reduced_dim"] = "factorized"
    quantize_memory: bool = False
    memory_quant_bits: Literal[8, 4] = 8

    use_chapters: bool = False
    num_chapters: int = Field(default=100, ge=1)
    top_k_chapters: int = Field(default=20, ge=1)
    routing_strategy_train: Strategy = "sequence"
    routing_strategy_inference: Strategy = "sequence"
    routing_window_size: int = Field(default=128, ge=1)
    use_load_balance_loss: bool = True
    load_balance_coefficient: float = Coefficient
    use_auxiliary_loss: bool = False
    auxiliary_loss_coefficient: float = Coefficient
    use_z_loss: bool = True
    z_loss_coefficient: float = Field(default=0.001, ge=0, allow_inf_nan=False)

    use_lora: bool = False
    use_both_memory_and_lora: bool = False
    lora_rank: int = Field(default=16, ge=1, le=1 << 16)
    lora_alpha: float = Field(default=32.0, gt=0, allow_inf_nan=False)
    lora_dropout: Rate = 0.0
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")

    @property
    def has_memory(self) -> bool:
        return self.use_memory_adapter and not self.vanilla_mode

    @property
    def has_lora(self) -> bool:
        return (self.use_lora or self.use_both_memory_and_lora) and not self.vanilla_mode

    @model_validator(mode="after")
    def _fits(self) -> MemoryConfig:
        if self.use_lora and self.has_memory and not self.use_both_memory_and_lora:
            raise ValueError(
                "use_lora beside use_memory_adapter: set use_both_memory_and_lora: true for the two together, or"
                " use_memory_adapter: false for LoRA alone"
            )
        if self.use_both_memory_and_lora and not self.use_memory_adapter:
            raise ValueError("use_both_memory_and_lora, but use_memory_adapter is false")
        if self.memory_layer_placement == "custom" and not self.memory_layer_indices:
            raise ValueError("memory_layer_placement custom needs memory_layer_indices: [8, 16]")
        if self.memory_layer_indices and self.memory_layer_placement != "custom":
            raise ValueError("memory_layer_indices need memory_layer_placement: custom")
        if self.encoder == "projected" and (self.num_header_tokens or self.num_trailer_tokens):
            raise ValueError("num_header_tokens and num_trailer_tokens are read by encoder: self only")
        if self.encoder_model is not None and self.encoder != "projected":
            raise ValueError(f"encoder_model '{self.encoder_model}' is read by encoder: projected only")
        if self.use_chapters:
            if self.num_memory_tokens < self.num_chapters:
                raise ValueError(
                    f"num_chapters {self.num_chapters} is more than num_memory_tokens {self.num_memory_tokens}"
                )
            if self.top_k_chapters > self.num_chapters:
                raise ValueError(f"top_k_chapters {self.top_k_chapters} is more than num_chapters {self.num_chapters}")
        return self
