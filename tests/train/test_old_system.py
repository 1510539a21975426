"""A configuration file of the earlier system trains as it is: its names, its spelling, and its order of the keys."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml

from awareness.cli.app import run
from awareness.config.read import read_config

FILE = Path(__file__).parent / "old_system.yaml"
NAMES = {
    "model": (
        "base_model_name freeze_base_model hidden_dim num_heads num_layers intermediate_dim vocab_size max_seq_len"
        " tokenizer_name use_rope rope_theta dropout attention_dropout norm_eps use_rms_norm use_flash_attention"
    ),
    "memory": (
        "vanilla_mode use_memory_adapter num_memory_tokens memory_dim memory_layer_placement memory_layer_k"
        " memory_layer_n memory_layer_indices memory_sharing memory_sharing_k memory_block_variant memory_dropout"
        " use_low_rank_memory memory_rank low_rank_mode use_low_rank_projections projection_rank use_chapters"
        " num_chapters top_k_chapters routing_strategy_train routing_strategy_inference routing_window_size"
        " use_load_balance_loss load_balance_coefficient use_auxiliary_loss auxiliary_loss_coefficient use_z_loss"
        " z_loss_coefficient memory_gradient_checkpointing quantize_memory memory_quant_bits wo_init_zero"
        " memory_init_std use_lora lora_rank lora_alpha lora_dropout lora_targets use_both_memory_and_lora"
    ),
    "training": (
        "memory_lr lora_lr base_model_lr training_mode dataset_name dataset_subset dataset_split eval_split text_field"
        " max_length distributed_strategy num_gpus fsdp_sharding_strategy batch_size gradient_accumulation_steps"
        " max_steps warmup_steps optimizer weight_decay max_grad_norm scheduler min_lr_ratio mixed_precision"
        " save_precision gradient_checkpointing save_steps eval_steps save_total_limit save_best_model early_stopping"
        " early_stopping_patience early_stopping_threshold logging_steps log_to_wandb wandb_run_name output_dir"
        " resume_from_checkpoint"
    ),
}
"""Every setting of the earlier system."""
FROM_SCRATCH = (
    "hidden_dim num_heads num_layers intermediate_dim vocab_size max_seq_len tokenizer_name use_rope rope_theta"
    " dropout attention_dropout norm_eps use_rms_norm"
).split()


def old_file(tmp_path: Path, model_folder: Path, content: dict | None = None) -> Path:
    """The file with the paths of a base model and of a data set that exist."""
    data = tmp_path / "instructions.jsonl"
    rows = [{"instruction": f"What is {i} + {i}?", "output": f"It is {2 * i}."} for i in range(12)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = FILE.read_text() if content is None else yaml.safe_dump(content, sort_keys=False)
    for path, real in (("/path/to/base-model", model_folder), ("/path/to/instructions.jsonl", data)):
        assert text.count(path) == 1
        text = text.replace(path, str(real))
    path = tmp_path / "old.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_the_file_has_every_setting_of_the_earlier_system():
    content = yaml.safe_load(FILE.read_text())
    assert {name: set(section) for name, section in content.items()} == {
        name: set(names.split()) for name, names in NAMES.items()
    }
    assert "task" not in content


def test_it_trains_unchanged(here, model_folder, capfd):
    assert run(["train", "--config", str(old_file(here, model_folder)), "--format", "json"]) == 0
    out, err = capfd.readouterr()
    done = json.loads(out)
    assert done["task"] == "memory" and done["steps"] == 2 and done["loss"] > 0
    assert done["output"] == "outputs/memory_adapter/final" and done["validation"] is not None
    assert (here / "outputs/memory_adapter/final/weights.safetensors").is_file()
    (line,) = [line for line in err.splitlines() if "model.hidden_dim" in line]
    assert all(f"model.{name}: " in line for name in FROM_SCRATCH if name != "tokenizer_name")  # which is null
    assert f"have no effect: the decoder is model.base_model_name: {model_folder}" in line
    assert "flash" not in line and "freeze" not in line
    kept = json.loads((here / "outputs/memory_adapter/train.json").read_text())
    assert kept["training"]["fsdp_sharding_strategy"] == "full_shard" and kept["memory"]["memory_block_variant"] == "A"
    assert kept["memory"]["routing_strategy_train"] == "sequence" and kept["training"]["memory_lr"] == 1e-3
    assert kept["training"]["optimizer"] == "adamw" and kept["training"]["scheduler"] == "cosine"


def test_find_lr_reads_it_too(here, model_folder, capfd):
    assert run(["train", "find-lr", "--config", str(old_file(here, model_folder)), "--steps", "5"]) in (0, 2)
    err = capfd.readouterr().err
    assert err.count("model.hidden_dim: 768, ") == 1 and "settings are wrong" not in err


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_its_keys_does_not_matter(tmp_path, model_folder, seed):
    rng, content = random.Random(seed), yaml.safe_load(FILE.read_text())
    mixed = {
        name: dict(rng.sample(list(content[name].items()), len(content[name]))) for name in rng.sample(list(content), 3)
    }
    assert read_config(old_file(tmp_path, model_folder, mixed), []) == read_config(old_file(tmp_path, model_folder), [])


def test_what_is_ignored_does_not_change_the_settings_and_is_not_checked(tmp_path, model_folder):
    path = old_file(tmp_path, model_folder)
    odd = ["model.num_heads=7", "model.dropout=5", "model.hidden_dim=wide"]
    assert read_config(path, odd).model_dump() == read_config(path, []).model_dump()


def test_from_scratch_its_settings_count(tmp_path, model_folder, capfd):
    path = str(old_file(tmp_path, model_folder))
    assert run(["train", "--config", path, "--set", "model.base_model_name=null", "--set", "model.num_heads=7"]) == 2
    err = capfd.readouterr().err
    assert "model.hidden_dim: is not divisible by model.num_heads 7 (got 768)" in err
    assert "model.tokenizer_name: must be a valid string (got null)" in err


def test_output_dir_is_the_one_at_the_top(tmp_path, model_folder, capfd):
    path = old_file(tmp_path, model_folder)
    assert read_config(path, []).output_dir == Path("outputs/memory_adapter")
    assert read_config(path, ["output_dir=other"]).output_dir == Path("other")
    assert read_config(path, ["training.output_dir=other"]).output_dir == Path("other")
    path.write_text(path.read_text() + "output_dir: outputs/memory_adapter\n")  # the same folder
    assert read_config(path, []).output_dir == Path("outputs/memory_adapter")
    path.write_text(path.read_text().replace("\noutput_dir: outputs/memory_adapter", "\noutput_dir: elsewhere"))
    assert run(["train", "--config", str(path)]) == 2
    err = capfd.readouterr().err
    assert (
        "output_dir is 'elsewhere', and training.output_dir, which means the same, is './outputs/memory_adapter'" in err
    )


@pytest.mark.parametrize("name", ["FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "full-shard", "'FULL_SHARD'"])
def test_words_of_pytorch(tmp_path, model_folder, name):
    config = read_config(old_file(tmp_path, model_folder), [f"training.fsdp_sharding_strategy={name}"])
    assert config.training.fsdp_sharding_strategy == name.strip("'").lower().replace("-", "_")


def test_a_word_of_pytorch_that_does_not_exist_here(tmp_path, model_folder, capfd):
    path = str(old_file(tmp_path, model_folder))
    assert run(["train", "--config", path, "--set", "training.fsdp_sharding_strategy=HYBRID_SHARD"]) == 2
    err = capfd.readouterr().err
    assert "training.fsdp_sharding_strategy: does not exist here: full_shard shards over all processes" in err
    assert "try: --set training.fsdp_sharding_strategy=full_shard" in err
