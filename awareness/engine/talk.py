"""`Talk`: questions that follow each other, each answered with what was said before."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from awareness.engine.answer import Answer
from awareness.engine.earlier_turns import NO_TURNS, EarlierTurns, Turn
from awareness.engine.engine import Engine
from awareness.engine.question_options import QuestionOptions
from awareness.engine.talk_memory import TalkMemory

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from awareness.model.sentences import Sentence


class Talk:
    """A talk with an engine. `ask` the next question; `turns` has what was said.

    A question is searched with what the turns before name if it doesn't stand alone, and read after them. The chunks
    that the last answers rest on stay attached beside what the new question finds, and nothing is attached anew where
    the best of that is there already. Then the keys and values of the turns are kept, too: they were computed with the
    very same memory, at the same positions. With another memory they are computed again; to keep them there as well
    changed no answer either, but in one follow-up only, which proves nothing (benchmarks/talks/kept_cache.py).
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.turns: EarlierTurns = NO_TURNS
        self.memory = TalkMemory()

    def ask(
        self,
        question: str,
        *,
        on_sentence: Callable[[Sentence], None] = lambda _: None,
        is_cancelled: Callable[[], bool] = lambda: False,
        **options: Unpack[QuestionOptions],
    ) -> Answer:
        """Arguments and errors as for `Engine.ask`. A question that is refused is no turn of the talk, nor is an answer
        without a sentence."""
        answer = self.engine.ask(
            question,
            may_cut=True,
            earlier=self.turns,
            talk=self.memory,
            on_sentence=on_sentence,
            is_cancelled=is_cancelled,
            **options,
        )
        if said := "".join(sentence.text for sentence in answer.sentences).strip():
            chunks = [answer.hits[place].chunk for place in answer.cited]
            named = [name for chunk in chunks for name in (chunk.symbol, chunk.path) if name]
            self.turns = self.turns.and_then(Turn(question, said, tuple(named)))
        return answer

    def clear(self) -> None:
        """Forgets what was said, and detaches everything."""
        self.turns = NO_TURNS
        self.memory.clear()
