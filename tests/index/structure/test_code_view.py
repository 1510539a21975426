"""The code of a snapshot: files put together from chunks, names as users write them, the nearest names."""

from __future__ import annotations

import pytest

from awareness.index.structure.code_view import CodeView
from tests.index.structure.indexed import indexed

LONG = "".join(f"def step_{i}(x):\n    return x + {i}\n\n\n" for i in range(80))
FILES = {
    "src/pkg/__init__.py": "",
    "src/pkg/pool.py": (
        "import os\n\n\nclass Pool:\n    def get(self):\n        return 1\n\n\ndef get():\n    return 2\n"
    ),
    "src/other.py": "def get():\n    return 3\n",
    "src/long.py": LONG,
    "web/index.ts": "const deep = '" + "x" * 3_000 + "'\nexport function get() { return 4 }\n",
    "docs/get.md": "# get\n\ndef get(): no code\n",
}


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    with indexed(tmp_path_factory.mktemp("code"), FILES) as (store, snapshot):
        yield CodeView(store, snapshot)


def test_the_lines_of_a_file_are_where_they_were(code):
    assert len(code.chunks("src/long.py")) > 2
    assert code.file("src/long.py").lines == LONG.rstrip("\n").split("\n")
    assert code.file("web/index.ts").lines[1] == "export function get() { return 4 }"
    assert code.file("gone.py").text == ""


def test_the_chunk_at_a_line(code):
    stored = code.chunk_at("src/long.py", 201)
    assert stored is not None and stored.chunk.start_line <= 201 <= stored.chunk.end_line
    assert code.chunk_at("gone.py", 1) is None


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("get", ["src/other.py:1", "src/pkg/pool.py:5", "src/pkg/pool.py:9", "web/index.ts:2"]),
        ("get()", ["src/other.py:1", "src/pkg/pool.py:5", "src/pkg/pool.py:9", "web/index.ts:2"]),
        ("Pool.get", ["src/pkg/pool.py:5"]),
        ("Pool::get", ["src/pkg/pool.py:5"]),
        ("Pool#get", ["src/pkg/pool.py:5"]),
        ("pkg.Pool.get", ["src/pkg/pool.py:5"]),  # as a package shows it, not as its module is called
        ("pool.get", ["src/pkg/pool.py:9"]),
        ("other.get", ["src/other.py:1"]),
        ("src/other.py:get", ["src/other.py:1"]),
        ("pkg/pool.py:Pool.get", ["src/pkg/pool.py:5"]),
        ("pool.py:get", ["src/pkg/pool.py:5", "src/pkg/pool.py:9"]),
        ("gone.py:get", []),
        ("Other.get", []),
    ],
)
def test_names_as_users_write_them(code, name, places):
    assert [f"{each.path}:{each.line}" for each in code.named(name)] == places


def test_the_nearest_names(code):
    assert code.nearest("step_800")[0].startswith("step_")
    assert code.nearest("pol") == ["Pool"]
    assert code.nearest("Other.get")[0] == "src/other.py:get"
    assert code.nearest("qqqqqq") == []
