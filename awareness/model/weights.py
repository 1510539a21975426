"""A loaded decoder's weights in fewer bits, for deployment: int8 and fp8 through torchao, nf4 through bitsandbytes.

The projections of the decoder layers are quantised and nothing else. Norms and biases are small; the embedding is
looked up, not multiplied; the output head is often the embedding itself (tied), and where it is not it suffers most
from fewer bits. So a tied head stays tied.

int8 and fp8 (e4m3) have a scale for each row of a weight; nf4 (Dettmers et al. 2023, section 3) has one for each block
of 64 numbers, itself stored in 8 bits. The arithmetic stays in the dtype that the model had.
"""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from awareness.errors import UsageError
from awareness.model import hf

WEIGHTS = ("none", "int8", "fp8", "nf4")
"""How the weights of a deployed decoder may be stored; `none` is as they are."""


def quantise_weights(model: PreTrainedModel, how: str) -> PreTrainedModel:
    """Stores the projections of `model` in fewer bits, in place, LoRA on them as it is; they can't be trained any more.

    how: one of `WEIGHTS`. Raises UsageError where the value, the library or the device doesn't allow it; `model` may
    then be quantised in part, and is to be loaded again.
    """
    if how not in WEIGHTS:
        raise UsageError(f"weights '{how}': not one of {', '.join(WEIGHTS)}")
    if how == "none":
        return model
    if how == "nf4" and model.device.type != "cuda":  # on the CPU bitsandbytes fails for many sizes, or is wrong
        raise UsageError(f"weights 'nf4' need CUDA, and the decoder is on {model.device.type}", hint="int8 or fp8")
    try:
        if how == "nf4":
            _to_nf4(model)
        else:
            from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

            config = Int8WeightOnlyConfig if how == "int8" else Float8WeightOnlyConfig
            # torchao's inductor settings are for a compiled model, and would be the whole process's
            quantize_(hf.decoder_layers(model), config(set_inductor_config=False), filter_fn=_is_projection)
    except ImportError as error:
        raise UsageError(f"weights '{how}' need {error.name}", hint='pip install "awareness[deploy]"') from error
    except (NotImplementedError, RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"weights '{how}' are not possible on {model.device.type}: {reason}", hint=f"one of {', '.join(WEIGHTS)}"
        ) from error
    return model


def _is_projection(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.Linear) and "lora_" not in name


def _to_nf4(model: PreTrainedModel) -> None:
    """Each Linear of the decoder layers -> bitsandbytes' Linear4bit, which quantises when it is moved to the device."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    layers = hf.decoder_layers(model)
    for name, linear in [(n, module) for n, module in layers.named_modules() if _is_projection(module, n)]:
        weight = linear.weight
        quantised = Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=False,
            compute_dtype=weight.dtype,
            quant_type="nf4",
            device="meta",
        )
        quantised.weight = Params4bit(weight.data, requires_grad=False, quant_type="nf4")
        quantised.bias = linear.bias
        parent, _, leaf = name.rpartition(".")
        setattr(layers.get_submodule(parent), leaf, quantised.to(weight.device).train(linear.training))
