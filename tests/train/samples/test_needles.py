"""Needles in real chunks: only the gold chunk holds the answer, and no shape is one that is held out."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from awareness.model.presets import NEUTRAL
from awareness.train.samples import needle_shapes as shapes
from awareness.train.samples.dialects import dialect_of
from awareness.train.samples.literals import a_token
from awareness.train.samples.needles import NEEDLES, hidden, unanswerable_needle
from awareness.train.samples.pool import Pool, ask
from awareness.train.samples.templates import Phrasings
from awareness.train.samples.vocabulary import cased, listed, third_person
from awareness.types import Chunk

CODE = {
    "py": "def area_{0}(side):\n    total = side * side\n    return total",
    "js": "function area{0}(side) {{\n  const total = side * side;\n  return total;\n}}",
    "go": "func area{0}(side int) int {{\n\ttotal := side * side\n\treturn total\n}}",
    "rb": "def area_{0}(side)\n  total = side * side\n  total\nend",
    "rs": "fn area_{0}(side: i64) -> i64 {{\n    side * side\n}}",
}
SHAPES = [
    *shapes.PLAIN.values(),
    *(getattr(shapes, name) for name in "path setting enum mapping sequence date alias assertion".split()),
    *(getattr(shapes, name) for name in "handler howto method default signature result".split()),
]
HELD_OUT = [
    r"\b0[xX][0-9a-fA-F]",
    r"(?<![\w-])(?=\w*\d)(?=\w*[a-fA-F])[0-9a-fA-F]{6,}(?![\w-])",
    r"\b(?:raise|throw)\b",
    r"\.route\(|add_argument|--\w",
    r"(?i)create table|\bcolumn\(|\bselect .* from\b",
    r"(?m)^\s*(?:#|//)?\s*[\w-]+:[ \t][^={(]+$",
]


def pool_of(*suffixes: str, size: int = 4) -> Pool:
    """`size` chunks of each language."""
    return Pool(
        [
            Chunk(f"src/{name}{number}.{name}", 1, 4, f"area_{number}", CODE[name].format(number))
            for name in suffixes
            for number in range(size)
        ]
    )


@pytest.mark.parametrize("kind", NEEDLES)
def test_a_needle_lies_in_chunks_of_one_pool(kind):
    pool = pool_of("py", "js")
    headers = {chunk.header for chunk in pool.chunks}
    for seed in range(40):
        sample = NEEDLES[kind](random.Random(seed), pool, 5)
        assert sample == NEEDLES[kind](random.Random(seed), pool, 5)
        assert sample is not None
        shown = [text.split("\n")[0] for text in sample.texts]
        assert len(set(shown)) == 5
        assert set(shown) <= headers
        assert all(text.endswith("\n") and not text.endswith("\n\n") for text in sample.texts)
        assert sample.gold
        assert tuple(sorted(set(sample.gold))) == sample.gold
        for place in sample.gold:
            assert sample.texts[place] not in pool.texts
        assert sample.answer.strip()
        assert bool(sample.question) != bool(sample.context)


@pytest.mark.parametrize("make", SHAPES)
@pytest.mark.parametrize("language", CODE)
def test_the_hidden_lines_contain_the_answer(make, language):
    pool = pool_of(language)
    for seed in range(30):
        needle = make(random.Random(seed), pool, pool.chunks[0], "zebra")
        if needle is None:
            assert language in ("go", "rb", "rs", "js")
            continue
        lines = "\n".join(needle.lines)
        assert needle.name in lines
        value = needle.phrasings.answer
        wanted = [value.strip(" \n;:)")] if needle.context else value.split(", ")
        assert all(part in lines for part in wanted), (lines, needle.phrasings)


def test_a_needle_name_is_unique_and_decoys_have_other_values():
    pool, made = pool_of("py", size=8), []

    def make(*arguments):
        made.append(shapes.constant(*arguments))
        return made[-1]

    numbers: Counter[int] = Counter()
    for seed in range(400):
        made.clear()
        sample = hidden(make)(random.Random(seed), pool, 4)
        asked = made[0].name
        there = [place for place, text in enumerate(sample.texts) if asked in text]
        assert there == list(sample.gold)
        assert sample.texts[sample.gold[0]].count(asked) == 1
        written = [n for n in made if any(line.strip() in text for text in sample.texts for line in n.lines[-1:])]
        numbers[len(written) - 1] += 1
    assert set(numbers) == {0, 1, 2, 3}
    assert 0.15 < 1 - numbers[0] / 400 < 0.35


def test_a_name_in_the_repository_is_not_used():
    pool = Pool([Chunk("a.py", 1, 1, "", "taken_name = 1")])
    names = iter(["TAKEN_NAME", "FREE_NAME"])

    def make(rng, pool, chunk, stem):
        name = next(names)
        return shapes.Needle([f"{name} = 7"], name, Phrasings("7", [f"What is {name}?"], ["It is "], ["It is 7."]))

    sample = hidden(make, share=0.0)(random.Random(0), pool, 1)
    assert sample.texts[0].count("FREE_NAME = 7") == 1
    assert "TAKEN_NAME" not in sample.texts[0]


def test_names_of_needles_are_not_parts_of_each_other():
    names = iter(["PORT", "PORT_MAX", "ADDRESS"])

    def make(rng, pool, chunk, stem):
        name = next(names)
        return shapes.Needle([f"{name} = {len(name)}"], name, Phrasings(str(len(name)), ["?"], ["It is "], ["It is."]))

    pool = Pool([Chunk("a.py", 1, 1, "", "pass")])
    sample = hidden(make, most=1, share=1.0)(random.Random(0), pool, 1)
    assert set(sample.texts[0].split("\n")[1:-1]) == {"pass", "PORT = 4", "ADDRESS = 7"}


def test_letters_and_digits_are_never_hexadecimal():
    drawn = [a_token(random.Random(seed)) for seed in range(3000)]
    assert not any(re.fullmatch(r"[0-9a-fA-F]+", token) for token in drawn)


def test_gold_chunks_are_at_random_places():
    pool = pool_of("py", size=8)
    places = Counter(NEEDLES["string"](random.Random(seed), pool, 4).gold[0] for seed in range(400))
    assert set(places) == {0, 1, 2, 3}
    assert min(places.values()) > 60


@pytest.mark.parametrize("kind", NEEDLES)
def test_no_shape_that_is_held_out(kind):
    pool = pool_of("py", "js", "go", "rb", "rs", size=2)
    for seed in range(150):
        sample = NEEDLES[kind](random.Random(seed), pool, 2)
        if sample is None:
            continue
        said = "\n".join([*(t.split("\n", 1)[1] for t in sample.texts), sample.question, sample.answer])
        for shape in HELD_OUT:
            found = re.search(shape, said)
            assert not found, (shape, found)


def test_lines_are_in_the_language_of_their_chunk():
    for suffix, comment, other in (("py", "# ", "//"), ("js", "// ", "# "), ("go", "// ", "# ")):
        pool = pool_of(suffix)
        samples = [NEEDLES["howto"](random.Random(seed), pool, 1) for seed in range(20)]
        bodies = [sample.texts[0].split("\n", 1)[1] for sample in samples]
        assert all(comment in body and other not in body for body in bodies)
    assert dialect_of("Makefile") is dialect_of("a/b.py")


def test_values_of_one_name_are_listed_in_their_order():
    pool = pool_of("py", size=8)
    for seed in range(60):
        sample = NEEDLES["multi_value"](random.Random(seed), pool, 4)
        values = re.findall(r"\d+|[a-z]+", sample.answer.split("gets ")[-1].split("They are ")[-1])
        values = [value for value in values if value != "and"]
        everything = "\n".join(sample.texts)
        name = re.search(r"[a-z]+_(?:ports|limits|hosts|names|sizes|labels|seeds|rules)", sample.question)[0]
        lines = [line for line in everything.split("\n") if name in line]
        assert len(lines) == len(values) >= 2
        assert all(value in line for value, line in zip(values, lines, strict=True))
        assert [place for place, text in enumerate(sample.texts) if name in text] == list(sample.gold)


def test_two_names_are_answered_in_the_order_asked():
    pool = pool_of("py", size=8)
    for seed in range(60):
        sample = NEEDLES["multi_query"](random.Random(seed), pool, 3)
        lines = [line for place in sample.gold for line in sample.texts[place].split("\n")]
        asked = re.findall(r"\b(?:[A-Za-z]+_)+[A-Za-z]+", sample.question)
        found = [line for name in asked for line in lines if re.search(rf"\b{name}\b", line)]
        assert len(found) == len(asked)
        values = [line.split(" = ")[1].split("  #")[0].strip("\"'") for line in found]
        assert all(value in sample.answer for value in values)
        if len(values) == 2:
            assert re.search(rf"{re.escape(values[0])}.*{re.escape(values[1])}", sample.answer)


def test_one_needle_of_several_is_asked_for():
    pool = pool_of("py", size=8)
    for seed in range(30):
        sample = NEEDLES["multi_key"](random.Random(seed), pool, 4)
        new = [line for text in sample.texts for line in text.split("\n")[1:] if line.strip() not in pool_lines(pool)]
        assert len(new) >= 3


def pool_lines(pool: Pool) -> set[str]:
    return {line.strip() for text in pool.texts for line in text.split("\n")}


def test_a_context_is_continued_with_the_value():
    sample = NEEDLES["assertion"](random.Random(3), pool_of("py"), 2)
    assert sample.question == ""
    assert sample.context.startswith("# file: ")
    assert sample.answer.endswith("\n")
    assert sample.answer.strip("\n):") in sample.texts[sample.gold[0]]


def test_where_is_answered_with_the_path():
    pool = pool_of("py", "go")
    for seed in range(20):
        sample = NEEDLES["where"](random.Random(seed), pool, 3)
        path = sample.texts[sample.gold[0]].split(" · ")[0].removeprefix("# file: ")
        assert path in sample.answer


def test_a_question_has_many_phrasings():
    fact = Phrasings("abc", ["What is X?"], ["X = ", 'X = "', "`"], ["X is abc."], literal='"abc"')
    said = Counter(ask(random.Random(seed), fact) for seed in range(3000))
    prefixed = sum(n for (_, prefix, _), n in said.items() if prefix)
    told = sum(n for (question, _, _), n in said.items() if question.endswith(("sentence.", "only.")))
    as_ask = sum(n for (question, _, _), n in said.items() if question.endswith(NEUTRAL.brief))
    assert 0.32 < prefixed / 3000 < 0.43
    assert 0.2 < told / 3000 < 0.3 < as_ask / 3000 < 0.43
    assert {(prefix, answer) for q, prefix, answer in said if q.endswith(NEUTRAL.brief)} == {("", "X is abc.")}
    assert {(prefix, answer) for _, prefix, answer in said} == {
        ("X = ", '"abc"'),
        ("X =", ' "abc"'),
        ('X = "', 'abc"'),
        ("`", "abc`"),
        ("", "X is abc."),
        ("", "abc"),
    }
    assert all(answer == "abc" for (q, prefix, answer) in said if not prefix and q.endswith("only."))
    assert {question for question, _, _ in said} == {
        "What is X?",
        "What is X? Answer in one sentence.",
        "What is X? Answer with the value only.",
        "what is X",
        "what is X. Answer in one sentence.",
        "what is X. Answer with the value only.",
        f"What is X?{NEUTRAL.brief}",
        f"what is X{NEUTRAL.brief}",
    }


def test_verb_forms_cases_and_lists():
    verbs = {"flush": "flushes", "copy": "copies", "deploy": "deploys", "go": "goes", "get": "gets"}
    assert {verb: third_person(verb) for verb in verbs} == verbs
    names = {"upper": "A_BC", "snake": "a_bc", "camel": "aBc", "pascal": "ABc", "kebab": "a-bc"}
    assert {case: cased(["a", "bc"], case) for case in names} == names
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def test_the_name_of_an_unanswerable_question_does_not_occur():
    pool = pool_of("py")
    for seed in range(30):
        question, without = unanswerable_needle(random.Random(seed), pool)
        assert without == ()
        names = re.findall(r"\b[A-Z]+_[A-Z_]+\b|\b[a-z]+_[a-z_]+\b", question)
        assert not any(name.lower() in pool.everything for name in names)
