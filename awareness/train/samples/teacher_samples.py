"""Samples that a model makes before training: questions that a teacher writes about chunks and answers, and answers of
the base model to questions that no chunk answers.

Which attempts are made, and in which order, depends on the seed and the chunks only. The first `count` that are usable
become samples, so a larger count keeps the samples of a smaller one. What came of each attempt is kept on disk
(sample_cache.py) and used by every later run: numbers round differently in batches of another make-up, so the file and
not the model decides what a sample is.
"""

from __future__ import annotations

import gc
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import torch

from awareness.errors import UsageError
from awareness.model.generate import generate_batch
from awareness.model.load import Decoder, load
from awareness.model.model_files import ModelFolder
from awareness.model.prompts import question_ids
from awareness.model.weights import quantise_weights
from awareness.train.samples.mixture import PreparedSample, distractor_questions
from awareness.train.samples.pool import Pool
from awareness.train.samples.sample_cache import SampleCache
from awareness.train.samples.written_questions import VERSION, Request, Result, Writer, requests
from awareness.types import Progress, Sample, digest, silent

BATCH = 16  # attempts that are made together
PATIENCE = 64  # attempts after which a share of LEAST must be usable
LEAST = 0.05
ASKS = 2  # requests about a chunk that follow each other: a chunk is read once for both
SAY_S = 10.0  # seconds between two lines about the progress
TEACHER = "qwen2.5-coder-1.5b"  # for hints: the smallest preset whose questions were read and found right
_ANSWER_TOKENS = 48
_TRIES = 16  # pools that are tried for one question that no chunk answers


@dataclass(frozen=True)
class PreparedKind:
    """Samples of one kind. tried: attempts. rejected: reason -> attempts that are no sample."""

    kind: str
    model: ModelFolder
    samples: tuple[PreparedSample, ...]
    tried: int
    rejected: Mapping[str, int]

    @property
    def report(self) -> dict[str, Any]:
        """For `data.json`. Equal digests mean equal samples."""
        return {
            "kind": self.kind,
            "samples": len(self.samples),
            "tried": self.tried,
            "rejected": dict(self.rejected),
            "written_by": self.model.name,
            "fingerprint": self.model.fingerprint,
            "digest": digest(*(json.dumps(asdict(sample), sort_keys=True) for sample in self.samples)),
        }


