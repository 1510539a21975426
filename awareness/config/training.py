"""`task: memory`: settings that train a memory adapter, LoRA or a decoder, on repositories or on a data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from awareness.config.base import Conflict, Section, Seed, Share
from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


PREPARED_KINDS = ("written", "distractors")
"""The kinds of samples that a model makes before training (train/samples/mixture.py)."""
ASKED_KINDS = ("asked", "asked_unknown")
"""The kinds of samples that need `data.questions` (train/samples/asked.py)."""
UNKNOWN_KINDS = ("unknown", "asked_unknown")
"""The kinds of samples whose answer is that the code does not say (model/not_said.py)."""


class DataConfig(Section):
    """Repositories -> samples (train/data/repostack.py, train/samples/mixture.py).

    sources: folders, git repositories, archives (.whl .zip .tar.gz .tgz), patterns with `*`, `pypi:NAME==VERSION`,
    or the store of a fleet (`s3://BUCKET/FOLDER`).
    validation: share or names of the sources for validation. test: names that must not be among the sources. licences:
    SPDX names that are permitted; empty permits all. chunk_tokens: largest size of a chunk. chunks_per_source: largest
    number of chunks of a source. near_duplicates: Jaccard index from which two chunks count as one.

    questions: files of questions with answers about the sources, for the kinds `asked` and `asked_unknown`; those that
    come with awareness by their name. kinds: weight of each kind of sample. chunks: largest number of chunks of a
    sample, in as many equal stages of the training. reads: how the decoder gets the chunks: as memory, as text in the
    prompt, or not at all. written: number of samples that models write before training, for each of the kinds `written`
    and `distractors`. written_by: the model that writes those of `written`, with any vocabulary; null for the base
    model. latent_cache: bytes of latents that are kept in RAM. latents_on_disk: bytes of latents of the sources' chunks
    that are kept in the user's cache for later trainings.
    """

    sources: list[str] = Field(min_length=1, examples=[["./my/repo"]])
    validation: Share | list[str] = 0.1
    test: list[str] = Field(default=[])
    licences: list[str] = Field(default=["MIT", "BSD", "Apache-2.0", "ISC", "PSF", "Zlib", "Unlicense", "MPL-2.0"])
    chunk_tokens: int = Field(default=128, ge=32, le=2048)
    chunks_per_source: int = Field(default=120, ge=1)
    near_duplicates: Share = 0.8
    questions: list[str] = Field(default=[])
    kinds: dict[str, NonNegative] = Field(min_length=1, examples=[{"constant": 1}])
    chunks: list[Annotated[int, Field(ge=1, le=1024)]] = Field(default=[1, 4, 16, 64], min_length=1)
    reads: Literal["memory", "text", "none"] = "memory"
    written: int = Field(default=0, ge=0)
    written_by: str | None = None
    latent_cache: int = Field(default=2 << 30, ge=0)
    latents_on_disk: int = Field(default=0, ge=0)

    def conflicts(self) -> Iterator[Conflict]:
        if not any(self.kinds.values()):
            first = next(iter(self.kinds))
            yield Conflict("kinds", "every weight is 0", fix={f"data.kinds.{first}": 1})


class LossConfig(Section):
    """Coefficients of the terms of the loss (train/losses.py); 0 disables a term. Routers have theirs in `memory:`.

    kl_top_k, kl_temperature: of the teacher's distribution. teacher_model: null for the base model, which gets the gold
    chunks as text in its prompt; any other must have the same tokenizer.
    """

    answer_coefficient: NonNegative = 1.0
    kl_coefficient: NonNegative = 0.0
    kl_top_k: int = Field(default=32, ge=1)
    kl_temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    teacher_model: str | None = None
    citation_coefficient: NonNegative = 0.0
    sparsity_coefficient: NonNegative = 0.0


class TrainingConfig(Section):
    """The run (train/trainer.py); docs/training.md has each setting.

    memory_lr: of blocks, banks, routers and soft tokens. gate_lr: of gates and biases, which begin at 0. base_model_lr:
    of a decoder that is not frozen. min_lr_ratio: share of each rate at which the scheduler ends. batch_size: samples
    per device and forward pass. mixed_precision: `bf16`, `fp16` (CUDA, with a loss scaler) or `no`. save_precision: of
    the final checkpoint.

    dataset_name: name or folder of a Hugging Face data set, instead of `data:`. training_mode: `pretraining` on its
    text_field, or `instruction_finetuning` on its chats, whose assistant turns are learned. max_length: tokens of a
    row. num_gpus: number of processes, each on a GPU if there are GPUs.
    """

    memory_lr: NonNegative = 3e-4
    gate_lr: NonNegative = 2e-2
    lora_lr: NonNegative = 3e-4
    base_model_lr: NonNegative = 1e-5

    training_mode: Literal["instruction_finetuning", "pretraining"] = "instruction_finetuning"
    dataset_name: str | None = None
    dataset_subset: str | None = None
    dataset_split: str = "train"
    eval_split: str | None = None
    text_field: str = "text"
    max_length: int = Field(default=1024, ge=8)

    distributed_strategy: Literal["ddp", "fsdp"] = "ddp"
    num_gpus: int = Field(default=1, ge=1)
    fsdp_sharding_strategy: Literal["full_shard", "shard_grad_op", "no_shard"] = "full_shard"

    batch_size: int = Field(default=4, ge=1)
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    max_steps: int = Field(default=300, ge=1)
    warmup_steps: int = Field(default=20, ge=0)
    optimizer: Literal["adamw", "adafactor", "sgd"] = "adamw"
    weight_decay: NonNegative = 0.0
    max_grad_norm: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    min_lr_ratio: Share = 0.1
    mixed_precision: Literal["no", "bf16", "fp16"] = "bf16"
    save_precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    gradient_checkpointing: bool = False

    save_steps: int = Field(default=50, ge=1)
    save_total_limit: int = Field(default=2, ge=1)
    save_best_model: bool = True
    eval_steps: int = Field(default=50, ge=1)
    eval_samples: int = Field(default=32, ge=0)
    early_stopping: bool = False
    early_stopping_patience: int = Field(default=3, ge=1)
    early_stopping_threshold: NonNegative = 0.0
    logging_steps: int = Field(default=10, ge=1)
    log_to_wandb: bool = False
    log_to_tensorboard: bool = False
    wandb_run_name: str | None = None

    resume_from_checkpoint: str | None = None
    seed: Seed = 0

    def conflicts(self) -> Iterator[Conflict]:
        # The default is for long runs; a short one only ends before its rates are at their highest.
        if "warmup_steps" in self.model_fields_set and self.warmup_steps > self.max_steps:
            yield Conflict(
                "warmup_steps",
                f"is more than training.max_steps {self.max_steps}",
                ("max_steps",),
                {"training.warmup_steps": self.max_steps},
            )


class TrainConfig(Section):
    """start_from: a checkpoint with the same `memory:` settings whose tensors the training begins with. output_dir:
    folder for the final checkpoint, the checkpoints of the run, the log and the picture. quiet_unused: do not say which
    settings have no effect (config/unused.py)."""

    task: Literal["memory"] = "memory"
    start_from: Path | None = None
    model: ModelConfig = ModelConfig()
    memory: MemoryConfig = MemoryConfig()
    data: DataConfig | None = None
    losses: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    output_dir: Path = Path("trained")
    quiet_unused: bool = False

    def conflicts(self) -> Iterator[Conflict]:
        if (self.data is None) == (self.training.dataset_name is None):
            fix: dict[str, Any] = {"data": None}
            if self.data is None:
                fix = {f"data.{name}": example for name, example in DataConfig.examples().items()}
            yield Conflict(
                "data",
                "set either data: (repositories) or training.dataset_name (a data set)",
                ("training.dataset_name",),
                fix,
            )
