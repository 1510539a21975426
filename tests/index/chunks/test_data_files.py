"""Large data files keep the lines that show how they are made; what people write is kept whole."""

from __future__ import annotations

import json

import pytest

from awareness.index.chunks.data_files import is_data, summarised
from awareness.index.chunks.documents import Omission, document_of

RECORDS = json.dumps([{"id": i, "name": f"Name {i}", "tags": ["a", "b"]} for i in range(500)], indent=2)
TABLE = "id,name,price\n" + "".join(f"{i},Name {i},{i / 7:.2f}\n" for i in range(1000))
INSERTS = "".join(f"({i}, 'name {i}'),\n" for i in range(400))
DUMP = (
    f"CREATE TABLE lease (id int, name text);\nINSERT INTO lease VALUES\n{INSERTS}(401, 'last');\n"
    f"CREATE VIEW open AS SELECT * FROM lease;\nCOPY owner (id) FROM stdin;\n"
    + "17\n" * 400
    + "\\.\nCREATE INDEX at ON lease (id);\n"
)
SAMPLES = [("a.json", RECORDS), ("a.csv", TABLE), ("a.sql", DUMP)]


@pytest.mark.parametrize(("path", "text"), SAMPLES)
def test_rows_are_lines_of_the_file_with_their_numbers_and_every_line_is_accounted_for(path, text):
    document, lines = document_of(path, text), text.rstrip("\n").split("\n")
    rows = document.text.split("\n")
    assert document.line_numbers is not None
    gaps = {omission.first_line: omission.last_line for omission in document.omissions}
    kept = set()
    for row, number in zip(rows, document.line_numbers, strict=True):
        if number in gaps:
            assert row.startswith(f"… {gaps[number] - number + 1} line")
        else:
            assert row == lines[number - 1]
            kept.add(number)
    left_out = {line for first, last in gaps.items() for line in range(first, last + 1)}
    assert kept | left_out == set(range(1, len(lines) + 1)) and not kept & left_out
    assert len(rows) < 60
    assert document_of(path, text) == document


def test_records_show_each_key():
    summary = summarised("a.json", RECORDS)
    assert summary is not None
    text = "\n".join(summary.rows)
    assert '"name": "Name 0"' in text and '"name": "Name 2"' in text and "Name 3" not in text


def test_a_rare_key_is_kept():
    records = [{"id": i, "name": "x"} for i in range(500)]
    records[300]["nickname"] = "y"
    assert '"nickname": "y"' in document_of("a.json", json.dumps(records, indent=2)).text


def test_a_table_tells_its_columns_and_its_rows():
    document = document_of("a.csv", TABLE)
    assert document.text.split("\n")[:2] == ["id,name,price", "0,Name 0,0.00"]
    assert document.text.split("\n")[-1] == "… 997 lines left out: id (whole number), name (text), price (number)"
    assert document.omissions == (Omission(5, 1001, "data"),)


def test_statements_of_a_dump_are_kept_and_its_rows_are_not():
    text = document_of("a.sql", DUMP).text
    for kept in (
        "CREATE TABLE lease",
        "INSERT INTO lease",
        "(0, 'name 0')",
        "CREATE VIEW open",
        "COPY owner",
        "CREATE INDEX at",
    ):
        assert kept in text
    assert "name 200" not in text and text.count("\n17") < 6


def test_a_script_of_sql_is_whole():
    text = "".join(f"CREATE TABLE t{i} (id int);\nINSERT INTO t{i} SELECT id FROM s{i};\n" for i in range(300))
    assert summarised("a.sql", text) is None


MANY_SCRIPTS = json.dumps({"scripts": {f"run:{i}": f"node {i}.js" for i in range(400)}}, indent=2)
OPENAPI = json.dumps(
    {"openapi": "3.0.0", "paths": {f"/a/{i}": {"get": {"summary": "x"}} for i in range(300)}}, indent=2
)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("package.json", MANY_SCRIPTS),
        ("tsconfig.base.json", MANY_SCRIPTS),
        ("locales/en.json", MANY_SCRIPTS),
        (".eslintrc.json", MANY_SCRIPTS),
        ("api.json", OPENAPI),
        (".github/workflows/a.yml", "      - uses: a\n" * 2000),
        ("docker-compose.dev.yml", "  - a: b\n" * 2000),
        ("a.yaml", "- a: b\n" * 2000),
        ("data.json", json.dumps([1, 2, 3], indent=2)),
        ("a.py", "x = 1\n" * 5000),
        ("notes.txt", "One more sentence about the matter.\n" * 1000),
    ],
)
def test_what_people_write_is_whole(path, text):
    assert document_of(path, text).line_numbers is None


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("locales/de.json", MANY_SCRIPTS),
        ("tests/fixtures/a.yaml", "- a: b\n" * 2000),
        ("a.po", 'msgid ""\nmsgstr ""\n\n' + 'msgid "a"\nmsgstr "b"\n\n' * 500),
        ("a.log", "".join(f"12:{i:02} started {i}\n" for i in range(900))),
        ("a.svg", "<svg>\n" + '  <path d="M1 2"/>\n' * 900 + "</svg>\n"),
        ("mix.lock", "".join(f'  "p{i}": "1.{i}",\n' for i in range(900))),
        ("a.geojson", "[\n" + "  1.5,\n" * 2000 + "0]\n"),
    ],
)
def test_data_of_many_kinds_is_short(path, text):
    document = document_of(path, text)
    assert document.omissions and len(document.text) < 1500


def test_what_is_still_large_is_cut_to_its_outer_levels():
    paths = {f"k{i}": {f"m{i}": {f"x{i}_{j}": j for j in range(50)}} for i in range(59)}
    text = document_of("a.json", json.dumps(paths, indent=2)).text
    assert len(text) < 30_000 and all(f'"k{i}"' in text for i in range(59))


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("a.json", True),
        ("a.CSV", True),
        ("a.txt", False),
        ("a.sql", False),
        ("a.sol", False),
        ("a", False),
        ("a/.json", False),
        ("a/b.json", True),
    ],
)
def test_is_data(path, data):
    assert is_data(path) is data
