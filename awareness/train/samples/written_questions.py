"""Questions about chunks that a teacher writes and answers, and the checks that a question and its answer must pass.

The program chooses what a question is about, how it begins, and what the answer must be: a name or a literal of a line,
or what a sentence of a comment says. The teacher answers each question twice more: with the chunk (the answer must be
the same) and without it (the answer must not be known already). Questions that are written for an answer, and kept only
if they lead back to it: Alberti et al. 2019, "Synthetic QA Corpora Generation with Roundtrip Consistency".
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from awareness.model.load import Decoder
from awareness.model.prompts import encode
from awareness.model.shared_prompts import SharedBeginning
from awareness.train.samples.doc_comments import COMMENT, describes
from awareness.types import Chunk, last_name

VERSION = "1"
"""Of prompts and checks: raised whenever the same chunk would give another question."""
QUESTION_TOKENS, ANSWER_TOKENS = 64, 28
_MOST = 6  # requests about one chunk

_MARK = "\u241e"  # stands for the last turn of the user while the chat template is rendered
_SYSTEM = (
    "You write questions about code, and answer them. The reader of a question does not see the code. An answer is one"
    " short sentence that the code proves, with exact names and values in backticks."
)
_QUESTION, _ANSWER = "Question:", "Answer:"
_CODE = '''# file: src/mailer/queue.py · Outbox.flush
    def flush(self, limit=50):
        """Send the waiting messages, oldest first."""
        if self.closed:
            raise OutboxClosed("flush after close")
        for message in self.waiting[:limit]:
            # a receiver that failed twice is skipped, so that it cannot block the others
            if message.failed < 2:
                self.transport.deliver(message)
'''


def _asks(line: str, fact: str) -> str:
    """What the teacher is asked about a line of the code. fact: what the answer has to be; empty if it is free."""
    return f"Write a question about the line {line.strip()}" + (f"\nThe answer is `{fact}`." if fact else "")


_EXAMPLES = (
    (
        _asks('raise OutboxClosed("flush after close")', "OutboxClosed"),
        f"{_QUESTION} Which exception does `Outbox.flush` raise when the outbox is closed?\n"
        f"{_ANSWER} `Outbox.flush` raises `OutboxClosed` when it is closed.",
    ),
    (
        _asks("# a receiver that failed twice is skipped, so that it cannot block the others", ""),
        f"{_QUESTION} Why does `Outbox.flush` skip a receiver that failed twice?\n"
        f"{_ANSWER} It skips such a receiver so that it cannot block the others.",
    ),
    (
        _asks("def flush(self, limit=50):", "50"),
        f"{_QUESTION} Which number does `Outbox.flush` take as the default of `limit`?\n"
        f"{_ANSWER} The default of `limit` is `50`.",
    ),
    (
        f"{_QUESTION} Which method does `Outbox.flush` call to hand a message over to the transport?",
        "It calls `deliver`.",
    ),
)


@dataclass(frozen=True)
class Request:
    """What a model is asked about a text, which is empty where it is asked from memory.

    start: how the question begins. fact: what the answer has to hold, or empty; then the answer says what `sentence`
    says.
    """

    text: str
    ask: str
    start: str = ""
    fact: str = ""
    sentence: str = ""


@dataclass(frozen=True)
class Result:
    """rejected: why this is no sample, or empty. again, unread: what the teacher answered to its question later, with
    the chunk and without it; empty if it was not asked."""

    question: str
    answer: str
    rejected: str = ""
    again: str = ""
    unread: str = ""


# What to ask

_KEYWORDS = frozenset(
    "self this super cls return raise throw new import from class def func function None True False null true false"
    " else elif with while yield async await lambda pass break continue except finally assert global const static"
    " public string number boolean object list dict tuple float bytes bool type Any Optional Union Callable if for"
    " switch match case when make".split()
)
_EVERYWHERE = frozenset(
    "isinstance issubclass print len range int str set repr getattr setattr hasattr append extend insert pop join split"
    " strip lstrip rstrip lower upper title format encode decode copy update keys values items get setdefault group"
    " startswith endswith replace cast sizeof sorted reversed enumerate zip map filter iter next max min sum any all"
    " super TypeVar NotImplementedError field property open write read close".split()
)
"""Functions that nobody asks about."""
_DEFINED = re.compile(r"^\s*(?:export |public |private |static |async |pub )*(?:def|class|func|function|fn)\s+(\w+)")
_RAISED = re.compile(r"\b(?:raise|throw(?: new)?)\s+(?:[\w.]+\.)?([A-Z]\w+)\s*\(")
_RETURNED = re.compile(
    r"^\s*return\s+(?:await\s+)?(?:(?:[\w.]+\.)?([A-Za-z_]\w{2,})\(|(\d+)\s*$|[\"']([^\"'\\{}]{2,30})[\"']\s*$)"
)
_CALLED = re.compile(r"(\.)?\b([A-Za-z_]\w{3,})\(")
_NUMBER = re.compile(r"(?<![\w.\[-])\d{1,6}(?:\.\d+)?(?![\w.\]])")
_STRING = re.compile(r"\"([^\"\\\n{}]{2,40})\"|'([^'\\\n{}]{2,40})'")
_KEY = re.compile(r"^\s*[\"'][^\"']*[\"']\s*[:,]")
_REASON = re.compile(r"\b(?:because|since|so that|in order to|otherwise|in case|to avoid|to ensure|unless)\b", re.I)
_CONDITION = re.compile(r"\b(?:if|when|once|until|after|before)\b", re.I)
_NO_PROSE = re.compile(r">>>|[={}|]|\.\. |^:|\w:$|\bnoqa\b|pragma")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`*])")


def requests(rng: random.Random, chunk: Chunk) -> list[Request]:
    """What can be asked about a chunk, each a question of its own, in a random order, the sorts mixed."""
    lines = chunk.text.split("\n")
    prose = _prose(lines)
    found: dict[str, list[Request]] = {}
    for number, line in enumerate(lines):
        about = "" if number in prose else _definition(chunk, lines, number)
        for sort, start, fact in _facts_of(line, about) if about else ():
            if not _occurs(fact, f"{chunk.header} {about}"):
                found.setdefault(sort, []).append(Request(chunk.encoded_text, _asks(line, fact), start, fact))
    for number, sentence in _sentences(lines, prose):
        if about := _definition(chunk, lines, number):
            word = "Why" if _REASON.search(sentence) else "When" if _CONDITION.search(sentence) else ""
            if word:
                start = f"{word} does `{about}`"
                request = Request(chunk.encoded_text, _asks(sentence, ""), start, sentence=sentence)
                found.setdefault("prose", []).append(request)
    sorts = rng.sample(sorted(found), len(found))
    picked = [rng.sample(found[sort], len(found[sort])) for sort in sorts]
    return [one for some in itertools.zip_longest(*picked) for one in some if one is not None][:_MOST]


def _definition(chunk: Chunk, lines: Sequence[str], number: int) -> str:
    """The qualified name of the definition that a line belongs to; empty if the chunk does not show it."""
    symbol = chunk.symbol.rpartition(" > ")[2]
    depth = _depth(lines[number])
    for line in reversed(lines[: number + 1]):
        match = _DEFINED.match(line)
        if match and (line is lines[number] or _depth(line) < depth):
            if match[1] == last_name(symbol):
                return symbol
            outer = symbol if symbol[:1].isupper() and "." not in symbol else symbol.rpartition(".")[0]
            if _depth(line) == 0:
                return match[1]
            return f"{outer}.{match[1]}" if outer else ""
    begins_below = any((match := _DEFINED.match(line)) and match[1] == last_name(symbol) for line in lines[number:])
    return "" if begins_below or " " in symbol else symbol


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip()) if line.strip() else 1 << 30


def _facts_of(line: str, about: str) -> Iterator[tuple[str, str, str]]:
    """(sort, beginning of the question, fact) of what a line of code shows."""
    if match := _RAISED.search(line):
        if match[1] not in _EVERYWHERE:
            yield "raise", f"Which exception does `{about}` raise when", match[1]
        return
    if _DEFINED.match(line) or "`" in line:  # a docstring that began before the chunk
        return
    if (match := _RETURNED.match(line)) and (fact := next(filter(None, match.groups()))) not in _EVERYWHERE:
        yield "return", f"What does `{about}` return", fact
        return
    for dot, name in _CALLED.findall(line):
        if name not in _KEYWORDS | _EVERYWHERE and not name.startswith(("__", "get_")):
            yield "call", f"Which {'method' if dot else 'function'} does `{about}` call to", name
    strings, numbers = list(_STRING.finditer(line)), _NUMBER.findall(_STRING.sub("", line))
    # One of several would be half of an answer, and a key of a mapping is one of many.
    if len(strings) == 1 and not _KEY.match(line) and re.search(r"\w\w", fact := strings[0][1] or strings[0][2]):
        yield "string", f"Which string does `{about}`", fact
    if len(numbers) == 1 and numbers[0] not in ("0", "1", "2"):  # anybody would guess them
        yield "number", f"Which number does `{about}`", numbers[0]


def _prose(lines: Sequence[str]) -> dict[int, str]:
    """Number -> text of the lines of comments and docstrings, as far as the chunk shows that they are some."""
    marks = [number for number, line in enumerate(lines) if line.count('"""') % 2]
    inside = bool(marks) and lines[marks[0]].strip() == '"""' and len(marks) % 2 == 1  # it began before the chunk
    prose = {}
    for number, line in enumerate(lines):
        is_mark = '"""' in line
        if inside or is_mark or COMMENT.match(line):
            comment = COMMENT.match(line)
            prose[number] = (comment[1] if comment else line).replace('"""', "").strip()
        inside ^= line.count('"""') % 2 == 1
    return prose


