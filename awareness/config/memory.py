"""The `memory:` section: which layers read memory and how, latents, the memory bank, and LoRA."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from awareness.config.base import Conflict, Rate, Section

Sharing = Literal["shared", "per_layer", "every_k_layers"]
Strategy = Literal["sequence", "rolling", "token", "hybrid"]
Coefficient = Field(default=0.01, ge=0, allow_inf_nan=False)


class MemoryConfig(Section):
    """docs/model.md has each setting with its formula and the test of its effect.

    Parts. use_memory_adapter, use_lora: one of the two, or both with use_both_memory_and_lora. vanilla_mode: a control
    without memory and LoRA.

    Layers. memory_form: `joint` softmax or a `tanh` gated block. learn_sharpness (joint): a factor of each head on the
    scores of the memory. refuse_above: probability of the taught answer `The code above does not say.` from which it is
    given. memory_block_variant (tanh): A between self-attention and MLP, B after the MLP with an MLP of
    its own. memory_init: `copy` the projections of the layer's self-attention, or `zero`: random ones, W_o zero.
    wo_init_zero: follows memory_init by default. memory_layer_placement: all, the first or last memory_layer_k, every
    memory_layer_n-th, or memory_layer_indices (custom). Layers below gca_start_layer are left out; its default is 0,
    for `all` a sixth of the depth.

    Latents. encoder: `self` is the decoder; `projected` is bidirectional with learned heads, on encoder_model (an
    embedding model; null: the decoder with a full mask). num_header_tokens, num_trailer_tokens: learned vectors around
    each chunk. latent_sharing: how many layers read one stored set.

    Bank. num_memory_tokens: 0 for no bank. memory_dim: the decoder's hidden size by default. memory_sharing: how many
    layers read the same tokens. use_low_rank_memory: tokens are a product of two matrices of memory_rank, or have that
    width. use_chapters: a router picks top_k_chapters of num_chapters. quantize_memory: the bank is stored in
    memory_quant_bits per number after training.
    """

    vanilla_mode: bool = False
    use_memory_adapter: bool = True

    memory_form: Literal["joint", "tanh"] = "tanh"
    learn_sharpness: bool = False
    refuse_above: float = Field(default=0.0, ge=0, lt=1)
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
    memory_layer_indices: tuple[Annotated[int, Field(ge=0)], ...] = ()

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
    def off_switch(self) -> str:
        """The setting by which there is no memory."""
        return "vanilla_mode" if self.vanilla_mode else "use_memory_adapter"

    @property
    def has_bank(self) -> bool:
        return self.has_memory and self.num_memory_tokens > 0

    @property
    def has_lora(self) -> bool:
        return (self.use_lora or self.use_both_memory_and_lora) and not self.vanilla_mode

    def conflicts(self) -> Iterator[Conflict]:
        if self.use_lora and self.has_memory and not self.use_both_memory_and_lora:
            yield Conflict(
                "use_lora",
                "with memory.use_memory_adapter: set memory.use_both_memory_and_lora: true for both, or"
                " memory.use_memory_adapter: false for LoRA alone",
                ("use_memory_adapter", "use_both_memory_and_lora", "vanilla_mode"),
                {"memory.use_both_memory_and_lora": True},
            )
        if self.use_both_memory_and_lora and not self.use_memory_adapter:
            yield Conflict(
                "use_both_memory_and_lora",
                "needs memory.use_memory_adapter: true; for LoRA alone, set memory.use_lora: true instead",
                ("use_memory_adapter",),
                {"memory.use_both_memory_and_lora": False, "memory.use_lora": True},
            )
        yield from self._conflicts_of_layers()
        if self.encoder == "projected":
            for name in ("num_header_tokens", "num_trailer_tokens"):
                if getattr(self, name):
                    yield Conflict(name, "needs memory.encoder: self", ("encoder",), {f"memory.{name}": 0})
        elif self.encoder_model is not None:
            fix = {"memory.encoder": "projected"}
            yield Conflict("encoder_model", "needs memory.encoder: projected", ("encoder",), fix)
        if self.use_chapters and self.num_chapters > self.num_memory_tokens:
            yield Conflict(
                "num_chapters",
                f"is more than memory.num_memory_tokens {self.num_memory_tokens}: a chapter has at least one token",
                ("num_memory_tokens", "use_chapters"),
                {"memory.num_memory_tokens": self.num_chapters},
            )
        if self.use_chapters and self.top_k_chapters > self.num_chapters:
            yield Conflict(
                "top_k_chapters",
                f"is more than memory.num_chapters {self.num_chapters}",
                ("num_chapters", "use_chapters"),
                {"memory.top_k_chapters": self.num_chapters},
            )
        if self.has_lora and not self.lora_targets:
            targets = list(type(self).model_fields["lora_targets"].default)
            yield Conflict(
                "lora_targets",
                "names no projection",
                ("use_lora", "use_both_memory_and_lora"),
                {"memory.lora_targets": targets},
            )

    def _conflicts_of_layers(self) -> Iterator[Conflict]:
        indices = self.memory_layer_indices
        if self.memory_layer_placement == "custom" and not indices:
            yield Conflict(
                "memory_layer_placement",
                "custom needs memory.memory_layer_indices: [8, 16]",
                ("memory_layer_indices",),
                {"memory.memory_layer_indices": [8, 16]},
            )
        if indices and self.memory_layer_placement != "custom":
            yield Conflict(
                "memory_layer_indices",
                "needs memory.memory_layer_placement: custom",
                ("memory_layer_placement",),
                {"memory.memory_layer_placement": "custom"},
            )
        if repeated := sorted({i for i in indices if indices.count(i) > 1}):
            yield Conflict(
                "memory_layer_indices",
                f"names {', '.join(map(str, repeated))} more than once",
                fix={"memory.memory_layer_indices": sorted(set(indices))},
            )
