"""`awareness ask`: answers a question with citations, streamed."""

from __future__ import annotations

from typing import Annotated

import typer

from awareness.cli import answers, options, render
from awareness.config.environment import environment
from awareness.engine.question_options import BRIEF_TOKENS, DEFAULT_TOP_K, LONG_TOKENS, Mode
from awareness.engine.units import parse_bytes
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
    format: options.AnswerFormatOption = options.AnswerFormat.text,
    no_server: Annotated[
        bool, typer.Option("--no-server", help="Answer in this process, even if `awareness serve` runs.")
    ] = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Ask a question about a repository; indexes it first if there is no index."""
    chosen = None if weights is None else weights.value
    if not (no_server or memory or rev or len(repo or ()) > 1):
        from awareness.cli import served_ask
        from awareness.serve.ask_settings import ask_settings

        asked = {
            "question": question,
            "top_k": top_k,
            "max_new_tokens": max_new_tokens,
            "long": long,
            "cut": cut,
            "recompute": recompute,
            "read_chunks": read_chunks,
            "temperature": temperature,
            "top_p": top_p,
            "sampling_top_k": sampling_top_k,
            "seed": seed,
        }
        answers_with = ask_settings(
            model=model, adapter=adapter, mode=None if mode is None else mode.value, weights=chosen, budget=budget
        )
        if served_ask.ask(asked, repo[0] if repo else None, scope, answers_with, format=format):
            return
    from awareness.cli import memories
    from awareness.engine.answer import NotAnswered, sentence_json
    from awareness.engine.engine import Engine

    packs, stores = memories.split(memory, parse_bytes(budget))
    engine = Engine(
        repo or (),
        packs,
        model=model,
        adapter=adapter,
        mode=mode,
        rev=rev,
        weights=chosen,
        router=environment().router,
        budget=parse_bytes(budget),
        memories=stores,
        reporter=render.REPORTER,
    )
    with engine:
        engine.refresh()
        try:
            with answers.answering(format) as output:
                answer = engine.ask(
                    question,
                    scope=scope,
                    top_k=top_k,
                    max_new_tokens=max_new_tokens,
                    is_long=long,
                    may_cut=cut,
                    sampling=Sampling(temperature, sampling_top_k, top_p, seed),
                    reading=QuestionReading(recompute, read_chunks),
                    on_hits=lambda hits: output.hits([hit.listed() for hit in hits]),
                    on_sentence=lambda sentence: output.sentence(sentence_json(sentence)),
                    on_begun=output.begun,
                )
        except NotAnswered as refusal:
            output.refusal(refusal.to_json(), refusal.shown, engine.searched, refusal.message)
            engine.note_unsearched()
            raise
    output.answer(answer.to_json(), answer.shown)
    if answer.abstained:
        engine.note_unsearched()
        raise answers.not_there(answer.to_json(), top_k)
