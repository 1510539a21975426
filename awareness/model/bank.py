"""`MemoryBank`: learnable memory, the same for every repository.

A bank has N learned tokens, shared by some or all memory layers, and heads that make keys and values of them for each
layer that reads. The tokens are a matrix [N, width] (standard, or narrow for reduced-dim) or the product of two
(factorized). With chapters, a learned router (chapter_router.py) picks the ones that a token reads. Keys of a bank are
not rotated: all its tokens stand at position 0, and none comes before another.

After training, a bank can be stored as the keys and values that it makes, in fewer bits (`QuantisedBank`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from awareness.model import hf
from awareness.model.chapter_router import ChapterRouter
from awareness.model.projection import Projection, trainable_copy
from awareness.model.quantisation import to_latent, to_tensor
from awareness.types import Latent, MemorySpec


class BankTokens(nn.Module):
    """The tokens of a bank: [N, width], or with a rank [N, rank]·[rank, width]. Entries start as N(0, std²)."""

    def __init__(self, num_tokens: int, width: int, *, rank: int | None, std: float) -> None:
        super().__init__()
        if rank is None:
            self.weight: nn.Parameter | None = nn.Parameter(torch.randn(num_tokens, width) * std)
        else:
            self.register_parameter("weight", None)
            factor_std = (std / rank**0.5) ** 0.5
            self.left = nn.Parameter(torch.randn(num_tokens, rank) * factor_std)
            self.right = nn.Parameter(torch.randn(rank, width) * factor_std)

    def forward(self) -> Tensor:
        return self.left @ self.right if self.weight is None else self.weight


class BankHeads(nn.Module):
    """Tokens [N, width] -> key and value [1, H_kv, N, D] for one layer, after an RMSNorm and the layer's key norm.

    init `copy`: from the layer's own projections, if the width is the decoder's; otherwise N(0, std²).
    """

    def __init__(self, layer: Any, width: int, *, init: str, std: float, rank: int | None) -> None:
        super().__init__()
        own = hf.attention_parts(layer)
        self.head_dim, key, value = own.head_dim, own.key, own.value
        self.k_proj, self.v_proj = (
            Projection(width, linear.weight.shape[0], rank=rank, bias=linear.bias is not None)
            for linear in (key, value)
        )
        copied = init == "copy" and width == key.weight.shape[1]
        self.norm: nn.Module = trainable_copy(hf.attention_norm(layer)) if copied else nn.RMSNorm(width, eps=1e-6)
        for projection, linear in ((self.k_proj, key), (self.v_proj, value)):
            projection.copy_(linear) if copied else projection.draw_(std)
        self.k_norm = None if own.key_norm is None else trainable_copy(own.key_norm)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(tokens)
        key, value = (p(x).unflatten(-1, (-1, self.head_dim)) for p in (self.k_proj, self.v_proj))
        if self.k_norm is not None:
            key = self.k_norm(key)
        return key.transpose(0, 1)[None], value.transpose(0, 1)[None]


class _Routed(nn.Module):
    routers: nn.ModuleDict

    def router(self, layer: int) -> ChapterRouter | None:
        """The router of a reading layer, None without chapters."""
        return cast(ChapterRouter, self.routers[str(layer)]) if self.routers else None


class MemoryBank(_Routed):
    """sets: reading layer -> name of the tokens it reads, which is the first layer that reads them. routers: with
    chapters, one per layer."""

    def __init__(
        self,
        tokens: Mapping[int, BankTokens],
        heads: Mapping[int, BankHeads],
        sets: Mapping[int, int],
        routers: Mapping[int, ChapterRouter],
    ) -> None:
        super().__init__()
        self.sets = dict(sets)
        self.tokens = nn.ModuleDict({str(i): module for i, module in tokens.items()})
        self.heads = nn.ModuleDict({str(i): module for i, module in heads.items()})
        self.routers = nn.ModuleDict({str(i): module for i, module in routers.items()})

    def keys_values(self, layer: int) -> tuple[Tensor, Tensor]:
        """key, value: [1, H_kv, N, D], in the dtype of the parameters."""
        return self.heads[str(layer)](self.tokens[str(self.sets[layer])]())

    @torch.no_grad()
    def quantised(self, quant: str) -> QuantisedBank:
        """The same bank for inference, with keys and values in `int8` or `int4`."""
        pairs = [self.keys_values(layer) for layer in self.sets]
        both = torch.stack([torch.cat(side) for side in zip(*pairs, strict=True)])  # [2, L, H_kv, N, D]
        bank = QuantisedBank(tuple(self.sets), both.shape[2:], quant, self.routers)
        bank.codes.copy_(torch.frombuffer(bytearray(to_latent(both, bank.spec).data), dtype=torch.uint8))
        return bank


class QuantisedBank(_Routed):
    """A trained bank, stored as a quantised latent (quantisation.py) and read like a MemoryBank."""

    def __init__(self, layers: Sequence[int], shape: Sequence[int], quant: str, routers: nn.ModuleDict) -> None:
        super().__init__()
        heads, self.num_tokens, head_dim = shape
        self.spec = MemorySpec("bank", tuple(layers), heads, head_dim, dtype="float32", quant=quant)
        self.codes: Tensor
        self.register_buffer("codes", torch.zeros(self.spec.latent_bytes(self.num_tokens), dtype=torch.uint8))
        self.routers = routers

    def keys_values(self, layer: int) -> tuple[Tensor, Tensor]:
        """key, value: [1, H_kv, N, D] float32."""
        latent = Latent(self.num_tokens, self.codes.cpu().numpy().data)
        both = to_tensor(latent, self.spec)[:, self.spec.layers.index(layer)].to(self.codes.device)
        return both[0][None], both[1][None]
