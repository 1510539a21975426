"""`training.mixed_precision`: a frozen decoder is loaded in it, one that is trained computes in it by autocast."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from awareness.cli.app import run
from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.config.read import read_config
from awareness.config.training import LossConfig
from awareness.errors import UsageError
from awareness.model.checkpoint import load_checkpoint
from awareness.model.memory_decoder import build_memory_decoder
from awareness.model.model_files import find
from awareness.train.batch_memory import MemoryMaker
from awareness.train.log import read_log
from awareness.train.preparation import prepare
from awareness.train.step import Rows, TrainingStep
from tests.train.conftest import Numbers

BANK = "memory={num_memory_tokens: 16, memory_form: joint, use_chapters: true, num_chapters: 4, top_k_chapters: 2}"
FEW = ["training.max_steps=4", "training.eval_steps=2", "training.eval_samples=2", "losses.citation_coefficient=0.1"]


def scratch(model_folder) -> str:
    sizes = "hidden_dim: 32, num_heads: 2, num_layers: 2"
    return f"model={{base_model_name: null, tokenizer_name: {model_folder}, {sizes}}}"


def whole(model_folder) -> str:
    return f"model={{base_model_name: {model_folder}, freeze_base_model: false}}"


@pytest.fixture
def computed() -> Iterator[dict[bool, set[torch.dtype]]]:
    """Training or not -> the dtypes that linear layers gave while the test ran."""
    seen: dict[bool, set[torch.dtype]] = defaultdict(set)

    def hook(module: nn.Module, args: object, output: torch.Tensor) -> None:
        if isinstance(module, nn.Linear):
            seen[module.training].add(output.dtype)

    handle = register_module_forward_hook(hook)
    yield seen
    handle.remove()


def train(config_file, folder, precision, *settings, resume=()):
    """Trains through the command line. The lines of its log."""
    chosen = [f"output_dir={folder}", f"training.mixed_precision={precision}", *FEW, *settings]
    command = ["train", "--config", str(config_file), *resume]
    assert run([*command, *(part for setting in chosen for part in ("--set", setting))]) == 0
    return read_log(folder)


def stopped_at(folder, step):
    """As if the run had been stopped after the checkpoint of this step."""
    for path in [folder / "final", folder / "best", *folder.glob("checkpoint-*")]:
        if path.name != f"checkpoint-{step}":
            shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("model", [scratch, whole])
def test_a_trained_decoder_computes_in_bf16_by_autocast(config_file, model_folder, tmp_path, computed, model):
    """Its weights stay float32, evaluation is as training, and a run that was stopped goes on to the last bit."""
    of = {}
    for precision, dtype in (("bf16", torch.bfloat16), ("'no'", torch.float32)):
        computed.clear()
        of[precision] = train(config_file, tmp_path / precision, precision, model(model_folder))
        assert dtype in computed[True] and dtype in computed[False]
        assert (torch.bfloat16 in computed[True]) is (torch.bfloat16 in computed[False]) is (precision == "bf16")
    for name in ("loss", "eval_loss"):
        near, exact = ([line[name] for line in of[p] if name in line] for p in ("bf16", "'no'"))
        assert near != exact and near == pytest.approx(exact, rel=0.02) and len(near) == (4 if name == "loss" else 2)
    stopped_at(tmp_path / "bf16", 2)
    again = train(config_file, tmp_path / "bf16", "bf16", model(model_folder), resume=("--resume", "latest"))
    timeless = [[{k: v for k, v in line.items() if k != "seconds"} for line in lines] for lines in (of["bf16"], again)]
    assert timeless[0] == timeless[1]
    module, _ = load_checkpoint(tmp_path / "bf16/final", pull=find, dtype=torch.float32)
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_weights_and_gradients_of_autocast_are_float32(config_file, model_folder):
    few = ["training.mixed_precision=bf16", "training.max_steps=1", "training.eval_samples=0"]
    prepared = prepare(read_config(config_file, [whole(model_folder), BANK, *few]), pull=find)
    seen = set()
    for parameter in prepared.module.trainable().values():
        parameter.register_post_accumulate_grad_hook(lambda p: seen.add((p.dtype, p.grad.dtype)))
    prepared.trainer.train()
    assert seen == {(torch.float32, torch.float32)}


def test_a_frozen_decoder_is_loaded_in_bf16_and_needs_no_autocast(config_file, computed):
    few = ["training.mixed_precision=bf16", "training.max_steps=1", "training.eval_samples=0"]
    prepared = prepare(read_config(config_file, few), pull=find)
    assert not prepared.trainer.args.bf16 and prepared.trainer.accelerator.mixed_precision == "no"
    assert prepared.module.decoder.dtype == torch.bfloat16
    computed.clear()
    prepared.trainer.train()
    assert computed[True] == {torch.bfloat16, torch.float32}  # the decoder's layers, and those of LoRA


def test_no_is_no_whatever_the_environment_says(config_file, model_folder, tmp_path, computed, monkeypatch):
    """`accelerate launch` sets this variable."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    train(config_file, tmp_path / "no", "'no'", scratch(model_folder))
    assert computed[True] == computed[False] == {torch.float32}


