"""Routing: identifiers and their words find the definition, and nonsense scores low."""

from __future__ import annotations

import pytest

from awareness.index.kinds import FileKind, kind_of
from awareness.index.layout import IndexLayout
from awareness.index.lexical import query_terms, stems
from awareness.index.lock import writing
from awareness.index.search import WEAK_SCORE, LexicalRouter
from awareness.index.store import IndexedFile, Store
from awareness.types import Chunk

CHUNKS = [
    Chunk("src/pool.py", 1, 9, "HTTPConnectionPool", "class HTTPConnectionPool:\n    def acquire(self): ..."),
    Chunk("src/client.py", 1, 9, "Client.get", "def get(self):\n    return HTTPConnectionPool().acquire()"),
    Chunk("src/auth.py", 1, 9, "BasicAuth.sign", "def sign(self, request):\n    request.headers['Authorization'] = x"),
    Chunk("tests/test_auth.py", 1, 9, "test_sign", "def test_sign():\n    BasicAuth().sign(request)"),
    Chunk("docs/auth.md", 1, 9, "Authentication", "Requests are signed by the auth classes."),
]


@pytest.fixture
def store(tmp_path):
    layout = IndexLayout(tmp_path / "index")
    with writing(layout), Store.create(layout) as store:
        files = [IndexedFile(c.path, c.path, [(c, 20)]) for c in CHUNKS]
        files += [
            IndexedFile(f"src/m{i}.py", str(i), [(Chunk(f"src/m{i}.py", 1, 1, "", f"x{i} = 0"), 9)]) for i in range(20)
        ]
        store.write_snapshot("s", files, chunking="1", model="m", rev=None)
        other = [IndexedFile("other.py", "o", [(Chunk("other.py", 1, 1, "zebra", "zebra = 1"), 9)])]
        store.write_snapshot("other", other, chunking="1", model="m", rev=None)
        yield store


def paths(store, query, *, in_scope=None, snapshot="s", top_k=3):
    router = LexicalRouter(store, store.snapshot(snapshot).id, in_scope)
    return [hit.chunk.path for hit in router.search(query, top_k=top_k)]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("HTTPConnectionPool", "src/pool.py"),
        ("where is the connection pool", "src/pool.py"),
        ("how are requests signed", "src/auth.py"),
        ("test for sign", "tests/test_auth.py"),
        ("authentication documentation", "docs/auth.md"),
    ],
)
def test_best_hit(store, query, first):
    assert paths(store, query)[0] == first


def test_nothing_and_nonsense(store):
    router = LexicalRouter(store, store.snapshot("s").id)
    assert router.search("qwertz blorp", top_k=5) == []
    assert router.search("", top_k=5) == []
    assert router.search("?!", top_k=5) == []
    weak = router.search("kubernetes ingress sign manifest rollout", top_k=5)
    assert weak and weak[0].score < WEAK_SCORE
    assert router.search("HTTPConnectionPool", top_k=1)[0].score > 2 * WEAK_SCORE


def test_scores_are_in_the_unit_interval_and_descend(store):
    hits = LexicalRouter(store, store.snapshot("s").id).search("sign request auth pool", top_k=50)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


def test_scope_is_applied_before_ranking(store):
    assert paths(store, "sign", in_scope=lambda path: path.startswith("docs/")) == ["docs/auth.md"]
    assert paths(store, "sign", in_scope=lambda path: False) == []


def test_a_snapshot_sees_only_its_own(store):
    assert paths(store, "zebra") == []
    assert paths(store, "zebra", snapshot="other") == ["other.py"]


def test_query_syntax_of_the_full_text_index_means_nothing(store):
    for query in ('sign" OR "x', "sign*", "NEAR(a b)", "symbol:sign", "sign AND NOT", "(", "'", "-sign", "^sign"):
        paths(store, query)


def test_at_most_three_chunks_of_a_file_come_first(tmp_path):
    layout = IndexLayout(tmp_path / "index")
    many = [(Chunk("a.py", i, i, "", f"cookie jar {i}"), 9) for i in range(1, 7)]
    with writing(layout), Store.create(layout) as store:
        files = [IndexedFile("a.py", "a", many)]
        files += [IndexedFile("b.py", "b", [(Chunk("b.py", 1, 1, "", "the cookie, and much else that is long"), 9)])]
        files += [IndexedFile(f"c{i}.py", "c", [(Chunk(f"c{i}.py", 1, 1, "", "other"), 9)]) for i in range(20)]
        store.write_snapshot("s", files, chunking="1", model="m", rev=None)
        assert paths(store, "cookie jar", top_k=5) == ["a.py", "a.py", "a.py", "b.py", "a.py"]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("HTTPConnectionPool", "httpconnectionpool http connect pool"),
        ("read_timeout = 5", "read_timeout read timeout 5"),
        ("_private __init__", "privat init"),
        ("getURLFor2", "geturlfor2 get url for 2"),
        ("größe_max", "größe_max größe max"),
        ("a" * 65, ""),
    ],
)
def test_stems(text, terms):
    assert list(stems(text)) == terms.split()


def test_query_terms_drop_question_words_unless_nothing_is_left():
    assert query_terms("Where is the auth handled?") == ["auth"]
    assert query_terms("what is this") == ["what", "is", "this"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("src/a.py", FileKind.SOURCE),
        ("src/contest.py", FileKind.SOURCE),
        ("latest/a.go", FileKind.SOURCE),
        ("tests/a.py", FileKind.TEST),
        ("pkg/a_test.go", FileKind.TEST),
        ("src/a.spec.ts", FileKind.TEST),
        ("src/UserTest.java", FileKind.TEST),
        ("conftest.py", FileKind.TEST),
        ("examples/a.py", FileKind.EXAMPLE),
        ("README.md", FileKind.DOCS),
        ("docs/conf.py", FileKind.SOURCE),
        ("pyproject.toml", FileKind.OTHER),
    ],
)
def test_kind_of(path, kind):
    assert kind_of(path) is kind
