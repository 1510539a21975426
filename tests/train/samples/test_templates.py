"""Templates: the file is complete and checked, and what is held out cannot be had by training."""

from __future__ import annotations

import random

import pytest
from pydantic import ValidationError

from awareness.train.samples import held_out_shapes, mixture
from awareness.train.samples import templates as module
from awareness.train.samples.dialects import PYTHON, dialect_of
from awareness.train.samples.held_out_shapes import GROUPS, SHAPES
from awareness.train.samples.pool import Pool
from awareness.train.samples.templates import Template, template, templates
from awareness.types import Chunk

HELD_OUT = {name for name, wording in templates().items() if wording.held_out}
POOL = Pool(
    [
        Chunk("store.py", 1, 6, "Store", 'class Store(Base):\n    """Keep it on the disk."""\n    limit = 12'),
        Chunk(
            "use.py", 1, 3, "use_it", "def use_it(store, key=None):\n    raise StoreError\n    return open_store(key)"
        ),
        Chunk("make.py", 1, 3, "open_store", "from a import b\ndef open_store(key, size=5):\n    return key.size"),
    ]
)


def asked_for(monkeypatch, module_with_template, make) -> set[str]:
    """Names of the templates that `make` asks for."""
    names: set[str] = set()

    def spy(name, *, held_out=False):
        names.add(name)
        return template(name, held_out=held_out)

    for part in module_with_template:
        monkeypatch.setattr(part, "template", spy)
    make()
    return names


def test_training_asks_for_every_template_that_is_not_held_out_and_for_no_other(monkeypatch):
    from awareness.train.samples import code_questions, hops, needle_shapes, needles

    def make():
        for kind in mixture.KINDS.values():
            for seed in range(200):
                kind(random.Random(seed), Pool(POOL.chunks), 3)

    used = asked_for(monkeypatch, (needle_shapes, needles, code_questions, hops), make)
    assert not used & HELD_OUT
    rare = {"raises_two", "docstring_quoted", "which_quoted", "usage"}
    assert set(templates()) - HELD_OUT - {"reference_constant"} - rare <= used


def test_evaluations_ask_for_every_template_that_is_held_out(monkeypatch):
    def make():
        for shape in SHAPES.values():
            shape(random.Random(0), "")

    assert asked_for(monkeypatch, (held_out_shapes,), make) == HELD_OUT | {"reference_constant"}


@pytest.mark.parametrize("name", sorted(HELD_OUT))
def test_a_template_that_is_held_out_is_refused_to_training(name):
    with pytest.raises(ValueError, match=f"template '{name}' is held out from training"):
        template(name)
    assert template(name, held_out=True).questions


def test_no_wording_is_shared_between_training_and_held_out_shapes():
    def texts(names):
        return {text for name in names for text in (*templates()[name].questions, *templates()[name].lines)}

    assert not texts(HELD_OUT) & texts(set(templates()) - HELD_OUT)
    assert {"hex", "sql", "flag", "route"} <= HELD_OUT & set(GROUPS["held-out"])


def test_a_training_template_is_refused_as_held_out():
    with pytest.raises(ValueError, match="template 'value' is not held out"):
        template("value", held_out=True)


def test_a_string_with_a_field_of_none_is_left_out():
    wording = Template(questions=("What is {name}?", "In {path}?"), sentences=("{answer}.",))
    assert wording.fill("7", name="x", path=None).questions == ("What is x?",)
    with pytest.raises(KeyError, match="path"):
        wording.fill("7", name="x")


def test_the_answer_of_a_literal_is_the_text_in_its_quotes():
    filled = template("value").fill_literal("'abc'", name="X", quote="'", path=None)
    assert (filled.answer, filled.literal) == ("abc", "'abc'")
    assert filled.after("X = ") == "'abc'" and filled.after("X = '") == "abc'" and filled.after("It is ") == "abc"


def test_an_unknown_field_of_the_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "templates.yaml").write_text("value:\n  questions: [What]\n  question: [Why]\n")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "templates.py"))
    with pytest.raises(ValidationError, match=r"value\.question\n  Extra inputs are not permitted"):
        templates.__wrapped__()


def test_the_language_of_a_file_is_read_from_its_suffix():
    assert dialect_of("a/b.go").call(["open", "port", "open"]) == "openPort"
    assert dialect_of("README") is PYTHON
