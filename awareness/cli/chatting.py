"""`Chatting`: takes the lines of a chat, one by one: answers questions and does what commands say."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType

from awareness.cli import answers, chat_commands, editors, render
from awareness.cli.hits import STALE
from awareness.cli.talk_page import page
from awareness.cli.typed_lines import without_echo
from awareness.engine.answer import Answer, NotAnswered
from awareness.engine.corpus import CorpusHit, empty_scope
from awareness.engine.engine import Engine
from awareness.engine.indexed_names import IndexedNames
from awareness.engine.talk import Talk
from awareness.errors import AwarenessError, UsageError, storage_errors
from awareness.index.search.evidence import WEAK_SCORE
from awareness.types import printable

EVERYTHING = "all"
"""The argument of /scope that ends a scope."""


class Chatting:
    """A chat. goes_on: False once the user has left. Use it in a `with` block.

    opened: (name of a model, or None) -> an engine for it.
    """

    def __init__(
        self, opened: Callable[[str | None], Engine], *, scope: Sequence[str] | None, top_k: int, is_long: bool
    ) -> None:
        self._opened, self._top_k = opened, top_k
        self._scope, self._is_long = list(scope or ()), is_long
        self.engine = opened(None)
        self.talk = Talk(self.engine)
        self.names = IndexedNames()
        self.goes_on = True
        self._answers: list[Answer] = []
        self._numbered: list[tuple[CorpusHit, int]] = []  # what /open opens, with the line
        self._own_file: Path | None = None

    def __enter__(self) -> Chatting:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.engine.close()

    def begin(self) -> None:
        """Brings the index up to date. Raises what `Engine.refresh` raises."""
        self._refresh()

    def take(self, line: str) -> None:
        """A question, a command, or an empty line. What is refused is printed, and Ctrl-C ends what is being done."""
        try:
            command = chat_commands.parsed(line)
            if command is None:
                if line.strip():
                    self._ask(line.strip(), self._is_long)
            else:
                name, argument = command
                getattr(self, f"_do_{name}")(argument)
        except NotAnswered as refusal:
            self._show_nearest(refusal)
        except AwarenessError as error:
            render.error(error.message, error.hint, error.details)
        except KeyboardInterrupt:
            render.note("interrupted")

    # --- questions ------------------------------------------------------------------------------------------------

    def _ask(self, question: str, is_long: bool) -> None:
        self._refresh()
        with _ctrl_c() as is_cancelled, without_echo(), render.answering(is_shown=True) as shown:
            answer = self.talk.ask(
                question,
                scope=self._scope or None,
                top_k=self._top_k,
                is_long=is_long,
                on_sentence=lambda sentence: shown.sentence(sentence.marked),
                on_begun=shown.begun,
                is_cancelled=is_cancelled,
            )
        self._answers.append(answer)
        self._number_sources(answer)
        for place in answer.cited:
            hit, evidence = answer.hits[place], answer.citations[place].evidence
            where = hit.place_of(*evidence[0]) if evidence else hit.place
            render.text(f"  [{place + 1}] {where}  {hit.symbol}", style="dim")
        if answer.is_cancelled:
            render.note("stopped")

    def _number_sources(self, answer: Answer) -> None:
        self._numbered = [
            (hit, citation.evidence[0][0] if citation.evidence else hit.chunk.start_line)
            for hit, citation in zip(answer.hits, answer.citations, strict=True)
        ]

    def _show_nearest(self, refusal: NotAnswered) -> None:
        """What comes nearest to a question that nothing answers, to open by number."""
        render.text(f"{refusal.message}." + (" Nearest:" if refusal.nearest else ""))
        self._list(refusal.nearest[:3])
        if not refusal.nearest and self._scope:
            render.note(f"the scope is {' '.join(self._scope)}; /scope {EVERYTHING} ends it")

    def _list(self, hits: Sequence[CorpusHit]) -> None:
        self._numbered = [(hit, hit.chunk.start_line) for hit in hits]
        for number, hit in enumerate(hits, 1):
            render.text(f"  [{number}] {hit.place}  {hit.symbol}{'' if hit.is_current else STALE}")

    def _refresh(self) -> None:
        changed = any(refreshed.added or refreshed.removed for refreshed in self.engine.refresh())
        if changed or not self.names.paths:
            self.names = self.engine.indexed_names()

    # --- commands -------------------------------------------------------------------------------------------------

    def _do_open(self, argument: str) -> None:
        if not self._numbered:
            raise UsageError("nothing is numbered yet", hint="ask something, or /search WORDS")
        if not (argument.isascii() and argument.isdigit() and 1 <= int(argument) <= len(self._numbered)):
            raise UsageError(
                f"/open '{argument[:40]}': there is no such source", hint=f"/open 1 … /open {len(self._numbered)}"
            )
        hit, line = self._numbered[int(argument) - 1]
        if hit.file is None:
            raise UsageError(f"{hit.place} is not a file of a work tree", hint="/sources, or ask about the work tree")
        if not hit.file.is_file():
            raise UsageError(f"{hit.place} is gone", hint="ask again")
        if not hit.is_current:
            render.note(f"{hit.place} has changed since; ask again for its lines")
        editors.open_file(hit.file, line)

    def _do_sources(self, argument: str) -> None:
        if not self._answers:
            raise UsageError("there is no answer yet", hint="ask something")
        answer = self._answers[-1]
        self._number_sources(answer)
        for number, (hit, _) in enumerate(self._numbered, 1):
            citation = answer.citations[number - 1]
            read = "" if citation.attention is None else f"  read {citation.attention:.0%}"
            is_cited = number - 1 in answer.cited
            render.text(f"  [{number}] {hit.place}  {hit.symbol}{read}", style="bold" if is_cited else None)
            for row, text in hit.lines_between(citation.evidence):
                render.text(f"      {row}  {text.strip().expandtabs(4)}", style="dim", columns=answers.COLUMNS)
        answers.note_times(answer.to_json())

    def _do_search(self, argument: str) -> None:
        if not argument:
            raise UsageError("/search: for what?", hint="/search session cookie")
        self._refresh()
        hits = self.engine.search(argument, scope=self._scope or None, top_k=self._top_k)
        if not hits or hits[0].score < WEAK_SCORE:
            nearest = " Nearest:" if hits else ""
            render.text(f"nothing found for '{printable(argument[:80])}'.{nearest}")
            hits = hits[:3]
        self._list(hits)

    def _do_scope(self, argument: str) -> None:
        patterns = chat_commands.words(argument)
        if patterns == [EVERYTHING]:
            self._scope = []
        elif patterns:
            if message := empty_scope(self.engine.corpora, patterns):
                raise UsageError(message, hint=f"another /scope, or /scope {EVERYTHING}")
            self._scope = patterns
        if patterns:
            self.talk.memory.clear()  # nothing outside the scope stays attached
        render.text(f"scope: {' '.join(self._scope) or f'{EVERYTHING} of {self.engine.searched}'}")

    def _do_model(self, argument: str) -> None:
        if argument:
            engine = self._opened(argument)
            try:
                engine.refresh()
                engine.reading()
            except BaseException:
                engine.close()
                raise
            self.engine.close()
            self.engine = self.talk.engine = engine
            self.talk.memory.clear()
            self._numbered = []
        choice, folder = self.engine.reading()
        adapter = "no adapter" if choice.adapter is None else f"adapter {choice.adapter}"
        render.text(f"model: {folder.name}, {choice.mode.value}, {adapter}")

    def _do_long(self, argument: str) -> None:
        if argument:
            self._ask(argument, True)
            return
        self._is_long = not self._is_long
        render.text(f"answers: {'long' if self._is_long else 'short'}")

    def _do_save(self, argument: str) -> None:
        if not argument:
            raise UsageError("/save: into which file?", hint="/save talk.md")
        if not self._answers:
            raise UsageError("there is no answer yet that could be saved", hint="ask something")
        file = Path(os.path.expanduser(chat_commands.words(argument)[0]))
        with storage_errors(file):
            if os.path.lexists(file) and file != self._own_file:
                raise UsageError(f"{file} exists already", hint=f"/save {file.stem}-2{file.suffix or '.md'}")
            with open(file, "w" if file == self._own_file else "x", encoding="utf-8", errors="replace") as written:
                written.write(render.safe(page(self._answers)))
        self._own_file = file
        render.text(f"saved {len(self._answers)} answers in {file}")

    def _do_clear(self, argument: str) -> None:
        self.talk.clear()
        self._answers, self._numbered = [], []
        render.text("forgotten")

    def _do_help(self, argument: str) -> None:
        for name, (takes, does) in chat_commands.COMMANDS.items():
            render.text(f"  {f'/{name} {takes}':<16} {does}")
        render.text("  Ctrl-C ends an answer, Tab completes files and symbols.")

    def _do_quit(self, argument: str) -> None:
        self.goes_on = False


@contextlib.contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Inside the block the first Ctrl-C only makes the yielded function return True; the second one interrupts."""
    is_pressed = threading.Event()

    def press(number: int, frame: FrameType | None) -> None:
        if is_pressed.is_set():
            raise KeyboardInterrupt
        is_pressed.set()

    if threading.current_thread() is not threading.main_thread():
        yield is_pressed.is_set
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield is_pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
