"""Learned vectors around each chunk: a header before its tokens and a trailer after them; the decoder stays frozen.

After KV Packet, which trains 8 + 8 of them for 80-240 steps. Chunks that were encoded apart learn to begin and to end:
reading them together comes close to having encoded them as one text.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from awareness.model.prompts import encode
from awareness.types import digest

HEADER_TEXT = "\n\n# The following lines are one part of a file of the repository.\n"
TRAILER_TEXT = "\n# Here ends this part of the file, and another one may follow.\n\n"


class SoftTokens(nn.Module):
    """header [n_h, hidden_size] and trailer [n_t, hidden_size], N(0, 0.02²); either may be empty."""

    def __init__(self, num_header: int, num_trailer: int, hidden_size: int) -> None:
        super().__init__()
        self.header = nn.Parameter(torch.randn(num_header, hidden_size) * 0.02)
        self.trailer = nn.Parameter(torch.randn(num_trailer, hidden_size) * 0.02)

    @classmethod
    def from_text(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, num_header: int, num_trailer: int
    ) -> SoftTokens:
        """Initial vectors: embeddings of words that mean the same (Lester et al. 2021, section 3.2: better than random
        ones)."""
        embed = model.get_input_embeddings()
        soft = cls(num_header, num_trailer, model.config.hidden_size).to(model.device)
        with torch.no_grad():
            for vectors, text in ((soft.header, HEADER_TEXT), (soft.trailer, TRAILER_TEXT)):
                ids = torch.tensor(encode(tokenizer, text), device=model.device)
                vectors.copy_(embed(ids[torch.arange(len(vectors), device=model.device) % len(ids)]))
        return soft

    @property
    def tokens(self) -> int:
        """n_h + n_t"""
        return len(self.header) + len(self.trailer)

    def forward(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """embeddings: [B, T, hidden_size], right-padded; lengths: [B] -> [B, n_h + T + n_t, hidden_size].

        A row's trailer comes right after its own last token, and its padding after that.
        """
        batch = len(embeddings)
        header, trailer = (t.to(embeddings.dtype).expand(batch, -1, -1) for t in (self.header, self.trailer))
        rows = torch.cat([header, embeddings, torch.zeros_like(trailer)], dim=1)
        positions = len(self.header) + lengths[:, None] + torch.arange(len(self.trailer), device=lengths.device)
        return rows.scatter(1, positions[..., None].expand_as(trailer), trailer)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Digest of tensors by name, in float32."""
    return digest(*(part for name, t in tensors.items() for part in (name, t.cpu().float().numpy().tobytes())))
