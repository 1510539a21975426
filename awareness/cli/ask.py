"""`awareness ask`: route, attach, answer, cite."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from awareness.cli import options, render
from awareness.cli.search import preview
from awareness.cli.workspace import LoadedModel, Workspace, load_model, parse_bytes, pull_model, router
from awareness.errors import IndexLocked, NothingFound
from awareness.index import build
from awareness.index.lock import writing
from awareness.index.repo import Repository, decode
from awareness.index.search import WEAK_SCORE
from awareness.index.store import Store
from awareness.model import sources
from awareness.types import Chunk, Citation, Hit

if TYPE_CHECKING:
    from awareness.model.generate import Generation
    from awareness.types import Memory


REPETITION_PENALTY = 1.15


class Mode(str, Enum):
    joint = "joint"
    text = "text"
    none = "none"


def ask(
    question: Annotated[str, typer.Argument(help="What you want to know about the code.")],
    repo: options.RepoOption = Path("."),
    model: options.ModelOption = None,
    rev: options.RevOption = None,
    scope: options.ScopeOption = None,
    top_k: options.TopKOption = 8,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-n", min=1, help="Length of the answer.")] = 128,
    mode: Annotated[
        Mode,
        typer.Option("--mode", help="How the model gets the chunks: as memory, as text in its prompt, not."),
    ] = Mode.joint,
    budget: options.BudgetOption = options.DEFAULT_BUDGET,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Ask a question about a repository; indexes it first if there is no index."""
    started = time.perf_counter()
    limit = parse_bytes(budget)
    workspace = Workspace.open(repo, rev=rev)
    folder = pull_model(workspace.model_name(model))
    _bring_up_to_date(workspace, folder)
    store, snapshot = workspace.open_snapshot()
    with store:
        routing = time.perf_counter()
        hits = router(store, snapshot, scope).search(question, top_k=top_k)
        route_s = time.perf_counter() - routing
        verified = [hit for hit in hits if is_verified(workspace.repository, hit.chunk, workspace.rev)]
        if mode is not Mode.none and (not verified or verified[0].score < WEAK_SCORE):
            _abstain(question, mode, folder.name, verified, started, route_s, format)
        on_text = render.stream if format is options.Format.text else _discard
        answered = _answer(question, mode, load_model(folder), store, verified, limit, max_new_tokens, on_text)
    citations = [_citation(hit, answered, workspace.rev) for hit in answered.hits]
    total_s = time.perf_counter() - started
    generation = answered.generation
    if format is options.Format.json:
        render.data(
            {
                "question": question,
                "answer": generation.text.strip(),
                "abstained": False,
                "mode": mode.value,
                "model": folder.name,
                "citations": [asdict(citation) for citation in citations],
                "memory": answered.memory_json,
                "timings": _timings(route_s, answered.load_s, generation.first_token_s, total_s),
                "tokens_per_s": round(generation.tokens_per_s, 2),
            }
        )
        return
    render.text()
    if citations:
        render.text("\nSources", style="bold")
    for citation in citations:
        share = "" if citation.attention is None else f"  read {citation.attention:.0%}"
        render.text(f"  {place(citation)}  {citation.symbol}  score {citation.score:.2f}{share}")
    render.note(
        f"\n{folder.name}, {mode.value}: {answered.memory_json['tokens']} tokens of memory,"
        f" first token {generation.first_token_s:.2f} s after loading, {generation.tokens_per_s:.0f} tokens/s,"
        f" {total_s:.1f} s in all"
    )


def _discard(_: str) -> None:
    """The answer is printed whole, as JSON."""


@dataclass(frozen=True)
class _Answered:
    """What the decoder said, the hits it was given, and what was attached. load_s: model, latents and attaching."""

    generation: Generation
    hits: list[Hit]
    memory_json: dict[str, int]
    load_s: float


def _bring_up_to_date(workspace: Workspace, folder: sources.ModelFolder) -> None:
    """Chunks are cut and searchable before the answer; latents are made for what the question needs."""
    first = not workspace.layout.exists
    try:
        with writing(workspace.layout), Store.create(workspace.layout) as store:
            key = store.snapshot_key(workspace.snapshot_name)
            scope = key[1].split("\n") if key and key[1] else ()
            refreshed = workspace.refresh(store, folder, scope=scope)
    except IndexLocked as error:
        if first:
            raise
        render.note(f"{error.message}; answering from the index as it is")
        return
    if first:
        render.note(
            f"indexed {refreshed.files} files, {refreshed.chunks} chunks; latents are made as questions need them,"
            " all at once with: awareness index"
        )


