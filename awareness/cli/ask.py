"""`awareness ask`: route, attach, answer, cite."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from awareness.cli import options, render
from awareness.cli.origin import Found, Origin, opened, search_all, workspaces_asked
from awareness.cli.readers import Mode, reader_asked
from awareness.cli.routers import choose_router, find_router, renew
from awareness.cli.search import as_json, preview
from awareness.cli.workspace import (
    LoadedModel,
    Workspace,
    load_model,
    load_trained,
    parse_bytes,
    pull_model,
)
from awareness.errors import IndexLocked, ModelNotAvailable, NothingFound, StorageFailed, UsageError
from awareness.index import build
from awareness.index.search.ranking import GATHERED, WEAK_SCORE
from awareness.index.store.lock import writing
from awareness.index.store.store import Store
from awareness.model import sources
from awareness.types import Citation, Latent, MemorySpec, Sampling, printable

if TYPE_CHECKING:
    from awareness.model.answering import Answer
    from awareness.model.sentences import Sentence
    from awareness.types import Memory


def ask(
    question: Annotated[str, typer.Argument(help="What you want to know about the code.")],
    repo: options.ReposOption = None,
    memory: options.MemoryOption = None,
    model: options.ModelOption = None,
    rev: options.RevOption = None,
    scope: options.ScopeOption = None,
    top_k: options.TopKOption = 8,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens",
            "-n",
            min=1,
            help="Length of the answer; a sentence that was begun is finished.",
            show_default="128, with --long 512",
        ),
    ] = None,
    long: Annotated[bool, typer.Option("--long", help="Explain at length instead of in three sentences.")] = False,
    mode: Annotated[
        Mode | None,
        typer.Option(
            "--mode",
            help="How the model gets the chunks: as memory (tanh with an --adapter of that form), as text, not.",
            show_default="joint, or the adapter's",
        ),
    ] = None,
    adapter: options.AdapterOption = None,
    weights: options.WeightsOption = None,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="Above 0 words are drawn, not the likeliest taken.")
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option("--top-p", min=0.0, max=1.0, help="Draw from the likeliest of this sum.")
    ] = 1.0,
    sampling_top_k: Annotated[
        int, typer.Option("--sampling-top-k", min=0, help="Draw from so many of the likeliest; 0: from all.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw.")] = 0,
    budget: options.BudgetOption = options.DEFAULT_BUDGET,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Ask a question about a repository; indexes it first if there is no index."""
    started = time.perf_counter()
    limit = parse_bytes(budget)
    reader = reader_asked(adapter, mode, model)
    model = reader.model
    workspaces = workspaces_asked(repo, memory, rev)
    _bring_up_to_date(workspaces, model)
    with opened(workspaces, memory) as origins:
        folder = pull_model(model or _model_of(origins))
        reader = reader.for_model(folder)
        mode, checkpoint = reader.mode, reader.adapter
        routing = time.perf_counter()
        found = search_all(origins, question, scope, top_k, GATHERED)
        route_s = time.perf_counter() - routing
        verified = [one for one in found if one.origin.verify(one.hit.chunk)]
        if mode is not Mode.none and (not verified or verified[0].hit.score < WEAK_SCORE):
            looked_at = sum(origin.store.totals(origin.snapshot).chunks for origin in origins)
            _abstain(question, mode, folder.name, verified, looked_at, started, route_s, format)
        sampling = Sampling(temperature, sampling_top_k, top_p, seed)
        with render.answering(is_shown=format is options.Format.text) as shown:
            answered = _answer(
                question,
                mode,
                lambda: load_trained(checkpoint, weights) if checkpoint else load_model(folder, weights=weights),
                verified,
                limit,
                _Style(max_new_tokens or (512 if long else 128), long, sampling),
                shown,
            )
    answer, generation = answered.answer, answered.answer.generation
    shares = generation.attention
    citations = [_citation(one, shares.get(str(place))) for place, one in enumerate(answered.used)]
    total_s = time.perf_counter() - started
    if format is options.Format.json:
        render.data(
            {
                "question": question,
                "answer": answer.marked,
                "sentences": [_sentence_json(sentence) for sentence in answer.sentences],
                "abstained": False,
                "mode": mode.value,
                "model": folder.name,
                "adapter": None if checkpoint is None else str(checkpoint),
                "weights": answered.weights,
                "citations": [asdict(citation) for citation in citations],
                "memory": answered.memory_json,
                "timings": _timings(route_s, answered.load_s, generation.first_token_s, total_s),
                "tokens_per_s": round(generation.tokens_per_s, 2),
            }
        )
        return
    _print_sources(answered, citations)
    render.note(
        f"\n{folder.name}, {mode.value}{', trained' if checkpoint else ''}:"
        f" {answered.memory_json['tokens']} tokens of memory,"
        f" first token {generation.first_token_s:.2f} s after loading, {generation.tokens_per_s:.0f} tokens/s,"
        f" {total_s:.1f} s in all"
    )


