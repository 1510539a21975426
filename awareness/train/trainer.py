"""The trainer of a memory: a subclass of the Trainer of transformers.

Inherited: the loop, accumulation, mixed precision, clipping, DDP and FSDP, early stopping, trackers, and the saving of
optimizer, scheduler, scaler and RNG. Its own: a learning rate for each part, a scheduler with a floor, atomic
checkpoints of the trained tensors alone (resuming/saved_steps.py), evaluation by tokens, and a log of every step
(log.py).
"""

from __future__ import annotations

import importlib.util
import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments, set_seed

from awareness.config.training import TrainingConfig
from awareness.errors import UsageError
from awareness.model.sharded import reshard
from awareness.train.log import RunLog
from awareness.train.resuming.going_on import note_best
from awareness.train.resuming.run_start import early_stopping
from awareness.train.resuming.saved_steps import complete, rotate
from awareness.train.sharding import (
    fsdp_arguments,
    gathered,
    is_to_be_sharded,
    largest,
    load_optimizer_state,
    optimizer_state,
    parameters_held,
    units_of,
    use_fsdp,
)
from awareness.train.step import TrainingStep

OPTIMIZERS = {"adamw": "adamw_torch", "adafactor": "adafactor", "sgd": "sgd"}
PARTS = ("memory", "gate", "lora", "base")
OPTIMIZER_STATE, SCHEDULER_STATE = "optimizer.pt", "scheduler.pt"
_NO_DECAY = ("bias", "norm.weight", "gate", "sharpness")
"""Endings of the names of parameters without weight decay."""


def part_of(name: str) -> str:
    """The part that a parameter belongs to: `memory` (blocks, banks, routers, soft tokens), `gate` (gates and biases),
    `lora` or `base`. Each has its learning rate. name: in a `MemoryDecoder`."""
    if "lora_" in name:
        return "lora"
    if not name.startswith("adapter."):
        return "base"
    return "gate" if name.endswith((".gate", ".bank_gate", ".sharpness")) or is_memory_bias(name) else "memory"


def learning_rate_of(name: str, config: TrainingConfig) -> float:
    """The learning rate of a parameter. name: in a `MemoryDecoder`."""
    rates = (config.memory_lr, config.gate_lr, config.lora_lr, config.base_model_lr)
    return dict(zip(PARTS, rates, strict=True))[part_of(name)]


