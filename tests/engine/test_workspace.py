"""Citations: their lines are those an editor shows, in every encoding and with every kind of line end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from awareness.engine.workspace import Workspace
from awareness.index.chunks.chunking import chunk_file
from awareness.index.chunks.documents import Document, document_of
from awareness.index.files.repository import Repository, SourceFile
from awareness.index.store.layout import IndexLayout
from awareness.types import Chunk

# What an editor shows on one line: none of these ends a line there.
ODD = "\x0c \x85 \u2028 \u2029 \x0b"
SOURCES = {
    "a.py": f"# {ODD}\nx = '{ODD}'\n\n\ndef first():\n    return '{ODD}'\n\x0c\n\ndef second():\n    return 2\n",
    "a.c": f"/* {ODD}\n {ODD} */\nint first(void) {{\n    return 1; // {ODD}\n}}\n\nint second() {{\n    return 2;}}\n",
    "a.js": f"// {ODD}\nfunction first() {{\n  return `{ODD}`\n}}\n\nfunction second() {{\n  return 2\n}}\n",
    "a.go": f"package a\n\n// {ODD}\nfunc first() int {{\n\treturn 1\n}}\n\nfunc second() int {{\n\treturn 2\n}}\n",
    "a.md": f"# One {ODD}\n\ntext {ODD} text\n\n## second\n\n{chr(10).join(['more text'] * 20)}\n",
    "a.txt": f"one {ODD}\n{chr(10).join(['two'] * 20)}\n\nsecond {ODD}\n{chr(10).join(['more'] * 20)}\n",
}


def words(text: str) -> list[int]:
    return [match.start() for match in re.finditer(r"\w+|[^\w\s]", text)]


@pytest.mark.parametrize("path", SOURCES)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "mixed"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_citations_have_the_lines_that_an_editor_shows(tmp_path: Path, path: str, end: str, encoding: str) -> None:
    rows = SOURCES[path].split("\n")
    ends = [end] * len(rows) if end != "mixed" else ["\r\n", "\n", "\r"] * len(rows)  # never CR before LF
    written = "".join(row + mark for row, mark in zip(rows[:-1], ends, strict=False))
    (tmp_path / path).write_bytes(written.encode(encoding))
    repository = Repository.open(tmp_path)
    workspace = Workspace(repository, IndexLayout(tmp_path / "index"), None)
    (file,) = [file for file in repository.scan() if isinstance(file, SourceFile)]
    chunks = chunk_file(path, file.text, words, max_tokens=24)
    assert len(chunks) > 1
    for chunk in chunks:
        assert chunk.text == "\n".join(rows[chunk.start_line - 1 : chunk.end_line])
        assert workspace.shows(chunk)
    second = next(chunk for chunk in chunks if "second" in chunk.text)
    where = next(number for number, row in enumerate(rows, start=1) if "second" in row)
    assert second.start_line <= where <= second.end_line
    (tmp_path / path).write_bytes(("\n" + written).encode(encoding))
    assert not workspace.shows(second)


def test_a_citation_of_a_file_that_became_binary_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"x = 1\n")
    workspace = Workspace(Repository.open(tmp_path), IndexLayout(tmp_path / "index"), None)
    (chunk,) = chunk_file("a.py", "x = 1\n", words)
    assert workspace.shows(chunk)
    (tmp_path / "a.py").write_bytes(b"x = 1\n\0")
    assert not workspace.shows(chunk)


def test_lines_that_stand_there_are_shown_without_reading_the_file_as_a_document(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.py").write_text("x = 1\ny = 2\n")
    (tmp_path / "long.js").write_text("var a = '" + "x" * 200_000 + "';\n")
    workspace = Workspace(Repository.open(tmp_path), IndexLayout(tmp_path / "index"), None)
    read = []

    def documents(path: str, text: str) -> Document:
        read.append(path)
        return document_of(path, text)

    monkeypatch.setattr("awareness.engine.workspace.document_of", documents)
    assert workspace.shows(Chunk("a.py", 1, 2, "", "x = 1\ny = 2"))
    assert read == []
    assert not workspace.shows(Chunk("a.py", 1, 2, "", "x = 1\ny = 3"))
    shortened = document_of("long.js", (tmp_path / "long.js").read_text()).between(1, 1)
    assert len(shortened) < 10_000
    assert workspace.shows(Chunk("long.js", 1, 1, "", shortened))
    assert read == ["a.py", "long.js"]
