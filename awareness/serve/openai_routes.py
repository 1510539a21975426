"""The part of OpenAI's API that programs use to ask: models, chat completions, embeddings.

A repository is a model: `awareness/<repository>`. The last message of the user is the question, the turns before it are
read with it; what a program tells the model about itself (`system`) is not: the memory takes its place.
"""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from awareness.engine.answer import Answer, NotAnswered
from awareness.engine.corpus import CorpusHit
from awareness.engine.question_options import DEFAULT_TOP_K
from awareness.errors import UsageError
from awareness.serve.ask_routes import AskRequest, EarlierTurn, Outcome, Seed, Tokens, submit
from awareness.serve.error_json import Json, Refused, json_bytes
from awareness.serve.event_stream import ALIVE, ALIVE_S, EventStream, failure_of, result_of
from awareness.serve.question_queue import Job
from awareness.serve.repositories import NotServed, Served
from awareness.serve.repository_routes import Globs, Shared, TopK
from awareness.serve.services import Services
from awareness.types import printable

router = APIRouter(prefix="/v1")
PREFIX = "awareness/"
DONE = b"data: [DONE]\n\n"
CLIENT_GONE = 499
"""A status that nobody reads; nginx calls it so."""


class Part(BaseModel):
    """Of a message; only text can be read."""

    type: str
    text: str = ""


class Message(BaseModel):
    role: Annotated[str, Field(max_length=32)]
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.type in ("text", "input_text", "output_text"))
        return self.content or ""


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """OpenAI's fields that have a meaning here, and three of our own: repository, scope, top_k. Tools are never called,
    and fields about them, the user and the bill are ignored."""

    model_config = ConfigDict(allow_inf_nan=False)
    model: Annotated[str, Field(max_length=4096)] = "awareness"
    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Seed | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    n: Literal[1] | None = None
    stop: None = None
    logprobs: Literal[False] | None = None
    repository: str | None = None
    scope: Globs | None = None
    top_k: TopK | None = None


class EmbeddingsRequest(BaseModel):
    """input_type: `query` for vectors of questions, `document` for those of code."""

    model: Annotated[str, Field(max_length=4096)] = "awareness"
    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] | None = None
    input_type: Literal["query", "document"] = "query"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    repository: str | None = None


class NoSuchModel(Refused):
    def __init__(self, name: str, known: Sequence[str]) -> None:
        listed = ", ".join(f"{PREFIX}{printable(one)}" for one in known[:8])
        super().__init__(404, f"The model {printable(name[:200])!r} does not exist", hint=f"one of: {listed}")


@router.get("/models")
def models(shared: Shared) -> Json:
    """The repositories, as models."""
    return Json({"object": "list", "data": [_model_json(served, shared) for served in shared.repositories.all]})


@router.get("/models/{name:path}")
def model(name: str, shared: Shared) -> Json:
    """One of them."""
    return Json(_model_json(served_as(name, None, shared), shared))


def _model_json(served: Served, shared: Services) -> dict[str, Any]:
    return {
        "id": PREFIX + served.name,
        "object": "model",
        "created": shared.started_at,
        "owned_by": "awareness",
        "base_model": shared.repositories.model_name,
    }


def served_as(model: str, repository: str | None, shared: Services) -> Served:
    """The repository that a request names, as `model` or as `repository`. Raises NoSuchModel, UsageError."""
    is_ours = model.startswith(PREFIX)
    if not is_ours and model != "awareness" and repository is None:
        raise NoSuchModel(model, shared.repositories.names)
    name = repository if repository is not None else (model.removeprefix(PREFIX) if is_ours else None)
    try:
        return shared.repositories.find(name)
    except NotServed as error:
        raise NoSuchModel(model if repository is None else repository, shared.repositories.names) from error


@router.post("/chat/completions", response_model=None)
async def chat_completions(asked: ChatRequest, request: Request, shared: Shared) -> Response:
    """An answer with its citations: `[1]` in the text, the places below it, and `annotations`."""
    question = _question(asked, served_as(asked.model, asked.repository, shared))
    job = submit(question, shared)
    about = About(f"chatcmpl-{time.time_ns():x}", int(time.time()), asked.model)
    if asked.stream:
        options = asked.stream_options or StreamOptions()
        return EventStream(job, lambda job: _chunks(job, about, has_usage=options.include_usage))
    outcome = await result_of(job, request)
    if outcome is None:
        return Response(status_code=CLIENT_GONE)
    said = written(outcome)
    message = {"role": "assistant", "content": said.text, "refusal": None, "annotations": said.annotations}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return Json({**about.to_json("chat.completion"), "choices": [choice], "usage": usage_json(outcome), **said.extra})


def _question(asked: ChatRequest, served: Served) -> AskRequest:
    """Raises UsageError for a talk without a question."""
    talk = [message for message in asked.messages if message.role in ("user", "assistant") and message.text.strip()]
    if not talk or talk[-1].role != "user":
        raise UsageError("the last message is not a question of the user", hint='{"role": "user", "content": "…"}')
    history: list[EarlierTurn] = []
    for message in talk[:-1]:
        if message.role == "user":
            history.append(EarlierTurn(question=message.text))
        elif history:
            history[-1] = EarlierTurn(question=history[-1].question, answer=without_places(message.text))
    return AskRequest(
        question=talk[-1].text,
        repository=served.name,
        scope=asked.scope,
        max_new_tokens=asked.max_completion_tokens or asked.max_tokens,
        temperature=asked.temperature or 0.0,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        seed=asked.seed or 0,
        history=history[-16:],
        top_k=DEFAULT_TOP_K if asked.top_k is None else asked.top_k,
    )


