"""Decode with weights in fewer bits: int4 and int8 on the CPU, int8 and fp8 through torchao, nf4 through bitsandbytes.

A generated token costs one reading of all weights, so fewer bits are faster. On the CPU (`PackedLinear`) a layer keeps
its own weight beside the packed one: the packed one multiplies the few rows of a decoding step, its own everything
else. So prompts are read, and latents are made (`exact_weights`), with the published weights, and a latent does not
depend on how an answer is decoded. Weights are memory-mapped: those that are not used are not read from disk.

int4: groups of 32 weights of a row share a scale and an offset in bfloat16, `w = (q - 8)·scale + offset`. int8: one
scale per row. The output layer is packed too; its own weight stays the embedding where the two are tied.

int8 on CUDA, fp8 (e4m3) and nf4 (Dettmers et al. 2023, section 3) replace the projections of the decoder layers.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from awareness.errors import UsageError, reason
from awareness.model import hf
from awareness.model.model_files import replacing
from awareness.types import Progress, silent

WEIGHTS = ("none", "int8", "int4", "fp8", "nf4")
"""How the weights to decode with are stored; `none`: as published."""
GROUP = 32
"""Weights of a row that share a scale in int4."""
MAX_ROWS = 32
"""Up to this many rows the packed weight is faster than the layer's own (benchmarks/weights.py)."""
WIDENED_ROWS = 128
"""From this many rows on, widening a weight to float32 costs little beside the product."""
WIDENED_NUMBERS = 1 << 25
"""Largest weight that is widened, in numbers; an output layer would take half a gigabyte."""
FORMAT_VERSION = 1
_exact: ContextVar[bool] = ContextVar("awareness_exact_weights", default=False)


@contextlib.contextmanager
def exact_weights() -> Iterator[None]:
    """Inside the block, in this thread, packed layers use their own weights, even for few rows."""
    token = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(token)


@functools.cache
def float32_pays() -> bool:
    """Whether this processor is a fifth faster if it widens bfloat16 weights and multiplies in float32: some have slow
    instructions for bfloat16. Measured once, in about 20 ms."""
    x, weight = torch.ones(WIDENED_ROWS, 896, dtype=torch.bfloat16), torch.ones(1792, 896, dtype=torch.bfloat16)
    narrow = fastest_s(lambda: linear(x, weight))
    return fastest_s(lambda: linear(x.float(), weight.float()).to(x.dtype)) < narrow / 1.2


def fastest_s(multiply: Callable[[], Tensor]) -> float:
    """Seconds of the fastest of three calls, after one to warm up."""
    multiply()
    times = []
    for _ in range(3):
        started = time.perf_counter()
        multiply()
        times.append(time.perf_counter() - started)
    return min(times)


class PackedLinear(nn.Linear):
    """A Linear with a second weight in fewer bits, which multiplies few rows without gradients.

    codes: packed for this processor's kernel. scales: int4 [K / GROUP, N, 2] (scale and offset), int8 [N].
    """

    codes: Tensor
    scales: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., K] -> [..., N]"""
        if x.numel() > MAX_ROWS * self.in_features or _exact.get() or torch.is_grad_enabled():
            return self._exactly(x)
        rows, scales = x.reshape(-1, self.in_features).contiguous(), self.scales  # not so for last tokens of a batch
        if self.codes.dtype == torch.int8:
            out = torch.ops.aten._weight_int8pack_mm(rows, self.codes, scales)
        else:
            out = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.codes, GROUP, scales)
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], self.out_features)

    def _exactly(self, x: Tensor) -> Tensor:
        """With the layer's own weight, in float32 if the processor is faster then. [..., K] -> [..., N]"""
        many = x.numel() >= WIDENED_ROWS * self.in_features and self.weight.numel() <= WIDENED_NUMBERS
        if not many or x.dtype != torch.bfloat16 or torch.is_grad_enabled() or not float32_pays():
            return linear(x, self.weight, self.bias)
        bias = None if self.bias is None else self.bias.float()
        return linear(x.float(), self.weight.float(), bias).to(x.dtype)


def pack_weights(
    model: PreTrainedModel, how: str, *, keep: Path | None = None, progress: Progress = silent
) -> PreTrainedModel:
    """Add packed weights (`int4` or `int8`) to the Linear layers of `model` on the CPU, in place.

    keep: a file that holds the packed weights of this model. It is memory-mapped if it was made for this kind of
    processor, else written. Layers of sizes that the kernel does not support stay as they are.
    """
    layers = {
        name: layer
        for name, layer in linear_layers(model).items()
        if how == "int8" or (layer.in_features % GROUP == 0 and layer.out_features % 16 == 0)
    }
    names = {name: published_name(name) for name in layers}
    packed = {} if keep is None else read_packed(keep, how)
    if not all(f"{own}.codes" in packed and f"{own}.scales" in packed for own in names.values()):
        packed = {}
        for done, (name, layer) in enumerate(layers.items()):
            progress("packing weights", done, len(layers))
            codes, scales = (pack_int4 if how == "int4" else pack_int8)(layer.weight.detach())
            packed |= {f"{names[name]}.codes": codes, f"{names[name]}.scales": scales}
        if keep is not None:
            with contextlib.suppress(OSError):  # a full disk costs the next start some seconds
                write_packed(keep, how, packed)
    for name, layer in layers.items():
        layer.__class__ = PackedLinear
        layer.register_buffer("codes", packed[f"{names[name]}.codes"], persistent=False)
        layer.register_buffer("scales", packed[f"{names[name]}.scales"].to(layer.weight.dtype), persistent=False)
    return model


