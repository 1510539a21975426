"""What has to fit before a training begins is refused by name, all at once, before weights are loaded."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from awareness.cli.app import run
from awareness.config.read import read_config
from awareness.model.model_files import find
from awareness.train import preparation
from awareness.train.setting_checks import check_settings

BANK = {"num_memory_tokens": 8}
LORA = {"use_memory_adapter": False, "use_lora": True}
NO_BANK = {"num_memory_tokens": 0}


@pytest.fixture
def written(tmp_path, model_folder):
    """Writes a file for the tiny decoder: 6 layers, hidden size 48, 16 numbers of keys, 4096 positions."""

    def written(memory: dict, *, data: bool = False, **sections) -> str:
        content = {"model": str(model_folder), "memory": memory, "output_dir": str(tmp_path / "out")}
        content["training"] = {"max_steps": 2, "warmup_steps": 0, **sections.pop("training", {})}
        if data:
            content["data"] = {"sources": [str(tmp_path)], "kinds": {"constant": 1}, **sections.pop("data_of", {})}
        else:
            content["training"]["dataset_name"] = str(tmp_path / "none.jsonl")
        path = tmp_path / "t.yaml"
        path.write_text(yaml.safe_dump({**content, **sections}, sort_keys=False))
        return str(path)

    return written


@pytest.fixture
def refused(written, capfd, monkeypatch):
    """The lines of the command's error, and its hint; weights may not be loaded."""

    def never(*args, **kwargs):
        raise AssertionError("weights were loaded")

    def refused(memory: dict, **sections) -> tuple[list[str], list[str]]:
        path = written(memory, **sections)
        with monkeypatch.context() as patch:
            patch.setattr(preparation, "build_memory_decoder", never)
            assert run(["train", "--config", path]) == 2
        first, *lines, hint = capfd.readouterr().err.splitlines()
        words = shlex.split(hint.removeprefix("  try: "))
        return [first.removeprefix("error: "), *(line.strip() for line in lines)], words[1::2]

    return refused


def fits(path: str, *settings: str) -> None:
    check_settings(read_config(Path(path), list(settings)), pull=find)


LAYERS = [
    ({"memory_layer_placement": "first_k", "memory_layer_k": 99}, "memory_layer_k: .*tiny-qwen3 has 6 layers (got 99)"),
    ({"memory_layer_placement": "last_k", "memory_layer_k": 7}, "memory_layer_k: .*tiny-qwen3 has 6 layers (got 7)"),
    (
        {"memory_layer_placement": "last_k", "gca_start_layer": 7},
        "2 settings are wrong memory.gca_start_layer: .* memory.memory_layer_k: .* has 6 layers (got 8, the default)",
    ),
    ({"memory_layer_placement": "every_n", "memory_layer_n": 7}, "memory_layer_n: .*tiny-qwen3 has 6 layers (got 7)"),
    (
        {"memory_layer_placement": "custom", "memory_layer_indices": [2, 6]},
        "memory_layer_indices: .*tiny-qwen3 has 6 layers, 0 to 5 (got [2, 6])",
    ),
    ({"gca_start_layer": 6}, "gca_start_layer: .*tiny-qwen3 has 6 layers, 0 to 5 (got 6)"),
    (
        {"memory_layer_placement": "first_k", "memory_layer_k": 3, "gca_start_layer": 3},
        "gca_start_layer: no layer reads memory: all of memory_layer_placement first_k are below it (got 3)",
    ),
    (
        {
            "memory_layer_placement": "first_k",
            "memory_layer_k": 3,
            "memory_sharing": "every_k_layers",
            "memory_sharing_k": 4,
        },
        "memory_sharing_k: is more than the 3 layers that read memory (got 4)",
    ),
]
RANKS = [
    (
        {"use_low_rank_memory": True, "memory_rank": 9},
        "memory_rank: is above the full rank of 8 tokens of width 48, 8 (got 9)",
    ),
    (
        {"use_low_rank_memory": True, "num_memory_tokens": 99, "memory_rank": 49},
        "memory_rank: is above the full rank of 99 tokens of width 48, 48 (got 49)",
    ),
    (
        {"use_low_rank_memory": True, "num_memory_tokens": 99, "memory_dim": 20, "memory_rank": 21},
        "memory_rank: is above the full rank of 99 tokens of width 20, 20 (got 21)",
    ),
    (
        {"use_low_rank_memory": True, "low_rank_mode": "reduced_dim", "memory_rank": 49},
        "memory_rank: is wider than tokens of width 48 (got 49)",
    ),
    (
        {"use_low_rank_projections": True},
        "projection_rank: is above the full rank of every projection of memory, 48 (got 64, the default)",
    ),
    (
        {"use_low_rank_projections": True, "memory_form": "joint", "projection_rank": 17},
        "projection_rank: is above the full rank of every projection of memory, 16 (got 17)",
    ),
    (
        {**LORA, "lora_rank": 17},
        "lora_rank: is above the full rank of k_proj, v_proj; at most 16 for memory.lora_targets",
    ),
    ({**LORA, "lora_rank": 49, "lora_targets": ["q_proj"]}, "lora_rank: is above the full rank of q_proj; at most 48"),
    (
        {**LORA, "lora_targets": ["q_proj", "query"]},
        "lora_targets: .*tiny-qwen3 has no query; its projections are q_proj, k_proj, v_proj, o_proj, gate_proj,"
        " up_proj, down_proj (got ['q_proj', 'query'])",
    ),
]