def is_memory_bias(name: str) -> bool:
    """Whether it is b_h of the joint form, `adapter.blocks.7.bias`."""
    parts = name.split(".")
    return len(parts) == 4 and parts[1] == "blocks" and parts[3] == "bias"


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """The factor of every learning rate in a step, counted from 0: it rises over the warm-up, then falls to
    min_lr_ratio at the last step (cosine: Loshchilov and Hutter 2017, arXiv 1608.03983, section 3)."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    last = config.max_steps - 1
    done = min(1.0, (step - config.warmup_steps) / max(1, last - config.warmup_steps))
    shape = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[config.scheduler]
    return config.min_lr_ratio + (1 - config.min_lr_ratio) * shape


def arguments(
    config: TrainingConfig,
    output_dir: Path,
    *,
    validates: bool,
    autocast: bool = False,
    units: list[str] | None = None,
) -> TrainingArguments:
    """The arguments of transformers. validates: there is a validation set. autocast: the decoder's weights are float32,
    so bf16 is a matter of autocast. units: of FSDP. Raises UsageError."""
    if config.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise UsageError("training.mixed_precision: fp16 needs CUDA", hint="--set training.mixed_precision=bf16")
    distributed: dict[str, Any] = {"ddp_find_unused_parameters": False}
    if is_to_be_sharded(config):
        if config.optimizer == "adafactor":
            raise UsageError(
                "training.optimizer: adafactor cannot be sharded by FSDP", hint="--set training.optimizer=adamw"
            )
        distributed = fsdp_arguments(config, units or [])
    trackers = {"wandb": config.log_to_wandb, "tensorboard": config.log_to_tensorboard}
    watching = [name for name, on in trackers.items() if on]
    if missing := [name for name in watching if importlib.util.find_spec(name) is None]:
        raise UsageError(
            f"training.log_to_{missing[0]}: {missing[0]} is not installed", hint=f"pip install {missing[0]}"
        )
    best = validates and (config.save_best_model or config.early_stopping)
    made = TrainingArguments(
        output_dir=str(output_dir),
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        max_steps=config.max_steps,
        learning_rate=config.memory_lr,
        optim=OPTIMIZERS[config.optimizer],
        max_grad_norm=config.max_grad_norm,
        fp16=config.mixed_precision == "fp16",
        bf16=config.mixed_precision == "bf16" and autocast,
        save_strategy="steps",
        save_steps=config.save_steps,
        eval_strategy="steps" if validates else "no",
        eval_steps=config.eval_steps,
        load_best_model_at_end=False,  # this trainer keeps the best itself, also between two checkpoints
        metric_for_best_model="eval_loss" if best else None,
        greater_is_better=False if best else None,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,
        report_to=watching or "none",
        run_name=config.wandb_run_name,
        seed=config.seed,
        data_seed=config.seed,
        train_sampling_strategy="sequential",  # a sample is a function of its number
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        **distributed,
    )
    if not (made.fp16 or made.bf16):
        made.mixed_precision = "no"  # transformers takes it from ACCELERATE_MIXED_PRECISION
    return made


class MemoryTrainer(Trainer):
    """Trains a `TrainingStep`.

    rows: the collate function. save: (folder, trained tensors by name, None for those of the module) writes a
    checkpoint. load: reads one back into the module. about: settings that a run must share to resume.
    """

    model: TrainingStep

    def __init__(
        self,
        step: TrainingStep,
        config: TrainingConfig,
        output_dir: Path,
        *,
        rows: Callable[[Any], dict[str, Any]],
        train: Any,
        validation: Any | None,
        save: Callable[[Path, Mapping[str, Tensor] | None], None],
        load: Callable[[Path], None],
        about: Mapping[str, Any],
        log: RunLog,
    ) -> None:
        self.config, self._save_to, self._load_of, self.about = config, save, load, about
        self._step, self._sums = step, defaultdict[str, float](float)
        self._run_log = log
        self._group_of: dict[str, int] = {}
        """Part of the module -> number of a parameter group that holds some of it."""
        callbacks = []
        if config.early_stopping and validation is not None:
            callbacks.append(EarlyStopping(config.early_stopping_patience, config.early_stopping_threshold))
        autocast = step.module.decoder.dtype == torch.float32
        super().__init__(
            step,
            arguments(
                config,
                output_dir,
                validates=validation is not None,
                autocast=autocast,
                units=units_of(step.module),
            ),
            data_collator=rows,
            train_dataset=train,
            eval_dataset=validation,
            callbacks=[*callbacks, log],
        )
        self.callback_handler.callbacks = [c for c in self.callback_handler.callbacks if not _prints(c)]
        self.model_accepts_loss_kwargs = False  # the loss of a step is the mean over its accumulated batches
        self.can_return_loss = True
        log.means, log.rates = self.step_means, self.rates
        if self.is_fsdp_enabled and step._memory is not None:
            step._memory.passes = largest

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.args.fsdp:
            use_fsdp(self.accelerator, self.args)
            self.is_fsdp_enabled = True

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)
        if self.is_fsdp_enabled:
            own, every = parameters_held(self._step)
            self._run_log.say(f"FSDP: each of {self.args.world_size} processes holds {own:,} of {every:,} parameters")
        return prepared

    @property
    def folder(self) -> Path:
        return Path(str(self.args.output_dir))

    @property
    def best(self) -> Path:
        """The folder with the trained tensors of the best evaluation."""
        return self.folder / "best"

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """A parameter group for each pair of learning rate and weight decay."""
        if self.optimizer is None:
            groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
            for name, parameter in (self.model if model is None else model).named_parameters():
                if parameter.requires_grad:
                    own = name.rpartition("module.")[2]
                    decay = 0.0 if own.endswith(_NO_DECAY) else self.config.weight_decay
                    rate = learning_rate_of(own, self.config)
                    groups[rate, decay].append(parameter)
                    self._group_of.setdefault(part_of(own), list(groups).index((rate, decay)))
            kind, options = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = kind(
                [{"params": own, "lr": lr, "weight_decay": decay} for (lr, decay), own in groups.items()],
                **{**options, "lr": self.config.memory_lr},
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LambdaLR:
        """The same factor for every group. It counts optimizer steps, whatever the number of processes."""
        if self.lr_scheduler is None:
            chosen = self.optimizer if optimizer is None else optimizer
            inner: Any = getattr(chosen, "optimizer", chosen)  # unwraps the optimizer of Accelerate
            self.lr_scheduler = LambdaLR(inner, lambda step: learning_rate_factor(step, self.config))
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        with self._autocast():
            out = model(**inputs)
        for name, value in out.items():
            self._sums[name] += float(value.detach())
        self._sums["batches"] += 1
        return (out["loss"], out) if return_outputs else out["loss"]

    def _autocast(self) -> AbstractContextManager[Any]:
        """With FSDP, what Accelerate puts around the forward pass without it."""
        return self.accelerator.autocast() if self.is_fsdp_enabled else nullcontext()

    def step_means(self) -> dict[str, float]:
        """Loss and terms of the last optimizer step, means over the batches of all processes, and the sum of their
        tokens. Every process has to call this."""
        sums, self._sums = self._sums, defaultdict(float)
        if self.args.world_size > 1:
            values = torch.tensor([sums[name] for name in sorted(sums)], dtype=torch.float64, device=self.args.device)
            torch.distributed.all_reduce(values)
            sums.update(zip(sorted(sums), values.tolist(), strict=True))
        batches = max(1.0, sums.pop("batches", 1.0))
        sums.pop("nll", None)
        tokens = sums.pop("tokens", 0.0)
        return {**{name: value / batches for name, value in sums.items()}, "tokens": tokens}

    def rates(self) -> dict[str, float]:
        """The learning rates as they are now, of each part that is trained."""
        groups = [] if self.optimizer is None else self.optimizer.param_groups
        parts = [part for part in PARTS if part in self._group_of]
        return {part: float(groups[self._group_of[part]]["lr"]) for part in parts}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trackers get the terms, rates and speed of the steps beside what transformers logs."""
        super().log({**logs, **self._run_log.figures} if "loss" in logs else logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean negative log-likelihood of the answer tokens over all processes. Every token counts once."""
        self.model.eval()
        nll, tokens = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for number, inputs in enumerate(self.get_eval_dataloader(eval_dataset)):
            own, counts = self._real_rows(number, inputs)
            with torch.no_grad(), self._autocast():
                out = self.model_wrapped(**self._prepare_inputs(own))
            if counts:
                nll, tokens = nll + out["nll"].double().cpu(), tokens + out["tokens"].double().cpu()
        both = self.accelerator.reduce(torch.stack([nll, tokens]).to(self.args.device).float(), "sum")
        loss = float(both[0] / both[1].clamp_min(1))
        metrics = {f"{metric_key_prefix}_loss": loss, f"{metric_key_prefix}_perplexity": math.exp(min(loss, 50.0))}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _real_rows(self, number: int, inputs: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Batch `number` of this process without the rows that Accelerate repeated so that all processes have as many
        batches; False if it has no other rows, and so must run but not count. Batches are dealt in turn."""
        size, index = self.args.eval_batch_size, self.args.process_index
        before = (number * self.args.world_size + index) * size
        assert self.eval_dataset is not None
        real = min(size, len(self.eval_dataset) - before)  # type: ignore[arg-type]
        if real <= 0:
            return inputs, False
        return {name: value[:real] for name, value in inputs.items()}, True

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        is_best = super()._determine_best_metric(metrics, trial)
        if is_best and self.config.save_best_model:
            self.save_model(str(self.best))
            if self.args.should_save:
                note_best(self.best, self.state.global_step)
        return is_best

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Atomic: the list of files with their checksums is written last. Then older checkpoints are deleted."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process has written the state of its generators
        if self.args.should_save:
            stops = any(isinstance(each, EarlyStopping) and each.stops for each in self.callback_handler.callbacks)
            stopped_early = early_stopping(self.config) if stops else None
            complete(self.folder / f"checkpoint-{self.state.global_step}", self.about, stopped_early)
            rotate(self.folder, self.config.save_total_limit)

    def load_best(self) -> None:
        """Load the tensors of the best evaluation into the module."""
        reshard(self._step)
        self._load_of(self.best)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Every process has to call this; the first one writes."""
        self._save(output_dir, self.trained_tensors())
        self.accelerator.wait_for_everyone()

    def trained_tensors(self) -> dict[str, Tensor] | None:
        """The trained tensors by name if they are spread over processes, None if the module holds them whole. Every
        process has to call this."""
        return gathered(self._step.module) if self.is_fsdp_enabled else None

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if self.args.should_save:
            self._save_to(Path(str(output_dir)), state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = optimizer_state(self._own_optimizer(), self._names())
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_STATE)
            assert self.lr_scheduler is not None
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_STATE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        optimizer, scheduler = (
            torch.load(Path(checkpoint) / name, map_location="cpu", weights_only=True)
            for name in (OPTIMIZER_STATE, SCHEDULER_STATE)
        )
        load_optimizer_state(self._own_optimizer(), optimizer, self._names())
        assert self.lr_scheduler is not None
        self.lr_scheduler.load_state_dict(scheduler)

    def _own_optimizer(self) -> Optimizer:
        """The optimizer inside Accelerate's."""
        own: Any = getattr(self.optimizer, "optimizer", self.optimizer)
        return own

    def _names(self) -> dict[nn.Parameter, str]:
        reshard(self._step)
        return {parameter: name for name, parameter in self._step.module.named_parameters()}

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """The generators of this process; of another number of processes, they begin anew from seed and step."""
        if checkpoint is None:
            return
        states = list(Path(checkpoint).glob("rng_state*.pth"))
        if len(states) == self.args.world_size:
            super()._load_rng_state(checkpoint)
            return
        drawn = random.Random(f"{self.config.seed}/{self.state.global_step}/{self.args.process_index}")
        set_seed(drawn.getrandbits(32))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        reshard(self._step)
        self._load_of(Path(resume_from_checkpoint))


class EarlyStopping(EarlyStoppingCallback):
    """Without the check of transformers for `load_best_model_at_end`: this trainer loads the best model itself. The
    last step is saved."""

    @property
    def stops(self) -> bool:
        """Whether the last evaluation ended the training."""
        return bool(self.early_stopping_patience_counter >= self.early_stopping_patience)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        pass

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        super().on_evaluate(args, state, control, metrics, **kwargs)
        control.should_save = control.should_save or control.should_training_stop


def _prints(callback: Any) -> bool:
    """Whether it is a callback of transformers that prints logs."""
    return type(callback).__name__ in ("PrinterCallback", "ProgressCallback")
