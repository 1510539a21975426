"""Every setting of a training file changes what the command does: a run with it differs from the same run without it.

Compared are the lines of the log, the trained tensors, the files of the run, data.json, and what is printed. Settings
that change only speed or memory are listed with the test that looks inside.
"""

from __future__ import annotations

import gc
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xxhash
import yaml
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from awareness.cli.app import run
from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.config.training import DataConfig, LossConfig, TrainingConfig
from tests.conftest import tiny_model, tiny_tokenizer, write_tree
from tests.model.test_text_embedder import SIZES, word_tokenizer

ROOT = Path(__file__).parent.parent.parent
SECTIONS = {
    "memory": MemoryConfig,
    "model": ModelConfig,
    "data": DataConfig,
    "losses": LossConfig,
    "training": TrainingConfig,
}

TANH = "memory.memory_form=tanh"
BANK = "memory.num_memory_tokens=16 memory.gca_start_layer=4"
LOW_RANK = f"{BANK} memory.use_low_rank_memory=true memory.memory_rank=4"
CHAPTERS = f"{BANK} memory.use_chapters=true memory.num_chapters=8 memory.top_k_chapters=2"
LOSSES = f"{CHAPTERS} memory.use_auxiliary_loss=true"
LORA = "memory.use_memory_adapter=false memory.use_both_memory_and_lora=false memory.use_lora=true data.reads=text"
VALIDATED = "training.eval_samples=2 training.max_steps=3"
STOPPED = f"{VALIDATED} training.eval_steps=1 training.early_stopping_threshold=1000"
KL = "losses.kl_coefficient=1"
TEXTS = (
    "data=null training.dataset_name=TEXTS training.training_mode=pretraining training.max_length=40"
    " memory.num_memory_tokens=8"
)
WHOLE = f"{TEXTS} model.freeze_base_model=false"
SCRATCH = (
    "'model={base_model_name: null, tokenizer_name: MODEL, hidden_dim: 32, num_heads: 4, num_layers: 2}'"
    f" {TEXTS} training.base_model_lr=1e-2 memory.gca_start_layer=1 memory.use_both_memory_and_lora=false"
)