@dataclass(frozen=True)
class _Attempt:
    """repository: name of the pool. request: what a model is asked. without: see `PreparedSample`."""

    repository: str
    request: Request
    without: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Equal requests have equal keys, whatever the seed."""
        return digest(VERSION, *astuple(self.request))

    def sample(self, kind: str, entry: Mapping[str, Any]) -> PreparedSample:
        texts = (self.request.text,) if self.request.text else ()
        made = Sample(texts, tuple(range(len(texts))), entry["question"], entry["answer"], kind=kind)
        return PreparedSample(self.repository, made, self.without)


class Models:
    """Loads a model when something is asked of it, and holds one at a time; `free` gives the memory back. own: a
    decoder that is loaded anyway and used as it is."""

    def __init__(self, own: Decoder | None = None) -> None:
        self._own, self._loaded = own, None  # type: Decoder | None, Decoder | None

    def get(self, folder: ModelFolder) -> Decoder:
        """Raises UsageError for a folder that holds no decoder."""
        if self._own is not None and self._own.folder == folder:
            return self._own
        if self._loaded is None or self._loaded.folder != folder:
            self.free()
            self._loaded = load(folder)
            if self._loaded.model.device.type == "cpu":  # faster; prompts are read with the published weights
                quantise_weights(self._loaded.model, "int8")
        return self._loaded

    def free(self) -> None:
        if self._loaded is not None:
            self._loaded = None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def prepare_samples(
    pools: Sequence[Pool],
    kinds: Mapping[str, ModelFolder],
    *,
    count: int,
    seed: int,
    cache: Path,
    models: Models,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> list[PreparedKind]:
    """Up to `count` samples of each kind. kinds: name in PREPARED_KINDS -> what writes it. cache: a folder.

    Where the chunks give fewer samples, a line says so. Raises UsageError if the model writes next to nothing that is
    usable, and StorageFailed.
    """
    return [
        _Preparing(kind, folder, count, models, progress, say).run(pools, seed, cache)
        for kind, folder in kinds.items()
        if count
    ]


@contextmanager
def closing(models: Models) -> Iterator[Models]:
    """Frees the models after the block."""
    try:
        yield models
    finally:
        models.free()


class _Preparing:
    """The samples of one kind by one model."""

    def __init__(
        self,
        kind: str,
        folder: ModelFolder,
        count: int,
        models: Models,
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        self.kind, self.folder, self.count, self.models = kind, folder, count, models
        self.progress, self.say = progress, say
        self.what = f"{kind}: asking {folder.name}"

    def run(self, pools: Sequence[Pool], seed: int, cache: Path) -> PreparedKind:
        most = PATIENCE + round(self.count / LEAST)
        attempts = list(itertools.islice(_ATTEMPTS[self.kind](pools, seed), most))
        store = SampleCache(cache, self.kind, self.folder)
        entries, _ = store.read()
        if self._chosen(attempts, entries).next is not None:
            with store.locked(lambda: self.say(f"{self.kind}: another process asks {self.folder.name}; waiting")):
                entries, damaged = store.read()
                if damaged:
                    self.say(f"{store.path}: {damaged} damaged lines are not used")
                self._make(attempts, entries, store)
        chosen = self._chosen(attempts, entries)
        samples = chosen.samples
        if not samples or chosen.is_hopeless:
            raise self._useless(chosen)
        if len(samples) < self.count:
            self.say(f"{self.kind}: {len(samples)} samples, not {self.count}: the chunks give no more")
        return PreparedKind(self.kind, self.folder, tuple(samples), chosen.tried, dict(chosen.rejected))

    def _chosen(self, attempts: Sequence[_Attempt], entries: Mapping[str, Mapping[str, Any]]) -> _Chosen:
        """The first `count` usable samples among what was made, without questions that stand there already."""
        chosen = _Chosen()
        asked: set[str] = set()
        for number, attempt in enumerate(attempts):
            if len(chosen.samples) == self.count or chosen.is_hopeless:
                break
            entry = entries.get(attempt.key)
            if entry is None:
                chosen.next = number
                break
            question = " ".join(entry["question"].lower().split())
            why = entry["rejected"] or ("a question that was there before" if question in asked else "")
            chosen.tried += 1
            if why:
                chosen.rejected[why] += 1
            else:
                asked.add(question)
                chosen.samples.append(attempt.sample(self.kind, entry))
        return chosen

    def _make(self, attempts: Sequence[_Attempt], entries: dict[str, dict[str, Any]], store: SampleCache) -> None:
        """Make attempts, in fixed groups of BATCH, until there are enough samples or no more attempts."""
        chosen = self._chosen(attempts, entries)
        first, began, said = len(chosen.samples), time.monotonic(), 0.0
        make: Callable[[Sequence[Request]], list[Result]] | None = None
        while chosen.next is not None:
            self.progress(self.what, len(chosen.samples), self.count)
            if make is None:
                make = _MAKERS[self.kind](self.models.get(self.folder))
            start = chosen.next - chosen.next % BATCH
            group = {a.key: a for a in attempts[start : start + BATCH] if a.key not in entries}
            results = make([attempt.request for attempt in group.values()])
            made = {
                key: {
                    **asdict(result),
                    "ask": attempt.request.ask,
                    "text": attempt.request.text,
                    "kind": self.kind,
                    "written_by": self.folder.name,
                    "fingerprint": self.folder.fingerprint,
                }
                for (key, attempt), result in zip(group.items(), results, strict=True)
            }
            store.add(made)
            entries.update(made)
            chosen = self._chosen(attempts, entries)
            seconds, new = time.monotonic() - began, len(chosen.samples) - first
            if seconds - said >= SAY_S or chosen.next is None:
                said = seconds
                self.say(self._state(chosen, seconds, new))
        self.progress(self.what, self.count, self.count)

    def _state(self, chosen: _Chosen, seconds: float, new: int) -> str:
        state = f"{self.kind}: {len(chosen.samples)} of {self.count} samples of {chosen.tried} tries"
        if not new:
            return state
        left = seconds / new * (self.count - len(chosen.samples)) / 60
        return f"{state}, {seconds / new:.1f} s each" + (f", about {left:.0f} min left" if chosen.next else "")

    def _useless(self, chosen: _Chosen) -> UsageError:
        why = ", ".join(f"{number}: {reason}" for reason, number in chosen.rejected.most_common(3))
        hint = f"--set data.kinds.{self.kind}=0"
        if self.kind == "written":
            hint = f"--set data.written_by={TEACHER}, or {hint}"
        return UsageError(
            f"data.kinds.{self.kind}: {self.folder.name} wrote {len(chosen.samples)} usable samples in"
            f" {chosen.tried} tries{f' ({why})' if why else ''}",
            hint=hint,
        )


@dataclass
class _Chosen:
    """next: number of the first attempt that was not made yet and is needed; None if none is."""

    samples: list[PreparedSample] = field(default_factory=list)
    tried: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    next: int | None = None

    @property
    def is_hopeless(self) -> bool:
        return self.tried >= PATIENCE and len(self.samples) < LEAST * self.tried


def _written(pools: Sequence[Pool], seed: int) -> Iterator[_Attempt]:
    """Two requests about each chunk, the pools in turn; then two more, until every chunk was asked for everything."""
    orders = []
    for pool in random.Random(f"{seed}/written").sample(pools, len(pools)):
        rng = random.Random(f"{seed}/written/{pool.name}")
        orders.append((pool, rng.sample(range(len(pool)), len(pool))))
    places = range(max(map(len, pools), default=0))
    for first in itertools.count(0, ASKS):
        is_over = True
        for place, (pool, order) in itertools.product(places, orders):
            if place < len(order):
                rng = random.Random(f"{seed}/written/{pool.name}/{order[place]}")
                for request in requests(rng, pool.chunks[order[place]])[first : first + ASKS]:
                    yield _Attempt(pool.name, request)
                    is_over = False
        if is_over:
            return


def _distractors(pools: Sequence[Pool], seed: int) -> Iterator[_Attempt]:
    """Questions that no chunk answers."""
    filled = [pool for pool in pools if len(pool)]
    for number in itertools.count() if filled else ():
        rng = random.Random(f"{seed}/distractors/{number}")
        drawn = (distractor_questions(rng, rng.choice(filled)) for _ in range(_TRIES))
        found = next((prepared for prepared in drawn if prepared is not None), None)
        if found is None:
            return
        yield _Attempt(found.repository, Request("", found.sample.question), found.without)


def _answerer(decoder: Decoder) -> Callable[[Sequence[Request]], list[Result]]:
    """What the base model says without any chunk, up to its first full stop."""

    def make(batch: Sequence[Request]) -> list[Result]:
        prompts = [question_ids(decoder.tokenizer, request.ask) for request in batch]
        answers = map(first_sentence, generate_batch(decoder, prompts, max_new_tokens=_ANSWER_TOKENS))
        return [
            Result(request.ask, answer, "" if answer else "no whole answer")
            for request, answer in zip(batch, answers, strict=True)
        ]

    return make


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence; empty without one, because the answer was cut off."""
    line = text.strip().split("\n")[0]
    sentence, stop, _ = line.partition(". ")
    whole = sentence + "." if stop else line
    return whole if whole.endswith((".", "`", ")")) else ""


_ATTEMPTS: dict[str, Callable[[Sequence[Pool], int], Iterator[_Attempt]]] = {
    "written": _written,
    "distractors": _distractors,
}
_MAKERS: dict[str, Callable[[Decoder], Callable[[Sequence[Request]], list[Result]]]] = {
    "written": Writer,
    "distractors": _answerer,
}
