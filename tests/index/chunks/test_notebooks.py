"""Notebooks: the source of the cells, with the lines of the file; nothing else, whatever the JSON looks like."""

from __future__ import annotations

import json
import re

import pytest

from awareness.index.chunks.chunking import chunk_file
from awareness.index.chunks.documents import document_of
from awareness.index.chunks.notebooks import read_notebook


def words(text):
    return [match.start() for match in re.finditer(r"\w+|[^\w\s]", text)]


def code(source, **fields):
    return {"cell_type": "code", "execution_count": 1, "metadata": {}, "outputs": [], "source": source, **fields}


def markdown(source, **fields):
    return {"cell_type": "markdown", "metadata": {}, "source": source, **fields}


def notebook(*cells, **metadata):
    return {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


TRAIN = [
    "def train(model, data):\n",
    "    for batch in data:\n",
    "        model.step(batch)\n",
    "    return model.eval()\n",
]
LONG = ["The text is long enough to stand alone. " * 5]
PICTURE = {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo" * 50}, "metadata": {}}
SAMPLE = notebook(
    markdown(LONG), code(TRAIN, outputs=[PICTURE]), markdown(LONG, attachments={"a.png": {"image/png": "x"}})
)


@pytest.mark.parametrize("indent", [1, 4, None])
def test_cells_are_chunks_in_any_layout_of_the_json(indent):
    text = json.dumps(SAMPLE, indent=indent)
    chunks = chunk_file("a.ipynb", text, words)
    assert [chunk.symbol for chunk in chunks] == ["cell 1", "cell 2 > train", "cell 3"]
    assert chunks[1].text == "".join(TRAIN).rstrip("\n")
    lines = text.split("\n")
    for line, row in zip(range(chunks[1].start_line, chunks[1].end_line + 1), TRAIN, strict=indent is not None):
        assert json.dumps(row)[1:-1] in lines[line - 1]
    document = document_of("a.ipynb", text)
    assert all(document.shows(chunk.start_line, chunk.end_line, chunk.text) for chunk in chunks)
    assert "iVBOR" not in document.text and "image/png" not in document.text


def test_a_citation_is_not_shown_after_a_change():
    document = document_of("a.ipynb", json.dumps(SAMPLE, indent=1))
    chunk = chunk_file("a.ipynb", json.dumps(SAMPLE, indent=1), words)[1]
    changed = json.dumps(SAMPLE, indent=1).replace("model.step", "model.walk")
    assert document.shows(chunk.start_line, chunk.end_line, chunk.text)
    assert not document_of("a.ipynb", changed).shows(chunk.start_line, chunk.end_line, chunk.text)


def test_a_large_cell_is_cut_at_its_syntax():
    functions = [f"def step_{i}(a, b, c):\n    total = a + b + c\n    return total * {i}\n\n\n" for i in range(6)]
    chunks = chunk_file("a.ipynb", json.dumps(notebook(code("".join(functions)))), words, max_tokens=48)
    assert [chunk.symbol for chunk in chunks] == [f"cell 1 > step_{i}" for i in range(6)]
    assert {chunk.start_line for chunk in chunks} == {1}


def test_tiny_cells_are_read_together_and_a_title_with_the_cell_below():
    cells = [markdown("# Data"), code("import a"), code("import b"), code("\n".join(f"x{i} = {i}" for i in range(60)))]
    chunks = chunk_file("a.ipynb", json.dumps(notebook(*cells), indent=1), words)
    assert [chunk.symbol for chunk in chunks] == ["cells 1-3", "cell 4"]
    assert chunks[0].text == "# Data\n\nimport a\n\nimport b"


def test_cells_that_are_not_tiny_do_not_join():
    cells = [code("\n".join(f"a{i} = {i}" for i in range(30))), code("\n".join(f"b{i} = {i}" for i in range(30)))]
    chunks = chunk_file("a.ipynb", json.dumps(notebook(*cells)), words, max_tokens=1000)
    assert [chunk.symbol for chunk in chunks] == ["cell 1", "cell 2"]


JAVASCRIPT = "function load(path) {\n  return read(path);\n}"
PYTHON = "def load(path):\n    data = read(path)\n    return data.strip().lower()"


@pytest.mark.parametrize(
    ("source", "metadata"),
    [
        (JAVASCRIPT, {"kernelspec": {"language": "javascript"}}),
        (f"%%javascript\n{JAVASCRIPT}", {}),
        (f"%matplotlib inline\n!pip install x\n{PYTHON}", {}),
        (f"%%time\n{PYTHON}", {"language_info": {"name": "python"}}),
    ],
)
def test_the_language_is_of_the_kernel_or_of_the_cell(source, metadata):
    (chunk,) = chunk_file("a.ipynb", json.dumps(notebook(code(source), **metadata)), words)
    assert chunk.symbol == "cell 1 > load"
    assert chunk.text == source  # the commands of IPython stay as they are written


def test_format_three_has_worksheets_inputs_and_headings():
    cells = [
        {"cell_type": "heading", "level": 2, "source": ["Fit"]},
        {"cell_type": "code", "language": "python", "input": TRAIN, "outputs": [{"png": "iVBOR"}]},
    ]
    text = json.dumps({"metadata": {"name": ""}, "nbformat": 3, "worksheets": [{"cells": cells}]}, indent=1)
    (chunk,) = chunk_file("a.ipynb", text, words)
    assert chunk.text == "## Fit\n\n" + "".join(TRAIN).rstrip("\n")
    assert chunk.symbol == "cells 1-2 > train"


@pytest.mark.parametrize("cut", range(0, 1400, 97))
def test_a_notebook_with_a_cut_end_gives_the_cells_before_it(cut):
    text = json.dumps(SAMPLE, indent=1)
    broken = read_notebook(text[: len(text) - cut])
    assert broken is None or broken.rows[: len(LONG)] == [LONG[0]]
    assert broken is not None or cut > 600


def test_a_merge_conflict_keeps_the_cells():
    text = json.dumps(SAMPLE, indent=1).replace(
        '"metadata": {},', '<<<<<<< HEAD\n"metadata": {},\n=======\n>>>>>>> b', 1
    )
    assert "def train(model, data):" in document_of("a.ipynb", text).text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 200_000,
        '{"a":' * 100_000,
        '{"cells": 5}',
        '{"cells": [{"source": 5}]}',
        '"',
        '{"cells": [[[',
        "version 1",
    ],
)
def test_what_is_no_notebook_is_read_as_text(text):
    assert read_notebook(text) is None
    assert document_of("a.ipynb", text).cells == ()


