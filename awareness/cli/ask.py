"""`awareness ask`: answers a question with citations, streamed."""

from __future__ import annotations

from typing import Annotated

import typer

from awareness.cli import options, render
from awareness.config.environment import environment
from awareness.engine.answer import Answer, NotAnswered
from awareness.engine.engine import BRIEF_TOKENS, DEFAULT_TOP_K, LONG_TOKENS, Engine
from awareness.engine.modes import Mode
from awareness.engine.units import counted, parse_bytes
from awareness.errors import NothingFound
from awareness.types import QuestionReading, Sampling


def ask(
    question: Annotated[str, typer.Argument(help="What you want to know about the code.")],
    repo: options.ReposOption = None,
    memory: options.MemoryOption = None,
    model: options.ModelOption = None,
    rev: options.RevOption = None,
    scope: options.ScopeOption = None,
    top_k: options.TopKOption = DEFAULT_TOP_K,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens",
            "-n",
            min=1,
            help="Length of the answer in tokens; the last sentence is finished all the same.",
            show_default=f"{BRIEF_TOKENS}, with --long {LONG_TOKENS}",
        ),
    ] = None,
    long: Annotated[bool, typer.Option("--long", help="Explain at length instead of in three sentences.")] = False,
    cut: Annotated[
        bool,
        typer.Option("--cut", help="If the question is too long for the model, leave out its middle."),
    ] = False,
    mode: Annotated[
        Mode | None,
        typer.Option(
            "--mode",
            help="How the model reads the chunks: as memory (joint; tanh needs an --adapter trained for it), as text in"
            " the prompt, or not at all (none).",
            show_default="joint, or the adapter's",
        ),
    ] = None,
    recompute: Annotated[
        float,
        typer.Option(
            "--recompute",
            min=0.0,
            max=1.0,
            help="The share of the memory that is computed again for the question: the lines it asks for, together."
            " Slower; 0 reads the memory as it is.",
        ),
    ] = 0.0,
    read_chunks: Annotated[
        int | None,
        typer.Option(
            "--read-chunks",
            min=1,
            help="Answer from only this many of the attached chunks: those that the model looks at most when it first"
            " reads the question. For a large --top-k.",
            show_default="all",
        ),
    ] = None,
    adapter: options.AdapterOption = None,
    weights: options.WeightsOption = None,
    temperature: Annotated[
        float,
        typer.Option("--temperature", min=0.0, help="Above 0, sample the next token instead of taking the likeliest."),
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(
            "--top-p", min=0.0, max=1.0, help="Nucleus sampling: keep the most likely tokens up to this probability."
        ),
    ] = 1.0,
    sampling_top_k: Annotated[
        int, typer.Option("--sampling-top-k", min=0, help="Sample from this many of the most likely tokens; 0: all.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Random seed for sampling.")] = 0,
    budget: options.BudgetOption = options.DEFAULT_BUDGET,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Ask a question about a repository; indexes it first if there is no index."""
    is_shown = format is options.Format.text
    engine = Engine(
        repo or (),
        memory or (),
        model=model,
        adapter=adapter,
        mode=mode,
        rev=rev,
        weights=None if weights is None else weights.value,
        router=environment().router,
        budget=parse_bytes(budget),
        reporter=render.REPORTER,
    )
    with engine:
        engine.refresh()
        try:
            with render.answering(is_shown=is_shown) as shown:
                answer = engine.ask(
                    question,
                    scope=scope,
                    top_k=top_k,
                    max_new_tokens=max_new_tokens,
                    is_long=long,
                    may_cut=cut,
                    sampling=Sampling(temperature, sampling_top_k, top_p, seed),
                    reading=QuestionReading(recompute, read_chunks),
                    on_sentence=lambda sentence: shown.sentence(sentence.marked),
                    on_begun=shown.begun,
                )
        except NotAnswered as refusal:
            _print_nearest(engine, refusal) if is_shown else render.data(refusal.to_json())
            engine.note_unsearched()
            raise
    _print_sources(answer) if is_shown else render.data(answer.to_json())
    if answer.abstained:
        engine.note_unsearched()
        read = counted(answer.memory.chunks, "chunk")
        raise NothingFound(
            f"the model read {read} and says that the answer is not there",
            hint=f"--top-k {2 * top_k}, or name a file, class or function you know of",
        )


COLUMNS = 80
"""Of a line that a sentence rests on."""


def _print_sources(answer: Answer) -> None:
    """The sources that sentences rest on, by number, each with these lines; then the other attached places; then how
    long it took."""
    if answer.citations:
        render.text("\nSources", style="bold")
        for place in answer.cited:
            hit, citation = answer.hits[place], answer.citations[place]
            read = "" if citation.attention is None else f"  read {citation.attention:.0%}"
            shown = hit.place_of(*citation.evidence[0]) if citation.evidence else hit.place
            render.text(f"  [{place + 1}] {shown}  {hit.symbol}{read}")
            for number, line in hit.lines_between(citation.evidence):
                render.text(f"      {number}  {line.strip().expandtabs(4)}", style="dim", columns=COLUMNS)
        others = [hit.place for place, hit in enumerate(answer.hits) if place not in answer.cited]
        if others:
            render.text(f"  also attached: {', '.join(others)}", style="dim")
    render.note(
        f"\n{answer.model}, {answer.mode.value}{', trained' if answer.adapter else ''}:"
        f" {answer.memory.tokens} tokens of memory,"
        f" first token {answer.timings.first_token_s:.2f} s after loading, {answer.tokens_per_s:.0f} tokens/s,"
        f" {answer.timings.total_s:.1f} s in all"
    )


def _print_nearest(engine: Engine, refusal: NotAnswered) -> None:
    if not refusal.nearest:
        return
    searched = counted(refusal.looked_at, "chunk")
    render.text(f"Not found in {engine.searched} ({searched} searched). Nearest:")
    for hit in refusal.nearest[:3]:
        render.text(f"  {hit.place}  {hit.symbol}  score {hit.score:.2f}")
        render.text(f"      {hit.preview(lines=1).strip()}")