def test_the_learning_rate_is_found_in_the_same_precision(config_file, model_folder, computed, capfd):
    command = ["train", "find-lr", "--config", str(config_file), "--steps", "5", "--format", "json"]
    curves = []
    for precision in ("bf16", "'no'"):
        computed.clear()
        assert run([*command, "--set", f"training.mixed_precision={precision}", "--set", scratch(model_folder)]) == 0
        assert (torch.bfloat16 in computed[True]) is (precision == "bf16")
        curves.append([loss for _, loss in json.loads(capfd.readouterr().out)["curve"]])
    assert curves[0] != curves[1] and curves[0] == pytest.approx(curves[1], rel=0.02)


def test_fp16_needs_cuda(config_file, model_folder):
    """Its scaler and kernels are CUDA's."""
    if torch.cuda.is_available():
        pytest.skip("there is CUDA")
    for model in (scratch, whole):
        with pytest.raises(UsageError, match=r"training\.mixed_precision: fp16 needs CUDA"):
            prepare(read_config(config_file, ["training.mixed_precision=fp16", model(model_folder)]), pull=find)


MEMORIES = [
    {"memory_form": "joint", "num_memory_tokens": 0},
    {"memory_form": "joint", "num_memory_tokens": 16, "use_chapters": True, "num_chapters": 4, "top_k_chapters": 2},
    {"memory_form": "tanh", "num_memory_tokens": 8, "memory_block_variant": "B"},
    {"memory_form": "tanh", "num_memory_tokens": 0, "encoder": "projected"},
    {"memory_form": "tanh", "num_memory_tokens": 0, "num_header_tokens": 2, "num_trailer_tokens": 2},
]


@pytest.mark.parametrize("memory", MEMORIES, ids=lambda memory: "-".join(map(str, memory.values())))
def test_every_way_to_read_has_the_gradients_of_float32_under_autocast(model_folder, memory):
    """`projected` reads the decoder without gradients first: the casts that autocast keeps must not be used after."""
    torch.manual_seed(0)
    settings = ModelConfig(base_model_name=str(model_folder), freeze_base_model=False)
    module, base = build_memory_decoder(settings, MemoryConfig(**memory), pull=find, dtype=torch.float32)
    for name, parameter in module.named_parameters():
        if name.endswith("gate"):
            parameter.data.fill_(0.5)  # open, so that what is read has gradients
    step = TrainingStep(module, LossConfig(sparsity_coefficient=0.1), MemoryMaker(module, base, 1 << 30)).train()
    rows = Rows(base.tokenizer, "memory", False)([Numbers(2)[i] for i in range(2)])
    gradients = []
    for bf16 in (False, True):
        step.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = step(**rows)
        assert out["loss"].dtype == torch.float32
        out["loss"].backward()
        gradients.append({name: p.grad for name, p in module.trainable().items()})
    for name, exact in gradients[0].items():
        near = gradients[1][name]
        assert (near is None) is (exact is None), name
        if exact is not None:
            assert (near - exact).norm() <= 0.25 * exact.norm() + 0.02, name
