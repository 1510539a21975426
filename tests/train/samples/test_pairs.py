"""Pairs of a description and its code: the description is cut out of the code."""

from __future__ import annotations

import pytest

from awareness.config.routers import RouterData
from awareness.errors import UsageError
from awareness.train.samples.pairs import chosen_pairs, pairs_of, pairs_of_folder, source_root
from awareness.types import Chunk

PYTHON = '''def parse_cookie_header(header):
    """Split the header of a request into its cookies.

    :param header: as it was sent
    """
    # values may be quoted, and then hold semicolons
    parts = header.split(";")
    return dict(part.split("=", 1) for part in parts)
'''
JAVA = """/**
 * Closes the <b>connection</b> once nobody reads from it.
 * @param force even then
 */
public void closeWhenIdle(boolean force) {
    this.closing = true;
    this.force = force;
}
"""
GO = """// Redirect tells whether the response leads elsewhere.
func (r *Response) IsRedirect() bool {
	switch r.Code {
	case 301, 302:
		return true
	}
	return false
}
"""


@pytest.mark.parametrize(
    ("symbol", "text", "said"),
    [
        (
            "parse_cookie_header",
            PYTHON,
            [
                "Split the header of a request into its cookies.",
                "values may be quoted, and then hold semicolons",
                "parse cookie header",
            ],
        ),
        ("Pool.closeWhenIdle", JAVA, ["Closes the connection once nobody reads from it.", "close when idle"]),
        ("IsRedirect", GO, ["Redirect tells whether the response leads elsewhere.", "is redirect"]),
        (
            "load",
            "def load(path):\n    text = path.read_text()\n    if not text:\n"
            '        raise ValueError(f"the file {path} is empty, so nothing can be loaded")',
            ["the file   is empty, so nothing can be loaded"],
        ),
        ("run", "def run():\n    # TODO make this much faster some day\n    go()\n    stop()", []),
        ("limits", "# Copyright 2024 the authors, all rights reserved\nlimits = 1\nmore = 2", []),
    ],
)
def test_descriptions_of_code(symbol, text, said):
    pairs = list(pairs_of([Chunk("a.x", 1, 9, symbol, text)]))
    assert [pair.description for pair in pairs] == said
    for pair in pairs:
        assert pair.description not in pair.chunk.text and len(pair.chunk.text.strip()) > 10
        if not pair.chunk.symbol:
            assert symbol.rpartition(".")[2] not in pair.chunk.text


def test_a_long_doc_comment_is_also_a_description_as_a_whole():
    doc = "Waits until the peer answers.\n\n    :param limit: seconds after which it gives up and closes the socket"
    text = f'def wait(limit):\n    """{doc}"""\n    while limit:\n        poll(limit)'
    first, whole = (pair for pair in pairs_of([Chunk("a.py", 1, 5, "wait", text)]) if pair.chunk.symbol)
    assert first.description == "Waits until the peer answers."
    assert whole.description == " ".join(doc.split())
    assert whole.chunk == first.chunk and "answers" not in whole.chunk.text


@pytest.mark.parametrize(
    ("names", "top"),
    [
        (["usr/share/gocode/src/x.org/a/b.go", "usr/share/gocode/src/x.org/a/c/d.go"], "usr/share/gocode/src/x.org/a/"),
        (["package/src/a.ts", "package/lib/b.js"], "package/"),
        ([*(f"package/src/{i}.ts" for i in range(60)), "package/lib/b.js"], "package/src/"),
        (["a.py", "b/c.py"], ""),
        ([], ""),
    ],
)
def test_the_folder_that_holds_nearly_all_source(names, top):
    assert source_root(names) == top


def test_paths_begin_at_the_source(tmp_path):
    for name in ("usr/share/lib/src/a.py", "usr/share/lib/b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(PYTHON)
    assert {pair.chunk.path for pair in pairs_of_folder(tmp_path)} == {"src/a.py", "b.py"}


def test_a_folder_is_read_without_vendored_code(tmp_path):
    for name in ("src/a.py", "node_modules/x/a.py", "tests/test_a.py", "vendor/b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(PYTHON)
    (tmp_path / "src/minified.js").write_text(
        "// says something about this\nfunction parseTheThing(){" + "a();" * 500 + "}"
    )
    (tmp_path / "link.py").symlink_to(tmp_path / "src/a.py")
    assert {pair.chunk.path for pair in pairs_of_folder(tmp_path)} == {"a.py"}  # below `src`, which holds all source


def test_pairs_are_chosen_once_and_as_many_as_asked(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text(PYTHON)
    first, second = chosen_pairs(RouterData(folders=[str(tmp_path / "*")], names=1.0), 0)
    assert len(first) == 3 and second == []
    (few,) = chosen_pairs(RouterData(folders=[str(tmp_path / "one")], pairs_per_folder=1), 0)
    assert len(few) == 1
    for number in range(9):
        (tmp_path / "one" / f"b{number}.py").write_text(PYTHON.replace("header", f"header{number}"))
    (some,) = chosen_pairs(RouterData(folders=[str(tmp_path / "one")], pairs_per_folder=12), 0)
    paths = [pair.chunk.path for pair in some]
    assert len(paths) == 12 and paths == sorted(paths)
    with pytest.raises(UsageError, match="there is no folder"):
        list(chosen_pairs(RouterData(folders=[str(tmp_path / "none")]), 0))