@pytest.mark.parametrize(("memory", "says"), [*LAYERS, *RANKS], ids=lambda value: str(value)[:60])
def test_what_the_decoder_cannot_have_is_refused_and_the_hint_works(written, refused, memory, says):
    lines, hint = refused({**BANK, **memory})
    pattern = re.escape(says).replace(r"\.\*", ".*")
    assert re.match(pattern if says[0].isdigit() else rf"memory\.{pattern}", " ".join(lines)), lines
    fits(written({**BANK, **memory}), *hint)


def test_all_at_once(written, refused):
    memory = {**BANK, "memory_layer_placement": "first_k", "memory_layer_k": 99, "use_low_rank_memory": True}
    memory |= {"memory_rank": 99, "use_both_memory_and_lora": True, "lora_rank": 99}
    sections = {"training": {"max_length": 9999, "lora_lr": 0}, "losses": {"kl_coefficient": 1}}
    lines, hint = refused(memory, **sections)
    assert lines[0] == "5 settings are wrong"
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "memory.memory_layer_k",
        "memory.memory_rank",
        "memory.lora_rank",
        "losses.kl_coefficient",
        "training.max_length",
    ]
    fits(written(memory, **sections), *hint)


@pytest.mark.parametrize(
    "memory",
    [
        {"memory_layer_k": 99, "memory_layer_n": 99},
        {"memory_layer_placement": "every_n", "memory_layer_k": 99},
        {"memory_layer_placement": "first_k", "memory_layer_k": 6, "memory_layer_n": 99},
        {"memory_rank": 999, "projection_rank": 999},
        {"use_low_rank_memory": True, "memory_rank": 8, "use_low_rank_projections": True, "projection_rank": 48},
        {"use_low_rank_memory": True, "memory_rank": 48, "low_rank_mode": "reduced_dim"},
        {"lora_rank": 999, "lora_targets": ["query"]},
        {"memory_sharing_k": 99, "latent_sharing": "every_k_layers", "latent_sharing_k": 99},
        {"memory_sharing": "every_k_layers", "memory_sharing_k": 5},
        {**LORA, "lora_rank": 16, "gca_start_layer": 99, "memory_layer_placement": "first_k", "memory_layer_k": 99},
    ],
    ids=str,
)
def test_what_takes_no_effect_is_not_refused_nor_what_is_just_possible(written, memory):
    fits(written({**BANK, **memory}))


def test_tokens_of_a_text_have_positions(written, refused):
    (line,), hint = refused(BANK, training={"max_length": 4097})
    assert line.startswith("training.max_length: is more than the 4096 positions of") and line.endswith("(got 4097)")
    assert hint == ["training.max_length=4096"]
    fits(written(BANK, training={"max_length": 4096}))
    fits(written(BANK, data=True, training={"max_length": 4097}))
    new = {"base_model_name": None, "hidden_dim": 16, "num_heads": 2, "num_layers": 1, "max_seq_len": 64}
    (line,), hint = refused(BANK, model=new)
    assert line == (
        "training.max_length: is more than the 64 positions of the decoder from scratch (got 1024, the default)"
    )
    fits(written(BANK, model=new), *hint)


# What is trained, and what is learned


def test_nothing_is_trained(written, refused):
    key = "memory.num_memory_tokens: nothing is trained: there is no bank, and no chunk that is read as memory"
    for memory in (NO_BANK, {**NO_BANK, "use_both_memory_and_lora": True, "lora_rank": 4}):
        (line,), hint = refused(memory)
        assert line == f"{key} (training.dataset_name has no chunks) (got 0)"
        fits(written(memory), *hint)
        (line,), hint = refused(memory, data=True, data_of={"reads": "text"})
        assert line == f"{key} (data.reads: text) (got 0)" and hint == ["data.reads=memory"]
        fits(written(memory, data=True))
    for memory, name in (
        ({"vanilla_mode": True}, "vanilla_mode"),
        ({"use_memory_adapter": False}, "use_memory_adapter"),
    ):
        (line,), hint = refused(memory)
        assert line.startswith(f"memory.{name}: nothing is trained: there is no adapter and no LoRA, and model.freeze")
        fits(written(memory), *hint)
    fits(written({**LORA, "lora_rank": 4}))
    fits(written({"vanilla_mode": True, "use_lora": True}, model={"base_model_name": None, "max_seq_len": 1024}))


