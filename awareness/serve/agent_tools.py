"""The tools that agents call: search, find_related, find_callers, ask, read_places and index_status.

Each one has a model of its arguments, whose schema is what the agent sees, and a function that gives text and JSON. The
protocol that carries them is mcp_server.py's. Descriptions are short: an agent reads all of them before its first word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from awareness.engine.answer import Answer, NotAnswered
from awareness.engine.corpus import CorpusHit, empty_scope
from awareness.engine.engine import Engine
from awareness.engine.structure import LinkedHit
from awareness.engine.units import counted
from awareness.errors import AwarenessError, NoIndex, NothingFound, UsageError
from awareness.index.search.evidence import WEAK_SCORE
from awareness.serve.agent_calls import Call
from awareness.serve.allowed import AllowedRepositories
from awareness.serve.untrusted import NAME_CHARS, NOTICE, clean, clean_json, code_line, fenced, numbered, one_line

MOST_CHARS = 24_000
"""Of the code in one result."""
MOST_PLACES = 20
MOST_PLACE_LINES = 400

Text = Annotated[str, StringConstraints(min_length=1, max_length=4000)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Repo = Annotated[
    str | None, Field(description="Name or path of the repository; leave out for the one of the working folder.")
]
TopK = Annotated[int, Field(ge=1, le=50, description="Number of results.")]
SnippetLines = Annotated[
    int, Field(ge=0, le=100, description="Lines of code with each result; 0 for the places alone.")
]
Names = Annotated[list[Name], Field(max_length=50)]


class Arguments(BaseModel):
    """Unknown arguments are errors: a misspelled one would change nothing, and the agent would not know."""

    model_config = ConfigDict(extra="forbid")


class SearchArguments(Arguments):
    query: Annotated[Text, Field(description="A question, or names from the code.")]
    repo: Repo = None
    top_k: TopK = 5
    max_snippet_lines: SnippetLines = 10
    paths: Annotated[
        Names | None, Field(description="Only these folders, files or globs, such as src/**; ! before one excludes.")
    ] = None
    languages: Annotated[Names | None, Field(description="Only these languages, such as python.")] = None


class RelatedArguments(Arguments):
    file_path: Annotated[Name, Field(description="A file of the repository.")]
    line: Annotated[int, Field(ge=1, description="A line in it.")]
    repo: Repo = None
    top_k: TopK = 5
    max_snippet_lines: SnippetLines = 10


class CallersArguments(Arguments):
    symbol: Annotated[Name, Field(description="func, Class.method, module.func or path/to/file.py:func.")]
    repo: Repo = None
    top_k: TopK = 20


class AskArguments(Arguments):
    question: Annotated[Text, Field(description="A question about the code, in words.")]
    repo: Repo = None
    paths: Annotated[Names | None, Field(description="Only these folders, files or globs.")] = None


class PlacesArguments(Arguments):
    places: Annotated[
        list[Name], Field(min_length=1, max_length=MOST_PLACES, description="Each `path:start-end` or `path:line`.")
    ]
    repo: Repo = None


class StatusArguments(Arguments):
    repo: Annotated[str | None, Field(description="Name or path of one repository; leave out for all.")] = None


@dataclass(frozen=True)
class Result:
    """What a tool gives. text: what an agent reads. data: the same as JSON."""

    text: str
    data: dict[str, Any]


@dataclass
class _Budget:
    """Characters of code that may still be shown in one result."""

    left: int = MOST_CHARS
    omitted: int = 0

    def take(self, lines: Sequence[str]) -> list[str]:
        """The first of these lines that still fit; the others are counted."""
        kept: list[str] = []
        for line in lines:
            if self.left < len(line):
                self.left = 0
                break
            self.left -= len(line) + 1
            kept.append(line)
        self.omitted += len(lines) - len(kept)
        return kept

    @property
    def note(self) -> list[str]:
        """What was left out, in words."""
        if not self.omitted:
            return []
        return [f"Left out: {counted(self.omitted, 'line')}, as a result holds {MOST_CHARS:,} characters of code."]


def search(repositories: AllowedRepositories, given: SearchArguments, call: Call) -> Result:
    with repositories.engine(given.repo) as engine:
        hits = engine.search(given.query, scope=given.paths, top_k=given.top_k, languages=given.languages)
        no_match = None if hits else empty_scope(engine.corpora, given.paths)
        is_weak = not hits or hits[0].score < WEAK_SCORE
        head = "Nothing in the code seems to answer this. Nearest:" if is_weak else ""
        return _listed(hits, given.max_snippet_lines, head, no_match or "no file matches `paths` and `languages`")


def find_related(repositories: AllowedRepositories, given: RelatedArguments, call: Call) -> Result:
    path = _safe(given.file_path)
    with repositories.engine(given.repo) as engine:
        hits = engine.similar(f"{path}:{given.line}", top_k=given.top_k)
        return _listed(hits, given.max_snippet_lines, "", "nothing is like this code")


def find_callers(repositories: AllowedRepositories, given: CallersArguments, call: Call) -> Result:
    with repositories.engine(given.repo) as engine:
        hits = engine.callers(given.symbol, top_k=given.top_k)
        if not hits:
            return _nothing(f"nothing calls {one_line(given.symbol)}", "search for the name: it may be called by text")
        texts, rows = [], []
        for hit in hits:
            link = hit.link
            sure = "" if link.is_proven else "  (by name only)"
            symbol = one_line(link.symbol) or "(top of the file)"
            texts.append(f"{_line_place(hit)}  {symbol}{sure}\n{fenced([code_line(link.text)])}")
            row = {"place": _line_place(hit), "path": one_line(hit.chunk.path), "line": link.line}
            rows.append(row | {"symbol": symbol, "text": code_line(link.text), "proven": link.is_proven})
        head = "" if len(hits) < given.top_k else f"The first {given.top_k}; there may be more: raise `top_k`."
        return Result(_joined(head, texts), {"notice": NOTICE, "note": head, "results": rows})


def ask(repositories: AllowedRepositories, given: AskArguments, call: Call) -> Result:
    with repositories.engine(given.repo) as engine:
        call.tell("searching")
        try:
            answer = engine.ask(
                given.question,
                scope=given.paths,
                on_begun=call.tell,
                is_cancelled=call.is_cancelled,
            )
        except NotAnswered as refusal:
            head = "Not answered: nothing in the code seems to say it."
            hint = "search for names from the code, then open the best place"
            if not refusal.nearest:
                return Result(f"{head}\ntry: {hint}", {"abstained": True, "note": head, "hint": hint, "results": []})
            nearest = _listed(refusal.nearest[:3], 0, f"{head} Nearest:", "")
            return Result(f"{nearest.text}\n\ntry: {hint}", {**nearest.data, "abstained": True, "hint": hint})
        return _answered(answer)


def _answered(answer: Answer) -> Result:
    budget = _Budget()
    lines = budget.take([code_line(line) for line in answer.text.split("\n")] or [""])
    sources = []
    for place in answer.cited:
        hit, citation = answer.hits[place], answer.citations[place]
        shown = budget.take(numbered(hit.lines_between(citation.evidence)))
        where = one_line(hit.place_of(*citation.evidence[0]) if citation.evidence else hit.place)
        sources.append(f"[{place + 1}] {where}  {one_line(hit.symbol)}" + (f"\n{fenced(shown)}" if shown else ""))
    head = [
        "The model read the nearest code and says that the answer is not there."
        if answer.abstained
        else "A small local model answered from the sources below; [n] names the source of a sentence. Open them."
    ]
    others = [one_line(hit.place) for place, hit in enumerate(answer.hits) if place not in answer.cited]
    if others:
        sources.append(f"Also read: {', '.join(others)}")
    text = _joined("\n".join([*head, *budget.note]), [fenced(lines), *sources])
    return Result(text, {"notice": NOTICE, **clean_json(answer.to_json())})


def read_places(repositories: AllowedRepositories, given: PlacesArguments, call: Call) -> Result:
    wanted = [_place(place) for place in given.places]
    budget = _Budget()
    texts, rows = [], []
    with repositories.engine(given.repo) as engine:
        for path, start, end in wanted:
            file = engine.read(path)
            last = min(end, file.total, start + MOST_PLACE_LINES - 1)
            if start > file.total:
                raise UsageError(f"{one_line(file.path)} has {counted(file.total, 'line')}", hint="a line of the file")
            lines = numbered(file.between(start, last))
            shown = budget.take(lines)
            name = one_line(file.path)
            more = min(end, file.total) - last
            note = f"  (the next {counted(more, 'line')} with another call)" if more else ""
            texts.append(f"{name}:{start}-{last}  of {counted(file.total, 'line')}{note}\n{fenced(shown)}")
            row = {"place": f"{name}:{start}-{last}", "path": name, "start_line": start, "end_line": last}
            rows.append(row | {"total": file.total, "text": "\n".join(shown), "omitted_lines": len(lines) - len(shown)})
    note = "\n".join(budget.note)
    return Result(_joined(note, texts), {"notice": NOTICE, "note": note, "results": rows})


def index_status(repositories: AllowedRepositories, given: StatusArguments, call: Call) -> Result:
    chosen = repositories.all if given.repo is None else [repositories.find(given.repo)]
    if not chosen:
        repositories.find()  # raises what is missing
    lines, rows = [], []
    for served in chosen:
        name, root = one_line(served.name), one_line(str(served.root))
        row: dict[str, Any] = {"name": name, "root": root, "is_pack": served.is_pack, "is_indexed": False}
        try:
            with repositories.engine(served.store or str(served.root), refresh=False) as engine:
                row |= _size(engine)
            line = f"{row['files']} files, {row['chunks']} chunks, indexed {row['updated']} for {row['model']}"
        except NoIndex:
            line = "not indexed yet: the first search does it"
        lines.append(f"{name}  {root}  {line}")
        rows.append(row)
    return Result("\n".join([*lines, "Changed files are indexed again before each search."]), {"repositories": rows})


def _size(engine: Engine) -> dict[str, Any]:
    files = chunks = 0
    updated, models = 0.0, []
    for corpus in engine.corpora:
        totals = corpus.store.totals(corpus.snapshot)
        files, chunks = files + totals.files, chunks + totals.chunks
        models.append(one_line(corpus.model))
        updated = max([updated, *(s.updated for s in corpus.store.snapshots() if s.id == corpus.snapshot)])
    when = datetime.fromtimestamp(updated, timezone.utc).isoformat(timespec="seconds")
    return {"is_indexed": True, "files": files, "chunks": chunks, "updated": when, "model": ", ".join(set(models))}


def _listed(hits: Sequence[CorpusHit], snippet_lines: int, head: str, nothing: str) -> Result:
    """Hits, best first: the place, the name, and the first lines of each."""
    if not hits:
        return _nothing(nothing, "other words, or wider `paths`")
    budget = _Budget()
    texts, rows = [], []
    for hit in hits:
        chunk = hit.chunk
        code = chunk.text.split("\n")
        shown = budget.take(numbered(list(enumerate(code[:snippet_lines], chunk.start_line))))
        stale = "" if hit.is_current else "  (changed since it was indexed)"
        place = one_line(hit.place)
        title = f"{place}  {one_line(hit.symbol)}  {hit.score:.2f}{stale}"
        rest = len(code) - len(shown)
        more = f"\n… {counted(rest, 'more line')}" if shown and rest else ""
        texts.append(title + (f"\n{fenced(shown)}{more}" if shown else ""))
        row: dict[str, Any] = {"place": place, "path": one_line(chunk.path), "start_line": chunk.start_line}
        row |= {"end_line": chunk.end_line, "symbol": one_line(hit.symbol), "score": round(hit.score, 4)}
        row |= {"kind": hit.hit.kind, "is_current": not stale, "omitted_lines": rest}
        rows.append(row | ({"snippet": "\n".join(shown)} if shown else {}))
    head = "\n".join([*([head] if head else []), *budget.note])
    return Result(
        _joined(head, texts, "\n\n" if snippet_lines else "\n"), {"notice": NOTICE, "note": head, "results": rows}
    )


def _joined(head: str, parts: Sequence[str], between: str = "\n\n") -> str:
    return (f"{head}\n" if head else "") + f"{NOTICE}\n\n" + between.join(parts)


def _nothing(message: str, hint: str) -> Result:
    return Result(f"Nothing found: {message}\ntry: {hint}", {"note": message, "hint": hint, "results": []})


def _line_place(hit: LinkedHit) -> str:
    return one_line(hit.line_place)


_PLACE = re.compile(r"(?P<path>.+?):(?P<start>\d{1,9})(?:-(?P<end>\d{1,9}))?", re.DOTALL)


def _place(text: str) -> tuple[str, int, int]:
    """`path:start-end` or `path:line` -> path, first and last line. Raises UsageError."""
    match = _PLACE.fullmatch(text.strip())
    start = int(match["start"]) if match else 0
    end = int(match["end"] or start) if match else 0
    if match is None or not 1 <= start <= end:
        raise UsageError(f"'{one_line(text, 80)}' is no place", hint="path:start-end, such as src/app.py:10-40")
    return _safe(match["path"]), start, end


def _safe(path: str) -> str:
    """The path, if it doesn't climb. Raises UsageError. Only indexed files are read in any case."""
    if ".." in path.replace("\\", "/").split("/") or "\0" in path or path.startswith("~"):
        raise UsageError(f"'{one_line(path, 80)}' leads out of the repository", hint="the path of a search result")
    return path


