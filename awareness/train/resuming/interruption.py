"""Stop a training at the end of a step: Ctrl-C and SIGTERM save a checkpoint before they end the program."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import TrainerCallback

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TWICE_S = 0.5
"""Two signals within this many seconds are one: a terminal and a launcher both send it."""


class Interruption(TrainerCallback):
    """After the first signal the step is finished, saved, and the last one. A second signal has its usual effect at
    once. With several processes all of them stop after the same step, whichever of them got the signal."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._received = 0  # number of the signal
        self._at = 0.0
        self._told = threading.Event()
        self._usual: dict[int, Any] = {}
        self.number: int = 0
        """The signal that stopped the training; 0 for none."""

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside the block signals are waited for. Only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        telling = threading.Thread(target=self._tell, daemon=True)  # a signal handler must not print
        telling.start()
        try:
            for number in SIGNALS:
                if callable(signal.getsignal(number)) or signal.getsignal(number) is signal.SIG_DFL:
                    self._usual[number] = signal.signal(number, self._receive)  # one that is ignored stays ignored
            yield
        finally:
            for each, usual in self._usual.items():
                signal.signal(each, usual)
            self._told.set()
            telling.join()

    def end(self) -> None:
        """Has the effect that the signal usually has: it ends the program. One of several processes says nothing."""
        if _is_one_of_several():
            sys.exit(128 + self.number)
        signal.raise_signal(self.number)
        raise KeyboardInterrupt

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        number = self._of_all(args.device)
        if number:
            self.number = number
            control.should_save = control.should_training_stop = True

    def _of_all(self, device: torch.device) -> int:
        """The signal that any of the processes got."""
        if not _is_one_of_several():
            return self._received
        number = torch.tensor(self._received, device=device)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
        return int(number)

    def _receive(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if not self._received:
            self._received, self._at = number, now
            self._told.set()
        elif now - self._at > _TWICE_S:
            for each, usual in self._usual.items():
                signal.signal(each, usual)
            signal.raise_signal(number)

    def _tell(self) -> None:
        self._told.wait()
        if self._received:
            self._say("the step is finished and saved before the training stops; again: it stops at once")


def _is_one_of_several() -> bool:
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