CASES = {
    # setting: (a value of it, the other settings of both runs)
    "memory.vanilla_mode": ("true", WHOLE),
    "memory.use_memory_adapter": ("false", f"{WHOLE} memory.use_both_memory_and_lora=false"),
    "memory.memory_form": ("tanh", ""),
    "memory.learn_sharpness": ("true", ""),
    "memory.memory_block_variant": ("B", TANH),
    "memory.memory_init": ("zero", TANH),
    "memory.wo_init_zero": ("true", TANH),
    "memory.memory_init_std": ("0.5", BANK),
    "memory.memory_dropout": ("0.5", TANH),
    "memory.use_low_rank_projections": ("true", f"{TANH} memory.projection_rank=4"),
    "memory.projection_rank": ("2", f"{TANH} memory.use_low_rank_projections=true memory.projection_rank=4"),
    "memory.gca_start_layer": ("4", ""),
    "memory.memory_layer_placement": ("last_k", "memory.memory_layer_k=2"),
    "memory.memory_layer_k": ("3", "memory.memory_layer_placement=last_k memory.memory_layer_k=2"),
    "memory.memory_layer_n": ("3", "memory.memory_layer_placement=every_n"),
    "memory.memory_layer_indices": ("[1]", "memory.memory_layer_placement=custom 'memory.memory_layer_indices=[2, 3]'"),
    "memory.encoder": ("projected", ""),
    "memory.encoder_model": ("EMBEDDER", "memory.encoder=projected"),
    "memory.num_header_tokens": ("2", ""),
    "memory.num_trailer_tokens": ("2", ""),
    "memory.latent_sharing": ("shared", ""),
    "memory.latent_sharing_k": ("3", "memory.latent_sharing=every_k_layers"),
    "memory.num_memory_tokens": ("8", ""),
    "memory.memory_dim": ("16", BANK),
    "memory.memory_sharing": ("per_layer", BANK),
    "memory.memory_sharing_k": ("1", f"{BANK} memory.memory_sharing=every_k_layers"),
    "memory.use_low_rank_memory": ("true", f"{BANK} memory.memory_rank=4"),
    "memory.memory_rank": ("2", LOW_RANK),
    "memory.low_rank_mode": ("reduced_dim", LOW_RANK),
    "memory.use_chapters": ("true", f"{BANK} memory.num_chapters=8 memory.top_k_chapters=2"),
    "memory.num_chapters": ("4", CHAPTERS),
    "memory.top_k_chapters": ("1", CHAPTERS),
    "memory.routing_strategy_train": ("token", CHAPTERS),
    "memory.routing_window_size": ("2", f"{CHAPTERS} memory.routing_strategy_train=rolling"),
    "memory.use_load_balance_loss": ("false", LOSSES),
    "memory.load_balance_coefficient": ("0.5", LOSSES),
    "memory.use_auxiliary_loss": ("true", CHAPTERS),
    "memory.auxiliary_loss_coefficient": ("0.5", LOSSES),
    "memory.use_z_loss": ("false", LOSSES),
    "memory.z_loss_coefficient": ("0.5", LOSSES),
    "memory.use_lora": (
        "true",
        "memory.use_both_memory_and_lora=false memory.use_memory_adapter=false data.reads=text"
        " model.freeze_base_model=false",
    ),
    "memory.use_both_memory_and_lora": ("false", ""),
    "memory.lora_rank": ("2", ""),
    "memory.lora_alpha": ("64", ""),
    "memory.lora_dropout": ("0.5", ""),
    "memory.lora_targets": ("[q_proj]", ""),
    "model.base_model_name": ("OTHER_MODEL", ""),
    "model.freeze_base_model": ("false", ""),
    "model.hidden_dim": ("64", SCRATCH),
    "model.num_heads": ("8", SCRATCH),
    "model.num_kv_heads": ("2", SCRATCH),
    "model.num_layers": ("3", SCRATCH),
    "model.intermediate_dim": ("48", SCRATCH),
    "model.vocab_size": ("333", SCRATCH),
    "model.tokenizer_name": ("OTHER_MODEL", SCRATCH),
    "model.use_rope": ("false", SCRATCH),
    "model.rope_theta": ("50", SCRATCH),
    "model.dropout": ("0.5", SCRATCH),
    "model.attention_dropout": ("0.5", SCRATCH),
    "model.norm_eps": ("0.1", SCRATCH),
    "model.use_rms_norm": ("false", SCRATCH),
    "data.sources": ("[SOURCES/one]", "data.validation=0"),
    "data.validation": ("[three]", VALIDATED),
    "data.licences": ("[]", "data.sources=[SOURCES/*,UNLICENSED]"),
    "data.chunk_tokens": ("200", ""),
    "data.chunks_per_source": ("5", ""),
    "data.near_duplicates": ("0.2", ""),
    "data.kinds": ("{uuid: 1}", ""),
    "data.chunks": ("[5]", ""),
    "data.reads": ("none", LORA),
    "losses.answer_coefficient": ("0.5", ""),
    "losses.kl_coefficient": ("0.5", ""),
    "losses.kl_top_k": ("2", KL),
    "losses.kl_temperature": ("3", KL),
    "losses.teacher_model": ("OTHER_MODEL", KL),
    "losses.citation_coefficient": ("0.5", ""),
    "losses.sparsity_coefficient": ("0.5", ""),
    "training.memory_lr": ("0.1", TANH),
    "training.gate_lr": ("0.1", ""),
    "training.lora_lr": ("0.1", ""),
    "training.base_model_lr": ("0.1", "model.freeze_base_model=false"),
    "training.training_mode": ("instruction_finetuning", f"{TEXTS} training.dataset_name=BOTH"),
    "training.dataset_name": ("MORE_TEXTS", TEXTS),
    "training.dataset_subset": ("plain", f"{TEXTS} training.dataset_name=SUBSETS"),
    "training.dataset_split": ("test", f"{TEXTS} training.dataset_name=SPLITS"),
    "training.eval_split": ("test", f"{TEXTS} training.dataset_name=SPLITS training.eval_samples=2"),
    "training.text_field": ("other", TEXTS),
    "training.max_length": ("20", TEXTS),
    "training.batch_size": ("3", ""),
    "training.gradient_accumulation_steps": ("2", ""),
    "training.max_steps": ("3", ""),
    "training.warmup_steps": ("0", ""),
    "training.optimizer": ("sgd", ""),
    "training.weight_decay": ("0.5", TANH),
    "training.max_grad_norm": ("0.001", ""),
    "training.scheduler": ("linear", "training.max_steps=4"),
    "training.min_lr_ratio": ("0.5", "training.max_steps=4"),
    "training.mixed_precision": ("bf16", ""),
    "training.save_precision": ("fp32", ""),
    "training.save_steps": ("1", ""),
    "training.save_total_limit": ("1", "training.save_steps=1"),
    "training.save_best_model": ("false", VALIDATED),
    "training.eval_steps": ("1", VALIDATED),
    "training.eval_samples": ("3", VALIDATED),
    "training.early_stopping": ("true", f"{STOPPED} training.early_stopping_patience=1"),
    "training.early_stopping_patience": ("1", f"{STOPPED} training.early_stopping=true"),
    "training.early_stopping_threshold": (
        "1000",
        f"{VALIDATED} training.eval_steps=1 training.early_stopping=true training.early_stopping_patience=1"
        " training.lora_lr=1e-2",
    ),
    "training.logging_steps": ("1", ""),
    "training.seed": ("1", ""),
}
ELSEWHERE = {
    "memory.refuse_above",
    "memory.routing_strategy_inference",
    "memory.quantize_memory",
    "memory.memory_quant_bits",
    "memory.memory_gradient_checkpointing",
    "model.max_seq_len",
    "model.use_flash_attention",
    "data.test",
    "data.latent_cache",
    "data.latents_on_disk",
    "data.questions",
    "data.written",
    "data.written_by",
    "training.distributed_strategy",
    "training.num_gpus",
    "training.fsdp_sharding_strategy",
    "training.gradient_checkpointing",
    "training.log_to_wandb",
    "training.log_to_tensorboard",
    "training.wandb_run_name",
    "training.resume_from_checkpoint",
}
"""Settings that change only speed, memory, or what a later command does: their tests are named in the tables of
docs/model.md and docs/training.md."""


