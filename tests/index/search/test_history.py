"""History: commits whose messages are like a question lead to the files that they changed."""

from __future__ import annotations

import math

import apsw
import pytest

from awareness.index.search import history
from awareness.index.search.history import Change, History

PRESENT = {"a.py", "b.py", "src/c.py", "d.py"}


@pytest.fixture
def past():
    connection = apsw.Connection(":memory:")
    connection.pragma("foreign_keys", True)
    connection.execute("CREATE TABLE snapshot(id INTEGER PRIMARY KEY) STRICT; INSERT INTO snapshot VALUES (1), (2)")
    return History(connection)


def change(sha: str, message: str, *paths: str, **renamed: str) -> Change:
    return Change(sha, message, paths, {old.replace("_", "."): new for old, new in renamed.items()})


def padding(count: int = 8) -> list[Change]:
    return [change(f"p{number}", f"unrelated words number{number}") for number in range(count)]


def write(past: History, changes: list[Change], snapshot: int = 1, tip: str = "t") -> None:
    past.write(snapshot, tip, [one.sha for one in changes], changes)


def test_an_index_without_history_names_nothing(past):
    assert past.tip(1) is None and past.known() == set()
    assert past.files(1, {"retri": 1.0}, PRESENT) == []


def test_words_of_a_message_lead_to_its_files(past):
    write(past, [change("x", "Retry a dropped connection", "a.py", "b.py", "gone.py"), *padding()])
    [(first, one), (second, other)] = past.files(1, {"retri": 1.0, "connect": 1.0}, PRESENT)
    assert (first, second) == ("a.py", "b.py") and one == other
    assert past.files(1, {"zebra": 1.0}, PRESENT) == []


def test_the_worth_is_the_squared_share_of_bm25_over_the_root_of_the_number_of_files(past):
    write(past, [change("x", "retry dropped", "a.py", "b.py"), *padding()])
    lengths = [2, *[5] * 8]  # `number1` is three terms: itself, `number` and `1`
    norm = 1.2 * (0.25 + 0.75 * 2 / (sum(lengths) / 9))
    known = math.log(8.5 / 1.5)
    unknown = math.log(9.5 / 0.5)
    share = known * 2.2 / (1 + norm) / (2.2 * (known + unknown))
    found = dict(past.files(1, {"retri": 1.0, "zebra": 1.0}, PRESENT))
    assert found == pytest.approx({"a.py": share**2 / math.sqrt(2), "b.py": share**2 / math.sqrt(2)})


def test_a_commit_of_few_files_says_more_about_each(past):
    write(past, [change("x", "retry it", "a.py"), change("y", "retry it", "b.py", "d.py"), *padding()])
    assert [path for path, _ in past.files(1, {"retri": 1.0}, PRESENT)] == ["a.py", "b.py", "d.py"]


def test_a_file_is_found_under_its_name_of_today(past):
    changes = [
        change("newest", "move again", c_py="src/c.py"),
        change("older", "move", old_py="c.py"),
        change("oldest", "Retry a connection", "old.py"),
        *padding(),
    ]
    write(past, changes)
    assert [path for path, _ in past.files(1, {"retri": 1.0}, PRESENT)] == ["src/c.py"]
    assert [path for path, _ in past.files(1, {"retri": 1.0}, PRESENT | {"old.py"})] == ["old.py"]


def test_each_snapshot_has_its_own_past_and_shares_the_commits(past):
    shared = padding()
    write(past, [change("x", "retry", "a.py"), *shared], snapshot=1, tip="x")
    past.write(2, "y", ["y", *(one.sha for one in shared)], [change("y", "retry", "b.py")])
    assert [path for path, _ in past.files(1, {"retri": 1.0}, PRESENT)] == ["a.py"]
    assert [path for path, _ in past.files(2, {"retri": 1.0}, PRESENT)] == ["b.py"]
    assert (past.tip(1), past.tip(2)) == ("x", "y")
    assert past.known() == {"x", "y", *(one.sha for one in shared)}


def test_commits_that_no_snapshot_has_are_deleted(past):
    write(past, [change("x", "retry", "a.py"), *padding()], tip="x")
    past.write(1, "y", ["y"], [change("y", "connect", "b.py")])
    assert past.known() == {"y"}
    assert past.db.execute("SELECT term FROM past_term").fetchall() == [("connect",)]
    past.db.execute("DELETE FROM snapshot WHERE id = 1")
    assert past.tip(1) is None
    past.write(2, "z", [], [])
    assert past.known() == set()


def test_history_of_other_rules_is_read_again(past, monkeypatch):
    write(past, [change("x", "retry", "a.py"), *padding()], tip="x")
    monkeypatch.setattr(history, "_RULES", "another")
    assert past.tip(1) is None and past.known() == set()
    write(past, [change("x", "connect", "a.py")], tip="x")
    assert past.tip(1) == "x" and past.known() == {"x"}
    assert past.files(1, {"retri": 1.0}, PRESENT) == []


def test_a_long_message_counts_up_to_its_limit(past, monkeypatch):
    monkeypatch.setattr(history, "MAX_MESSAGE_CHARS", 11)
    write(past, [change("x", "retry words and more", "a.py"), *padding()])
    assert past.files(1, {"word": 1.0}, PRESENT) and not past.files(1, {"more": 1.0}, PRESENT)


def test_paths_may_hold_any_bytes(past):
    odd = "b\udcff\n.py"
    write(past, [change("x", "retry", odd), *padding()])
    assert [path for path, _ in past.files(1, {"retri": 1.0}, {odd})] == [odd]