@dataclass(frozen=True)
class Tool:
    """name, title, description: what the agent sees. is_slow: it uses the model, one call at a time."""

    name: str
    title: str
    description: str
    arguments: type[Arguments]
    run: Callable[[AllowedRepositories, Any, Call], Result]
    is_slow: bool = False
    schema: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "schema", _plain(self.arguments.model_json_schema()))

    def parse(self, given: dict[str, Any] | None) -> Arguments:
        """Raises UsageError, which names what is wrong and what there is."""
        try:
            return self.arguments.model_validate(given or {})
        except ValidationError as error:
            known = ", ".join(self.arguments.model_fields)
            details = [_problem(problem) for problem in error.errors()[:5]]
            raise UsageError(f"{self.name}: {'; '.join(details)}", hint=f"the arguments are {known}") from None


def _problem(problem: Any) -> str:
    where = ".".join(one_line(str(part), 60) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"there is no argument `{where}`"
    return f"`{where}`: {one_line(str(problem['msg']), NAME_CHARS)}"


def _plain(schema: Any) -> Any:
    """The schema without titles, which repeat the names, and without null as a second type, which some clients do not
    read: an argument that may be left out is not required."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _plain(value) for key, value in schema.items() if key != "title" or not isinstance(value, str)}
    if "additionalProperties" in kept:
        kept.pop("description", None)  # of the class
    types = [item for item in kept.get("anyOf", ()) if item != {"type": "null"}]
    if len(types) == 1:
        kept = {**{key: value for key, value in kept.items() if key not in ("anyOf", "default")}, **types[0]}
    return kept


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "search",
            "Search the code",
            "Find where something is in the code, by meaning and by name. Call it once with a whole question or the"
            " names you know, then open the best file at the lines given.",
            SearchArguments,
            search,
        ),
        Tool(
            "find_related",
            "Find similar code",
            "Find code like that on a line, to see how the repository does the same thing elsewhere.",
            RelatedArguments,
            find_related,
        ),
        Tool(
            "find_callers",
            "Find callers",
            "Find what calls a function, method or class, each with its line. Use it before you change one.",
            CallersArguments,
            find_callers,
        ),
        Tool(
            "ask",
            "Ask about the code",
            "A small local model answers a question in a few sentences, with the lines they rest on, or says that the"
            " code does not say it. Takes seconds; to find code, use search.",
            AskArguments,
            ask,
            is_slow=True,
        ),
        Tool(
            "read_places",
            "Read lines",
            "Read the lines of places that another tool named, as they are now. Only indexed files.",
            PlacesArguments,
            read_places,
        ),
        Tool(
            "index_status",
            "Show what is indexed",
            "List the repositories that can be searched, and how much of each is indexed.",
            StatusArguments,
            index_status,
        ),
    )
}


def refused(error: AwarenessError) -> str:
    """The error as an agent reads it."""
    lines = [f"error: {error.message}", *(f"  {detail}" for detail in error.details[:5])]
    if error.hint:
        lines.append(f"try: {error.hint}")
    return "\n".join(clean(line).replace("\n", " ") for line in lines)


def run_tool(repositories: AllowedRepositories, tool: Tool, arguments: Arguments, call: Call) -> Result:
    """Runs a tool; what is not found is a result, not an error. Raises AwarenessError."""
    try:
        return tool.run(repositories, arguments, call)
    except NothingFound as error:
        return _nothing(clean(error.message), clean(error.hint or "other words"))