def _answer(
    question: str,
    mode: Mode,
    model: LoadedModel,
    store: Store,
    hits: list[Hit],
    budget: int,
    max_new_tokens: int,
    on_text: Callable[[str], None],
) -> _Answered:
    from awareness.model.fusion import assemble
    from awareness.model.generate import generate
    from awareness.model.prompt import BRIEFLY, question_ids

    loading = time.perf_counter()
    decoder = model.decoder
    used = [] if mode is Mode.none else hits
    chunks = [hit.chunk for hit in used]
    memory: Memory | None = None
    texts: Sequence[str] = ()
    if mode is Mode.joint:
        latents, sink = build.load_latents(store, model.encoder, chunks, budget=budget)
        names = [chunk.digest for chunk in chunks]
        # The best chunk stands last, next to the question.
        memory = assemble(decoder.model, model.encoder.spec, sink, latents[::-1], names[::-1])
    elif mode is Mode.text:
        texts = [chunk.encoded_text for chunk in reversed(chunks)]
    prompt = question_ids(decoder.tokenizer, question + BRIEFLY, chunks=texts, with_system=memory is None)
    memory_json = {
        "chunks": len(chunks),
        "tokens": memory.tokens if memory else 0,
        "bytes": memory.nbytes if memory else 0,
    }
    load_s = time.perf_counter() - loading
    generation = generate(
        decoder,
        prompt,
        memory,
        max_new_tokens=max_new_tokens,
        on_text=on_text,
        with_attention=True,
        repetition_penalty=REPETITION_PENALTY,
    )
    return _Answered(generation, used, memory_json, load_s)


def is_verified(repository: Repository, chunk: Chunk, rev: str | None) -> bool:
    """Reads the chunk's lines again: are they what was encoded?"""
    data = repository.read(chunk.path, rev=rev)
    if data is None:
        return False
    lines = decode(data).split("\n")[chunk.start_line - 1 : chunk.end_line]
    now = "\n".join(lines)
    return now == chunk.text or (chunk.start_line == chunk.end_line and chunk.text in now)


def _citation(hit: Hit, answered: _Answered, rev: str | None) -> Citation:
    chunk = hit.chunk
    attention = answered.generation.attention.get(chunk.digest)
    return Citation(
        chunk.path,
        chunk.start_line,
        chunk.end_line,
        chunk.symbol,
        hit.score,
        None if attention is None else round(attention, 4),
        verified=True,
        rev=rev,
    )


def place(citation: Citation) -> str:
    return f"{citation.path}:{citation.start_line}-{citation.end_line}" + (
        f"@{citation.rev[:12]}" if citation.rev else ""
    )


def _timings(route_s: float, load_s: float, first_token_s: float, total_s: float) -> dict[str, float]:
    named = {"route_s": route_s, "load_s": load_s, "first_token_s": first_token_s, "total_s": total_s}
    return {name: round(value, 4) for name, value in named.items()}


def _abstain(
    question: str, mode: Mode, model: str, nearest: list[Hit], started: float, route_s: float, format: options.Format
) -> None:
    """Says that the repository does not answer this, and shows what comes nearest. Raises NothingFound."""
    if format is options.Format.json:
        total_s = time.perf_counter() - started
        render.data(
            {
                "question": question,
                "answer": "",
                "abstained": True,
                "mode": mode.value,
                "model": model,
                "citations": [],
                "nearest": [
                    {"path": h.chunk.path, "start_line": h.chunk.start_line, "end_line": h.chunk.end_line,
                     "symbol": h.chunk.symbol, "score": h.score}
                    for h in nearest
                ],
                "memory": {"chunks": 0, "tokens": 0, "bytes": 0},
                "timings": _timings(route_s, 0.0, 0.0, total_s),
                "tokens_per_s": 0.0,
            }
        )  # fmt: skip
    elif nearest:
        render.text("Not found in this repository. Nearest:")
        for hit in nearest[:3]:
            chunk = hit.chunk
            render.text(f"  {chunk.place}  {chunk.symbol}  score {hit.score:.2f}")
            render.text(f"      {preview(hit, lines=1).strip()}")
    raise NothingFound(
        f"the repository does not seem to answer '{question}'", hint="name a file, class or function you know of"
    )