def other_model(folder: Path) -> Path:
    """Another decoder with another tokenizer: one more word."""
    place = folder / "other-model"
    if not place.exists():
        tokenizer = tiny_tokenizer()
        tokenizer.add_tokens(["return"])
        tokenizer.save_pretrained(place)
        model = tiny_model("qwen3", seed=1)
        model.config.max_position_embeddings = 4096
        model.save_pretrained(place)
    return place


def embedder(folder: Path) -> Path:
    """A tiny BERT with a tokenizer of words."""
    place = folder / "embedder"
    BertModel(BertConfig(vocab_size=120, max_position_embeddings=512, **SIZES)).save_pretrained(place)
    word_tokenizer().save_pretrained(place)
    return place


def data_sets(folder: Path) -> dict[str, Path]:
    """Word of the cases -> a data set."""
    rows = [{"text": f"one {i} " * 9, "other": f"two {i} " * 9} for i in range(8)]
    chats = [{**row, "question": "what is it?", "answer": f"it is {i}, of course"} for i, row in enumerate(rows)]
    more = [{"text": f"another {i} " * 9} for i in range(8)]
    files = {"texts.jsonl": rows, "more.jsonl": more, "both.jsonl": chats}
    files |= {"splits/train.jsonl": rows, "splits/test.jsonl": more}
    files |= {"subsets/README.md": [], "subsets/plain.jsonl": more, "subsets/all.jsonl": rows}
    write_tree(folder, {name: "".join(json.dumps(row) + "\n" for row in own) for name, own in files.items()})
    configs = "".join(
        f"- config_name: {name}\n  data_files: {file}.jsonl\n{more}"
        for name, file, more in (("default", "all", "  default: true\n"), ("plain", "plain", ""))
    )
    write_tree(folder, {"subsets/README.md": f"---\nconfigs:\n{configs}---\n"})
    names = {
        "TEXTS": "texts.jsonl",
        "MORE_TEXTS": "more.jsonl",
        "BOTH": "both.jsonl",
        "SPLITS": "splits",
        "SUBSETS": "subsets",
    }
    return {word: folder / name for word, name in names.items()}


