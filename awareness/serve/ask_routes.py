"""`POST /ask`: a question and its answer as Server-Sent Events; and the work behind every question to the server."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from awareness.engine.answer import Answer, NotAnswered, sentence_json
from awareness.engine.earlier_turns import EarlierTurns
from awareness.engine.engine import Engine
from awareness.engine.question_options import DEFAULT_TOP_K
from awareness.serve.event_stream import EVENTS, EventStream
from awareness.serve.question_queue import Ended, Job
from awareness.serve.repositories import Served
from awareness.serve.repository_routes import Globs, Shared, Text, TopK
from awareness.serve.scope_patterns import anchored
from awareness.serve.services import Services
from awareness.types import QuestionReading, Sampling

router = APIRouter()
BEGUN_S = 0.15
"""Seconds between two `begun` events."""
Tokens = Annotated[int, Field(ge=1, le=8192)]
Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]


class EarlierTurn(BaseModel):
    """A question and its answer, earlier in the talk."""

    model_config = ConfigDict(extra="forbid")
    question: Annotated[str, Field(max_length=100_000)]
    answer: Annotated[str, Field(max_length=100_000)] = ""


class AskRequest(BaseModel):
    """As the options of `awareness ask`. history: earlier questions and answers of the talk, the oldest first."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    question: Text
    repository: str | None = None
    scope: Globs | None = None
    top_k: TopK = DEFAULT_TOP_K
    max_new_tokens: Tokens | None = None
    long: bool = False
    cut: bool = False
    recompute: Annotated[float, Field(ge=0, le=1)] = 0.0
    read_chunks: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    sampling_top_k: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    seed: Seed = 0
    history: Annotated[list[EarlierTurn], Field(max_length=256)] = []


@dataclass(frozen=True)
class Outcome:
    """How a question ended. id: of the answer, for `/attention`. tokens: of the question and of the answer; 0 for a
    refusal."""

    id: str
    served: Served
    reply: Answer | NotAnswered
    tokens: tuple[int, int] = (0, 0)


@router.post("/ask", **EVENTS)
async def ask(asked: AskRequest, shared: Shared) -> EventStream:
    """Events, each with one JSON object: `queued {position}`, `note {message}`, `progress {what, done, total}`,
    `route {hits}`, `begun {text}`, `sentence {…}`, and at the end `answer {…}`, `refusal {…}` or `error {…}`. A client
    that leaves cancels its question."""
    return EventStream(submit(asked, shared))


def submit(asked: AskRequest, shared: Services) -> Job:
    """Puts a question into the queue; the job's result is an Outcome. Raises UsageError, NotServed, Refused."""
    served = shared.repositories.find(asked.repository)

    def work(job: Job) -> Outcome:
        with shared.reporter.telling(job), shared.repositories.engine(served.name) as engine:
            return _answer(asked, job, engine, served, shared)

    def count_failure(future: Future[Outcome]) -> None:
        if future.cancelled():
            shared.metrics.ended(None)
        elif error := future.exception():
            shared.metrics.ended(None if isinstance(error, Ended) else error)

    job = shared.queue.submit(work)
    job.future.add_done_callback(count_failure)
    return job


def _answer(asked: AskRequest, job: Job, engine: Engine, served: Served, shared: Services) -> Outcome:
    answer_id = uuid.uuid4().hex
    earlier = EarlierTurns.of((turn.question, turn.answer) for turn in asked.history)
    try:
        answer = engine.ask(
            asked.question,
            earlier=earlier,
            scope=anchored(asked.scope),
            top_k=asked.top_k,
            max_new_tokens=asked.max_new_tokens,
            is_long=asked.long,
            may_cut=asked.cut or bool(earlier.turns),
            sampling=Sampling(asked.temperature, asked.sampling_top_k, asked.top_p, asked.seed),
            reading=QuestionReading(asked.recompute, asked.read_chunks),
            on_hits=lambda hits: job.send("route", {"hits": [hit.listed() for hit in hits]}),
            on_sentence=lambda sentence: job.send("sentence", sentence_json(sentence)),
            on_begun=_Paced(lambda text: job.send("begun", {"text": text})),
            is_cancelled=job.is_cancelled,
        )
    except NotAnswered as refusal:
        engine.note_unsearched()
        shared.metrics.ended(refusal)
        job.send("refusal", refusal_json(refusal, engine.searched))
        return Outcome(answer_id, served, refusal)
    if job.is_cancelled():
        raise Ended
    if answer.abstained:
        engine.note_unsearched()
    tokens = (_count(engine, asked.question), _count(engine, "".join(s.text for s in answer.sentences)))
    shared.metrics.answered(answer, tokens[1])
    shared.answers.keep(answer_id, served.name, answer)
    job.send("answer", answer_json(answer) | {"id": answer_id})
    return Outcome(answer_id, served, answer, tokens)


def _count(engine: Engine, text: str) -> int:
    """Tokens of a text."""
    return len(engine.load().decoder.tokenizer(text, add_special_tokens=False)["input_ids"])


class _Paced:
    """Passes the growing text on at most every `BEGUN_S` seconds: each time, the threads of the server and the client
    take the cores from the decoder."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self._send, self._last = send, float("-inf")

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if now - self._last >= BEGUN_S:
            self._last = now
            self._send(text)


def answer_json(answer: Answer) -> dict[str, Any]:
    """As `awareness ask --format json`, and `shown` of the answer."""
    return answer.to_json() | {"shown": answer.shown}


def refusal_json(refusal: NotAnswered, searched: str) -> dict[str, Any]:
    """As `awareness ask --format json`, with the message, what was searched, and `shown` of the refusal."""
    return refusal.to_json() | {
        "message": refusal.message,
        "hint": refusal.hint,
        "searched": searched,
        "shown": refusal.shown,
    }
