"""`awareness eval qa`: questions with a reference answer and gold files, from a file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from awareness.cli import options, render
from awareness.cli.eval_estimates import as_json, cell
from awareness.cli.eval_routing import route
from awareness.cli.eval_shared import (
    DEFAULT_ARMS,
    NOT_ASKED,
    ArmsOption,
    CheckpointsOption,
    EvalModelOption,
    OutOption,
    SeedOption,
    arms_asked,
    model_asked,
    names_in,
    stored_as,
    write_json,
)
from awareness.errors import UsageError
from awareness.evals.question_files import read_questions
from awareness.model.presets import settings_of

if TYPE_CHECKING:
    from awareness.evals.qa import ArmScores

ORDERS = ("routing", "attention", "both")


def qa(
    questions: Annotated[Path, typer.Option("--questions", help="The questions, one JSON object a line.")],
    repo: options.ReposOption = None,
    model: EvalModelOption = None,
    checkpoint: CheckpointsOption = None,
    top_k: options.TopKOption = 8,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Length of an answer.")] = 48,
    seed: SeedOption = 0,
    quant: options.QuantOption = None,
    arms: ArmsOption = DEFAULT_ARMS,
    out: OutOption = None,
    format: options.FormatOption = options.Format.text,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Are answers right (token F1), and do the first three citations show the gold files (recall@3)?

    A line of --questions: {"question": "How is a cookie signed?", "answer": "With HMAC.", "gold": ["src/auth.py:5-7",
    "src/keys.py"], "repo": "sample"}. gold: paths, with or without lines. repo: the folder name of one of --repo, which
    may be left out where there is only one.
    """
    known = read_questions(questions)
    if bare := [one.question for one in known if not one.answer.strip()]:
        raise UsageError(
            f"{len(bare)} of {len(known)} questions of {questions} have no answer, the first: {bare[0]}",
            hint="awareness eval retrieval --questions, which needs none",
        )
    folder = model_asked(model, checkpoint)
    routed = route(known, repo, model=model, top_k=top_k)
    asked = arms_asked(names_in(arms), checkpoint, folder, quant)
    from awareness.evals.qa import run

    with render.progress() as progress:
        scores, answers = run(
            asked,
            routed,
            max_new_tokens=max_new_tokens,
            repetition_penalty=settings_of(folder.name).repetition_penalty,
            seed=seed,
            progress=progress,
        )
    result: dict[str, Any] = {
        "qa": [
            {"arm": one.arm, "f1": as_json(one.f1), "recall@3": {k: as_json(v) for k, v in one.recall.items()}}
            for one in scores
        ],
        "answers": [asdict(answer) for answer in answers],
        "questions": questions.name,
        "model": folder.name,
        "quant": stored_as(quant),
        "seed": seed,
        "samples": len(routed),
        "top_k": top_k,
        "max_new_tokens": max_new_tokens,
    }
    title = f"{folder.name}, {len(routed)} questions of {questions.name}, {top_k} chunks, quant {result['quant']}"
    if out:
        from awareness.evals.pictures import qa_bars

        write_json(out, "qa", result)
        qa_bars(scores, title, out / "qa.png")
    if format is options.Format.json:
        render.data(result)
    else:
        render.text(f"token F1, and recall@3 of citations in three orders (95 % interval), {title}")
        render.table(("arm", "F1", *(f"by {order}" for order in ORDERS)), [_row(one) for one in scores])
    if out:
        render.note(f"{out}: qa.json and qa.png written")


def _row(scores: ArmScores) -> tuple[str, ...]:
    found = (scores.f1, *(scores.recall.get(order) for order in ORDERS))
    return scores.arm, *(NOT_ASKED if one is None else cell(one) for one in found)
