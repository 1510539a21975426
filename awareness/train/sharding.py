"""FSDP2 through Accelerate: its settings, the units that are gathered together, and the optimizer's state as whole
tensors by name, which any number of processes can continue from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import TrainingArguments

from awareness.config.training import TrainingConfig
from awareness.model import hf
from awareness.model.memory_decoder import MemoryDecoder
from awareness.model.sharded import reshard, spread_like, whole
from awareness.train.processes import number_of_processes, process_index


def is_to_be_sharded(config: TrainingConfig) -> bool:
    """FSDP without sharding is DDP, and one process has nothing to share."""
    wanted = config.distributed_strategy == "fsdp" and config.fsdp_sharding_strategy != "no_shard"
    return wanted and number_of_processes() > 1


def units_of(module: MemoryDecoder) -> list[str]:
    """Names of the classes whose modules are gathered one at a time: the decoder's layers. All else is gathered for a
    whole step: embedding and output layer, and the adapter, which layers read in ways that FSDP does not see."""
    return [type(hf.decoder_layers(module.decoder)[0]).__name__]


def fsdp_arguments(config: TrainingConfig, units: list[str]) -> dict[str, Any]:
    """Those of `TrainingArguments`. full_shard frees the weights of a unit after its forward pass, too."""
    options: dict[str, Any] = {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "reshard_after_forward": config.fsdp_sharding_strategy == "full_shard",
        "state_dict_type": "FULL_STATE_DICT",
        "cpu_ram_efficient_loading": False,
    }
    if units:
        options["transformer_layer_cls_to_wrap"] = units
    return {"fsdp": True, "fsdp_config": options}


def use_fsdp(accelerator: Accelerator, arguments: TrainingArguments) -> None:
    """Make Accelerate shard. On processes without GPUs it drops the settings in silence (accelerate 1.10 to 1.15,
    `AcceleratorState`), although torch shards over gloo as well. Trained tensors stay float32 in every unit; what
    computes in less is cast where it computes."""
    state: Any = accelerator.state
    if getattr(state, "fsdp_plugin", None) is None:
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**(arguments.fsdp_plugin_args or {}))
        state.distributed_type = DistributedType.FSDP
    state.fsdp_plugin.mixed_precision_policy = None


def parameters_held(module: nn.Module) -> tuple[int, int]:
    """(numbers in this process, numbers in all): of the parameters of a sharded module."""
    reshard(module)
    parameters: list[Any] = list(module.parameters())
    held = (p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in parameters)
    return sum(held), sum(p.numel() for p in parameters)


def gathered(module: MemoryDecoder) -> dict[str, Tensor]:
    """The trained tensors by name, whole, on the CPU. Every process has to call this; the first one gets them, and the
    others nothing, as they would need the memory for it."""
    reshard(module)
    return _kept((name, parameter.detach()) for name, parameter in module.trainable().items())


def optimizer_state(optimizer: Optimizer, names: Mapping[nn.Parameter, str]) -> dict[str, Any]:
    """`state_dict` of the optimizer with whole tensors on the CPU, and `names`: of its parameters, in order. Every
    process has to call this; only the first one gets the tensors."""
    state = optimizer.state_dict()
    whole_state = {place: _kept(own.items()) for place, own in state["state"].items()}
    return {**state, "state": whole_state, "names": _names(optimizer, names)}


def _kept(tensors: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Gather one tensor after the other; in the first process, what each is."""
    kept = {}
    for name, value in tensors:
        full = whole(value) if isinstance(value, Tensor) else value
        if process_index() == 0:
            kept[name] = full.cpu() if isinstance(full, Tensor) else full
    return kept


def load_optimizer_state(optimizer: Optimizer, state: Mapping[str, Any], names: Mapping[nn.Parameter, str]) -> None:
    """Continue from what `optimizer_state` gave to an optimizer of the same parameters, spread in any way. A state
    without names, of earlier versions, has the same order."""
    own = _names(optimizer, names)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    place_of = {name: place for place, name in enumerate(state.get("names", own))}
    placed = {}
    for place, (name, parameter) in enumerate(zip(own, parameters, strict=True)):
        if (saved := state["state"].get(place_of[name])) is not None:
            placed[place] = {
                key: spread_like(value, parameter)
                if isinstance(value, Tensor) and value.shape == parameter.shape
                else value
                for key, value in saved.items()
            }
    optimizer.load_state_dict({"state": placed, "param_groups": state["param_groups"]})


def _names(optimizer: Optimizer, names: Mapping[nn.Parameter, str]) -> list[str]:
    return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]


def largest(number: int) -> int:
    """The largest of the numbers of all processes."""
    own = torch.tensor(number, device="cuda" if torch.cuda.is_available() else "cpu")
    torch.distributed.all_reduce(own, torch.distributed.ReduceOp.MAX)
    return int(own)