def _sentences(lines: Sequence[str], prose: Mapping[int, str]) -> Iterator[tuple[int, str]]:
    """(number of a line of its paragraph, a whole sentence of 8 to 40 words)."""
    paragraph: list[str] = []
    for number in range(len(lines) + 1):
        text = prose.get(number, "")
        if text:
            paragraph.append(text)
            continue
        for sentence in _SENTENCE.split(" ".join(paragraph)):
            starts = sentence[:1].isupper() or sentence[:1] in "`*"
            if starts and 8 <= len(sentence.split()) <= 40 and not _NO_PROSE.search(sentence) and describes(sentence):
                yield number - 1, sentence
        paragraph = []


# What the teacher says


class Writer:
    """Writes questions with their answers. It reads the examples once, and each chunk once."""

    def __init__(self, decoder: Decoder) -> None:
        self._tokenizer = decoder.tokenizer
        beginning, self._end = _turns(decoder.tokenizer)
        self._shared = SharedBeginning(decoder, beginning)

    def __call__(self, batch: Sequence[Request]) -> list[Result]:
        """A result for each request."""
        texts = list(dict.fromkeys(request.text for request in batch))
        rows = self._shared.rows([self._ids(f"{text}\n") for text in texts])
        rows.keep([texts.index(request.text) for request in batch])
        asked = [
            [*self._ids(request.ask), *self._end, *self._ids(f"{_QUESTION} {request.start}".rstrip())]
            for request in batch
        ]
        results = [
            _checked(request, said) for request, said in zip(batch, rows.answers(asked, QUESTION_TOKENS), strict=True)
        ]
        if not (good := _good(results)):
            return results
        rows.keep(good)
        questions = [[*self._ids(f"{_QUESTION} {results[i].question}"), *self._end] for i in good]
        for i, again in zip(good, rows.answers(questions, ANSWER_TOKENS, "\n"), strict=True):
            results[i] = _asked_again(batch[i], results[i], again)
        if not (good := _good(results)):
            return results
        unread = self._shared.rows([self._ids(_QUESTION)] * len(good))
        questions = [[*self._ids(f" {results[i].question}"), *self._end] for i in good]
        for i, blind in zip(good, unread.answers(questions, ANSWER_TOKENS, "\n"), strict=True):
            knows = same_answer(batch[i], results[i].question, results[i].answer, blind)
            why = "the teacher knows the answer without the chunk" if knows else ""
            results[i] = replace(results[i], rejected=why, unread=blind)
        return results

    def _ids(self, text: str) -> list[int]:
        return encode(self._tokenizer, text)


