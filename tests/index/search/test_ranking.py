"""Routing: identifiers and their words find the definition, and nonsense scores low."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awareness.index.files.file_kinds import FileKind, kind_of
from awareness.index.search.evidence import WEAK_SCORE
from awareness.index.search.history import Change
from awareness.index.search.ranking import _NOT_WORDS, SPREAD, HybridRouter, Rules, _folded_words
from awareness.index.search.terms import names_in, query_terms, stem, stems, weighted_terms
from awareness.index.store.layout import IndexLayout
from awareness.index.store.lock import writing
from awareness.index.store.store import IndexedFile, Store
from awareness.index.unicode_forms import fold
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
    router = HybridRouter(store, store.snapshot(snapshot).id, in_scope)
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
    router = HybridRouter(store, store.snapshot("s").id)
    assert router.search("qwertz blorp", top_k=5) == []
    assert router.search("", top_k=5) == []
    assert router.search("?!", top_k=5) == []
    weak = router.search("which kubernetes ingress manifest starts a rollout of the client", top_k=5)
    assert weak and weak[0].score < WEAK_SCORE
    assert router.search("HTTPConnectionPool", top_k=1)[0].score > 0.9


def test_scores_are_in_the_unit_interval_and_descend(store):
    hits = HybridRouter(store, store.snapshot("s").id).search("sign request auth pool", top_k=50)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


def test_scope_is_applied_before_ranking(store):
    assert paths(store, "sign", in_scope=lambda path: path.startswith("docs/")) == ["docs/auth.md"]
    assert paths(store, "sign", in_scope=lambda path: False) == []


def test_a_search_returns_only_chunks_of_its_snapshot(store):
    assert "other.py" not in paths(store, "zebra", top_k=50)
    assert paths(store, "zebra", snapshot="other") == ["other.py"]
    assert paths(store, "sign", snapshot="other") == []


def test_query_syntax_of_full_text_search_is_plain_text(store):
    for query in ('sign" OR "x', "sign*", "NEAR(a b)", "symbol:sign", "sign AND NOT", "(", "'", "-sign", "^sign"):
        paths(store, query)


def test_one_file_does_not_fill_the_first_hits(tmp_path):
    layout = IndexLayout(tmp_path / "index")
    many = [(Chunk("a.py", i, i, "", f"cookie jar {i}"), 9) for i in range(1, 7)]
    with writing(layout), Store.create(layout) as store:
        files = [IndexedFile("a.py", "a", many)]
        files += [IndexedFile("b.py", "b", [(Chunk("b.py", 1, 1, "", "the cookie jar, and more"), 9)])]
        files += [IndexedFile(f"c{i}.py", "c", [(Chunk(f"c{i}.py", 1, 1, "", "other"), 9)]) for i in range(20)]
        store.write_snapshot("s", files, chunking="1", model="m", rev=None)
        assert "b.py" in paths(store, "cookie jar", top_k=3)
        without = HybridRouter(store, store.snapshot("s").id, rules=Rules(same_file=1.0))
        assert {hit.chunk.path for hit in without.search("cookie jar", top_k=3)} == {"a.py"}


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("HTTPConnectionPool", "httpconnectionpool http connect pool"),
        ("read_timeout = 5", "read_timeout read timeout 5"),
        ("_private __init__", "privat init"),
        ("getURLFor2", "geturlfor2 get url for 2"),
        ("größe_max", "grösse_max grösse max"),
        ("a" * 65, "a" * 65),
        ("a" * 300, "a" * 255),
        ("findAll" + "ByName" * 12, "findall" + "byname" * 11 + "bynam find all" + " by name" * 12),
        ("d7" * 40, "d7" * 40),  # a checksum, not a name of eighty parts
        ("ＣａｆéＭｅｎｕ cafe\u0301Menu", "cafémenu café menu cafémenu café menu"),
        ("STRASSE Straße İstanbul ISTANBUL ıssız", "strass strass istanbul istanbul issiz"),
        ("Python™ soft\u00adhyphen", "python softhyphen"),
        ("sent sends sending sentTo", "send send send sentto send to"),
        ("aliases alias indices overridden", "alia alia index overrid"),
        ("库存数量", "库存 存数 数量 库 存 数 量"),
        ("get库存Count", "get 库存 库 存 count"),
        ("期限を確認", "期限 期 限 を 確認 確 認"),
        ("ｻｰﾊﾞｰ サーバー", "サー ーバ バー サ ー バ ー " * 2),
        ("재고를", "재고 고를 재 고 를"),
        ("ไฟล์", "ไฟ ฟล ล์ ไ ฟ ล ์"),
        ("हिन्दी", "हिन्दी"),
    ],
)
def test_stems(text, terms):
    assert list(stems(text)) == terms.split()


@pytest.mark.parametrize(
    ("question", "terms"),
    [
        ("库存", "库存"),
        ("库", "库"),
        ("库存的数量是什么", "库存 数量"),
        ("怎么拒绝订单？", "拒绝 绝订 订单"),
        ("有効期限はどこで確認するか", "有効 効期 期限 確認"),
        ("재고를 어디서 확인", "재고 확인"),
        ("使用Redis缓存", "使用 redis 缓存"),
        ("ｇｅｔＵｓｅｒ", "getuser get user"),
        ("什么", "什么"),
    ],
)
def test_query_terms_of_a_language_without_spaces(question, terms):
    assert query_terms(question) == terms.split()
    assert all(weight == 1.0 for term, weight in weighted_terms(question).items() if not term.isascii())


def test_query_terms_drop_question_words_unless_nothing_is_left():
    assert query_terms("Where is the auth handled?") == ["auth"]
    assert query_terms("what is this") == ["what", "is", "this"]


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("where is MutationScope defined", ["MutationScope"]),
        ("the hyper_executor_poll function", ["hyper_executor_poll"]),
        ("Sinatra::Base", ["Base"]),
        ("parse() of cookies", ["parse"]),
        ("AsyncClient", ["AsyncClient"]),
        ("retry", ["retry"]),
        ("ｒｅｔｒｙ", ["retry"]),
        ("findAll" + "ByName" * 12, ["findAll" + "ByName" * 12]),
        ("仓库管理", ["仓库管理"]),
        ("--dry-run", ["dry-run"]),
        ("what does --no-color do, and -x", ["no-color"]),
        ("x-request-id", ["x-request-id"]),
        ("a built-in - or well-known - default", []),
        ("使用Redis缓存 的方法", []),
        ("How does the client send a request", []),
    ],
)
def test_names_in_a_question(question, names):
    assert names_in(question) == names


def test_an_option_weighs_as_much_as_a_name():
    assert weighted_terms("deploy --dry-run")["dry"] == 1.0 > weighted_terms("deploy --dry-run")["deploi"]


def test_a_name_counts_more_than_its_parts_and_the_words_around_it():
    weights = weighted_terms("the getUserName method")
    assert weights[stem("getusername")] == 1.0
    assert 0 < weights["user"] < weights[stem("getusername")] and 0 < weights["method"] < 1
    assert set(weighted_terms("how are cookies kept between requests").values()) == {1.0}


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


# --- other languages, other forms ---

STOCK = """class 仓库管理:
    \"\"\"检查商品的库存数量是否足够，不足时拒绝订单。\"\"\"

    def 预留库存(self, 商品):
        return self.台账.扣减(商品)"""
MANY_LANGUAGES = [
    Chunk("stock.py", 1, 6, "仓库管理", STOCK),
    Chunk(
        "badge.py",
        1,
        3,
        "check_badge",
        "def check_badge(b):\n    # 入館証の有効期限を確認して警告する\n    raise Expired(b)",
    ),
    Chunk("stock_ko.py", 1, 2, "check", "def check():\n    # 재고가 부족하면 주문을 거절한다"),
    Chunk("menu.py", 1, 2, "cafe\u0301Menu", "def cafe\u0301Menu():\n    return ﾃﾞｰﾀﾍﾞｰｽ"),
    Chunk("long.py", 1, 2, "x", "def " + "find_all_" * 12 + "leases(): pass"),
    *(
        Chunk(
            f"m{i}.py",
            1,
            3,
            f"handler_{i}",
            f"def handler_{i}(request):\n    # writes the answer to the log of {i}\n    pass",
        )
        for i in range(30)
    ),
]


@pytest.fixture
def many_languages(tmp_path):
    layout = IndexLayout(tmp_path / "index")
    with writing(layout), Store.create(layout) as store:
        files = [IndexedFile(chunk.path, chunk.path, [(chunk, 20)]) for chunk in MANY_LANGUAGES]
        store.write_snapshot("s", files, chunking="1", model="m", rev=None)
        yield store


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("库存", "stock.py"),
        ("库存数量", "stock.py"),
        ("拒绝订单", "stock.py"),
        ("库", "stock.py"),
        ("仓库管理", "stock.py"),
        ("库存不足时怎么拒绝订单？", "stock.py"),
        ("有効期限", "badge.py"),
        ("有効期限はどこで確認していますか", "badge.py"),
        ("재고를", "stock_ko.py"),
        ("주문 거절", "stock_ko.py"),
        ("caféMenu", "menu.py"),
        ("ｃａｆé", "menu.py"),
        ("データベース", "menu.py"),
        ("find_all_" * 12 + "leases", "long.py"),
    ],
)
def test_words_of_any_language_and_form_are_found(many_languages, query, path):
    hits = HybridRouter(many_languages, 1).search(query, top_k=3)
    assert hits and hits[0].chunk.path == path
    assert hits[0].score >= WEAK_SCORE


@pytest.mark.parametrize("query", ["火箭发射", "宇宙飛行士", "우주선", "火", "卫星发射场在哪里"])
def test_words_that_stand_nowhere_are_refused_in_any_language(many_languages, query):
    hits = HybridRouter(many_languages, 1).search(query, top_k=3)
    assert not hits or hits[0].score < WEAK_SCORE


# --- what each rule does ---


def indexed(tmp_path, chunks):
    layout = IndexLayout(tmp_path / "index")
    store = Store.create(layout)
    files = {}
    for chunk in chunks:
        files.setdefault(chunk.path, []).append((chunk, 20))
    filler = [IndexedFile(f"m{i}.py", str(i), [(Chunk(f"m{i}.py", 1, 1, "", f"x{i} = 0"), 9)]) for i in range(30)]
    with writing(layout):
        store.write_snapshot(
            "s", [*(IndexedFile(p, p, c) for p, c in files.items()), *filler], chunking="1", model="m", rev=None
        )
    return store


def first(store, query, rules=None, top_k=1):
    return [hit.chunk.path for hit in HybridRouter(store, 1, rules=rules or Rules()).search(query, top_k=top_k)]


def test_vectors_find_a_chunk_without_a_common_word(tmp_path):
    chunks = [
        Chunk("a.py", 1, 3, "remove_entry", "def remove_entry(path):\n    os.unlink(path)"),
        Chunk("b.py", 1, 3, "draw", "def draw(canvas):\n    canvas.line(0, 1)"),
    ]
    with indexed(tmp_path, chunks) as store:
        assert first(store, "delete a file") == ["a.py"]
        assert first(store, "delete a file", Rules(dense=0.0)) == []


def test_a_definition_hidden_from_the_symbol_is_found_by_its_name(tmp_path):
    types = "type Result = string\n\nexport type MutationScope = {\n  id: string\n}\n" + "\n".join(
        f"type Other{i} = number" for i in range(2)
    )
    chunks = [
        Chunk("types.ts", 1, 9, "Result", types),
        Chunk("cache.ts", 1, 3, "mutationScopeKey", "return run(MutationScope, MutationScope)\n" + "a = b\n" * 30),
    ]
    with indexed(tmp_path, chunks) as store:
        assert first(store, "where is MutationScope defined") == ["types.ts"]
        assert first(store, "where is MutationScope defined", Rules(definition=0.0, lookup=0.0)) == ["cache.ts"]


def test_a_definition_that_the_best_hit_calls_is_a_hit(tmp_path):
    chunks = [
        Chunk("login.py", 1, 3, "login", "def login(user):\n    return qzx_brew(user)"),
        Chunk("brew.py", 1, 3, "qzx_brew", "def qzx_brew(kettle):\n    return kettle"),
    ]
    with indexed(tmp_path, chunks) as store:
        assert first(store, "user login", None, 2) == ["login.py", "brew.py"]
        assert "brew.py" not in first(store, "user login", Rules(calls=0.0), 5)


def test_a_call_to_a_definition_out_of_scope_is_not_followed(tmp_path):
    chunks = [
        Chunk("in/login.py", 1, 3, "login", "def login(user):\n    return qzx_brew(user)"),
        Chunk("out/brew.py", 1, 3, "qzx_brew", "def qzx_brew(kettle):\n    return kettle"),
    ]
    with indexed(tmp_path, chunks) as store:
        router = HybridRouter(store, 1, lambda path: path.startswith("in/"))
        assert [hit.chunk.path for hit in router.search("user login", top_k=256)] == ["in/login.py"]


def test_other_snapshots_change_nothing(tmp_path):
    chunks = [
        Chunk("login.py", 1, 3, "login", "def login(user):\n    return qzx_brew(user)"),
        Chunk("brew.py", 1, 3, "qzx_brew", "def qzx_brew(kettle):\n    return kettle"),
    ]
    with indexed(tmp_path, chunks) as store:
        with writing(store.layout):
            for number in range(9):
                text = f"def qzx_brew(kettle):\n    pour({number})\n    return kettle"
                again = Chunk("brew.py", 1, 4, "qzx_brew", text)
                file = IndexedFile("brew.py", f"brew{number}", [(again, 20)])
                store.write_snapshot(f"rev{number}", [file], chunking="1", model="m", rev=None)
        assert first(store, "user login", None, 2) == ["login.py", "brew.py"]
        assert all("pour" not in hit.chunk.text for hit in HybridRouter(store, 1).search("qzx_brew", top_k=9))


def test_a_question_of_one_long_word_takes_no_time():
    for letter in "aé1_":  # each took minutes
        assert names_in(letter * 50_000) == []


# --- definitions before what repeats their names ---

DEFINED = "pragma solidity;\n\nerror SluiceShortfall(address owner, uint held);\nerror SluiceClosed();"
USED = "function drain(uint wanted) external {\n    if (held < wanted) revert SluiceShortfall(msg.sender, held);\n}"
ABI = '{"name": "SluiceShortfall", "type": "error", "inputs": ["owner", "held"]}'


@pytest.mark.parametrize("ending", ["sol", "zzz"])
@pytest.mark.parametrize("copies", [10, 200])
@pytest.mark.parametrize("query", ["SluiceShortfall", "where is SluiceShortfall", "error SluiceShortfall"])
def test_a_definition_comes_before_uses_and_uses_before_artefacts(tmp_path, ending, copies, query):
    chunks = [
        Chunk(f"src/drain.{ending}", 1, 3, "", USED),
        Chunk(f"src/errors.{ending}", 1, 4, "", DEFINED),
        *(Chunk(f"build/Sluice{i}.json", 1, 1, "", ABI) for i in range(copies)),
        *(Chunk(f"src/m{i}.py", 1, 1, "", f"x{i} = 0") for i in range(copies * 2)),
    ]
    store = indexed(tmp_path, chunks)
    best = [hit.chunk.path for hit in HybridRouter(store, store.snapshot("s").id).search(query, top_k=4)]
    assert best[:2] == [f"src/errors.{ending}", f"src/drain.{ending}"]


def test_data_is_not_lowered_where_only_data_has_the_name_or_where_its_kind_is_asked_for(tmp_path):
    chunks = [
        Chunk("src/a.py", 1, 1, "", "print(sluice_limit)"),
        Chunk("limits.json", 1, 1, "", '{"sluice_limit": 5, "weir_limit": 6}'),
        *(Chunk(f"src/m{i}.py", 1, 1, "", f"x{i} = 0") for i in range(20)),
    ]
    store = indexed(tmp_path, chunks)
    bare = replace(SPREAD, artefacts=1.0)

    def score(query, rules):
        hits = HybridRouter(store, store.snapshot("s").id, rules=rules).weigh(query, top_k=9)[1]
        return next(value for chunk, value in hits if chunk.path == "limits.json")

    assert score("weir_limit", SPREAD) == score("weir_limit", bare)
    assert score("sluice_limit json", SPREAD) == score("sluice_limit json", bare)
    assert score("sluice_limit", SPREAD) < score("sluice_limit", bare)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.sol", FileKind.SOURCE),
        ("a.ipynb", FileKind.SOURCE),
        ("a.qmd", FileKind.SOURCE),
        ("a.json", FileKind.OTHER),
        ("src/CMakeLists.txt", FileKind.SOURCE),
        ("src/lists.txt", FileKind.DOCS),
    ],
)
def test_kind_of_other_languages(path, kind):
    assert kind_of(path) is kind


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("the use() method", ["use"]),
        ("find function", ["find"]),
        ("function not", ["not"]),
        ("who calls `get`", ["get"]),
        ("how does it use function pointers", []),
        ("find the parser", []),
        ("function use method", []),
    ],
)
def test_question_words_that_are_meant_as_names(question, names):
    assert names_in(question) == names
    assert not names or names[0] in query_terms(question)


def test_copies_are_one_hit(tmp_path):
    text = "def call_again(call):\n    return call()"
    copies = [Chunk(f"svc{i}/again.py", 1, 2, "call_again", text) for i in range(10)]
    store = indexed(tmp_path, [*copies, Chunk("gate/fuse.py", 1, 2, "Fuse", "class Fuse:\n    call_again = None")])
    hits = HybridRouter(store, store.snapshot("s").id).search("call_again", top_k=3)
    assert [hit.chunk.path for hit in hits][:2] == ["svc0/again.py", "gate/fuse.py"]
    assert not any(hit.chunk.path.startswith("svc") for hit in hits[1:])
    assert [copy.path for copy in hits[0].copies] == [f"svc{i}/again.py" for i in range(1, 10)]


def test_a_word_that_is_there_is_found(tmp_path):
    store = indexed(tmp_path, [Chunk("u.md", 1, 1, "", "utfbadword"), Chunk("v.md", 1, 1, "", "nothing else")])
    hits = HybridRouter(store, store.snapshot("s").id).search("utfbadword", top_k=3)
    assert hits[0].chunk.path == "u.md" and hits[0].score >= WEAK_SCORE
    assert not HybridRouter(store, store.snapshot("s").id).search("qwertzuiop", top_k=3)


ISSUE = "Requests are signed twice\n\nI sign a request.\nThen it is signed once more by the auth class.\n"


def with_past(store, *changes):
    changes = [*changes, *(Change(f"p{i}", f"unrelated {i}", (), {}) for i in range(9))]
    with store.changing():
        store.history.write(store.snapshot("s").id, "tip", [one.sha for one in changes], changes)


def test_files_of_past_commits_follow_the_first_hits_of_an_issue(store):
    before = paths(store, ISSUE, top_k=50)
    assert "src/m7.py" not in before[:5]
    with_past(store, Change("x", "Do not sign requests twice", ("src/m7.py", "src/m7.txt", "README.md"), {}))
    assert paths(store, ISSUE, top_k=50) == [*before[:3], "src/m7.py", *(p for p in before[3:] if p != "src/m7.py")]
    scores = [hit.score for hit in HybridRouter(store, store.snapshot("s").id).search(ISSUE, top_k=50)]
    assert scores == sorted(scores, reverse=True)


def test_a_file_of_past_commits_that_is_among_the_first_hits_stays_there(store):
    before = paths(store, ISSUE, top_k=50)
    with_past(store, Change("x", "Do not sign requests twice", (before[1],), {}))
    assert paths(store, ISSUE, top_k=50) == before


def test_past_commits_add_two_files_in_scope(store):
    with_past(store, *(Change(f"x{i}", "Do not sign requests twice", (f"src/m{i}.py",), {}) for i in range(5)))
    found = paths(store, ISSUE, top_k=50)
    assert [path for path in found if path.startswith("src/m")] == ["src/m0.py", "src/m1.py"]
    in_scope = paths(store, ISSUE, top_k=50, in_scope=lambda path: path != "src/m0.py")
    assert [path for path in in_scope if path.startswith("src/m")] == ["src/m1.py", "src/m2.py"]


def test_a_question_of_one_sentence_is_not_looked_up_in_the_past(store):
    before = paths(store, "why are requests signed twice", top_k=50)
    with_past(store, Change("x", "Do not sign requests twice", ("src/m7.py",), {}))
    assert paths(store, "why are requests signed twice", top_k=50) == before


@pytest.mark.parametrize(
    "question",
    [
        "在哪里限制重试的次数",
        "リトライの回数はどこで制限されますか",
        "재시도 횟수는 어디에서 제한되나요",
        "Wo wird die Zahl der Wiederholungen begrenzt?",
        "Où est limité le nombre de tentatives ?",
        "¿Dónde se limita el número de reintentos?",
        "Onde é limitado o número de tentativas?",
        "где ограничивается число повторов",
    ],
)
def test_code_in_english_answers_a_question_in_another_language(tmp_path, question):
    chunks = [
        Chunk("retry.py", 1, 2, "limit_retries", "def limit_retries(count):\n    return min(count, MAX_RETRIES)"),
        *(Chunk(f"m{i}.py", 1, 2, f"close_{i}", f"def close_{i}(socket):\n    socket.flush()") for i in range(20)),
    ]
    hits = HybridRouter(indexed(tmp_path, chunks), 1).search(question, top_k=3)
    assert hits[0].chunk.path == "retry.py"
    assert hits[0].score >= WEAK_SCORE


def test_a_translation_to_the_language_of_the_question_counts_as_much_as_the_original(tmp_path):
    text = "# 缓存\n\n如何删除缓存"
    paths = ("docs/a.md", "docs/zh/b.md", "docs/ja/c.md")
    chunks = [Chunk(path, 1, 3, "", f"{text} {i}") for i, path in enumerate(paths)]
    store = indexed(tmp_path, [*chunks, *(Chunk(f"m{i}.py", 1, 1, "", f"x = {i}") for i in range(20))])
    _, ranked = HybridRouter(store, 1).weigh("如何删除缓存？", top_k=3)
    worth = {chunk.path: value for chunk, value in ranked}
    assert worth["docs/zh/b.md"] == pytest.approx(worth["docs/a.md"], rel=0.05)
    assert worth["docs/ja/c.md"] < 0.8 * worth["docs/zh/b.md"]


def search_again(store, query, cosine, rules=SPREAD):
    """The places and scores of a search with a second stage, and what that read."""
    read = []

    def second_stage(question, chunks):
        read.append((question, [chunk.path for chunk in chunks]))
        return [cosine(chunk.path) for chunk in chunks]

    router = HybridRouter(store, store.snapshot("s").id, rules=rules, second_stage=second_stage)
    return [(hit.chunk.path, hit.score) for hit in router.search(query, top_k=5)], read


def test_a_second_stage_reads_the_best_chunks_again(store):
    query = "how are requests signed"
    first = HybridRouter(store, store.snapshot("s").id).search(query, top_k=5)
    places = [hit.chunk.path for hit in first]
    found, _ = search_again(store, query, lambda path: float(path == places[-1]))
    assert [path for path, _ in found[:2]] == [places[0], places[-1]]  # the first stays
    assert found[0][1] == first[0].score
    assert sorted(found, key=lambda hit: -hit[1]) == found
    found, read = search_again(store, query, lambda path: 0.5)
    assert [path for path, _ in found] == places  # all gain the same
    assert read[0][0] == query and set(places) <= set(read[0][1]) and len(read[0][1]) <= 16


def test_a_second_stage_reads_copies_once_and_lifts_each(tmp_path):
    layout = IndexLayout(tmp_path / "index")
    with writing(layout), Store.create(layout) as store:
        text = "def sign(request):\n    return request"
        chunks = [Chunk(f"src/{i}.py", 1, 9, "sign", text) for i in range(30)]
        chunks.append(Chunk("src/other.py", 1, 9, "other", "def other(request):\n    return sign(request)"))
        store.write_snapshot(
            "s", [IndexedFile(c.path, c.path, [(c, 9)]) for c in chunks], chunking="1", model="m", rev=None
        )
        found, read = search_again(store, "sign a request", lambda path: float(path == "src/other.py"))
    assert len(read[0][1]) == 2
    assert [path for path, _ in found] == ["src/0.py", "src/other.py"]


@pytest.mark.parametrize(
    ("query", "rules"), [("BasicAuth.sign", SPREAD), ("how are requests signed", Rules(meaning=0))]
)
def test_a_name_alone_is_not_read_again(store, query, rules):
    assert search_again(store, query, lambda path: 1.0, rules)[1] == []


@given(st.text(st.characters(max_codepoint=0x180)))
def test_words_of_ascii_are_those_of_any_text(text):
    assert _folded_words(text) == _NOT_WORDS.sub(" ", fold(text)).split()
