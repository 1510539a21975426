"""One forward pass of training: samples or rows of text -> the loss and its terms. This is the module that is wrapped
for several devices, so everything that needs gradients happens inside its `forward`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from awareness.config.training import LossConfig
from awareness.model.attention_record import AttentionRecord, retrieval_layers
from awareness.model.memory_decoder import MemoryDecoder, answer_length, next_token_loss
from awareness.model.prompts import answer_ids, sample_ids
from awareness.train.batch_memory import BatchMemory, MemoryMaker
from awareness.train.losses import citation_loss, distillation_loss, sparsity_loss
from awareness.train.teacher import Teacher
from awareness.types import Sample


@dataclass(frozen=True)
class Rows:
    """Turns samples into rows of tokens, as a data loader's collate function.

    reads: `memory`, the chunks are read as memory; `text`, as text in the prompt; `none`, not at all. with_system: the
    prompt has a system turn. A memory in the joint form needs none, because its sink is that turn.
    """

    tokenizer: PreTrainedTokenizerBase
    reads: str
    with_system: bool

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """`input_ids`, `attention_mask`, `labels`: [B, T], padded on the right; and `samples`, unchanged."""
        pairs = []
        for sample in samples:
            chunks = sample.texts if self.reads == "text" else ()
            prompt = sample_ids(self.tokenizer, sample, chunks=chunks, with_system=self.with_system)
            pairs.append((prompt, answer_ids(self.tokenizer, sample)))
        return {**padded_rows([(p + a, [-100] * len(p) + a) for p, a in pairs]), "samples": list(samples)}


def padded_rows(rows: Sequence[tuple[list[int], list[int]]]) -> dict[str, Any]:
    """(ids, labels) of each row -> tensors [B, T]; padding is masked and not learned."""
    width = max(len(ids) for ids, _ in rows)
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full_like(input_ids, -100)
    mask = torch.zeros_like(input_ids)
    for i, (ids, own) in enumerate(rows):
        input_ids[i, : len(ids)], labels[i, : len(ids)] = torch.tensor(ids), torch.tensor(own)
        mask[i, : len(ids)] = 1
    return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}


class TrainingStep(nn.Module):
    """Decoder and losses as one module. memory: makes the memory of a batch; None if the samples have none."""

    def __init__(
        self,
        module: MemoryDecoder,
        losses: LossConfig,
        memory: MemoryMaker | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.module, self.losses = module, losses
        self._memory, self._teacher = memory, teacher

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        samples: Sequence[Sample] | None = None,
    ) -> dict[str, Tensor]:
        """`loss`, its terms by name, each with its coefficient, and the answer's `nll`, summed over `tokens`. Shapes as
        in `Rows`."""
        batch = self._memory(samples) if self._memory is not None and samples is not None else None
        record = self._record(batch, labels)
        memory = None if batch is None else batch.memory
        out = self.module(input_ids, attention_mask=attention_mask, labels=labels, memory=memory, record=record)
        config = self.losses
        terms = {name: term for name, term in out.terms.items() if name != "answer"}
        terms["answer"] = config.answer_coefficient * out.terms["answer"]
        answers = labels[:, labels.shape[1] - out.logits.shape[1] + 1 :] != -100
        if self._teacher is not None and samples is not None:
            with torch.autocast(input_ids.device.type, enabled=False):  # its cache holds what it says in its own dtype
                ids, log_probs = self._teacher(samples)
            distilled = distillation_loss(out.logits[:, :-1][answers], ids, log_probs, config.kl_temperature)
            terms["kl"] = config.kl_coefficient * distilled
        if record is not None and batch is not None:
            attention = [layer[:, :, :-1] for layer in record.memory_attention_weights.values()]
            if config.citation_coefficient:
                cited = citation_loss(attention, batch.chunks, batch.gold, answers)
                terms["citation"] = config.citation_coefficient * cited
            if config.sparsity_coefficient:
                terms["sparsity"] = config.sparsity_coefficient * sparsity_loss(attention, batch.chunks, answers)
        with torch.no_grad():
            nll = next_token_loss(out.logits.detach(), labels, reduction="sum")
        loss = torch.stack([term.float() for term in terms.values()]).sum()
        return {"loss": loss, **terms, "nll": nll, "tokens": answers.sum()}

    def _record(self, batch: BatchMemory | None, labels: Tensor) -> AttentionRecord | None:
        """A record of the attention to memory, if a loss needs it."""
        if batch is None or not (self.losses.citation_coefficient or self.losses.sparsity_coefficient):
            return None
        layers = retrieval_layers(self.module.decoder, batch.memory)
        return AttentionRecord(layers, keep=True, every_token=True, last=answer_length(labels) + 1)
