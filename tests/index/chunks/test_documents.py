"""The document of a file, with lines of data shortened, and what of it stands on which lines."""

from __future__ import annotations

from awareness.index.chunks.chunking import chunk_file
from awareness.index.chunks.documents import Document, Omission, document_of

FUNCTIONS = (
    "\n\ndef toolbar_glyph(name):\n    return LOGO\n\n\ndef register_glyph(name, data):\n    GLYPHS[name] = data\n"
)


def words(text: str) -> list[int]:
    """A token for every four characters."""
    return list(range(0, len(text), 4))


def test_a_file_without_data_is_its_own_document() -> None:
    text = "x = 1\n" * 300
    assert document_of("a.py", text) == Document(text)


def test_lines_keep_their_numbers() -> None:
    document = document_of("icons.py", 'LOGO = "' + "QUFB" * 5000 + '"\n' + FUNCTIONS)
    assert document.omissions == (Omission(1, 1, "19,870 characters of data"),) and document.line_numbers is None
    assert document.between(4, 5) == "def toolbar_glyph(name):\n    return LOGO"
    assert document.between(1, 1).endswith('[19,870 characters left out] UFBQUFBQUFB"')


def test_chunks_of_shortened_lines_are_found_in_the_document_again() -> None:
    for literal in ('LOGO = "' + "QUFB" * 5000 + '"', "LOGO = [" + "1, " * 3000 + "]"):
        text = f"{literal}\n{FUNCTIONS}"
        chunks = chunk_file("icons.py", text, words, max_tokens=40)
        document = document_of("icons.py", text)
        assert "toolbar_glyph" in {chunk.symbol for chunk in chunks}, "the syntax is not broken"
        assert len(chunks) <= 8 and "characters left out" in "".join(chunk.text for chunk in chunks)
        for chunk in chunks:
            assert chunk.text in document.between(chunk.start_line, chunk.end_line)