def is_packed(model: nn.Module) -> bool:
    """Whether `model` has packed weights beside its own."""
    return any(isinstance(module, PackedLinear) for module in model.modules())


def is_linear(module: nn.Module, name: str) -> bool:
    """Whether a module of this name is a linear layer that is not part of LoRA."""
    return isinstance(module, nn.Linear) and "lora_" not in name


def linear_layers(root: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers under `root` by name, without those of LoRA."""
    return {name: module for name, module in root.named_modules() if is_linear(module, name)}


def published_name(name: str) -> str:
    """The name of a linear layer in a decoder without LoRA."""
    return name.replace(".base_layer", "")


def pack_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[N, K] -> codes for this processor's kernel, and scales [K / GROUP, N, 2] in bfloat16."""
    codes, scale, offset = quantise_int4(weight)
    scales = torch.stack([scale, offset], dim=-1).transpose(0, 1).contiguous()
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.int(), 1), scales


def quantise_int4(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[N, K] -> codes [N, K] in 0 … 15, scale and offset [N, K / GROUP] in bfloat16.

    `w = (codes - 8)·scale + offset`.
    """
    groups = weight.float().unflatten(1, (-1, GROUP))  # [N, K / GROUP, GROUP]
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = ((high - low) / 15).clamp(min=1e-8).bfloat16()
    offset = (low + 8 * scale.float()).bfloat16()
    codes = (groups - offset).div_(scale).add_(8).round_().clamp_(0, 15).to(torch.uint8)
    return codes.flatten(1), scale.squeeze(-1), offset.squeeze(-1)


def pack_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[N, K] -> codes [N, K] int8 and scales [N] in bfloat16: `w = codes·scale`."""
    scale = (weight.float().abs().amax(1) / 127).clamp(min=1e-8).bfloat16()
    return (weight.float() / scale.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8), scale


def _layout(how: str) -> dict[str, str]:
    """What packed codes are made for: the kernel's order of codes differs between processors."""
    cpu = torch.backends.cpu.get_cpu_capability()
    return {"version": str(FORMAT_VERSION), "how": how, "group": str(GROUP), "cpu": cpu}


def read_packed(path: Path, how: str) -> dict[str, Tensor]:
    """Memory maps of the packed weights in a file; empty if it has none for this processor."""
    try:
        with safe_open(path, "pt") as file:
            if file.metadata() == _layout(how):
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError):
        pass
    return {}


def write_packed(path: Path, how: str, packed: dict[str, Tensor]) -> None:
    """Write all of the file or nothing. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file(packed, temporary, metadata=_layout(how))


def quantise_weights(
    model: PreTrainedModel, how: str, *, keep: Path | None = None, progress: Progress = silent
) -> PreTrainedModel:
    """Make `model` decode with weights in fewer bits, in place. LoRA stays; the weights can no longer be trained.

    how: one of `WEIGHTS`. keep: see `pack_weights`. Raises UsageError if the value, the library or the device does not
    allow it; `model` may then be partly quantised and must be loaded again.
    """
    if how not in WEIGHTS:
        raise UsageError(f"weights '{how}': not one of {', '.join(WEIGHTS)}")
    if how == "none":
        return model
    device = model.device.type
    if how in ("int4", "int8") and device == "cpu":
        return pack_weights(model, how, keep=keep, progress=progress)
    if how == "int4":
        raise UsageError(f"weights 'int4' are for the CPU, and the decoder is on {device}", hint="int8 or nf4")
    if how == "nf4" and device == "cpu":  # on the CPU bitsandbytes fails for many sizes, or is wrong
        raise UsageError("weights 'nf4' need CUDA, and the decoder is on cpu", hint="int4 or int8")
    try:
        if how == "nf4":
            _to_nf4(model)
        else:
            from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

            config = Int8WeightOnlyConfig if how == "int8" else Float8WeightOnlyConfig
            # torchao's inductor settings are for a compiled model, and would hold for the whole process.
            quantize_(hf.decoder_layers(model), config(set_inductor_config=False), filter_fn=is_linear)
    except ImportError as error:
        raise UsageError(f"weights '{how}' need {error.name}", hint='pip install "awareness[deploy]"') from error
    except (NotImplementedError, RuntimeError, TypeError) as error:
        why, others = reason(error), ", ".join(WEIGHTS)
        raise UsageError(f"weights '{how}' are not possible on {device}: {why}", hint=f"one of {others}") from error
    return model


def _to_nf4(model: PreTrainedModel) -> None:
    """Each Linear of the decoder layers -> bitsandbytes' Linear4bit, which quantises when it is moved to the device."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    layers = hf.decoder_layers(model)
    for name, module in linear_layers(layers).items():
        weight = module.weight
        sizes = (module.in_features, module.out_features)
        quantised = Linear4bit(*sizes, bias=False, compute_dtype=weight.dtype, quant_type="nf4", device="meta")
        quantised.weight = Params4bit(weight.data, requires_grad=False, quant_type="nf4")
        quantised.bias = module.bias
        parent, _, leaf = name.rpartition(".")
        setattr(layers.get_submodule(parent), leaf, quantised.to(weight.device).train(module.training))
