from __future__ import annotations

import numpy as np
import pytest

from awareness.errors import IndexCorrupt
from awareness.fleet.repository_words import Words, WordTable, best_repositories, join, named, pack

A = Words("a" * 64, 10, {"retri": 3, "pool": 1})
B = Words("b" * 64, 400, {"retri": 30, "invoic": 2, "日本": 4})
C = Words("c" * 64, 5, {"mail": 5})


def table(tmp_path, *words, name="t"):
    (tmp_path / name).write_bytes(pack(words))
    return WordTable(tmp_path / name)


def test_the_repository_that_holds_the_words_comes_first(tmp_path):
    tables = [table(tmp_path, A, B), table(tmp_path, C, name="u")]
    objects = [words.object for words in (A, B, C)]
    assert best_repositories("where are invoices made", tables, objects, 8)[0][0] == B.object
    assert best_repositories("how is mail sent", tables, objects, 8) == best_repositories("mail", tables, objects, 1)
    assert {name for name, _ in best_repositories("retry", tables, objects, 8)} == {A.object, B.object}
    assert best_repositories("日本", tables, objects, 1)[0][0] == B.object
    assert best_repositories("nothing of this", tables, objects, 8) == []


def test_what_the_catalogue_does_not_name_is_passed_over(tmp_path):
    tables = [table(tmp_path, A, B)]
    assert [name for name, _ in best_repositories("retry", tables, [B.object], 8)] == [B.object]


def test_a_repository_is_found_by_its_name(tmp_path):
    words = [Words(w.object, w.chunks, named(name, w.counts)) for name, w in (("acme/pool", C), ("acme/other", A))]
    found = best_repositories("pool", [table(tmp_path, *words)], [C.object, A.object], 1)
    assert found[0][0] == C.object


def test_joined_tables_rank_as_the_single_ones(tmp_path):
    data, objects = join([pack([A, B]), pack([C])], [A.object, C.object])
    (tmp_path / "joined").write_bytes(data)
    assert objects == (A.object, C.object)
    for question in ("retry", "mail", "pool retries"):
        alone = best_repositories(question, [table(tmp_path, A), table(tmp_path, C, name="u")], objects, 8)
        together = best_repositories(question, [WordTable(tmp_path / "joined")], objects, 8)
        assert dict(together) == pytest.approx(dict(alone))


def test_equal_words_give_equal_bytes():
    assert pack([A, B]) == pack([A, B])


@pytest.mark.parametrize("cut", [0, 7, 40, -1])
def test_a_damaged_table_is_refused(tmp_path, cut):
    (tmp_path / "t").write_bytes(pack([A, B])[:cut])
    with pytest.raises(IndexCorrupt):
        WordTable(tmp_path / "t")


def test_a_word_of_a_repository_that_is_not_there_is_refused(tmp_path):
    data = bytearray(pack([Words(A.object, 1, {"x": 1})]))
    at = len(data) - 4 - 1 - 4  # before the counts and the lengths
    data[at : at + 4] = np.array([7], dtype=np.uint32).tobytes()
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(IndexCorrupt):
        WordTable(tmp_path / "t").holding("x")
