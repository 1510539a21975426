"""A printed message and the string that makes it."""

from __future__ import annotations

import pytest

from awareness.index.search.messages import is_message, message_share

MADE = [
    ("Option '--shout' does not take a value.", '_("Option {name!r} does not take a value.").format(name=opt)'),
    ("Sanic app name 'shop' not found.", "raise SanicException(f\"Sanic app name '{name}' not found.\")"),
    ("Encountered unidirectional transform: ZodTransform", "super(`Encountered unidirectional transform: ${name}`)"),
    ("cannot open store.db: no such file", 'fmt.Errorf("cannot open %s: no such file", path)'),
    ("user 12 has no rights", '"user " + id + " has no rights"'),
    ("Expected BEGIN_OBJECT but was STRING at line 1", '"Expected BEGIN_OBJECT but was " + peek() + location()'),
    ("3 of 7 files failed", 'printf("%d of %d files failed", n, total);'),
]


@pytest.mark.parametrize(("message", "code"), MADE)
def test_a_message_is_made_by_its_string(message, code):
    assert is_message(message)
    assert message_share(message, f"x = 1\n{code}\n") > 0.4


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("Option '--shout' does not take a value.", '"Option {name} needs a value."'),
        ("files failed of 3", 'printf("%d of %d files failed", n, total);'),
        ("Cannot GET /api", '"GET"'),  # too short to tell anything
        ("anything at all", "no string"),
        ("", '"text of a string"'),
    ],
)
def test_another_string_makes_no_share(message, code):
    assert message_share(message, code) == 0


@pytest.mark.parametrize(
    "question", ["how are retries delayed", "Gson.fromJson", "is it possible to nest groups?", "x"]
)
def test_a_question_is_no_message(question):
    assert not is_message(question)


def test_strings_that_are_far_apart_are_not_joined():
    message = "cannot open the file because the disk is full"
    near = 'f("cannot open the file" + ' + "x" * 60 + ' + " because the disk is full")'
    far = 'f("cannot open the file" + ' + "x" * 61 + ' + " because the disk is full")'
    spaced = 'f("cannot open the file"' + " " * 500 + '+ " because the disk is full")'
    assert message_share(message, near) == message_share(message, spaced) == 1.0
    assert 0 < message_share(message, far) < 1.0
