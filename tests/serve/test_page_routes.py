"""What the page asks the server for: the map, the index, attention, needles, runs; and its own files."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from awareness.serve.page_files import FOLDER
from tests.conftest import write_tree
from tests.serve.page_server import serving


@pytest.fixture
def client(sample, brief_model, tmp_path):
    runs = write_tree(tmp_path / "runs", {"first/log.jsonl": '{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 1.5}\n'})
    with (
        serving(sample, model=brief_model, runs=runs) as server,
        httpx.Client(base_url=server.url, headers=server.headers, timeout=60) as client,
    ):
        yield client


def events(response):
    """[(event, data)] of a stream that has ended."""
    found = re.findall(r"^event: (\w+)\ndata: (.*)$", response.text, re.MULTILINE)
    return [(event, json.loads(data)) for event, data in found]


def answered(client):
    named = dict(events(client.post("/ask", json={"question": "How does HTTPConnectionPool acquire?"})))
    return named["answer"]


def test_the_page_and_its_files_need_no_token_and_hold_no_inline_script(client):
    page = client.get("/", headers={"Authorization": ""})
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|https?:", page.text) == []
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
        assert client.get(path, headers={"Authorization": ""}).status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("..%2f__init__.py", "nothing.js", "%2fetc%2fpasswd", "index.html/.."):
        assert client.get(f"/static/{name}").status_code in (401, 404)


def test_scripts_write_no_html_and_load_nothing_from_elsewhere():
    for path in FOLDER.glob("*.js"):
        text = path.read_text("utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path
        )
        imported = re.findall(r'from "([^"]+)"', text)
        assert all((FOLDER / name).is_file() and name.startswith("./") for name in imported), path
        assert re.findall(r"https?://(?!www\.w3\.org/)", text) == [], path


@pytest.mark.parametrize("path", ["/memory-map", "/status", "/attention?id=x", "/needle", "/runs", "/runs/first"])
def test_what_shows_code_or_figures_needs_the_token(client, path):
    assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_the_map_has_every_indexed_file_with_its_chunks(client):
    files = {file["path"]: file for file in client.get("/memory-map").json()["files"]}
    assert set(files) == {"src/auth.py", "src/pool.py", "tests/test_auth.py", "docs/guide.md"}
    assert files["src/pool.py"]["chunks"] == [[1, 5]] and files["src/pool.py"]["bytes"] > 50


def test_the_status_tells_what_has_changed_and_indexing_what_it_did(client, sample):
    before = client.get("/status").json()
    assert (before["is_indexed"], before["files"], before["drift"]) == (False, 0, None)
    client.get("/memory-map")  # opens it, which indexes it
    status = client.get("/status").json()
    assert (status["files"], status["latents"]["count"]) == (4, 0)
    assert status["drift"] == {"added": [], "changed": [], "removed": []}
    write_tree(sample, {"src/new.py": "def added():\n    return 1\n"})
    assert client.get("/status").json()["drift"]["added"] == ["src/new.py"]
    *_, (last, done) = events(client.post("/index", json={"minutes": 1}))
    assert (last, done["files"], done["added"], done["removed"], done["pending"]) == ("indexed", 5, 1, 0, 0)
    assert done["encoded"] == done["chunks"]
    assert client.get("/status").json()["latents"]["count"] == done["encoded"]


@pytest.mark.parametrize("body", [{"minutes": -1}, {"minutes": 1e9}, {"minutes": "x"}, {"hours": 1}, []])
def test_indexing_refuses_odd_bodies(client, body):
    assert client.post("/index", json=body).status_code == 400


def test_attention_comes_by_layer_head_and_token(client):
    answer = answered(client)
    whole = client.get("/attention", params={"id": answer["id"]}).json()
    size = answer["memory"]["tokens"]
    assert whole["size"] == size and len(whole["heat"]) == size and len(whole["by_layer"]) == len(whole["layers"])
    assert all(len(row) == size and not any(row[: whole["sink"]]) for row in whole["by_layer"])
    assert max(max(row) for row in whole["by_layer"]) == 65_535
    texts = {own["place"]: "".join(own["pieces"]) for own in whole["chunks"]}
    place = next(i for i, own in enumerate(answer["citations"]) if own["path"] == "src/pool.py")
    assert texts[place].startswith("class HTTPConnectionPool:\n") and len(texts) == len(answer["citations"])
    layer = whole["layers"][-1]
    one = client.get("/attention", params={"id": answer["id"], "layer": layer, "head": 1, "token": 0, "brief": True})
    assert set(one.json()) == {"heat", "heat_scale"} and one.json()["heat"] != whole["heat"]
    row = client.get("/attention", params={"id": answer["id"], "layer": layer, "brief": True}).json()
    again = [round(weight * row["heat_scale"] / whole["by_layer_scale"]) for weight in row["heat"]]
    assert all(abs(a - b) <= 1 for a, b in zip(again, whole["by_layer"][-1], strict=True))


def test_attention_refuses_what_is_not_there(client):
    answer_id = answered(client)["id"]
    assert client.get("/attention", params={"id": "unknown"}).status_code == 404
    for wrong in ({"layer": 99}, {"head": 6}, {"token": 1000}, {"head": -1}):
        response = client.get("/attention", params={"id": answer_id, **wrong})
        assert response.status_code == 400 and next(iter(wrong)) in response.json()["error"]["message"]


def test_a_needle_test_runs_on_the_model_in_memory(client, sample):
    source = "".join(f"def function_{i}(value):\n    return [value + {i}, value - {i}, {i}]\n\n\n" for i in range(20))
    write_tree(sample, {"src/many.py": source})
    assert client.get("/needle").json()["shapes"][0] == "single"
    body = {"samples": 2, "chunks": [1, 2], "chunk_tokens": 120, "shapes": ["single"]}
    *_, (last, result) = events(client.post("/needle", json=body))
    assert last == "needle", result
    assert [(cell["chunks"], cell["depth"], cell["n"]) for cell in result["grid"]] == [
        (1, 0.0, 2),
        (2, 0.0, 1),
        (2, 0.75, 1),
    ]
    assert all(0 <= cell["accuracy"] <= 1 for cell in result["grid"]) and result["model"].endswith("brief")


def test_a_needle_test_that_cannot_run_says_why(client):
    *_, (last, error) = events(client.post("/needle", json={"chunks": [200]}))
    assert last == "error" and "200" in error["message"]
    *_, (last, error) = events(client.post("/needle", json={"shapes": ["no such"]}))
    assert last == "error" and "no such" in error["message"]
    assert client.post("/needle", json={"samples": 100_000}).status_code == 400


def test_runs_are_listed_and_no_name_leaves_their_folder(client, tmp_path):
    assert client.get("/runs").json()["runs"] == [{"name": "first", "steps": 2}]
    assert client.get("/runs/first").json()["curves"] == {"loss": {"steps": [1, 2], "values": [2.5, 1.5]}}
    write_tree(tmp_path / "outside", {"log.jsonl": '{"step": 1, "loss": 9.0}\n'})
    for name in (
        "../outside",
        "..%2foutside",
        "%2e%2e/outside",
        str(tmp_path / "outside"),
        "first/../../outside",
        "x\0",
    ):
        assert client.get(f"/runs/{name}".replace("\0", "%00")).status_code == 404