def _turns(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Token ids of the examples up to where a chunk begins, and of what stands between a request and its reply."""
    examples = [(ask if number else f"{_CODE}\n{ask}", reply) for number, (ask, reply) in enumerate(_EXAMPLES)]
    if tokenizer.chat_template:
        turns = [{"role": "system", "content": _SYSTEM}]
        for user, reply in examples:
            turns += [{"role": "user", "content": user}, {"role": "assistant", "content": reply}]
        turns.append({"role": "user", "content": _MARK})
        options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
        text = str(tokenizer.apply_chat_template(turns, **options))  # type: ignore[arg-type]
    else:
        text = "\n\n".join([_SYSTEM, *(f"{user}\n{reply}" for user, reply in examples), f"{_MARK}\n"])
    before, after = text.split(_MARK)
    return tuple(tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after))


def _good(results: Sequence[Result]) -> list[int]:
    return [i for i, result in enumerate(results) if not result.rejected]


def _asked_again(request: Request, result: Result, again: str) -> Result:
    """The result with the teacher's second answer, which must be the same, and must not name more of the chunk."""
    why = ""
    if not same_answer(request, result.question, result.answer, again):
        why = "the teacher answers otherwise when asked again"
    elif request.fact:
        known = f"{result.question} {result.answer}"
        if any(_occurs(name, request.text) and not _occurs(name, known) for name in code_names(again)):
            why = "the teacher names more when asked again"
    return replace(result, rejected=why, again=again)


# Checks

_WORD = re.compile(r"[A-Za-z_][\w]*|\d+(?:\.\d+)?")
_SPAN = re.compile(r"`([^`\n]+)`|\"([^\"\n]{1,60})\"|'([^'\n]{2,60})'")
_NAME_IN_TEXT = re.compile(r"\b(?:\w+_\w*|_\w+|[a-z]+[A-Z]\w*|[A-Z]\w*[a-z]\w*[A-Z]\w*|\w+(?:\.\w+)+|\d+(?:\.\d+)?)\b")
_YES_NO = re.compile(r"(?:is|are|was|were|does|do|did|can|could|will|would|has|have|had|should|must|may)\b", re.I)
_VAGUE = re.compile(
    r"\b(?:(?:this|these|the following) \w+|the (?:(?:given|provided) )?(?:code|snippet|chunk|example)"
    r"|(?:the|this) (?:function|method|class|variable|code) (?:do|does|is|return|returns|have|has|used)\b"
    r"|above|below|snippet)\b",
    re.I,
)
_STOP = frozenset(
    "a an and are as at be been by can code do does for from has have how if in into is it its not of on or that the"
    " their then there they this to used use uses using was what when where which who why will with value values"
    " function method class return returns given called calls call name set sets".split()
)


def _checked(request: Request, said: str) -> Result:
    """The question and the answer in what the teacher said, with the first check that they fail."""
    question, _, rest = f"{request.start}{said}".partition(_ANSWER)
    question, answer = " ".join(question.split()), rest.strip().partition("\n")[0].strip()
    return Result(question, answer, flaw(request, question, answer))


def flaw(request: Request, question: str, answer: str) -> str:
    """The first check that a question and its answer fail, or empty."""
    text = request.text
    if not question.endswith("?") or question.count("?") > 1 or not 4 <= len(question.split()) <= 30:
        return "no question"
    if not answer.endswith((".", "`", ")")) or len(answer.split()) > 40:
        return "no whole answer"
    if _YES_NO.match(question):
        return "a yes-or-no question"
    if _VAGUE.search(question):
        return "a question that needs the chunk beside it"
    if not any(_occurs(name, text) for name in code_names(question)):
        return "a question that names nothing of the chunk"
    if not all(_occurs(name, text) for name in code_names(answer)):
        return "an answer with names or values that are not in the chunk"
    if not all(_occurs(name, text) for name in code_names(question)):
        return "a question with names that are not in the chunk"
    if request.fact and (_occurs(request.fact, question) or not _occurs(request.fact, answer)):
        return "an answer that is not what was asked for"
    if not request.fact and 2 * len(_stems(answer) & _stems(request.sentence)) < len(_stems(answer)):
        return "an answer that is not what was asked for"
    if not facts(question, answer):
        return "an answer that says what the question says"
    return ""


def code_names(text: str) -> set[str]:
    """Names, numbers and quoted code in a sentence: all in backticks or quotes, and what can't be an English word."""
    spans = {next(filter(None, match.groups())) for match in _SPAN.finditer(text)}
    return spans | {match.group().rstrip(".") for match in _NAME_IN_TEXT.finditer(_SPAN.sub(" ", text))}


def _occurs(name: str, text: str) -> bool:
    """Whether code occurs in a text, not as a part of a longer word or number, or else each of its words does."""
    if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
        return True
    words = _WORD.findall(name)
    return len(words) > 1 and set(words) <= set(_WORD.findall(text))


def facts(question: str, answer: str) -> tuple[set[str], set[str]] | None:
    """What an answer says that the question does not: names and numbers, and stems of other words. None if nothing."""
    asked = {word.lower() for word in _WORD.findall(question)}
    code = {word for name in code_names(answer) for word in _WORD.findall(name) if word.lower() not in asked}
    plain = _stems(answer) - _stems(question) - _stems(" ".join(code))
    return (code, plain) if code or len(plain) >= 2 else None


def _stems(text: str) -> set[str]:
    words = (word.lower() for word in _WORD.findall(text))
    return {re.sub(r"(?:ing|ed|es|s|e)$", "", word) for word in words if word not in _STOP and len(word) > 2}


def same_answer(request: Request, question: str, answer: str, other: str) -> bool:
    """Whether another answer to the question says the same: the fact that was asked for, else all names and numbers of
    the first answer, or half of its words if it has none."""
    if request.fact:
        return _occurs(request.fact, other)
    found = facts(question, answer)
    if found is None:
        return False
    code, plain = found
    if code:
        return code <= set(_WORD.findall(other))
    return 2 * len(plain & _stems(other)) >= len(plain)