def test_the_last_of_two_equal_keys_counts():
    text = '{"cells": [{"cell_type": "code", "source": "old = 1", "source": "new = 1", "source": {"x": "no"}}]}'
    assert document_of("a.ipynb", text.replace(', "source": {"x": "no"}', "")).text == "new = 1"
    assert read_notebook(text) is None  # the last one is no text


def test_strings_that_go_on_and_strings_of_several_lines():
    text = '{"cells": [{"cell_type": "code", "source": [\n"a = 1\\nb = 2\\n",\n"c ",\n"= 3"]}]}'
    book = read_notebook(text)
    assert book is not None
    assert (book.rows, book.lines) == (["a = 1", "b = 2", "c = 3"], [2, 2, 3])
    document = document_of("a.ipynb", text)
    assert document.shows(2, 3, "b = 2\nc = 3") and not document.shows(2, 3, "b = 2\nc")


def test_half_a_character_is_replaced():
    text = r'{"cells": [{"cell_type": "code", "source": "half = \ud83d\nwhole = \ud83d\ude80"}]}'
    assert document_of("a.ipynb", text).text == "half = \ufffd\nwhole = \U0001f680"


def test_a_long_line_of_data_in_a_cell_is_told_by_the_line_of_the_file():
    text = json.dumps(notebook(code(["x = 1\n", f'data = "{"iVBORw0KGgo" * 500}"'])), indent=1)
    document = document_of("a.ipynb", text)
    line = 1 + next(at for at, row in enumerate(text.split("\n")) if "iVBOR" in row)
    assert [gap.first_line for gap in document.omissions] == [line]
    assert len(document.text) < 1000
