"""Definitions, and the step from a chunk to what it calls."""

from __future__ import annotations

import apsw
import pytest

from awareness.index.search.definitions import MOST_DEFINITIONS, SCHEMA, Definitions, defined_name, referred_names
from awareness.types import Chunk


@pytest.fixture
def definitions():
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE chunk(id INTEGER PRIMARY KEY, file_id INTEGER) STRICT")
    connection.execute("CREATE TABLE snapshot_file(snapshot_id INTEGER, file_id INTEGER) STRICT")
    connection.executemany("INSERT INTO chunk VALUES (?, ?)", ((i, 100 + i % 2) for i in range(1, 13)))
    connection.execute("INSERT INTO snapshot_file VALUES (1, 100), (1, 101), (2, 100)")
    connection.execute(SCHEMA)
    return Definitions(connection)


def chunk(symbol: str, text: str = "", path: str = "src/a.py") -> Chunk:
    return Chunk(path, 1, 2, symbol, text)


def test_a_chunk_leads_to_the_definitions_it_mentions(definitions):
    definitions.add(1, chunk("Session.open"))
    definitions.add(2, chunk("build_request"))
    definitions.add(3, chunk("build_request", path="src/b.py"))
    caller = chunk("Client.send", "def send(self):\n    request = build_request(self)\n    return other(request)")
    assert definitions.of(referred_names(caller), 1) == {"build_request": [2, 3]}
    assert definitions.of(referred_names(caller), 2) == {"build_request": [2]}
    assert referred_names(chunk("build_request", "def build_request(): build_request()")) == {"def"}


def test_a_definition_is_referred_to_in_any_unicode_form(definitions):
    definitions.add(1, chunk("Menu.cafe\u0301"))
    definitions.add(2, chunk("仓库"))
    definitions.add(3, chunk("find_" * 15))
    names = referred_names(chunk("f", f"caf\u00e9() + 仓库.get(ｇｅｔ) + {'find_' * 15}()"))
    assert definitions.of(names, 1) == {"café": [1], "仓库": [2], "find_" * 15: [3]}


def test_a_name_with_many_definitions_is_ignored(definitions):
    for i in range(1, MOST_DEFINITIONS + 2):
        definitions.add(i, chunk("get", path=f"src/{i}.py"))
    assert definitions.of({"get", "unknown"}, 1) == {}


@pytest.mark.parametrize(
    ("symbol", "path", "name"),
    [
        ("Pool.acquire", "src/pool.py", "acquire"),
        ("Pool.acquire", "tests/test_pool.py", ""),
        ("Set up > Linux", "README.md", ""),
        ("f", "src/a.py", ""),
        ("", "src/a.py", ""),
        ("größe", "src/a.py", "größe"),
        ("cell 3 > Model.fit", "src/a.ipynb", "fit"),
        ("cell 3", "src/a.ipynb", ""),
        ("Cart > <template>", "src/Cart.vue", ""),
        ("Cart.total", "src/Cart.vue", "total"),
        ("gro\u0308ße", "src/a.py", "größe"),
        ("仓库.库存", "src/a.py", "库存"),
        ("find_" * 15, "src/a.py", "find_" * 15),
    ],
)
def test_defined_name(symbol, path, name):
    assert defined_name(chunk(symbol, path=path)) == name
