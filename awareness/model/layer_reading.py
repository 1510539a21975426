"""What one decoder layer reads: a repository's memory, a bank, and the modules it reads them with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout as drop
from torch.utils.checkpoint import checkpoint

from awareness.errors import UsageError
from awareness.model.attention import BankPart, JointReading, Kernel, LayerMemory
from awareness.model.attention_record import AttentionRecord
from awareness.model.bank import MemoryBank, QuantisedBank
from awareness.model.chapter_attention import attend_chapters
from awareness.model.cross_attention import JointGates, MemoryBlock
from awareness.model.hf import LayerCall
from awareness.model.router_state import RouterState


@dataclass(frozen=True)
class LayerReading:
    """memory: of the repository. block: the tanh form's modules; gates: the joint form's.

    bank_keys_values: the bank's keys and values, if they are known before the forward pass. dropout: of the values that
    are read. recompute: compute the reading again in the backward pass (gradient checkpointing).
    """

    layer: int
    memory: LayerMemory | None = None
    block: MemoryBlock | None = None
    gates: JointGates | None = None
    bank: MemoryBank | QuantisedBank | None = None
    bank_keys_values: tuple[Tensor, Tensor] | None = None
    routing: RouterState = field(default_factory=RouterState)
    record: AttentionRecord | None = None
    dropout: float = 0.0
    recompute: bool = False

    def read(self, hidden_states: Tensor, *, call: LayerCall, kernel: str) -> Tensor:
        """The tanh form: hidden_states [B, T, d] -> the same after reading."""
        assert self.block is not None
        parts = self._parts(hidden_states, self.block.attention.normed, call)
        if not parts:
            return hidden_states
        step = partial(
            self.block,
            position_embeddings=call.position_embeddings,
            parts=parts,
            kernel=kernel,
            record=self.record if self.memory is not None else None,
            layer=self.layer,
        )
        if self.recompute and torch.is_grad_enabled():
            read: Tensor = checkpoint(step, hidden_states, use_reentrant=False)
        else:
            read = step(hidden_states)
        memory = self._memory_for(len(hidden_states))
        if self.bank is None and memory is not None and memory.mask is not None:
            # A row without memory stays the base model's.
            return torch.where(memory.mask.any(dim=1)[:, None, None], read, hidden_states)
        return read

    def joint(self, hidden_states: Tensor, norm: Callable[[Tensor], Tensor], call: LayerCall) -> JointReading:
        """The joint form, for `attention_forward`. norm: of the hidden states [B, T, d] that a router decides by."""
        parts = self._parts(hidden_states, norm, call)
        memory = parts[0] if self.memory is not None else None
        return JointReading(
            self.layer,
            memory if isinstance(memory, LayerMemory) else None,
            parts[-1] if self.bank is not None else None,
            None if self.gates is None else self.gates.bank_gate,
            self.record if self.memory is not None else None,
            self.recompute,
        )

    def _parts(
        self, hidden_states: Tensor, norm: Callable[[Tensor], Tensor], call: LayerCall
    ) -> list[LayerMemory | BankPart]:
        """The repository's memory, if there is one, then the bank, if there is one."""
        parts: list[LayerMemory | BankPart] = []
        if (memory := self._memory_for(len(hidden_states))) is not None:
            bias = None if self.gates is None else self.gates.bias[:, None]
            sharpness = None if self.gates is None or self.gates.sharpness is None else 1.0 + self.gates.sharpness
            parts.append(replace(memory, value=self._dropped(memory.value), bias=bias, sharpness=sharpness))
        if self.bank is not None:
            parts.append(self._bank_part(self.bank, hidden_states, norm, call))
        return parts

    def _memory_for(self, rows: int) -> LayerMemory | None:
        """The memory for a batch of this many rows: one row for all, one for each, or one for the beams of each. Raises
        UsageError."""
        memory = self.memory
        if memory is None:
            return None
        own = max(memory.key.shape[0], 1 if memory.mask is None else memory.mask.shape[0])
        if own in (1, rows):
            return memory
        if rows % own:
            raise UsageError(f"a memory of {own} rows is read by a batch of {rows}", hint="one row, or one for each")
        beams = partial(torch.repeat_interleave, repeats=rows // own, dim=0)
        mask = None if memory.mask is None else beams(memory.mask)
        return replace(memory, key=beams(memory.key), value=beams(memory.value), mask=mask)

    def _dropped(self, value: Tensor) -> Tensor:
        return drop(value, self.dropout) if self.dropout > 0.0 else value

    def _bank_part(
        self, bank: MemoryBank | QuantisedBank, hidden_states: Tensor, norm: Callable[[Tensor], Tensor], call: LayerCall
    ) -> LayerMemory | BankPart:
        known = self.bank_keys_values
        if known is None or torch.is_grad_enabled():
            known = bank.keys_values(self.layer)
        key, value = (side.to(hidden_states.dtype) for side in known)
        value = self._dropped(value)
        router = bank.router(self.layer)
        if router is None:
            return LayerMemory(key, value)
        choice, gathered = self.routing.route(router, norm(hidden_states), key, value, call)
        # Beside a memory, and in the joint form beside the prompt, p weighs the bank inside the softmax they share.
        memory = self._memory_for(len(hidden_states))
        weighted: bool | Tensor = self.gates is None and memory is None
        if self.gates is None and memory is not None and memory.mask is not None:
            weighted = ~memory.mask.any(dim=1)

        def part(query: Tensor, scale: float, kernel: Kernel) -> tuple[Tensor, Tensor]:
            options: dict[str, Any] = {"weighted": weighted, "kernel": kernel, "gathered": gathered}
            return attend_chapters(query, key, value, choice, router.num_chapters, scale, **options)

        return part
