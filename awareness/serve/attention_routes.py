"""`GET /attention`: what an answer looked at, by layer, head and token, for the heat on the code."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from awareness.errors import UsageError
from awareness.serve.error_json import Json, Refused
from awareness.serve.event_stream import result_of
from awareness.serve.question_queue import Job
from awareness.serve.repository_routes import Shared
from awareness.serve.services import Services

if TYPE_CHECKING:
    from torch import Tensor

    from awareness.engine.engine import TokenAttention

router = APIRouter()
MOST_KEPT = 2
STEPS = 65_535
"""Weights are sent as whole numbers up to this, and a scale: half the bytes, and read twice as fast."""
CLIENT_GONE = 499


class RecentAttention:
    """What the last answers looked at, by the answer's id. May be used from several threads."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most, self._lock = most, threading.Lock()
        self._kept: OrderedDict[str, TokenAttention] = OrderedDict()

    def get(self, answer_id: str) -> TokenAttention | None:
        with self._lock:
            return self._kept.get(answer_id)

    def keep(self, answer_id: str, attention: TokenAttention) -> None:
        with self._lock:
            self._kept[answer_id] = attention
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)


@router.get("/attention")
async def attention(
    request: Request,
    shared: Shared,
    id: Annotated[str, Query(max_length=64)],
    layer: Annotated[int | None, Query(ge=0)] = None,
    head: Annotated[int | None, Query(ge=0)] = None,
    token: Annotated[int | None, Query(ge=0)] = None,
    brief: bool = False,
) -> Response:
    """The mean attention to each token of the memory. layer: None for the layers that retrieve; head, token: of the
    answer; None for all. brief: leaves out what is the same for every choice. The first request for an answer takes one
    pass of the model, the next ones none."""
    recent: RecentAttention = request.app.state.attention
    found = recent.get(id)
    if found is None:
        job = shared.queue.submit(lambda job: _computed(id, job, shared))
        found = await result_of(job, request)
        if found is None:
            return Response(status_code=CLIENT_GONE)
        recent.keep(id, found)
    for name, value, most in (("head", head, found.heads), ("token", token, len(found.tokens))):
        if value is not None and value >= most:
            raise UsageError(f"{name} {value} is not one of {most}", hint=f"{name}=0 to {most - 1}")
    if layer is not None and layer not in found.layers:
        listed = f"{found.layers[0]} to {found.layers[-1]}"
        raise UsageError(f"layer {layer} reads no memory", hint=f"layer={listed}")
    (heat,), scale = _whole(found.heat(layer, head, token)[None], found.sink)
    chosen = {"heat": heat, "heat_scale": scale}
    return Json(chosen if brief else {**_fixed(found), **chosen})


def _computed(answer_id: str, job: Job, shared: Services) -> TokenAttention:
    given = shared.answers.get(answer_id)
    if given is None:
        raise Refused(404, "this answer is no longer kept", hint="ask again")
    with shared.reporter.telling(job), shared.repositories.engine(given.repository, refresh=False) as engine:
        return engine.attention(given.answer)


def _fixed(found: TokenAttention) -> dict[str, Any]:
    """pieces: the text of each token of a chunk, from the token `start` of the memory on."""
    rows, scale = _whole(found.by_layer, found.sink)
    return {
        "layers": found.layers,
        "retrieval": found.retrieval,
        "heads": found.heads,
        "tokens": found.tokens,
        "total": found.total,
        "sink": found.sink,
        "size": found.weights.shape[-1],
        "chunks": [{"place": own.place, "start": own.start, "pieces": own.pieces} for own in found.chunks],
        "by_layer": rows,
        "by_layer_scale": scale,
    }


def _whole(rows: Tensor, sink: int) -> tuple[list[list[int]], float]:
    """rows: [L, M]. The weights as whole numbers, and the scale that makes them weights again. Those of the sink, which
    would dwarf all others, are 0."""
    rows = rows.clone()
    rows[:, :sink] = 0.0
    scale = float(rows.max()) / STEPS if rows.numel() else 0.0
    return (rows / (scale or 1.0)).round().int().tolist(), scale