def _sentence_json(sentence: Sentence) -> dict[str, object]:
    """source: the number of the citation that it rests on, counted from 1."""
    source = None if sentence.source is None else sentence.source + 1
    return {"text": sentence.text.strip(), "source": source, "unknown": list(sentence.unknown)}


def _print_sources(answered: _Answered, citations: Sequence[Citation]) -> None:
    """Those that sentences rest on, by number; then the places that were attached beside them."""
    if not citations:
        return
    cited = sorted({sentence.source for sentence in answered.answer.sentences if sentence.source is not None})
    render.text("\nSources", style="bold")
    for place in cited:
        one, share = answered.used[place], citations[place].attention
        read = "" if share is None else f"  read {share:.0%}"
        render.text(f"  [{place + 1}] {one.place}  {printable(one.hit.chunk.symbol)}{read}")
    others = [place for place in range(len(citations)) if place not in cited]
    if others:
        render.text(f"  also attached: {', '.join(answered.used[place].place for place in others)}", style="dim")


@dataclass(frozen=True)
class _Style:
    """How an answer is to be: its length in tokens, whether it explains, how words are chosen."""

    max_new_tokens: int
    is_long: bool
    sampling: Sampling


@dataclass(frozen=True)
class _Answered:
    """What the decoder said, the hits it was given, and what was attached. load_s: model, latents and attaching.
    weights: by which it decoded."""

    answer: Answer
    used: list[Found]
    memory_json: dict[str, int]
    load_s: float
    weights: str


def _bring_up_to_date(workspaces: Sequence[Workspace], model: str | None) -> None:
    """Chunks are cut and searchable before the answer; latents are made for what the question needs."""
    for workspace in workspaces:
        folder = pull_model(workspace.model_name(model))
        first = not workspace.layout.exists
        try:
            with writing(workspace.layout), Store.create(workspace.layout) as store:
                known = store.snapshot(workspace.snapshot_name)
                if first:
                    choose_router(store, find_router(os.environ.get("AWARENESS_ROUTER")))
                refreshed = workspace.refresh(store, folder, scope=known.scope if known else ())
                renew(store)
        except (IndexLocked, StorageFailed) as error:
            if first:
                raise
            render.note(f"{error.message}; answering from the index as it is")
            continue
        if first:
            render.note(
                f"indexed {refreshed.files} files, {refreshed.chunks} chunks; latents are made as questions need them,"
                " all at once with: awareness index"
            )


def _model_of(origins: Sequence[Origin]) -> str:
    """The model that a pack was made by, else the first repository's. What a stranger's pack names is never fetched."""
    packs = [origin for origin in origins if origin.spec]
    if not packs:
        return origins[0].model
    name = packs[0].model
    if name not in sources.PRESETS:
        raise UsageError(f"{packs[0].name} was made by the model '{name}'", hint="--model with a model that you trust")
    if name != sources.DEFAULT_MODEL and sources.find(name) is None:
        raise ModelNotAvailable(f"{packs[0].name} was made by {name}", hint=f"awareness models pull {name}")
    return name


def _answer(
    question: str,
    mode: Mode,
    loaded: Callable[[], LoadedModel],
    found: list[Found],
    budget: int,
    style: _Style,
    shown: render.Shown,
) -> _Answered:
    from awareness.model.answering import answer
    from awareness.model.settings import settings_of

    loading = time.perf_counter()
    model = loaded()
    adapter = model.trained.adapter if model.trained is not None and mode in (Mode.joint, Mode.tanh) else None
    used = [] if mode is Mode.none else found
    memory = _memory_of(model, used, budget) if mode in (Mode.joint, Mode.tanh) else None
    texts = [one.hit.chunk.encoded_text for one in reversed(used)] if mode is Mode.text else ()
    memory_json = {
        "chunks": len(used),
        "tokens": memory.tokens if memory else 0,
        "bytes": memory.nbytes if memory else 0,
    }
    load_s = time.perf_counter() - loading
    said = answer(
        model.decoder,
        settings_of(model.decoder.folder.name),
        question,
        [one.hit.chunk for one in used],
        memory,
        texts=texts,
        # The sink is the system turn, for self-attention that reads it; a block of its own leaves the prompt as it is.
        with_system=memory is None or mode is Mode.tanh,
        max_new_tokens=style.max_new_tokens,
        is_long=style.is_long,
        adapter=adapter,
        sampling=style.sampling,
        on_sentence=lambda sentence: shown.sentence(sentence.marked),
        on_begun=shown.begun,
    )
    return _Answered(said, used, memory_json, load_s, model.weights)


