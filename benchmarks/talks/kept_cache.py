"""What the KV cache of a talk saves, and what it would change if it were also kept where the memory has changed.

    python benchmarks/talks/kept_cache.py FOLDER [--repository httpx] [--talks 4] [--tokens 16] [--model NAME]

Every talk of `talks.json` is held three times with the same questions: computed anew each time, with the cache that is
kept while the memory stays (`Talk` does that), and with one that is kept whatever is attached.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Hashable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import table
from follow_ups import TALKS
from transformers import PreTrainedModel

from awareness.engine.answer import Answer, NotAnswered
from awareness.engine.corpus import CorpusHit
from awareness.engine.engine import Engine
from awareness.engine.talk import Talk
from awareness.engine.talk_memory import TalkMemory
from awareness.model.prompt_cache import PromptCache


class Anew(TalkMemory):
    """Keeps chunks, and no cache."""

    def past(self, model: PreTrainedModel, read_as: Hashable, hits: Sequence[CorpusHit]) -> PromptCache:
        cache = super().past(model, read_as, hits)
        cache.clear()
        return cache


class Stale(TalkMemory):
    """Keeps the cache whatever is attached."""

    def past(self, model: PreTrainedModel, read_as: Hashable, hits: Sequence[CorpusHit]) -> PromptCache:
        return super().past(model, read_as, ())


WAYS = {"anew": Anew, "kept while the memory stays": TalkMemory, "kept always": Stale}


def held(engine: Engine, questions: Sequence[str], memory: TalkMemory, tokens: int) -> list[Answer | None]:
    """The answers to all questions, None for one that is refused."""
    talk, answers = Talk(engine), []
    talk.memory = memory
    for question in questions:
        try:
            answers.append(talk.ask(question, max_new_tokens=tokens))
        except NotAnswered:
            answers.append(None)
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path)
    parser.add_argument("--repository", default="httpx")
    parser.add_argument("--talks", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    talks = [talk for talk in json.loads(TALKS.read_text("utf-8")) if talk["repository"] == arguments.repository]
    rows: dict[str, list[tuple[float, int, bool]]] = {way: [] for way in WAYS}
    with Engine.open(arguments.checkouts / arguments.repository, model=arguments.model) as engine:
        engine.refresh()
        for talk in talks[: arguments.talks]:
            questions = [turn["question"] for turn in talk["turns"]]
            held(engine, questions, Anew(), 1)  # makes the latents
            anew = held(engine, questions, Anew(), arguments.tokens)
            for way, memory in WAYS.items():
                answers = anew if way == "anew" else held(engine, questions, memory(), arguments.tokens)
                for first, answer in list(zip(anew, answers, strict=True))[1:]:
                    if first is None or answer is None:
                        continue
                    rows[way].append((answer.timings.first_token_s, answer.reused, answer.text == first.text))
                    print(f"{way}: {answer.question} {answer.reused} tokens kept: {answer.text}", file=sys.stderr)
    table(
        ["cache", "follow-ups", "with kept tokens", "tokens kept (median)", "first token, s (median)", "same answer"],
        [
            [
                way,
                len(own),
                sum(reused > 0 for _, reused, _ in own),
                statistics.median(reused for _, reused, _ in own),
                statistics.median(seconds for seconds, _, _ in own),
                sum(same for _, _, same in own),
            ]
            for way, own in rows.items()
        ],
    )


if __name__ == "__main__":
    main()
