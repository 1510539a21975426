"""Several processes on one machine: start them, count them, and report an error once.

torch's elastic agent starts the processes, as `torchrun` does. `torchrun` and `accelerate launch` work as well: a
process knows by its environment that it was started by one of them.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from awareness.config.training import TrainConfig
from awareness.errors import AwarenessError, StorageFailed, UsageError

_CONSEQUENCE = 1.0
"""Seconds that a process waits with an unexpected error: one that only lost the others is ended meanwhile."""
_OURS = 70


def started_by_launcher() -> bool:
    """Whether a launcher started this process as one of several (or as the only one)."""
    return "WORLD_SIZE" in os.environ and "RANK" in os.environ


def number_of_processes() -> int:
    return int(os.environ["WORLD_SIZE"]) if started_by_launcher() else 1


def process_index() -> int:
    """0 for the process that reports and writes."""
    return int(os.environ["RANK"]) if started_by_launcher() else 0


def with_processes(config: TrainConfig) -> TrainConfig:
    """The configuration with the number of processes that run: the launcher's, unless `num_gpus` is set and differs.
    Raises UsageError."""
    training, running = config.training, number_of_processes()
    if training.num_gpus == running:
        return config
    if started_by_launcher() and "num_gpus" not in training.model_fields_set:
        own = training.model_copy(update={"num_gpus": running})
        return config.model_copy(update={"training": own})
    if started_by_launcher():
        raise UsageError(
            f"training.num_gpus: {training.num_gpus}, but the launcher started {_processes(running)}",
            hint=f"--set training.num_gpus={running}, or start {_processes(training.num_gpus)}",
        )
    raise UsageError(
        f"training.num_gpus: {training.num_gpus}, but this is one process",
        hint="awareness train --config FILE, which starts the others",
    )


def to_start(config: TrainConfig) -> int:
    """The number of processes that this one has to start; 0 if it trains itself. Raises UsageError."""
    if started_by_launcher():
        return 0
    wanted = config.training.num_gpus
    if is_of_accelerate():
        asked = asked_of_accelerate()
        if "num_gpus" not in config.training.model_fields_set:
            if asked is None:
                raise UsageError(
                    "accelerate launch started one process only, as it does without GPUs",
                    hint="--set training.num_gpus=2, which starts two",
                )
            wanted = asked
        elif asked not in (None, wanted):
            raise UsageError(
                f"training.num_gpus: {wanted}, but accelerate launch was asked for {_processes(asked or 0)}",
                hint=f"--set training.num_gpus={asked}, or accelerate launch --num_processes {wanted}",
            )
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and wanted > gpus:
        number = "1 GPU" if gpus == 1 else f"{gpus} GPUs"
        raise UsageError(
            f"training.num_gpus: {wanted}, but this machine has {number}", hint=f"--set training.num_gpus={gpus}"
        )
    return wanted if wanted > 1 else 0


def is_of_accelerate() -> bool:
    """Whether `accelerate launch --num_processes N` (N > 1) started this process alone. Without GPUs it starts one
    process whatever N is, unless MPI is there, and sets an address for N that nothing else sets."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ and not started_by_launcher()


def asked_of_accelerate() -> int | None:
    """The N of its command line, which is the parent process's; None if it has none (a file of `accelerate config`)."""
    import psutil  # accelerate requires it

    with suppress(psutil.Error, ValueError, IndexError):
        words = psutil.Process(os.getppid()).cmdline()
        for place, word in enumerate(words):
            name, equals, value = word.partition("=")
            if name in ("--num_processes", "--num-processes"):
                return int(value if equals else words[place + 1])
    return None


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `awareness` with these arguments in several processes, and return the exit code: 0, or that of the process
    that failed and has said why. A signal ends all of them, and then this one, as if it had come without them.

    Raises StorageFailed if the system killed a process, and AwarenessError if another signal ended one.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    threads = str(max(1, (os.cpu_count() or 1) // processes))
    os.environ.setdefault("OMP_NUM_THREADS", threads)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"awareness-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(),
    )
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    logging.disable(logging.ERROR)  # the agent reports what the processes have reported
    try:
        elastic_launch(config, sys.executable)("-m", "awareness.cli.app", *arguments)
        return 0
    except SignalException as received:
        number = int(received.sigval)
    except ChildFailedError as failed:
        codes = {rank: failure.exitcode for rank, failure in sorted(failed.failures.items())}
        return _exit_code(codes, processes)
    finally:
        _mark(os.getpid()).unlink(missing_ok=True)
        logging.disable(logging.NOTSET)
        for each, handler in handlers.items():
            signal.signal(each, handler)
    signal.raise_signal(number)
    return 128 + number


def _exit_code(codes: dict[int, int], processes: int) -> int:
    """codes: rank -> exit code, or the negative number of the signal that ended it, of the processes that failed."""
    if killed := [rank for rank, code in codes.items() if code == -signal.SIGKILL]:
        raise StorageFailed(
            f"process {killed[0]} of {processes} was killed, as the system does when memory runs out",
            hint="--set training.batch_size=1, or --set training.distributed_strategy=fsdp",
        )
    if reported := [code for code in codes.values() if code > 0]:
        return reported[0]
    by_itself = [rank for rank, code in codes.items() if code != -signal.SIGTERM]  # by that the agent ends the others
    rank = next(iter(by_itself or codes))
    code = codes[rank]
    raise AwarenessError(f"process {rank} of {processes} was ended by {signal.Signals(-code).name}")


@contextmanager
def one_of_several() -> Iterator[None]:
    """Around the work of a process that a launcher started. Of the processes that fail, the first lets its error pass
    and the others raise SystemExit with its exit code, so that it is reported once. SIGINT and SIGTERM end the process
    without a word: the launcher has got them too, and reports."""
    if not started_by_launcher():
        yield
        return
    os.environ.pop("ACCELERATE_USE_FSDP", None)  # the configuration decides
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    atexit.register(_leave)  # before the handlers of the libraries that the work imports, so it runs after them
    try:
        yield
    finally:
        error = sys.exc_info()[1]
        if error is None:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
        elif isinstance(error, KeyboardInterrupt):
            raise SystemExit(128 + signal.SIGINT)
        elif not isinstance(error, SystemExit):
            if not isinstance(error, AwarenessError):
                time.sleep(_CONSEQUENCE)
            if not _is_first_to_fail(os.getppid()):
                raise SystemExit(error.exit_code if isinstance(error, AwarenessError) else _OURS)


_code: int | None = None


def leave_with(code: int) -> None:
    """The program ends with this exit code. If it is one of several, its libraries are not unloaded: a thread of gloo
    that still waits for another process would abort it, after its work is done."""
    global _code
    _code = code


def _leave() -> None:
    """The last exit handler."""
    if _code is None:
        return
    with suppress(OSError, ValueError):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(_code)


def _is_first_to_fail(launcher: int) -> bool:
    """Whether no other process of the launcher with this id has failed before: the first one makes a file."""
    try:
        os.close(os.open(_mark(launcher), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    except OSError:  # nothing can be written there: rather twice than not at all
        return True
    return True


def _mark(launcher: int) -> Path:
    """The file of the first process that failed, in the folder for temporary files. The time is there because an id is
    used again."""
    import psutil  # accelerate requires it

    return Path(tempfile.gettempdir()) / f"awareness-{launcher}-{psutil.Process(launcher).create_time():.2f}.failed"