@dataclass(frozen=True)
class About:
    id: str
    created: int
    model: str

    def to_json(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


@dataclass(frozen=True)
class Written:
    """An outcome as a message. extra: our own fields beside it."""

    text: str
    places: str
    annotations: list[dict[str, Any]]
    extra: dict[str, Any]


PLACES = "\n\nSources:\n"


def written(outcome: Outcome) -> Written:
    reply = outcome.reply
    if isinstance(reply, NotAnswered):
        nearest = "".join(f"\n- {hit.place}" for hit in reply.nearest[:3])
        text = f"I cannot answer this: {reply.message}." + (f" The nearest code:{nearest}" if nearest else "")
        return Written(text, "", [], {"awareness": {"abstained": True}})
    shown = reply.shown
    places = "".join(f"[{place + 1}] {shown[place]['place']}\n" for place in reply.cited).rstrip()
    places = PLACES + places if places else ""
    extra = {"id": outcome.id, "abstained": reply.abstained, "timings": reply.timings.to_json()}
    return Written(reply.text + places, places, _annotations(reply, outcome.served), {"awareness": extra})


def without_places(text: str) -> str:
    """An earlier answer without the list below it."""
    return text.partition(PLACES)[0]


def _annotations(answer: Answer, served: Served) -> list[dict[str, Any]]:
    """One `url_citation` for each sentence that rests on a source, with the fields of our own beside it."""
    annotations, end = [], 0
    for sentence in answer.sentences:
        body = sentence.marked.strip()
        start = answer.text.find(body, end)
        end = start + len(body)
        if sentence.source is None:
            continue
        hit, citation = answer.hits[sentence.source], answer.citations[sentence.source]
        first, last = sentence.lines or (citation.start_line, citation.end_line)
        annotations.append(
            {
                "type": "url_citation",
                "url_citation": {
                    "url": f"{_base(served, hit)}{quote(citation.path, errors='surrogateescape')}#L{first}-L{last}",
                    "title": hit.place_of(first, last),
                    "start_index": start,
                    "end_index": end,
                },
                "number": sentence.source + 1,
                "repository": served.name,
                "path": citation.path,
                "start_line": first,
                "end_line": last,
                "symbol": citation.symbol,
                "confidence": None if sentence.confidence is None else round(sentence.confidence, 2),
                "attention": citation.attention,
            }
        )
    return annotations


def _base(served: Served, hit: CorpusHit) -> str:
    """The address that a path of this hit follows."""
    if served.store:
        return f"{served.store}#{quote(hit.corpus.name or '')}/"
    return f"{served.root.absolute().as_uri()}{'#' if served.is_pack else '/'}"


def usage_json(outcome: Outcome) -> dict[str, Any]:
    """prompt_tokens: of the question and the memory."""
    question, answer = outcome.tokens
    memory = 0 if isinstance(outcome.reply, NotAnswered) else outcome.reply.memory.tokens
    return {
        "prompt_tokens": question + memory,
        "completion_tokens": answer,
        "total_tokens": question + memory + answer,
    }


async def _chunks(job: Job, about: About, *, has_usage: bool) -> AsyncIterator[bytes]:
    """Whole sentences as they are completed, then the places, then the annotations."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return b"data: " + json_bytes({**about.to_json("chat.completion.chunk"), "choices": [choice]}) + b"\n\n"

    yield chunk({"role": "assistant", "content": ""})
    is_first = True
    async for event in job.events(ALIVE_S):
        if event is None:
            yield ALIVE
        elif event[0] == "sentence":
            text = event[1]["marked"]
            yield chunk({"content": text.lstrip() if is_first else text})
            is_first = False
    if fields := failure_of(job):
        yield b"data: " + json_bytes({"error": fields}) + b"\n\n"
        return
    outcome: Outcome = job.future.result()
    said = written(outcome)
    yield chunk({"content": said.text if is_first else said.places})
    yield chunk({"annotations": said.annotations}, "stop")
    if has_usage:
        whole = {**about.to_json("chat.completion.chunk"), "choices": [], "usage": usage_json(outcome)}
        yield b"data: " + json_bytes(whole) + b"\n\n"
    yield DONE


@router.post("/embeddings", response_model=None)
def embeddings(asked: EmbeddingsRequest, shared: Shared) -> Json:
    """The unit vectors that the repository is searched with: term vectors by default, else those of its embedding
    model. A text without any known word is an error."""
    served = served_as(asked.model, asked.repository, shared)
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    with shared.repositories.engine(served.name) as engine:
        vectors = engine.embed(texts, as_code=asked.input_type == "document")
        name = engine.router
    if asked.dimensions not in (None, len(vectors[0])):
        raise UsageError(f"dimensions {asked.dimensions}: the router's vectors have {len(vectors[0])}")
    encode = _base64 if asked.encoding_format == "base64" else list
    words = sum(len(text.split()) for text in texts)
    return Json(
        {
            "object": "list",
            "model": asked.model,
            "router": name,
            "data": [
                {"object": "embedding", "index": index, "embedding": encode(vector)}
                for index, vector in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": words, "total_tokens": words},
        }
    )


def _base64(vector: Sequence[float]) -> str:
    """float32, little endian, as OpenAI's clients read it."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
