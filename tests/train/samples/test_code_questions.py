"""Questions about real code: the gold chunk answers each, and no other chunk of the sample does."""

from __future__ import annotations

import random

import pytest

from awareness.train.samples.code_questions import (
    FINDERS,
    QUESTIONS,
    CodeQuestion,
    asking,
    docstrings,
    unambiguous,
    unanswerable_question,
    which,
)
from awareness.train.samples.doc_comments import first_sentence
from awareness.train.samples.next_lines import lines_of
from awareness.train.samples.pool import Pool
from awareness.train.samples.python_syntax import definitions_of, trees_of
from awareness.train.samples.templates import Phrasings
from awareness.types import Chunk

STORE = '''class DiskStore(BaseStore, Closing):
    """Keep the values of a session on disk."""

    suffix = ".bin"

    def load_value(self, key, strict=True, *names, timeout=2.5):
        """Return the value of a key.

        More of it.
        """
        if strict:
            raise MissingKey(key)
        return self.decode(key)
'''
LIMITS = """from .errors import MissingKey, other as another

MAX_ENTRIES = 512
GREETING = "hello there"
MASK = 0xFF00AA
"""
USER = """def warm_up(store):
    for key in store.keys():
        store.load_value(key, strict=False)
    return len(store.keys())
"""
SCRIPT = """// Opens the door for a visitor.
export function openDoor(visitor, key) {
  return ring(visitor);
}
const DOOR_COUNT = 12;
class Hall extends Room {}
"""
POOL = Pool(
    [
        Chunk("store/disk.py", 1, 12, "DiskStore", STORE.rstrip("\n")),
        Chunk("store/limits.py", 1, 5, "", LIMITS.rstrip("\n")),
        Chunk("app/warm.py", 1, 4, "warm_up", USER.rstrip("\n")),
        Chunk("web/door.js", 1, 6, "openDoor", SCRIPT.rstrip("\n")),
    ],
    "shop",
)


def told(name: str, pool: Pool = POOL) -> set[tuple[int, str, str]]:
    """(gold, name, value) of all facts of a kind."""
    return {(asked.gold, asked.name, asked.phrasings.answer) for asked in pool.once(FINDERS[name])}


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        (
            "docstring",
            {
                (0, "DiskStore", "keeps the values of a session on disk."),
                (0, "DiskStore.load_value", "returns the value of a key."),
                (3, "openDoor", "opens the door for a visitor."),
            },
        ),
        (
            "which",
            {
                (0, "DiskStore", "DiskStore"),
                (0, "DiskStore.load_value", "DiskStore.load_value"),
                (3, "openDoor", "openDoor"),
            },
        ),
        (
            "real_signature",
            {
                (0, "DiskStore.load_value", "key, strict, timeout, *names"),
                (2, "warm_up", "store"),
                (3, "openDoor", "visitor, key"),
            },
        ),
        ("real_default", {(0, "DiskStore.load_value", "True"), (0, "DiskStore.load_value", "2.5")}),
        (
            "real_constant",
            {
                (0, "DiskStore.suffix", ".bin"),
                (1, "MAX_ENTRIES", "512"),
                (1, "GREETING", "hello there"),
                (3, "DOOR_COUNT", "12"),
            },
        ),
        (
            "real_where",
            {
                (0, "DiskStore", "store/disk.py"),
                (2, "warm_up", "app/warm.py"),
                (3, "openDoor", "web/door.js"),
            },
        ),
        ("base_class", {(0, "DiskStore", "BaseStore, Closing"), (3, "Hall", "Room")}),
        ("raises", {(0, "DiskStore.load_value", "MissingKey")}),
        ("returns", {(0, "DiskStore.load_value", "self.decode(key)"), (2, "warm_up", "len(store.keys())")}),
        ("imports", {(1, "MissingKey", ".errors")}),
        ("usage", {(2, "", "warm_up")}),
    ],
)
def test_answers_in_the_code(kind, facts):
    assert told(kind) == facts


@pytest.mark.parametrize("kind", QUESTIONS)
def test_the_gold_chunk_tells_the_answer(kind):
    for seed in range(30):
        sample = QUESTIONS[kind](random.Random(seed), POOL, 3)
        assert sample == QUESTIONS[kind](random.Random(seed), POOL, 3)
        assert 1 <= len(sample.texts) <= 3
        assert len(set(sample.texts)) == len(sample.texts)
        assert set(sample.texts) <= set(POOL.texts)
        assert len(sample.gold) == 1


