"""A decoder's tensor -> the array of bytes that a GGUF stores of it: as it is, in another float type, or in blocks.

q8_0 and q4_0 are llama.cpp's formats of blocks of 32 weights with one float16 scale each; gguf's own numpy routines
make them. Vectors (norms and biases) are float32, as llama.cpp needs them. A matrix whose rows are no whole number of
blocks is stored as float16, as llama.cpp's own quantiser does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from awareness.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType

GGUF_TYPES = ("none", "f32", "f16", "bf16", "q8_0", "q4_0")
"""Types of the matrices of a GGUF, by llama.cpp's names; `none`: as the decoder has them."""
FLOATS = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
"""Types that a decoder may have -> their names."""
_DTYPES = {name: dtype for dtype, name in FLOATS.items()}


def stored_type(tensor: Tensor, quant: str, *, is_vocabulary: bool) -> GGMLQuantizationType:
    """The type that a tensor is stored in. is_vocabulary: it is the embedding or the output layer, which stay in q8_0
    with q4_0: they are the most sensitive to rounding."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if tensor.ndim == 1:
        return GGMLQuantizationType.F32
    name = FLOATS[tensor.dtype] if quant == "none" else quant
    if name == "q4_0" and is_vocabulary:
        name = "q8_0"
    kind = GGMLQuantizationType[name.upper()]
    is_whole = tensor.shape[-1] % GGML_QUANT_SIZES[kind][0] == 0
    return kind if is_whole else GGMLQuantizationType.F16


def stored_bytes(shape: torch.Size, kind: GGMLQuantizationType) -> int:
    """The number of bytes of a tensor in this type."""
    from gguf import GGML_QUANT_SIZES

    elements, size = GGML_QUANT_SIZES[kind]
    return math.prod(shape) // elements * size


def stored(name: str, tensor: Tensor, kind: GGMLQuantizationType) -> np.ndarray:
    """The tensor in this type: its numbers if numpy has the type, else its bytes. Raises UsageError if float16 can't
    hold a number of it."""
    from gguf.quants import quantize

    dtype = _DTYPES.get(kind.name.lower())
    if dtype is None:
        blocks: np.ndarray = quantize(tensor.float().numpy(), kind)
        return blocks
    converted = tensor.to(dtype)
    if dtype == torch.float16 and not all(torch.isfinite(end) for end in converted.aminmax()):
        raise UsageError(f"{name} has numbers that float16 can't hold", hint="--quant bf16")
    if dtype == torch.bfloat16:  # numpy has none: its bytes
        return converted.contiguous().view(torch.uint8).numpy()
    return converted.contiguous().numpy()