def unlicensed(folder: Path) -> Path:
    return write_tree(folder / "unlicensed", {"core.py": (folder / "sources/one/one/core.py").read_text("utf-8")})


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Without the picture, which has tests of its own, and with little to collect between two runs."""
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("awareness.train.run.draw_run", lambda folder, say: None)
        yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def before() -> dict[str, dict[str, str]]:
    """The other settings of a case -> what their run gave without the setting."""
    return {}


@pytest.fixture
def seen(config_file, model_folder, tmp_path, monkeypatch, capfd) -> Callable[[str, str], dict[str, str]]:
    """(settings, name) -> what a run with them leaves behind, by part."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache" / "datasets"))
    content = yaml.safe_load(config_file.read_text("utf-8"))
    content["model"] = {"base_model_name": str(model_folder)}
    content["training"] |= {"max_steps": 2, "eval_samples": 0, "warmup_steps": 1}
    config_file.write_text(yaml.safe_dump(content), "utf-8")

    def train(settings: str, name: str) -> dict[str, str]:
        places = {"OTHER_MODEL": other_model(tmp_path), "MODEL": model_folder, "EMBEDDER": embedder(tmp_path)}
        places |= {**data_sets(tmp_path), "SOURCES": tmp_path / "sources", "UNLICENSED": unlicensed(tmp_path)}
        for word, path in places.items():
            settings = re.sub(rf"\b{word}\b", str(path), settings)
        chosen = [word for setting in shlex.split(settings) for word in ("--set", setting)]
        out = tmp_path / name
        code = run(["train", "-c", str(config_file), *chosen, "--set", f"output_dir={out}", "--format", "json"])
        printed, told = capfd.readouterr()
        assert code == 0, told
        result = json.loads(printed)
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
        tensors = {
            name: (str(tensor.dtype), list(tensor.shape), xxhash.xxh3_64_hexdigest(tensor.float().numpy().tobytes()))
            for name, tensor in load_file(out / "final" / "weights.safetensors").items()
        }
        return {
            "log": repr([{k: v for k, v in line.items() if not re.search("second|memory_", k)} for line in lines]),
            "tensors": repr(tensors),
            "files": repr(sorted(str(path.relative_to(out)) for path in out.rglob("*"))),
            "data": (out / "data.json").read_text("utf-8"),
            "result": repr({k: v for k, v in result.items() if k not in ("output", "seconds")}),
            "told": repr([re.sub(r"[0-9.,]+ \S*s\b", "", line) for line in told.splitlines() if "step" in line]),
            "all told": told,
        }

    return train


@pytest.mark.parametrize("setting", CASES)
def test_a_setting_changes_what_a_run_does(setting, seen, before):
    value, others = CASES[setting]
    if others not in before:
        before[others] = seen(others, "before")
    after = seen(f"{others} '{setting}={value}'", "after")
    assert {part for part in after if part != "all told" and after[part] != before[others][part]} != set()
    assert not re.search(rf"{re.escape(setting)}\b.*has no effect", after["all told"])


def test_every_setting_has_a_case_or_a_test_of_its_own():
    settings = {f"{name}.{field}" for name, section in SECTIONS.items() for field in section.model_fields}
    assert settings == CASES.keys() | ELSEWHERE and not CASES.keys() & ELSEWHERE