def _memory_of(model: LoadedModel, used: Sequence[Found], budget: int) -> Memory:
    """The latents of the hits, from wherever each of them is, the best last: next to the question."""
    from awareness.model.assemble import assemble
    from awareness.model.settings import settings_of

    base = model.encoder.spec
    trained = model.trained.adapter if model.trained is not None else None
    reads = None if trained is None else trained.sets
    latents: dict[tuple[int, str], tuple[Latent, MemorySpec]] = {}
    for origin in {id(one.origin): one.origin for one in used}.values():
        spec = replace(base, quant=origin.quant)
        if origin.spec not in (None, spec):
            raise _unreadable(origin, origin.spec, base, model.decoder.folder.name)
        chunks = [one.hit.chunk for one in used if one.origin is origin]
        encoder = model.encoder.storing_as(origin.quant)
        with origin.blaming_the_pack(), render.progress() as progress:
            found = build.load_latents(origin.store, encoder, chunks, budget=budget, progress=progress)
        latents |= {(id(origin), c.digest): (latent, spec) for c, latent in zip(chunks, found, strict=True)}
    ordered = [latents[id(one.origin), one.hit.chunk.digest] for one in reversed(used)]
    return assemble(
        model.decoder.model,
        base,
        model.encoder.sink,
        [latent for latent, _ in ordered],
        [str(place) for place in reversed(range(len(used)))],  # two repositories may have the same chunk
        specs=[spec for _, spec in ordered],
        sharpness=settings_of(model.decoder.folder.name).sharpness if reads is None else 1.0,
        reads=reads,
    )


def _unreadable(origin: Origin, made_by: MemorySpec | None, wanted: MemorySpec, name: str) -> UsageError:
    """A pack has the latents that it has."""
    if made_by is not None and made_by.model == wanted.model:
        parts = [part for part in ("layers", "encoder") if getattr(made_by, part) != getattr(wanted, part)]
        what = f"other {' and '.join(parts)} than the adapter reads" if parts else "another sink"
        return UsageError(f"the latents of {origin.name} are of {what}", hint="leave --adapter out, or ask --repo")
    return UsageError(
        f"the latents of {origin.name} were made by another model than {name}", hint=f"--model {origin.model}"
    )


def _citation(found: Found, attention: float | None) -> Citation:
    chunk = found.hit.chunk
    return Citation(
        chunk.path,
        chunk.start_line,
        chunk.end_line,
        chunk.symbol,
        found.hit.score,
        None if attention is None else round(attention, 4),
        verified=True,
        rev=found.origin.rev,
        origin=found.origin.name,
    )


def _timings(route_s: float, load_s: float, first_token_s: float, total_s: float) -> dict[str, float]:
    named = {"route_s": route_s, "load_s": load_s, "first_token_s": first_token_s, "total_s": total_s}
    return {name: round(value, 4) for name, value in named.items()}


def _abstain(
    question: str,
    mode: Mode,
    model: str,
    nearest: list[Found],
    looked_at: int,
    started: float,
    route_s: float,
    format: options.Format,
) -> None:
    """Says that the repository does not answer this, and shows what comes nearest. looked_at: chunks that were
    searched. Raises NothingFound."""
    if format is options.Format.json:
        total_s = time.perf_counter() - started
        render.data(
            {
                "question": question,
                "answer": "",
                "sentences": [],
                "abstained": True,
                "mode": mode.value,
                "model": model,
                "citations": [],
                "nearest": [as_json(one, with_preview=False) for one in nearest],
                "looked_at": {"chunks": looked_at},
                "memory": {"chunks": 0, "tokens": 0, "bytes": 0},
                "timings": _timings(route_s, 0.0, 0.0, total_s),
                "tokens_per_s": 0.0,
            }
        )
    elif nearest:
        render.text(f"Not found in this repository ({render.counted(looked_at, 'chunk')} searched). Nearest:")
        for one in nearest[:3]:
            render.text(f"  {one.place}  {printable(one.hit.chunk.symbol)}  score {one.hit.score:.2f}")
            render.text(f"      {preview(one.hit, lines=1).strip()}")
    raise NothingFound(
        f"none of {render.counted(looked_at, 'chunk')} seems to answer '{printable(question[:80])}'",
        hint="name a file, class or function you know of, or look yourself: awareness search WORDS",
    )