def test_chunks_that_define_the_same_name_are_left_out():
    pool = Pool(
        [
            Chunk("a.py", 1, 1, "", "LIMIT_A = 1"),
            Chunk("b.py", 1, 1, "", "LIMIT_A = 2"),
            Chunk("c.py", 1, 1, "", "print(LIMIT_A)"),
        ]
    )
    for seed in range(20):
        sample = QUESTIONS["real_constant"](random.Random(seed), pool, 3)
        assert len(sample.texts) == 2
        assert sum("LIMIT_A = " in text for text in sample.texts) == 1
        assert sample.texts[sample.gold[0]].split(" = ")[1].strip() in sample.answer


def test_exact_questions_leave_out_every_chunk_with_the_name():
    fact = CodeQuestion(0, "LIMIT_A", Phrasings("1", ["What?"], ["It is "], ["1"]), exact=True)
    texts = ["LIMIT_A = 1", "print(LIMIT_A)", "other()"]
    pool = Pool([Chunk(f"{number}.py", 1, 1, "", text) for number, text in enumerate(texts)])
    sample = asking(lambda _: [fact])(random.Random(0), pool, 3)
    assert set(sample.texts) == {pool.texts[0], pool.texts[2]}


def test_a_question_with_two_answers_is_not_asked():
    def find(pool: Pool) -> list[CodeQuestion]:
        return [
            CodeQuestion(0, "f", Phrasings(value, [question], [""], [value]))
            for question, value in ("a1", "a2", "b3", "b3")
        ]

    assert [asked.phrasings.answer for asked in unambiguous(find)(POOL)] == ["3", "3"]


def test_definitions_with_equal_descriptions_are_not_asked_for():
    text = 'def {0}():\n    """Return the name of it."""\n    return 1'
    pool = Pool([Chunk(f"{n}.py", 1, 3, n, text.format(n)) for n in ("first", "second")])
    assert which(pool) == []
    assert len(docstrings(pool)) == 2


@pytest.mark.parametrize(
    ("doc", "sentence"),
    [
        ("Return the size of it.\n\nMore.", "Return the size of it"),
        ("Send a :class:`~a.b.Request` and wait. Then go.", "Send a `a.b.Request` and wait"),
        ("Read the version, e.g. 1.2, of\n    a file.", "Read the version, e.g. 1.2, of a file"),
        ("Too short.", ""),
        (":param x: the size of it", ""),
        (">>> f(1) and so on and on", ""),
        ("This one goes on and on " * 10, ""),
        ("Copyright of the authors of it.", ""),
    ],
)
def test_the_first_sentence(doc, sentence):
    assert first_sentence(doc) == sentence


def test_code_is_continued_with_what_another_file_defines():
    above = "# file: app/warm.py · warm_up\ndef warm_up(store):\n    for key in store.keys():\n        "
    assert {(line.context, line.answer) for line in lines_of(POOL)} == {
        (above, "store.load_value(key, strict=False)\n"),
        (above + "store.", "load_value(key, strict=False)\n"),
        (above + "store.load_value(", "key, strict=False)\n"),
    }
    for seed in range(10):
        sample = QUESTIONS["next_line"](random.Random(seed), POOL, 4)
        assert sample.question == ""
        assert sample.texts[sample.gold[0]] == POOL.texts[0]
        assert POOL.texts[2] not in sample.texts
        assert POOL.texts[2].startswith(sample.context + sample.answer)


def test_parts_of_code_are_read_as_far_as_they_go():
    chunks = [
        Chunk("a.py", 5, 7, "Shop.open", "    def open(self, key):\n        if key:\n            for x in ("),
        Chunk("a.py", 8, 9, "Shop", "    def close(self):\n        return 1"),
        Chunk("a.py", 10, 11, "late", "def late():"),
        Chunk("a.py", 12, 13, "broken", "broken( = 1"),
        Chunk("a.md", 1, 1, "", "def no(): pass"),
    ]
    pool = Pool(chunks)
    assert [number for number, _ in trees_of(pool)] == [0, 1, 2]
    assert [one.name for one in definitions_of(pool)] == ["Shop.open", "Shop.close", "late"]


def test_an_unanswerable_question_names_what_has_to_be_left_out():
    asked = [unanswerable_question(random.Random(seed), POOL) for seed in range(200)]
    assert all(one and one[0] and one[1][0] for one in asked)
    facts = (asked.name for kind in FINDERS if kind not in ("usage", "imports") for asked in POOL.once(FINDERS[kind]))
    assert {one[1][0] for one in asked if one} == set(facts)


def test_a_pool_without_code_offers_no_questions():
    pool = Pool([Chunk("a.txt", 1, 1, "", "nothing at all")])
    assert [kind for kind in QUESTIONS if QUESTIONS[kind](random.Random(0), pool, 1)] == []