def test_a_decoder_that_is_not_frozen_is_trained(written, model_folder):
    fits(written({"vanilla_mode": True}, model={"base_model_name": str(model_folder), "freeze_base_model": False}))


@pytest.mark.parametrize(
    ("memory", "names"),
    [
        (BANK, "memory_lr gate_lr"),
        ({**BANK, "memory_form": "joint"}, "memory_lr gate_lr"),
        ({**LORA, "lora_rank": 4}, "lora_lr"),
        ({**BANK, "use_both_memory_and_lora": True}, "memory_lr gate_lr lora_lr"),
    ],
)
def test_every_rate_is_0(written, refused, memory, names):
    rates = dict.fromkeys(names.split(), 0)
    (line,), hint = refused(memory, training=rates)
    named = ", ".join(f"training.{name}" for name in rates)
    assert line.startswith(f"training.{next(iter(rates))}: nothing is trained: {named} ") and "0 (got 0.0)" in line
    fits(written(memory, training=rates), *hint)
    fits(written(memory, training={**rates, [*rates][-1]: 1e-9}))


def test_rates_that_nothing_uses_do_not_count(written, refused):
    """The joint form without a bank learns biases alone, by the rate of the gates."""
    joint = {**NO_BANK, "memory_form": "joint"}
    (line,), _ = refused(joint, data=True, training={"gate_lr": 0})
    assert line == "training.gate_lr: nothing is trained: training.gate_lr is 0 (got 0.0)"
    fits(written({**joint, "num_header_tokens": 2}, data=True, training={"gate_lr": 0}))


def test_nothing_is_learned(written, refused):
    (line,), hint = refused(BANK, losses={"answer_coefficient": 0})
    assert line == "losses.answer_coefficient: nothing is learned: every coefficient of the loss is 0 (got 0.0)"
    fits(written(BANK), *hint)
    fits(written(BANK, data=True, losses={"answer_coefficient": 0, "sparsity_coefficient": 1}))
    chapters = {**BANK, "use_chapters": True, "num_chapters": 4, "top_k_chapters": 2}
    fits(written(chapters, losses={"answer_coefficient": 0}))
    off = {**chapters, "use_load_balance_loss": False, "z_loss_coefficient": 0}
    assert refused(off, losses={"answer_coefficient": 0})[0] == [line]


def test_samples_of_repositories(written, refused):
    kinds = {"constants": 1, "xyz": 1, "which": 2}
    lines, hint = refused({**LORA, "lora_rank": 4}, data=True, data_of={"kinds": kinds})
    assert lines[0] == "3 settings are wrong"
    assert hint == ["data.kinds={constant: 1.0, which: 2.0}", "data.reads=text"]
    fits(written({**LORA, "lora_rank": 4}, data=True, data_of={"kinds": kinds}), *hint)
    assert lines[3].startswith("data.reads: there is no memory to read as: see memory.use_memory_adapter (got 'memory'")
    assert lines[1] == "data.kinds.constants: unknown kind; did you mean constant? (got 1.0)"
    assert lines[2].startswith("data.kinds.xyz: unknown kind; known kinds: ") and "base_class, constant" in lines[2]
    lines, hint = refused(BANK, losses={"citation_coefficient": 1, "sparsity_coefficient": 1})
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "losses.citation_coefficient",
        "losses.sparsity_coefficient",
    ]
    fits(written(BANK, losses={"citation_coefficient": 1, "sparsity_coefficient": 1}), *hint)
    scratch = {"base_model_name": None, "hidden_dim": 48, "num_heads": 6}
    (line,), hint = refused(BANK, data=True, model=scratch, losses={"kl_coefficient": 1})
    assert line.startswith("losses.kl_coefficient: a decoder made from scratch has no teacher") and hint


# The other commands


def test_find_lr_says_the_same(written, capfd):
    path = written({**BANK, "gca_start_layer": 6})
    assert run(["train", "find-lr", "--config", path]) == 2
    assert "memory.gca_start_layer: " in capfd.readouterr().err


def test_compare_says_the_same_and_reads_a_control(written, sources, capfd):
    path = written(
        {**BANK, "gca_start_layer": 6}, data=True, data_of={"sources": [f"{sources}/*"], "validation": ["four"]}
    )
    assert run(["eval", "compare", "--config", path]) == 2
    assert "memory.gca_start_layer: " in capfd.readouterr().err
    fields = ["memory.vanilla_mode=true", "data.reads=none", "data.chunk_tokens=100", "data.kinds={constant: 1}"]
    sets = [part for field in fields for part in ("--set", field)]
    assert run(["eval", "compare", "--config", path, *sets, "-n", "2", "--format", "json"]) == 0
    assert json.loads(capfd.readouterr().out)["samples"] == 2
