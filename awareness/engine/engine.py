"""`Engine`: searches repositories and packs, and answers questions about them, on one model in memory."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from awareness.config.environment import DEFAULTS
from awareness.engine.answer import Answer, AnswerTokens, MemorySize, NotAnswered, Timings, cite
from awareness.engine.corpus import Corpus, CorpusHit, empty_scope, note_unsearched, open_corpora, search_corpora
from awareness.engine.earlier_turns import NO_TURNS, EarlierTurns, most_tokens
from awareness.engine.embedders import choose_router, embed_texts, renew_vectors, resolve_router
from awareness.engine.indexed_names import IndexedNames, indexed_names
from awareness.engine.indexed_text import IndexedText, read_indexed
from awareness.engine.memory_outline import FileOutline, outline
from awareness.engine.memory_source import MemorySource
from awareness.engine.model_pool import ModelPool
from awareness.engine.models import LoadedModel, pull_model
from awareness.engine.modes import ReadingChoice, choose_reading
from awareness.engine.places import open_workspaces
from awareness.engine.question_options import BRIEF_TOKENS, DEFAULT_TOP_K, LONG_TOKENS, Mode, QuestionOptions
from awareness.engine.reporter import SILENT, Reporter
from awareness.engine.second_stage import load_second_stage, second_stage_for_ask
from awareness.engine.structure import DEFAULT_MAP_TOKENS, CorpusMap, LinkedHit, Relation, linked, mapped, similar
from awareness.engine.talk_memory import TalkMemory
from awareness.engine.units import counted, parse_bytes
from awareness.engine.workspace import Workspace
from awareness.errors import AwarenessError, IndexCorrupt, IndexLocked, ModelNotAvailable, StorageFailed, UsageError
from awareness.index import build
from awareness.index.search.evidence import WEAK_SCORE
from awareness.index.search.ranking import GATHERED, SPREAD, Rules, SecondStage
from awareness.index.store.lock import writing
from awareness.index.store.pack import is_pack
from awareness.index.store.store import Store
from awareness.model import model_files, presets
from awareness.model.context_length import fitting_question
from awareness.types import AS_IT_IS, Latent, MemorySpec, QuestionReading, Sampling

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from awareness.model.sentences import Sentence
    from awareness.model.token_attention import TokenAttention
    from awareness.types import Memory

DEFAULT_BUDGET = parse_bytes(DEFAULTS.latents_budget)
"""Bytes of latents that an index may hold on disk."""
PACK_SUFFIX = ".awm"
"""A file of this name is a pack, even a damaged one."""


class Engine:
    """Repositories and packs, opened to be searched and asked.

    The model is loaded by the first question and stays in memory. All methods may be called from several threads. One
    question is answered at a time. A search runs beside an answer, but waits for other searches, for a refresh, and
    while a question loads or encodes its latents. Everything that is refused is an exception of `awareness.errors`.
    Use it in a `with` block, or call `close`.
    """

    def __init__(
        self,
        repos: Sequence[str | Path] = (),
        packs: Sequence[str | Path] = (),
        *,
        model: str | None = None,
        adapter: str | Path | None = None,
        mode: Mode | str | None = None,
        rev: str | None = None,
        weights: str | None = None,
        router: str | None = None,
        budget: int = DEFAULT_BUDGET,
        models: ModelPool | None = None,
        memories: Sequence[MemorySource] = (),
        reporter: Reporter = SILENT,
    ) -> None:
        """repos: folders of repositories, or parts of them, which alone are searched; a folder of clones stands for all
        of them. Without repos and packs, the current folder's repository. packs: files that `awareness pack` wrote.
        model: a preset, hub id or folder; None for the index's own. adapter: the folder of a checkpoint,
        `shipped` or `none`; None for the one that is shipped with the model, if any, which reads for short answers
        only. mode: how the chunks are read; None for the adapter's, or `joint`. rev: a commit instead of the work tree.
        weights: what to decode with, None for the model's own choice. router: what a new index is searched with.
        budget: bytes of latents on disk. models: shared with other engines. memories: of many repositories each, beside
        repos and packs or instead of them. Raises UsageError and ModelNotAvailable."""
        self._reporter = reporter
        self._choice = choose_reading(
            None if adapter is None else str(adapter), None if mode is None else _mode(mode), model, reporter
        )
        self._packs, self._memories = [Path(path) for path in packs], list(memories)
        self._workspaces: list[Workspace] = []
        if repos or not memories:
            self._workspaces = open_workspaces([Path(path) for path in repos], self._packs, rev, reporter)
        self._weights, self._router, self._budget = weights, router, budget
        self._models, self._owns_models = models or ModelPool(), models is None
        self._corpora: list[Corpus] | None = None
        self._opened = contextlib.ExitStack()
        # Taken in this order where both are needed.
        self._model_lock, self._index_lock = self._models.lock, threading.RLock()

    @classmethod
    def open(
        cls,
        *sources: str | Path,
        model: str | None = None,
        adapter: str | Path | None = None,
        mode: Mode | str | None = None,
        rev: str | None = None,
        weights: str | None = None,
        router: str | None = None,
        budget: int = DEFAULT_BUDGET,
        models: ModelPool | None = None,
        memories: Sequence[MemorySource] = (),
        reporter: Reporter = SILENT,
    ) -> Engine:
        """sources: repositories, parts of them (folders and files), folders of clones, and packs; without any, the
        current folder's repository. The other arguments are those of `Engine`. Raises UsageError and
        ModelNotAvailable."""
        paths = [Path(source) for source in sources]
        packs = [path for path in paths if path.is_file() and (path.suffix == PACK_SUFFIX or is_pack(path))]
        repos = [path for path in paths if path not in packs]
        return cls(
            repos,
            packs,
            model=model,
            adapter=adapter,
            mode=mode,
            rev=rev,
            weights=weights,
            router=router,
            budget=budget,
            models=models,
            memories=memories,
            reporter=reporter,
        )

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the indexes and releases the model, unless it is shared; a later call opens them again."""
        if self._owns_models:
            self._models.close()
        self._close_corpora()
        with self._index_lock:
            for memory in self._memories:
                memory.close()

    # --- the index ------------------------------------------------------------------------------------------------

    def refresh(self, *, creates: bool = True) -> list[build.Refreshed]:
        """Brings the routing index of every repository up to date; latents are made when a question needs them. Where
        nothing has changed this takes milliseconds, and needs neither the lock nor the model. An index that cannot be
        updated now is used as it is, with a note: `CorpusHit.is_current` tells which hits are still true. creates:
        makes an index that does not exist yet. Returns what was refreshed.

        Raises NoIndex without `creates`; else, for a repository that has no index yet, whatever prevents one."""
        tolerated = (IndexLocked, StorageFailed, UsageError) if creates else (AwarenessError,)
        results, unchanged = [], []
        with self._index_lock:
            for workspace in self._workspaces:
                is_new = not workspace.is_indexed
                if is_new and not creates:
                    if workspace.found_in is not None:  # `corpora` names it
                        continue
                    raise workspace.no_index()
                try:
                    if (known := self._unchanged(workspace)) is not None:
                        unchanged.append((workspace.layout.root, known.snapshot))
                    results.append(known or self._refresh(workspace))
                except IndexCorrupt:
                    raise
                except tolerated as error:
                    if is_new and workspace.found_in is None:
                        raise
                    self._reporter.note(error.message + ("" if is_new else "; the index is used as it is"))
            if len(unchanged) < len(self._workspaces) or not self._has_open(unchanged):
                self._close_corpora()
            for memory in self._memories:
                memory.refresh()
        return results

    def _has_open(self, snapshots: Sequence[tuple[Path, int]]) -> bool:
        """Whether these snapshots, each with the folder of its index, are what is open now: another process may have
        made new ones."""
        opened = [corpus for corpus in self._corpora or () if corpus.spec is None]  # neither packs nor fleets
        return sorted((corpus.store.layout.root, corpus.snapshot) for corpus in opened) == sorted(snapshots)

    def _unchanged(self, workspace: Workspace) -> build.Refreshed | None:
        """The result of a refresh that has nothing to do, else None."""
        if not workspace.layout.exists:
            return None
        with Store.open(workspace.layout) as store, store.reading():
            snapshot = store.snapshot(workspace.snapshot_name)
            if snapshot is None or self._choice.model not in (None, snapshot.model):
                return None
            return build.unchanged(store, workspace.repository, snapshot)

    def _refresh(self, workspace: Workspace) -> build.Refreshed:
        is_new = not workspace.layout.exists
        folder = pull_model(workspace.model_name(self._choice.model), self._reporter)
        with writing(workspace.layout), Store.create(workspace.layout) as store:
            if is_new:
                choose_router(store, resolve_router(self._router, self._reporter))
            refreshed = workspace.refresh(store, folder, reporter=self._reporter)
            renew_vectors(store, self._reporter)
        if is_new:
            where = f" of {workspace.repository.root.name}" if workspace.found_in is not None else ""
            self._reporter.note(
                f"indexed {refreshed.files} files{where}, {refreshed.chunks} chunks; latents are made as questions need"
                " them, all at once with: awareness index"
            )
        return refreshed

    @property
    def corpora(self) -> list[Corpus]:
        """What is searched, opened when first needed; of a memory of many repositories those that questions have
        opened. Raises NoIndex."""
        with self._index_lock:
            return [*self._own_corpora(), *(corpus for memory in self._memories for corpus in memory.opened)]

    def _own_corpora(self) -> list[Corpus]:
        """Those of repos and packs."""
        if self._corpora is None:
            self._corpora = self._opened.enter_context(open_corpora(self._workspaces, self._packs, self._reporter))
        return self._corpora

    def _corpora_about(self, question: str) -> list[Corpus]:
        """What is searched for a question: of each memory the repositories that it is about."""
        return [*self._own_corpora(), *(corpus for memory in self._memories for corpus in memory.about(question))]

    def _close_corpora(self) -> None:
        with self._index_lock:
            self._corpora = None
            self._opened.close()

    def search(
        self,
        query: str,
        *,
        scope: Sequence[str] | None = None,
        top_k: int = DEFAULT_TOP_K,
        rules: Rules = SPREAD,
        kinds: Sequence[str] | None = None,
        languages: Sequence[str] | None = None,
        deep: bool = False,
    ) -> list[CorpusHit]:
        """The chunks that the query is about, best first; a first hit below `WEAK_SCORE` means that nothing answers it.

        scope: globs of paths ('src/**/*.py'); a leading `!` excludes. rules: how hits are ranked; `GATHERED` keeps
        those of one file together, as questions need it. kinds: of files, `source` or `docs`; a leading `!` excludes.
        languages: of files, such as `python`. deep: an embedding model reads the best chunks again, and is downloaded
        if necessary. Raises NoIndex, UsageError for a top_k below 1, an unknown kind or an unknown language, and
        ModelNotAvailable."""
        top_k = _checked(top_k)
        second_stage = load_second_stage(self._reporter) if deep else None
        return self._search(query, scope, top_k, rules, kinds, second_stage, languages)

    def _search(
        self,
        query: str,
        scope: Sequence[str] | None,
        top_k: int,
        rules: Rules,
        kinds: Sequence[str] | None = None,
        second_stage: SecondStage | None = None,
        languages: Sequence[str] | None = None,
    ) -> list[CorpusHit]:
        with self._index_lock:
            corpora = self._corpora_about(query)
            return search_corpora(corpora, query, scope, top_k, rules, self._reporter, kinds, second_stage, languages)

    def read(self, path: str, *, origin: str | None = None, is_exact: bool = False) -> IndexedText:
        """The lines of an indexed file, as they are now. path: from the top folder of its repository, or its unique
        end unless is_exact. origin: of a hit, where several repositories may have such a path. Raises NotIndexed for
        every other file, and NoIndex."""
        roots = [workspace.repository.root for workspace in self._workspaces]
        with self._index_lock:
            return read_indexed(self.corpora, roots, path, origin, is_exact=is_exact)

    def embed(self, texts: Sequence[str], *, as_code: bool = False) -> list[list[float]]:
        """The unit vectors that the first index compares, of questions or (as_code) of code. Raises UsageError for a
        text without a vector, ModelNotAvailable and NoIndex."""
        with self._index_lock:
            store = self._whole_corpora("a vector")[0].store
            return embed_texts(store, texts, as_code=as_code, reporter=self._reporter)

    @property
    def router(self) -> str:
        """What the first index is searched with: `shipped`, a file of term vectors, or an embedding model."""
        with self._index_lock:
            return self._whole_corpora("a router")[0].store.routing.router

    def indexed_names(self) -> IndexedNames:
        """The files and symbols of what is searched. Raises NoIndex."""
        with self._index_lock:
            return indexed_names(self.corpora)

    # --- its structure --------------------------------------------------------------------------------------------

    def callers(self, name: str, *, scope: Sequence[str] | None = None, top_k: int = DEFAULT_TOP_K) -> list[LinkedHit]:
        """What calls `func`, `Class.method`, `module.func` or `path/to/file.py:func`, best first: proven calls before
        those that only have the name. Raises NothingFound for a name that the code does not have, and NoIndex."""
        return self._linked(Relation.callers, name, scope, top_k)

    def callees(self, name: str, *, scope: Sequence[str] | None = None, top_k: int = DEFAULT_TOP_K) -> list[LinkedHit]:
        """The definitions that a name calls. Arguments and errors as for `callers`."""
        return self._linked(Relation.callees, name, scope, top_k)

    def tests_of(self, name: str, *, scope: Sequence[str] | None = None, top_k: int = DEFAULT_TOP_K) -> list[LinkedHit]:
        """The tests of a name. Arguments and errors as for `callers`."""
        return self._linked(Relation.tests_of, name, scope, top_k)

    def _linked(self, relation: Relation, name: str, scope: Sequence[str] | None, top_k: int) -> list[LinkedHit]:
        with self._index_lock:
            return linked(self._corpora_about(name), relation, name, scope, _checked(top_k))

    def similar(self, place: str, *, scope: Sequence[str] | None = None, top_k: int = DEFAULT_TOP_K) -> list[CorpusHit]:
        """The code most like that at `FILE:LINE`, without its copies. Raises UsageError, NoIndex."""
        roots = [workspace.repository.root for workspace in self._workspaces]
        with self._index_lock:
            return similar(self.corpora, roots, place, scope, _checked(top_k))

    def map(self, *, scope: Sequence[str] | None = None, tokens: int = DEFAULT_MAP_TOKENS) -> list[CorpusMap]:
        """The most important files of each repository with their definitions, in at most `tokens` tokens altogether.
        Raises UsageError, NoIndex."""
        with self._index_lock:
            return mapped(self._whole_corpora("a map"), scope, tokens)

    def outline(self) -> list[FileOutline]:
        """The indexed files with the lines of their chunks. Raises NoIndex."""
        with self._index_lock:
            return outline(self._whole_corpora("an outline"))

    def _whole_corpora(self, what: str) -> list[Corpus]:
        """What is searched, where it is all needed at once. Raises UsageError for a memory of many repositories."""
        corpora = self._own_corpora()
        if self._memories and not corpora:
            hint = "name one of them: --repo FOLDER"
            raise UsageError(f"{what} is of a repository, not of {self._memories[0].name}", hint=hint)
        return corpora

    @property
    def searched(self) -> str:
        """What is searched, in words: `this repository`, `services/api`, `these 3 repositories`."""
        if self._memories and not (self._workspaces or self._packs):
            return f"this memory of {counted(sum(memory.repositories for memory in self._memories), 'repository')}"
        number = len(self._workspaces) + len(self._packs)
        if number > 1:
            return f"these {number} {'repositories' if not self._packs else 'repositories and packs'}"
        if self._packs:
            return "this pack"
        return self._workspaces[0].below or "this repository"

    def note_unsearched(self) -> None:
        """Tells the reporter which repositories inside those that are searched, such as submodules, are not searched:
        for a question that finds nothing."""
        note_unsearched(self._workspaces, self._reporter)

    # --- the model ------------------------------------------------------------------------------------------------

    def reading(self) -> tuple[ReadingChoice, model_files.ModelFolder]:
        """The mode, the adapter and the model's folder that questions are answered with. Downloads the model if
        necessary. Raises ModelNotAvailable."""
        folder = pull_model(self._choice.model or _model_of(self._own_corpora(), self._memories), self._reporter)
        return self._choice.for_model(folder), folder

    def load(self) -> LoadedModel:
        """The model, loaded once. Raises ModelNotAvailable and UsageError."""
        choice, folder = self.reading()
        return self._models.load(folder, choice.adapter, self._weights, self._reporter)

    def attach(self, hits: Sequence[CorpusHit]) -> Memory:
        """The latents of the hits as one memory, the best hit last, next to the question. Missing latents are encoded
        now and kept. Each span is named by the place of its hit, '0' for the best.

        Raises UsageError for a pack whose latents another model made, and for hits of another engine."""
        return self._attach(hits, self.load())

    def _attach(self, hits: Sequence[CorpusHit], model: LoadedModel) -> Memory:
        from awareness.model.assemble import assemble

        with self._model_lock, self._index_lock:
            hits = [CorpusHit(self._reopened(hit.corpus), hit.hit) for hit in hits]
            base = model.encoder.spec
            trained = None if model.trained is None else model.trained.adapter
            reads = None if trained is None else trained.sets
            latents: dict[tuple[int, str], tuple[Latent, MemorySpec]] = {}
            for corpus in {id(hit.corpus): hit.corpus for hit in hits}.values():
                if corpus.spec is not None and corpus.spec.raw != base.raw:
                    raise _unreadable(corpus, base, model.decoder.folder.name)
                encoder = model.encoder.storing_as(corpus.quant)
                spec = encoder.spec
                if corpus.spec not in (None, spec):
                    raise _unreadable(corpus, spec, model.decoder.folder.name)
                chunks = [hit.chunk for hit in hits if hit.corpus is corpus]
                with corpus.blaming_the_pack(), self._reporter.progress() as progress:
                    loaded = build.load_latents(
                        corpus.store, encoder, chunks, budget=self._budget, fetch=corpus.fetch, progress=progress
                    )
                latents |= {(id(corpus), c.digest): (latent, spec) for c, latent in zip(chunks, loaded, strict=True)}
            ordered = [latents[id(hit.corpus), hit.chunk.digest] for hit in reversed(hits)]
            return assemble(
                model.decoder.model,
                base,
                model.encoder.sink,
                [latent for latent, _ in ordered],
                [str(place) for place in reversed(range(len(hits)))],  # two repositories may have the same chunk
                specs=[spec for _, spec in ordered],
                sharpness=model.settings.sharpness,
                reads=reads,
            )

    def _reopened(self, corpus: Corpus) -> Corpus:
        """The corpus of a hit as it is open now: `refresh` and `close` close those that were open before."""
        place = (corpus.store.layout.root, corpus.snapshot, corpus.below)
        for opened in self.corpora:
            if (opened.store.layout.root, opened.snapshot, opened.below) == place:
                return opened
        for memory in self._memories:
            if (again := memory.reopened(corpus)) is not None:
                return again
        raise UsageError(
            f"{corpus.name or 'this hit'} is not open in this engine", hint="attach hits of its own search"
        )

    # --- questions ------------------------------------------------------------------------------------------------

    def ask(
        self,
        question: str,
        *,
        scope: Sequence[str] | None = None,
        top_k: int = DEFAULT_TOP_K,
        max_new_tokens: int | None = None,
        is_long: bool = False,
        may_cut: bool = False,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        reading: QuestionReading = AS_IT_IS,
        earlier: EarlierTurns = NO_TURNS,
        talk: TalkMemory | None = None,
        on_hits: Callable[[Sequence[CorpusHit]], None] = lambda _: None,
        on_sentence: Callable[[Sentence], None] = lambda _: None,
        on_begun: Callable[[str], None] = lambda _: None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Answer:
        """Searches, attaches the hits that still read like the code, and answers.

        Memory, question and answer share the decoder's positions. A question that leaves no room is refused before the
        model is loaded, or with may_cut loses its middle; hits that do not fit are not attached, the worst first.
        max_new_tokens: a sentence that was begun is finished all the same; None for 128, or 512 if is_long, which
        explains instead of answering in three sentences. reading: how the memory is prepared for the question.
        earlier: what was asked and answered before; they help to find what a follow-up is about and stand before it in
        the prompt, as far as a quarter of the positions goes. talk: keeps chunks attached from one question to the next
        (talk.py has both). on_hits: gets the chunks that are attached, best first, before the decoder begins.
        on_sentence: gets each sentence once it is complete; on_begun: the text of the next one as it grows.
        is_cancelled: asked after every token; if True, the answer ends with what is complete. Raises NotAnswered if
        nothing seems to answer it, NoIndex, ModelNotAvailable, UsageError."""
        started = time.perf_counter()
        choice, folder = self.reading()
        mode = choice.mode
        if reading != AS_IT_IS and not mode.reads_memory:
            raise UsageError(
                f"mode {mode.value} has no memory that could be read again for the question",
                hint="leave --recompute and --read-chunks out, or --mode joint",
            )
        wanted = max_new_tokens or (LONG_TOKENS if is_long else BRIEF_TOKENS)
        turns = earlier.prompt(folder.num_positions)
        fitted = fitting_question(
            question,
            folder,
            answer_tokens=min(wanted, BRIEF_TOKENS) + most_tokens(turns),
            has_chunks=mode is not Mode.none,
            may_cut=may_cut,
        )
        if fitted.cut:
            self._reporter.note(f"the question is too long: {fitted.cut:,} tokens of its middle are left out")
        with self._index_lock:
            route_started = time.perf_counter()
            query = earlier.query(fitted.text)
            hits = self._current(query, scope, _checked(top_k))
            if mode is not Mode.none:
                if not hits or hits[0].score < WEAK_SCORE:
                    corpora = self.corpora
                    looked_at = sum(corpus.count_chunks() for corpus in corpora)
                    now = time.perf_counter()
                    timings = Timings(now - route_started, total_s=now - started)
                    no_match = None if hits else empty_scope(corpora, scope)
                    raise NotAnswered(question, hits, looked_at, mode, folder.name, timings, no_match)
                if second_stage := second_stage_for_ask(self._reporter):
                    hits = self._current(query, scope, top_k, second_stage)
            if talk is not None:
                hits = talk.grown_by(hits)
            route_s = time.perf_counter() - route_started
        from awareness.model.answering import answer

        found = hits if mode is not Mode.none else []
        with self._model_lock:
            load_started = time.perf_counter()
            model = self.load()
            if is_long and choice.is_shipped and mode is Mode.joint:
                model = model.without_adapter  # it has learned short answers
            hits = self._fitting(found, model, mode, fitted.text, turns, is_long, min(wanted, LONG_TOKENS))
            on_hits(hits)
            memory = self._attach(hits, model) if mode.reads_memory else None
            past = None
            if talk is not None and memory is not None and reading == AS_IT_IS:
                past = talk.past(model.decoder.model, model.trained is not None, hits)
            load_s = time.perf_counter() - load_started
            reply = answer(
                model.decoder,
                model.settings,
                fitted.text,
                [hit.chunk for hit in hits],
                memory,
                texts=[hit.chunk.encoded_text for hit in reversed(hits)] if mode is Mode.text else (),
                earlier=turns,
                past=past,
                max_new_tokens=wanted,
                is_long=is_long,
                adapter=model.adapter if mode.reads_memory else None,
                sampling=sampling,
                reading=reading,
                on_sentence=on_sentence,
                on_begun=on_begun,
                is_cancelled=is_cancelled,
            )
        generation = reply.generation
        made = Answer(
            question=question,
            sentences=reply.sentences,
            hits=tuple(hits),
            citations=cite(hits, generation.attention, reply.sentences),
            mode=mode,
            model=folder.name,
            adapter=None if model.trained is None else choice.adapter,
            weights=model.weights,
            memory=MemorySize(
                len(hits),
                memory.tokens if memory else 0,
                memory.nbytes if memory else 0,
                len(found) - len(hits),
                reply.chunks_read,
                reply.recomputed,
            ),
            timings=Timings(route_s, load_s, generation.first_token_s, time.perf_counter() - started, reply.prepare_s),
            tokens_per_s=generation.tokens_per_s,
            is_cancelled=is_cancelled(),
            cut=fitted.cut,
            reused=0 if past is None else past.reused,
            tokens=AnswerTokens(reply.prompt, generation.token_ids, reading),
        )
        if talk is not None:
            talk.answered(hits, made.cited)
        return made

    def _current(
        self, query: str, scope: Sequence[str] | None, top_k: int, second_stage: SecondStage | None = None
    ) -> list[CorpusHit]:
        """The hits for a question that still read like the code."""
        hits = self._search(query, scope, top_k, GATHERED, second_stage=second_stage)
        return [hit for hit in hits if hit.is_current]

    def _fitting(
        self,
        hits: list[CorpusHit],
        model: LoadedModel,
        mode: Mode,
        question: str,
        turns: Sequence[tuple[str, str]],
        is_long: bool,
        answer_tokens: int,
    ) -> list[CorpusHit]:
        """The best of the hits, as many as the decoder has positions for beside the prompt and the answer."""
        from awareness.model.answering import count_fitting

        fitting = count_fitting(
            model.decoder,
            model.settings,
            question,
            [hit.chunk for hit in hits],
            encoder=model.encoder if mode.reads_memory else None,
            earlier=turns,
            is_long=is_long,
            answer_tokens=answer_tokens,
        )
        if dropped := len(hits) - fitting:
            folder = model.decoder.folder
            self._reporter.note(
                f"{counted(dropped, 'chunk')} left out: {folder.name} has {folder.num_positions:,} positions for"
                f" memory, question and answer, which {counted(fitting, 'chunk')} fill"
            )
        return hits[:fitting]

    def attention(self, answer: Answer) -> TokenAttention:
        """How much each token of an answer of this engine looked at each token of its sources, by layer and head. It is
        computed again, in one pass. Raises UsageError for an answer that read no memory, and what `ask` raises."""
        if not answer.mode.reads_memory or not answer.hits or not answer.tokens.answer:
            raise UsageError(
                f"this answer read no memory (mode {answer.mode.value})", hint="ask with --mode joint, and look again"
            )
        from awareness.model.reading.question_reading import prepared_chunks
        from awareness.model.token_attention import token_attention

        with self._model_lock:
            model = self.load()
            if answer.adapter is None:
                model = model.without_adapter
            chunks, tokens = [hit.chunk for hit in answer.hits], answer.tokens
            memory = prepared_chunks(
                model.decoder,
                self._attach(answer.hits, model),
                chunks,
                tokens.prompt,
                tokens.reading,
                adapter=model.adapter,
            )
            return token_attention(model.decoder, tokens.prompt, tokens.answer, memory, chunks, model.adapter)

    def stream(
        self,
        question: str,
        *,
        may_cut: bool = False,
        earlier: EarlierTurns = NO_TURNS,
        talk: TalkMemory | None = None,
        **options: Unpack[QuestionOptions],
    ) -> AnswerStream:
        """As `ask`, in a thread: iterate over the sentences as they are completed, then read `.answer`."""
        return AnswerStream(
            functools.partial(self.ask, question, may_cut=may_cut, earlier=earlier, talk=talk, **options)
        )


class AnswerStream:
    """The sentences of an answer, as they are completed. Iterating raises what `ask` raised."""

    def __init__(self, ask: Callable[..., Answer]) -> None:
        """ask: gets `on_sentence` and `is_cancelled`, as those of `Engine.ask`."""
        sentences: queue.SimpleQueue[Sentence | None] = queue.SimpleQueue()
        self._sentences = sentences  # None at the end
        self._cancelled = cancelled = threading.Event()
        executor = ThreadPoolExecutor(1, "awareness-answer")
        self._future = executor.submit(ask, on_sentence=sentences.put, is_cancelled=cancelled.is_set)
        self._future.add_done_callback(lambda _: sentences.put(None))  # holds no reference to the stream
        executor.shutdown(wait=False)
        weakref.finalize(self, cancelled.set)  # an answer that nobody can read ends early

    def __iter__(self) -> Iterator[Sentence]:
        while (sentence := self._sentences.get()) is not None:
            yield sentence
        self._sentences.put(None)  # so that a second loop ends at once
        self._future.result()

    def cancel(self) -> None:
        """Ends the answer after the token that is being generated."""
        self._cancelled.set()

    @property
    def answer(self) -> Answer:
        """Waits for the end. Raises what `ask` raised."""
        return self._future.result()


def _checked(top_k: int) -> int:
    if top_k < 1:
        raise UsageError(f"top_k {top_k} is not a number of hits", hint="at least 1")
    return top_k


def _mode(mode: Mode | str) -> Mode:
    try:
        return Mode(mode)
    except ValueError:
        raise UsageError(
            f"there is no mode '{mode}'", hint=f"one of {', '.join(known.value for known in Mode)}"
        ) from None


def _model_of(corpora: Sequence[Corpus], memories: Sequence[MemorySource]) -> str:
    """The model that made the first memory's or pack's latents, else the first repository's. A model that only a
    stranger's pack or memory names is never downloaded from the hub. Raises UsageError and ModelNotAvailable."""
    of_strangers = [(memory.name, memory.model) for memory in memories]
    of_strangers += [(corpus.name or "", corpus.model) for corpus in corpora if corpus.spec]
    if not of_strangers:
        return corpora[0].model
    made, name = of_strangers[0]
    if name not in presets.PRESETS:
        raise UsageError(f"{made} was made by the model '{name}'", hint="--model with a model that you trust")
    if name != presets.DEFAULT_MODEL and model_files.find(name) is None:
        raise ModelNotAvailable(f"{made} was made by {name}", hint=f"awareness models pull {name}")
    return name


def _unreadable(pack: Corpus, expected: MemorySpec, model: str) -> UsageError:
    """Why the latents of a pack cannot be read. expected: the spec of the latents that this model makes."""
    spec = pack.spec
    if spec is not None and spec.model == expected.model:
        parts = [part for part in ("layers", "encoder") if getattr(spec, part) != getattr(expected, part)]
        what = f"other {' and '.join(parts)} than the adapter reads" if parts else "another sink"
        if spec.raw == expected.raw:
            what = f"other tables of --quant {spec.quant} than those on this machine"
            return UsageError(f"the latents of {pack.name} are of {what}", hint="ask --repo, or make the pack again")
        return UsageError(f"the latents of {pack.name} are of {what}", hint="leave --adapter out, or ask --repo")
    return UsageError(
        f"the latents of {pack.name} were made by another model than {model}", hint=f"--model {pack.model}"
    )
