"""`MemoryAdapter`: everything that is learned about reading memory, apart from the decoder itself.

It holds a block or gates for each layer that reads, the bank with its heads and routers, and what is learned of the
encoder. The decoder's weights are not in it, and it is not in the decoder: `attached` brings the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from awareness.config.memory import MemoryConfig
from awareness.errors import UsageError
from awareness.model import hf
from awareness.model.attention import LayerMemory
from awareness.model.attention_record import AttentionRecord
from awareness.model.bank import BankHeads, BankTokens, MemoryBank, QuantisedBank
from awareness.model.chapter_router import ChapterRouter
from awareness.model.cross_attention import JointGates, MemoryBlock
from awareness.model.layer_reading import LayerReading
from awareness.model.router_state import RouterState
from awareness.model.soft_tokens import SoftTokens
from awareness.types import Memory


class MemoryAdapter(nn.Module):
    """`layers` read memory; layer i reads the latents that are stored for layer sets[i].

    encoder: what is learned of the encoder (soft tokens, or a projected encoder's heads), None until it is set.
    """

    def __init__(
        self,
        config: MemoryConfig,
        blocks: Mapping[int, MemoryBlock | JointGates],
        sets: Mapping[int, int],
        bank: MemoryBank | QuantisedBank | None,
    ) -> None:
        super().__init__()
        self.config = config
        self.layers = tuple(blocks)
        self.sets = dict(sets)
        self.blocks = nn.ModuleDict({str(i): block for i, block in blocks.items()})
        self.bank = bank
        self.encoder: nn.Module | None = None

    @property
    def around(self) -> tuple[int, int]:
        """Learned tokens before and after those of each chunk."""
        soft = self.encoder
        return (len(soft.header), len(soft.trailer)) if isinstance(soft, SoftTokens) else (0, 0)

    def readings(
        self, memory: Memory | None, record: AttentionRecord | None, routing: RouterState
    ) -> list[LayerReading]:
        """What each layer reads. Raises UsageError if the memory lacks a layer."""
        if memory is None and self.bank is None:
            return []
        if memory is not None and (missing := set(self.layers) - set(memory.keys)):
            raise UsageError(
                f"the memory has the layers {_listed(memory.keys)}; the adapter also reads {_listed(missing)}",
                hint="encode it for the adapter's layers: assemble(…, reads=adapter.sets)",
            )
        readings = []
        for layer in self.layers:
            block = self.blocks[str(layer)]
            known = self.bank.keys_values(layer) if self.bank is not None and not torch.is_grad_enabled() else None
            readings.append(
                LayerReading(
                    layer,
                    None if memory is None else LayerMemory(memory.keys[layer], memory.values[layer], memory.mask),
                    block if isinstance(block, MemoryBlock) else None,
                    block if isinstance(block, JointGates) else None,
                    self.bank,
                    known,
                    routing,
                    record,
                    dropout=self.config.memory_dropout if self.training else 0.0,
                    recompute=self.config.memory_gradient_checkpointing,
                )
            )
        return readings


def build_adapter(model: PreTrainedModel, config: MemoryConfig) -> MemoryAdapter:
    """A new adapter for `model`, whose weights may be copied but are not kept. Raises UsageError for layers that
    `model` does not have."""
    layers = memory_layers(model.config.num_hidden_layers, config)
    rank = config.projection_rank if config.use_low_rank_projections else None
    decoder = hf.decoder_layers(model)
    blocks: dict[int, MemoryBlock | JointGates] = {}
    for i in layers:
        if config.memory_form == "joint":
            with_bank, with_sharpness = config.num_memory_tokens > 0, config.learn_sharpness
            blocks[i] = JointGates(decoder[i], with_bank=with_bank, with_sharpness=with_sharpness)
        else:
            blocks[i] = MemoryBlock(
                decoder[i],
                variant=config.memory_block_variant,
                init=config.memory_init,
                zero_output=config.memory_init == "zero" if config.wo_init_zero is None else config.wo_init_zero,
                std=config.memory_init_std,
                rank=rank,
            )
    bank = _build_bank(model, config, layers, rank) if config.num_memory_tokens else None
    sets = share(layers, config.latent_sharing, config.latent_sharing_k)
    return MemoryAdapter(config, blocks, sets, bank).to(model.device)


def _build_bank(model: PreTrainedModel, config: MemoryConfig, layers: Sequence[int], rank: int | None) -> MemoryBank:
    hidden, std = model.config.hidden_size, config.memory_init_std
    low_rank = config.low_rank_mode if config.use_low_rank_memory else None
    width = config.memory_rank if low_rank == "reduced_dim" else config.memory_dim or hidden
    token_rank = config.memory_rank if low_rank == "factorized" else None
    sets = share(layers, config.memory_sharing, config.memory_sharing_k)
    decoder = hf.decoder_layers(model)
    tokens = {
        name: BankTokens(config.num_memory_tokens, width, rank=token_rank, std=std)
        for name in dict.fromkeys(sets.values())
    }
    heads = {i: BankHeads(decoder[i], width, init=config.memory_init, std=std, rank=rank) for i in layers}
    routers = {}
    if config.use_chapters:
        routers = {
            i: ChapterRouter(
                hidden,
                config.num_chapters,
                config.top_k_chapters,
                strategy_train=config.routing_strategy_train,
                strategy_inference=config.routing_strategy_inference,
                window_size=config.routing_window_size,
                init_std=std,
            )
            for i in layers
        }
    return MemoryBank(tokens, heads, sets, routers)


def layers_of_placement(num_layers: int, config: MemoryConfig) -> list[int]:
    """The layers that `memory_layer_placement` chooses, ascending, before `gca_start_layer` leaves some out. `custom`
    may choose layers that the decoder does not have."""
    k, n = config.memory_layer_k, config.memory_layer_n
    chosen = {
        "all": range(num_layers),
        "first_k": range(min(k, num_layers)),
        "last_k": range(max(0, num_layers - k), num_layers),
        "every_n": range(n - 1, num_layers, n),
        "custom": sorted(set(config.memory_layer_indices)),
    }
    return list(chosen[config.memory_layer_placement])


def memory_layers(num_layers: int, config: MemoryConfig) -> tuple[int, ...]:
    """The layers that read memory, ascending. Raises UsageError for layers that the decoder does not have."""
    placement, chosen = config.memory_layer_placement, layers_of_placement(num_layers, config)
    if outside := [i for i in chosen if not 0 <= i < num_layers]:
        raise UsageError(
            f"memory.memory_layer_indices: the decoder has the layers 0 to {num_layers - 1}, not {_listed(outside)}"
        )
    lowest = config.gca_start_layer
    if lowest is None:
        lowest = num_layers // 6 if placement == "all" else 0
    if layers := tuple(i for i in chosen if i >= lowest):
        return layers
    raise UsageError(
        f"no layer reads memory: memory_layer_placement {placement} of {num_layers} layers, from gca_start_layer"
        f" {lowest} up",
        hint="a lower memory.gca_start_layer, or another memory.memory_layer_placement",
    )


def share(layers: Sequence[int], sharing: str, k: int) -> dict[int, int]:
    """Layer -> the first layer of its group: all layers, k neighbours, or the layer alone."""
    size = {"shared": len(layers), "every_k_layers": k, "per_layer": 1}[sharing]
    return {layer: layers[i - i % size] for i, layer in enumerate(layers)}


def _listed(layers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(layers)))
