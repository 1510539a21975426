"""Linear layers that multiply in int8, for encoding on processors that are much faster in it than in bf16 or fp32.

    y = s_x · s_w · (q_x · q_wᵀ) + b,   q = round(x·R / s),   s = max|x·R| / 127

with a scale s_x per token and s_w per output channel (LLM.int8(), Dettmers et al. 2022, section 2.1). R is orthogonal,
so that (x·R)·(w·R)ᵀ = x·wᵀ: Hadamard matrices along the diagonal, which spread a channel of outstanding size over its
neighbours (QuaRot, Ashkboos et al. 2024, section 3). Without R the latents' error is two to three times as large.
`in_int8` makes a decoder for encoding beside the one that answers. Nothing is compiled.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from awareness.model import hf
from awareness.model.weights import exact_weights, fastest_s, linear_layers, published_name

KEPT = ("k_proj", "v_proj")
"""Layers that stay as they are: their outputs are the latents, and they are two small layers of seven."""
WORTH = 1.3
"""int8 is used if it is this many times as fast on this processor."""
BLOCK = 64
"""Channels that R mixes with each other; fewer if a layer's width is not a multiple of it."""
_LEAST = 1e-20  # a scale, for a row of zeros


class Int8Linear(nn.Module):
    """`nn.Linear` for inference on the CPU. Holds int8 weights [N, K] of its own; the bias is the linear's."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.rotation = _hadamard(math.gcd(BLOCK, linear.in_features))
        self.weight, scale = self._quantised(linear.weight.detach())
        self.scale, self.bias = scale[:, 0].contiguous(), linear.bias  # [N]

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N] in the dtype of x."""
        rows, scale = self._quantised(x.reshape(-1, x.shape[-1]))
        # In float32 and in place: a mixed-type operation takes three times as long on the CPU.
        out = torch._int_mm(rows, self.weight.t()).float().mul_(scale).mul_(self.scale)
        if self.bias is not None:
            out += self.bias
        return out.to(x.dtype).view(*x.shape[:-1], -1)

    def _quantised(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """[M, K] -> rotated, int8 [M, K], and the scale of each row, float32 [M, 1]."""
        mixed = (rows.float().view(-1, len(self.rotation)) @ self.rotation).view(rows.shape)
        scale = (mixed.abs().amax(1, keepdim=True) / 127).clamp_min_(_LEAST)
        return mixed.mul_(scale.reciprocal()).round_().to(torch.int8), scale


def _hadamard(size: int) -> Tensor:
    """float32 [size, size], orthonormal and symmetric; size: a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / size**0.5


def in_int8(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the decoder with `Int8Linear` for every linear layer of its decoder layers, except `KEPT`.

    `model` stays as it is; the copy shares all of its other tensors.
    """
    shared: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    for name, linear in linear_layers(hf.decoder_layers(model)).items():
        if not published_name(name).endswith(KEPT):
            shared[id(linear)] = Int8Linear(linear)
    return copy.deepcopy(model, shared)


@torch.inference_mode()
def int8_pays(model: PreTrainedModel, rows: int = 256) -> bool:
    """Whether this processor multiplies in int8 exactly, and the model's largest layer `WORTH` times as fast; measured,
    in about a tenth of a second."""
    layers = linear_layers(hf.decoder_layers(model)).values()
    if model.device.type != "cpu" or not layers or not int8_is_exact():
        return False
    largest = max(layers, key=lambda module: module.weight.numel())
    x = torch.ones(rows, largest.in_features, dtype=largest.weight.dtype)
    int8 = Int8Linear(largest)
    with exact_weights():
        return fastest_s(lambda: int8(x)) * WORTH < fastest_s(lambda: largest(x))


def int8_is_exact() -> bool:
    """False on processors without VNNI, which cut sums of two products off at 16 bits (oneDNN's documentation, "Nuances
    of int8 computations")."""
    rows = torch.full((16, 64), 127, dtype=torch.int8)
    columns = torch.full((64, 16), 127, dtype=torch.int8)
    columns[:, ::2] = -127
    return torch.equal(torch._int_mm(rows, columns), rows.int() @ columns.int())
