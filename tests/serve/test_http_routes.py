"""What the server says over HTTP: states, search, files, answers as events, and errors."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from urllib.parse import quote

import httpx
import pytest

from awareness import __version__
from awareness.serve.forwarding_reporter import ForwardingReporter
from awareness.serve.http_app import create_app
from awareness.serve.http_settings import HttpSettings
from awareness.serve.question_queue import QuestionQueue
from awareness.serve.repositories import Repositories
from awareness.serve.server_metrics import ServerMetrics
from awareness.serve.services import Services
from tests.conftest import commit_all, write_tree
from tests.serve.conftest import QUESTION, events
from tests.serve.page_server import serving


def test_health_needs_no_token_and_shows_no_path(server):
    state = httpx.get(f"{server.url}/health").json()
    assert (state["status"], state["version"], state["repositories"]) == ("ok", __version__, 1)
    assert str(server.repo) not in json.dumps(state)


def test_repositories_are_listed(http, server):
    assert http.post("/search", json={"query": QUESTION}).status_code == 200  # indexes it
    (only,) = http.get("/repositories").json()["repositories"]
    assert only["name"] == "sample" and only["root"] == str(server.repo)
    assert (only["is_indexed"], only["is_open"], only["is_pack"]) == (True, True, False)
    assert only["files"] == 7 and only["chunks"] >= 7  # the sample, .gitignore and two odd names


def test_search_is_that_of_the_command_line(http):
    found = http.post("/search", json={"query": QUESTION, "top_k": 1}).json()
    assert set(found) == {"query", "hits", "seconds"}
    (hit,) = found["hits"]
    assert (hit["path"], hit["symbol"], hit["stale"]) == ("src/pool.py", "HTTPConnectionPool", False)
    nothing = http.post("/search", json={"query": "zebra crossing qwertzuiop"}).json()
    assert nothing["hits"] == [] and "nearest" in nothing


@pytest.mark.parametrize(
    "scope, paths",
    [
        (["tests"], {"tests/test_auth.py"}),
        (["./tests/"], {"tests/test_auth.py"}),
        (["/docs/*.md"], {"docs/guide.md"}),
        (["src/auth.py"], {"src/auth.py"}),
        (["!tests", "!docs", "!*.gitignore", "!odd*", "!latin*"], {"src/auth.py", "src/pool.py"}),
    ],
)
def test_a_scope_counts_from_the_top_of_the_repository(http, scope, paths):
    found = http.post("/search", json={"query": "sign cookie session", "scope": scope, "top_k": 20}).json()
    assert {hit["path"] for hit in found.get("hits", []) + found.get("nearest", [])} <= paths
    assert found.get("hits") or found.get("nearest")


def test_a_file_is_shown_by_lines(http):
    shown = http.get("/file", params={"path": "src/pool.py", "start": 2, "end": 3}).json()
    assert shown == {
        "path": "src/pool.py",
        "language": "python",
        "lines": ["    max_size = 10", ""],
        "start": 2,
        "end": 3,
        "total": 5,
    }
    assert http.get("/file", params={"path": "src/pool.py", "start": 4, "end": 99}).json()["end"] == 5
    assert http.get("/file", params={"path": "src/pool.py", "start": 6}).status_code == 400
    assert http.get("/file", params={"path": "src/pool.py", "start": 0}).status_code == 400


def test_names_that_are_no_text_are_found(http):
    assert http.get("/file", params={"path": "odd\nna\x1bme.py"}).json()["lines"][0] == "def odd_name():"
    latin = http.get("/file?path=latin%E9.py").json()
    assert latin["lines"][0] == "def latin_name():" and latin["path"] == os.fsdecode(b"latin\xe9.py")
    found = http.post("/search", json={"query": "latin_name"})
    assert found.json()["hits"][0]["path"] == os.fsdecode(b"latin\xe9.py")
    assert b"\\udce9" in found.content


HIDDEN = [
    ".env",
    "id_rsa",
    "ignored.py",
    "picture.bin",
    "link.py",
    "out/passwd",
    "/etc/passwd",
    "../sample/src/pool.py",
    "src/../src/pool.py",
    "src//pool.py",
    "./src/pool.py",
    "src/pool.py/",
    "src",
    "src\\pool.py",
    "SRC/POOL.PY",
    ".git/config",
    ".git/HEAD",
    "src/pool.py\0",
    "\0",
    "",
    "/",
    "~/.ssh/id_rsa",
    "file:///etc/passwd",
    "%2e%2e/%2e%2e/etc/passwd",
    "..%2f..%2fetc/passwd",
    "..%c0%af..%c0%afetc/passwd",
    "src/pool.py%00.md",
    "/proc/self/environ",
    "odd\nname.py",
    "x" * 5000,
]


@pytest.mark.parametrize("path", HIDDEN, ids=range(len(HIDDEN)))
@pytest.mark.parametrize("is_raw", [False, True])
def test_no_other_file_is_shown(http, path, is_raw):
    address = f"/file?path={path if is_raw and path.isprintable() else quote(path, safe='')}"
    response = http.get(address.replace(" ", "%20"))
    assert response.status_code in (400, 404), response.text
    assert set(response.json()) == {"error"}
    for hidden in ("root:", "sk-1234567890", "PRIVATE KEY", "IGNORED = ", "repositoryformatversion"):
        assert hidden not in response.text


def test_a_file_that_became_secret_or_a_link_is_not_shown(tmp_path, model_folder):
    repo = commit_all(write_tree(tmp_path / "later", {"a.py": "def alpha():\n    return 1\n", "b.py": "B = 2\n"}))
    with serving(repo, model=model_folder) as running, httpx.Client(headers=running.headers, timeout=60) as client:
        assert client.get(f"{running.url}/file?path=a.py").json()["total"] == 2
        (repo / "a.py").unlink()
        (repo / "a.py").symlink_to("/etc/passwd")
        (repo / "b.py").write_text("-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----\n")
        for path in ("a.py", "b.py"):
            response = client.get(f"{running.url}/file", params={"path": path})
            assert (response.status_code, "PRIVATE" in response.text, "root:" in response.text) == (404, False, False)


def test_an_answer_comes_as_events(http):
    with http.stream("POST", "/ask", json={"question": QUESTION, "max_new_tokens": 8}) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        received = [(event, json.loads(data)) for event, data in events(response)]
    names = [event for event, _ in received]
    assert names[0] == "queued" and names[-1] == "answer" and {"route", "begun", "sentence"} <= set(names)
    answer = received[-1][1]
    route = next(data for event, data in received if event == "route")
    assert route["hits"][0]["path"] == answer["citations"][0]["path"] == "src/pool.py"
    said = [data for event, data in received if event == "sentence"]
    assert "".join(sentence["marked"] for sentence in said).strip() == answer["answer"]
    assert [sentence["source"] for sentence in said] == [sentence["source"] for sentence in answer["sentences"]]
    assert len(answer["shown"]) == len(answer["citations"]) and answer["question"] == QUESTION and answer["id"]


def test_a_question_without_an_answer_is_refused_as_an_event(http):
    with http.stream("POST", "/ask", json={"question": "zebra crossing qwertzuiop"}) as response:
        event, data = list(events(response))[-1]
    refusal = json.loads(data)
    assert event == "refusal" and refusal["abstained"] and refusal["citations"] == []
    assert refusal["message"].startswith("none of ") and refusal["looked_at"]["chunks"] >= 7


def test_earlier_turns_are_read_with_the_question(http):
    asked = {
        "question": "and how does it acquire one?",
        "max_new_tokens": 4,
        "history": [{"question": "what is HTTPConnectionPool", "answer": "The class of connections."}],
    }
    with http.stream("POST", "/ask", json=asked) as response:
        received = [(event, json.loads(data)) for event, data in events(response)]
    assert received[-1][0] == "answer" and received[-1][1]["question"] == asked["question"]
    assert next(data for event, data in received if event == "route")["hits"][0]["path"] == "src/pool.py"


BAD = [
    ({}, "question"),
    ({"question": ""}, "question"),
    ({"question": "  \n"}, "question"),
    ({"question": 5}, "question"),
    ({"question": "a", "top_k": 0}, "top_k"),
    ({"question": "a", "top_k": 1000}, "top_k"),
    ({"question": "a", "recompute": 2}, "recompute"),
    ({"question": "a", "temperature": -1}, "temperature"),
    ({"question": "a", "scope": "src"}, "scope"),
    ({"question": "a", "unknown": 1}, "unknown"),
    ({"question": "\ud800"}, "question"),
    ({"question": "a", "seed": 1 << 70}, "seed"),
    ([], "body"),
]


@pytest.mark.parametrize("body, named", BAD, ids=range(len(BAD)))
def test_a_bad_request_names_what_is_wrong(http, body, named):
    response = http.post("/ask", content=json.dumps(body), headers={"Content-Type": "application/json"})
    error = response.json()["error"]
    assert response.status_code == 400 and error["type"] == "usage_error" and named in error["message"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b'{"question": NaN}', b"[" * 200_000, b'{"question": "a", "seed": 1' + b"0" * 9000 + b"}"],
    ids=range(6),
)
def test_what_is_no_json_is_refused(http, content):
    response = http.post("/ask", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400 and response.json()["error"]["message"]


def test_a_repository_that_is_not_served_is_404(http):
    for name in ("other", "/etc", "../sample", "sample\0", "/"):
        response = http.post("/search", json={"query": "a", "repository": name})
        assert (response.status_code, response.json()["error"]["type"]) == (404, "not_served")
    assert http.post("/search", json={"query": "acquire", "repository": "sample"}).status_code == 200


def test_unknown_paths_and_methods_are_json(http):
    assert http.get("/nowhere").json()["error"]["code"] == "not_found"
    assert http.get("/ask").status_code == 405


def test_the_page_of_the_api_needs_nothing_from_elsewhere(server):
    page = httpx.get(f"{server.url}/docs")
    assert page.status_code == 200 and "http://" not in page.text and "https://" not in page.text
    assert "<script" not in page.text and "style=" not in page.text
    for path in ("/ask", "/search", "/file", "/v1/chat/completions"):
        assert path in page.text
        assert path in httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert httpx.get(f"{server.url}/docs/style.css").headers["content-type"].startswith("text/css")


def test_metrics_count_by_route_and_never_by_what_was_typed(http):
    http.get("/nowhere-" + "x" * 50)
    http.post("/search", json={"query": QUESTION})
    text = http.get("/metrics").text
    assert "nowhere" not in text
    assert 'awareness_requests_total{route="/search",status="200"}' in text
    assert 'awareness_requests_total{route="other",status="404"}' in text
    assert "awareness_queue_length 0.0" in text and "awareness_first_token_seconds_bucket" in text
    assert "awareness_open_repositories 1.0" in text


def test_a_full_queue_is_429_and_a_client_that_leaves_it_gives_its_place_back(sample, brief_model):
    repositories, queue = Repositories([sample], model=str(brief_model)), QuestionQueue(1)
    settings, metrics = HttpSettings(token="x"), ServerMetrics(queue, repositories)
    app = create_app(Services(repositories, queue, settings, metrics, ForwardingReporter()))
    body = {"json": {"question": QUESTION}}

    async def scenario() -> None:
        gate = threading.Event()
        queue.submit(lambda job: gate.wait(60))  # the model is busy until the end
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            waiting = asyncio.create_task(client.post("/ask", **body))
            while queue.waiting < 1:
                await asyncio.sleep(0.01)
            refused = await client.post("/ask", **body)
            assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
            assert refused.json()["error"]["code"] == "rate_limit_exceeded"
            chat = {"model": "awareness", "messages": [{"role": "user", "content": QUESTION}]}
            assert (await client.post("/v1/chat/completions", json=chat)).status_code == 429
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            while queue.waiting:
                await asyncio.sleep(0.01)
            gate.set()
            assert (await client.post("/ask", **body)).status_code == 200

    asyncio.run(asyncio.wait_for(scenario(), 120))
    queue.close()
    repositories.close()
