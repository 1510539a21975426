"""Listings in texts are cut at the syntax of their language, and define nothing unless they are run."""

from __future__ import annotations

import re

import pytest

from awareness.index.chunks.chunking import chunk_file

FUNCTIONS = [f"def step_{i}(a, b, c):\n    total = a + b + c\n    return total * {i}" for i in range(4)]


def words(text):
    return [match.start() for match in re.finditer(r"\w+|[^\w\s]", text)]


def indented(text):
    return "\n".join(f"    {line}" if line else "" for line in text.split("\n"))


CODE = "\n\n".join(FUNCTIONS)


@pytest.mark.parametrize(
    ("path", "text", "named"),
    [
        ("a.md", f"# Steps\n\nAs follows:\n\n```python\n{CODE}\n```\n", False),
        ("a.mdx", f"# Steps\n\nAs follows:\n\n~~~py\n{CODE}\n~~~\n", False),
        ("a.rst", f"Steps\n=====\n\nAs follows:\n\n.. code-block:: python\n   :linenos:\n\n{indented(CODE)}\n", False),
        ("a.adoc", f"= Steps\n\nAs follows:\n\n[source,python]\n----\n{CODE}\n----\n", False),
        ("a.qmd", f"# Steps\n\nAs follows:\n\n```{{python}}\n{CODE}\n```\n", True),
        ("a.Rmd", f"# Steps\n\nAs follows:\n\n```{{python setup, echo=FALSE}}\n{CODE}\n```\n", True),
        ("a.org", f"* Steps\n\nAs follows:\n\n#+begin_src python :session\n{CODE}\n#+end_src\n", True),
    ],
)
def test_a_listing_is_cut_between_its_definitions(path, text, named):
    chunks = chunk_file(path, text, words, max_tokens=50)
    listed = [chunk for chunk in chunks if "def step_" in chunk.text]
    assert len(listed) > 1
    for i in range(4):
        assert [FUNCTIONS[i].strip().split("\n")[2].strip() in c.text for c in listed if f"step_{i}" in c.text] == [
            True
        ]
    assert {chunk.symbol.startswith("Steps > step_") for chunk in listed} == {named}
    assert named or {chunk.symbol for chunk in listed} == {"Steps"}


@pytest.mark.parametrize("path", ["a.adoc", "a.org"])
def test_sections_of_other_markups(path):
    mark = "=" if path == "a.adoc" else "*"
    text = f"{mark} Guide\n\nOne two three four five six.\n\n{mark * 2} Setup\n\nSeven eight nine ten eleven.\n"
    chunks = chunk_file(path, text, words, max_tokens=24)
    assert [(chunk.start_line, chunk.symbol) for chunk in chunks] == [(1, "Guide"), (5, "Guide > Setup")]


@pytest.mark.parametrize(
    ("path", "fence"), [("a.md", "```python"), ("a.adoc", "----"), ("a.org", "#+begin_src c"), ("a.rst", ".. code:: c")]
)
def test_listings_without_an_end_lose_no_line(path, fence):
    text = f"{fence}\n" * 500
    assert sum(chunk.text.count(fence) for chunk in chunk_file(path, text, words, max_tokens=64)) == 500


def test_titles_of_a_listing_are_no_headings():
    text = "* Guide\n#+begin_src org\n* Not a heading\n#+end_src\nOne two three four five six seven.\n"
    assert {chunk.symbol for chunk in chunk_file("a.org", text, words, max_tokens=20)} == {"Guide"}
