"""The commands that look after an index and carry it elsewhere, as a user types them, with a tiny real model."""

from __future__ import annotations

import itertools
import json
import os
import queue
import random
import shutil
import signal
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from awareness.cli.app import run
from awareness.engine.workspace import Workspace
from awareness.index.store.layout import FORMAT_VERSION, IndexLayout
from tests.conftest import git, write_tree

QUANTS = ("int2", "fp8")  # what the others do is tested with the other commands
DEADLINE_S = 120


@pytest.fixture
def at(sample: Path, model_folder: Path, capfd) -> Callable[..., tuple[int, str, str]]:
    """Runs one command line on the sample repository: (exit code, stdout, stderr)."""

    def call(*arguments: str, repo: Path | None = sample) -> tuple[int, str, str]:
        line = [*arguments]
        if line[0] == "index":
            line[1:1] = [str(repo)]
            line += [] if {"--lazy", "--minutes"} & set(line) else ["--all"]  # however busy the machine is
        elif repo is not None:
            line += ["--repo", str(repo)]
        if line[0] in ("index", "ask", "repair", "pack"):
            line += ["--model", str(model_folder)]
        code = run(line)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


@pytest.fixture
def json_of(at) -> Callable[..., dict[str, Any]]:
    """What a command that succeeds prints as JSON."""

    def call(*arguments: str, **options: Path | None) -> dict[str, Any]:
        code, out, err = at(*arguments, "--format", "json", **options)
        assert code == 0, err
        return json.loads(out)

    return call


def layout_of(repo: Path) -> IndexLayout:
    return Workspace.open(repo).layout


def worktree(sample: Path, folder: Path) -> Path:
    git(sample, "worktree", "add", "-q", "-b", "side", str(folder))
    return folder


# status


def test_status_says_what_is_indexed(json_of, sample):
    indexed = json_of("index", "--quant", "int8", "--budget", "1GiB")
    found = json_of("status", "--budget", "512MiB")
    assert set(found) == {
        "repository", "index", "format_version", "quant", "router", "snapshots", "latents", "bytes", "budget", "drift",
        "secret_files", "secrets", "below",
    }  # fmt: skip
    assert (found["repository"], found["index"]) == (str(sample), str(layout_of(sample).root))
    assert (found["format_version"], found["quant"], found["budget"]) == (FORMAT_VERSION, "int8", 512 << 20)
    (snapshot,) = found["snapshots"]
    assert set(snapshot) == {
        "folder", "rev", "here", "exists", "model", "scope", "files", "chunks", "tokens", "updated",
    }  # fmt: skip
    assert (snapshot["folder"], snapshot["rev"], snapshot["here"], snapshot["exists"]) == (
        str(sample),
        None,
        True,
        True,
    )
    assert (snapshot["files"], snapshot["chunks"]) == (indexed["files"], indexed["chunks"])
    assert snapshot["tokens"] == indexed["tokens"]
    (latents,) = found["latents"]
    assert (latents["quant"], latents["count"]) == ("int8", indexed["latents"])
    assert set(latents["bytes_by_kind"]) == {"source", "test", "docs"}
    assert sum(latents["bytes_by_kind"].values()) == indexed["bytes"] < found["bytes"]["shards"]
    assert found["bytes"]["manifest"] > 0
    assert (found["drift"], found["secret_files"], found["secrets"]) == (
        {"added": [], "changed": [], "removed": []}, [], [],
    )  # fmt: skip


def test_status_tells_drift_and_secrets(at, json_of, sample):
    token = "gh" + "p_" + "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=36))
    write_tree(sample, {"src/settings.py": f"name = 'x'\ntoken = '{token}'\n", ".env": "A=1\n"})
    at("index", "--lazy")
    write_tree(sample, {"src/fresh.py": "x = 1\n", "src/pool.py": "class Other:\n    pass\n"})
    (sample / "docs/guide.md").unlink()
    found = json_of("status")
    assert found["drift"] == {"added": ["src/fresh.py"], "changed": ["src/pool.py"], "removed": ["docs/guide.md"]}
    assert found["secret_files"] == [".env"]
    (secret,) = found["secrets"]
    assert (secret["path"], secret["line"]) == ("src/settings.py", 2) and secret["rule"]
    code, out, err = at("status")
    assert code == 0
    assert "1 added, 1 changed, 1 removed" in out
    assert "src/settings.py:2" in out and ".env" in out and ".awarenessignore" in err
    assert token not in out + err + json.dumps(found)
    assert json_of("status")["drift"] == found["drift"], "status changes nothing"


def test_status_shows_other_worktrees_and_commits(at, json_of, sample, tmp_path):
    tree = worktree(sample, tmp_path / "side")
    at("index", "--lazy")
    at("index", "--lazy", repo=tree)
    at("index", "--lazy", "--rev", "main", "--scope", "src/**")
    shown = {(s["folder"], s["rev"]): s for s in json_of("status")["snapshots"]}
    rev = git(sample, "rev-parse", "main").strip()
    assert set(shown) == {(str(sample), None), (str(tree), None), (None, rev)}
    assert [s["here"] for key, s in shown.items() if key[0] == str(sample)] == [True]
    assert (shown[None, rev]["scope"], shown[None, rev]["files"]) == (["src/**"], 2)
    shutil.rmtree(tree)
    assert {s["folder"]: s["exists"] for s in json_of("status")["snapshots"] if s["folder"]} == {
        str(sample): True,
        str(tree): False,
    }
    assert "awareness gc --drop" in at("status")[1]


def test_status_of_a_work_tree_that_is_not_indexed(at, json_of, sample, tmp_path):
    at("index", "--lazy")
    tree = worktree(sample, tmp_path / "side")
    found = json_of("status", repo=tree)
    assert (found["drift"], [s["here"] for s in found["snapshots"]]) == (None, [False])
    assert "not indexed yet" in at("status", repo=tree)[1]


@pytest.mark.parametrize("command", ["status", "check", "repair", "gc", "search x"])
def test_without_an_index(at, command):
    code, out, err = at(*command.split())
    assert (code, out) == (10, "")
    assert "awareness index" in err


# check and repair


def damaged_shard(repo: Path, at_byte: float) -> Path:
    """Flips a bit of the largest shard, at this share of its length."""
    shard = max(layout_of(repo).shards.iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[int(len(data) * at_byte)] ^= 1
    shard.write_bytes(data)
    return shard


def test_check_of_a_sound_index(at, json_of):
    indexed = json_of("index")
    for arguments in ([], ["--read-data"]):
        found = json_of("check", *arguments)
        assert (found["ok"], found["problems"], found["read_data"]) == (True, [], bool(arguments))
        assert (found["files"], found["chunks"]) == (indexed["files"], indexed["chunks"])
        assert found["latents"] == indexed["latents"] + 1  # and the sink
        assert found["shards"] == 2
    code, out, err = at("check")
    assert code == 0 and "sound" in out and "--read-data" in err


def test_check_finds_damage(at, sample):
    at("index")
    shard = damaged_shard(sample, 0.9)
    assert at("check")[0] == 0
    code, out, err = at("check", "--read-data")
    assert code == 1 and str(shard) in out and "1 problem\n" in out and "awareness repair" in err
    code, out, _ = at("check", "--read-data", "--format", "json")
    found = json.loads(out)
    assert (code, found["ok"], [p["kind"] for p in found["problems"]]) == (1, False, ["latent"])
    damaged_shard(sample, 0.01)
    code, out, _ = at("check", "--format", "json")
    assert (code, [p["kind"] for p in json.loads(out)["problems"]]) == (1, ["shard"])
    layout_of(sample).manifest.write_bytes(b"garbage" * 1000)
    code, out, _ = at("check", "--format", "json")
    assert (code, [p["kind"] for p in json.loads(out)["problems"]]) == (1, ["manifest"])


def test_repair_encodes_the_damaged_chunk_alone(at, json_of, sample):
    indexed = json_of("index")
    damaged_shard(sample, 0.9)
    code, out, _ = at("repair", "--format", "json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {
        "manifest_remade", "shards_damaged", "latents_damaged", "encoded", "dropped", "tokens", "seconds",
    }  # fmt: skip
    assert not found["manifest_remade"]
    assert (found["shards_damaged"], found["latents_damaged"], found["encoded"], found["dropped"]) == (1, 1, 1, 0)
    assert 0 < found["tokens"] < indexed["tokens"]
    assert json_of("check", "--read-data")["ok"]
    again = json_of("index")
    assert (again["encoded"], again["latents"]) == (0, indexed["latents"])
    code, out, _ = at("repair")
    assert (code, out) == (0, "nothing is damaged\n")


def test_a_lost_manifest_is_made_again_and_nothing_is_encoded(at, json_of, sample, monkeypatch):
    indexed = json_of("index")
    layout = layout_of(sample)
    layout.manifest.write_bytes(b"garbage" * 1000)
    assert at("search", "cookie")[0] == 12
    with monkeypatch.context() as patch:
        patch.setattr("awareness.cli.repair.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
        found = json_of("repair")
    assert (found["manifest_remade"], found["latents_damaged"], found["encoded"]) == (True, 0, 0)
    assert json_of("check", "--read-data")["ok"]
    again = json_of("index")
    assert (again["added"], again["encoded"], again["latents"]) == (0, 0, indexed["latents"])
    assert at("search", "cookie")[0] == 0


def test_a_lost_manifest_does_not_change_how_latents_are_stored(at, json_of, sample):
    indexed = json_of("index", "--quant", "int8")
    layout_of(sample).manifest.write_bytes(b"garbage" * 1000)
    json_of("repair")
    again = json_of("index")
    assert (again["quant"], again["encoded"], again["latents"]) == ("int8", 0, indexed["latents"])


# gc and --quant


def test_gc_drops_by_folder_and_by_commit(at, json_of, sample, tmp_path, monkeypatch):
    tree = worktree(sample, tmp_path / "side")
    write_tree(tree, {"src/side.py": "def side():\n    return 1\n"})
    at("index")
    at("index", repo=tree)
    at("index", "--lazy", "--rev", "main")
    rev = git(sample, "rev-parse", "main").strip()
    before = json_of("status")
    foretold = json_of("gc", "--drop", str(tree), "--dry-run")
    assert json_of("status") == before
    assert set(foretold) == {"dry_run", "dropped", "latents", "orphans", "shards_rewritten", "bytes"}
    assert (foretold["dry_run"], foretold["dropped"], foretold["latents"]) == (True, [f"tree:{tree}"], 1)
    monkeypatch.chdir(tmp_path)
    done = json_of("gc", "--drop", f"sample/../{tree.name}")
    assert (done["dry_run"], done["dropped"], done["latents"]) == (False, [f"tree:{tree}"], 1)
    assert json_of("gc", "--drop", rev[:7])["dropped"] == [f"rev:{rev}"]
    assert [s["folder"] for s in json_of("status")["snapshots"]] == [str(sample)]
    code, out, err = at("gc", "--drop", "nothing-like-it")
    assert (code, out) == (2, "") and "nothing-like-it" in err and str(sample) in err
    assert json_of("check", "--read-data")["ok"]
    assert at("gc")[1].startswith("freed 0 B: 0 latents, 0 stray files; 0 shards")


def test_the_way_of_storing_is_remembered_and_can_be_changed(json_of):
    first = json_of("index", "--quant", "none")
    assert (first["quant"], first["encoded"]) == ("none", first["chunks"])
    small = json_of("index", "--quant", "int8")
    assert (small["quant"], small["encoded"], small["added"]) == ("int8", first["chunks"], 0)
    assert small["bytes"] < 0.7 * first["bytes"]
    again = json_of("index")
    assert (again["quant"], again["encoded"], again["latents"]) == ("int8", 0, first["chunks"])
    assert [kind["quant"] for kind in json_of("status")["latents"]] == ["int8", "none"]
    back = json_of("index", "--quant", "none")
    assert (back["encoded"], back["bytes"]) == (0, first["bytes"]), "both are kept until gc"
    assert json_of("gc")["latents"] == first["chunks"]
    assert [kind["quant"] for kind in json_of("status")["latents"]] == ["none"]
    assert json_of("index", "--quant", "int8")["encoded"] == first["chunks"]


@pytest.mark.parametrize("quant", QUANTS)
def test_ask_reads_latents_however_they_are_stored(json_of, quant):
    json_of("index", "--quant", quant)
    answer = json_of("ask", "HTTPConnectionPool acquire", "-n", "2")
    assert answer["citations"][0]["path"] == "src/pool.py"
    assert answer["memory"]["tokens"] > 0


def test_an_unknown_way_of_storing(at):
    code, _, err = at("index", "--quant", "int3")
    assert code == 2 and "int3" in err


# pack


@pytest.fixture
def packed(json_of, tmp_path) -> Path:
    json_of("pack", str(tmp_path / "sample.awm"), "--quant", "int8")
    return tmp_path / "sample.awm"


def test_pack_says_what_is_in_the_file(at, json_of, sample, tmp_path):
    file = tmp_path / "p.awm"
    found = json_of("pack", str(file), "--quant", "int8", "--scope", "src/**")
    assert set(found) == {
        "file", "repository", "rev", "model", "quant", "files", "chunks", "tokens", "bytes", "seconds",
    }  # fmt: skip
    assert (found["file"], found["repository"], found["rev"], found["quant"]) == (str(file), "sample", None, "int8")
    assert (found["files"], found["bytes"]) == (2, file.stat().st_size)
    code, out, err = at("pack", str(file))
    assert (code, out) == (2, "") and "--force" in err
    code, out, _ = at("pack", str(file), "--force")
    assert code == 0 and "4 files" in out
    assert not list(tmp_path.glob("*.tmp"))


def test_pack_of_a_commit(json_of, sample, tmp_path):
    git(sample, "rm", "-q", "src/pool.py")
    git(sample, "commit", "-qm", "second")
    rev = git(sample, "rev-parse", "HEAD~1").strip()
    assert json_of("pack", str(tmp_path / "p.awm"), "--rev", "HEAD~1")["rev"] == rev
    answer = json_of("ask", "HTTPConnectionPool acquire", "-n", "1", "--memory", str(tmp_path / "p.awm"), repo=None)
    assert (answer["citations"][0]["path"], answer["citations"][0]["rev"]) == ("src/pool.py", rev)


def test_pack_does_not_write_where_it_should_not(at, sample, tmp_path):
    code, _, err = at("pack", str(tmp_path / "absent" / "p.awm"))
    assert code == 2 and "absent" in err
    code, _, err = at("pack", str(sample))
    assert code == 2 and "is a folder" in err
    code, _, err = at("pack", str(sample), "--force")
    assert code == 2 and (sample / "src").is_dir()
    code, _, err = at("pack", str(tmp_path / "p.awm"), "--scope", "nothing/**")
    assert code == 2 and "matches none of the 4 files" in err
    assert not list(tmp_path.glob("p.awm*"))


def test_a_pack_is_asked_where_the_sources_are_not(at, json_of, packed, sample, tmp_path, monkeypatch):
    shutil.rmtree(sample)
    monkeypatch.setenv("AWARENESS_INDEX_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.chdir(tmp_path)
    found = json_of("search", "sign cookie", "--memory", str(packed), repo=None)
    assert found["hits"][0]["path"] == "src/auth.py"
    assert {hit["origin"] for hit in found["hits"]} == {str(packed)}
    question = ("ask", "HTTPConnectionPool acquire", "-n", "3", "--memory", str(packed))
    answer = json_of(*question, repo=None)
    best = answer["citations"][0]
    assert (best["path"], best["start_line"], best["verified"]) == ("src/pool.py", 1, True)
    assert (best["origin"], best["rev"]) == (str(packed), None)
    assert answer["memory"]["tokens"] > 0
    assert f"({packed})" in at(*question, repo=None)[1]
    assert json_of(*question, "--mode", "text", repo=None)["citations"]
    assert at("search", "qwertzuiop", "--memory", str(packed), repo=None)[0] == 1


def test_the_latents_of_a_pack_are_not_made_again(json_of, packed, monkeypatch):
    from awareness.model.encoder import SelfEncoder

    monkeypatch.setattr(SelfEncoder, "encode", lambda *_: pytest.fail("something was encoded"))
    answer = json_of("ask", "HTTPConnectionPool acquire", "-n", "2", "--memory", str(packed), repo=None)
    assert answer["memory"]["chunks"] > 0


@pytest.fixture
def other(tmp_path: Path) -> Path:
    root = write_tree(tmp_path / "other", {"lib/cookie.py": "def bake_cookie(oven):\n    return oven.bake('cookie')\n"})
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def test_two_packs_and_a_repository_together(at, json_of, packed, other, sample, tmp_path):
    second = tmp_path / "other.awm"
    json_of("pack", str(second), "--quant", "none", repo=other)
    both = ("--memory", str(packed), "--memory", str(second))
    hits = json_of("search", "cookie", *both, repo=None)["hits"]
    assert {(hit["origin"], hit["path"]) for hit in hits} >= {
        (str(packed), "src/auth.py"),
        (str(second), "lib/cookie.py"),
    }
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    answer = json_of("ask", "cookie", "-n", "2", *both, repo=None)
    assert {c["origin"] for c in answer["citations"]} == {str(packed), str(second)}
    assert sum(c["attention"] for c in answer["citations"]) == pytest.approx(1, abs=0.02)
    json_of("index", "--lazy", repo=other)
    mixed = json_of("ask", "cookie", "-n", "2", "--memory", str(packed), "--repo", str(other), repo=None)
    assert {c["origin"] for c in mixed["citations"]} == {str(packed), "other"}
    code, out, _ = at("search", "cookie", "--memory", str(packed), "--repo", str(other), repo=None)
    assert code == 0 and "(other)" in out and f"({packed})" in out


def test_a_pack_of_another_model_is_refused(capfd, packed, tmp_path, model_folder):
    twin = tmp_path / "twin"
    shutil.copytree(model_folder, twin)
    weights = twin / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert run(["ask", "HTTPConnectionPool", "--memory", str(packed), "--model", str(twin)]) == 2
    err = capfd.readouterr().err
    assert f"the latents of {packed} were made by another model than {twin}" in err


def test_a_pack_whose_model_is_a_folder_asks_for_it(capfd, packed):
    assert run(["ask", "HTTPConnectionPool", "--memory", str(packed)]) == 2
    assert "--model with a model that you trust" in capfd.readouterr().err


def test_a_memory_that_is_no_pack(at, packed, sample, tmp_path):
    at("index")
    whole = packed.read_bytes()
    bad = {
        "text": b"hello\n" * 100,
        "flipped": whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:],
        "cut": whole[:-100],
        "shard": next(layout_of(sample).shards.iterdir()).read_bytes(),
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder").mkdir()
    for name, command in itertools.product((*bad, "folder", "absent"), ("search", "ask")):
        code, out, err = at(command, "cookie", "--memory", str(tmp_path / name), repo=None)
        assert (code, out) == (2 if name == "absent" else 12, "")
        assert str(tmp_path / name) in err and err.startswith("error: ") and len(err.splitlines()) == 2
        assert "repair" not in err, "which mends no packs"


# index --watch


class Watcher:
    """`awareness index --watch` in a process of its own. lines: its JSON, as it comes."""

    def __init__(self, repo: Path, model: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "awareness.cli.app", "index", str(repo), "--model", str(model)]
        self.process = subprocess.Popen(
            [*command, "--watch", "--format", "json", *(arguments or ("--lazy",))],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job is born deaf to it
        )
        self.lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.notes: queue.Queue[str] = queue.Queue()
        for stream, target, parse in (
            (self.process.stdout, self.lines, json.loads),
            (self.process.stderr, self.notes, str),
        ):
            threading.Thread(target=self._pass_on, args=(stream, target, parse), daemon=True).start()

    @staticmethod
    def _pass_on(stream, target, parse) -> None:
        for line in stream:
            target.put(parse(line))

    def next(self, timeout: float = DEADLINE_S) -> dict[str, Any]:
        return self.lines.get(timeout=timeout)

    @contextmanager
    def held(self) -> Iterator[None]:
        """What the block does happens at once, as the process sees it, however busy the machine is."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@pytest.fixture
def watcher(sample: Path, model_folder: Path) -> Iterator[Watcher]:
    """One that has indexed and is known to notice changes."""
    started = Watcher(sample, model_folder)
    try:
        assert started.next()["files"] == 4
        assert "watching" in started.notes.get(timeout=DEADLINE_S)
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def is_noticed(watcher: Watcher, sample: Path, name: str) -> dict[str, Any]:
    """Writes a new file and waits for its line."""
    write_tree(sample, {f"src/{name}.py": f"def {name}():\n    return 1\n"})
    return watcher.next()


def test_watch_indexes_what_is_saved(watcher, at, sample):
    found = is_noticed(watcher, sample, "zebra")
    assert (found["files"], found["added"], found["removed"]) == (5, 1, 0)
    code, out, _ = at("search", "zebra")
    assert code == 0 and out.startswith("src/zebra.py")

    storm = {f"src/storm{i}.py": f"def storm{i}():\n    return 0\n" for i in range(50)}
    with watcher.held():  # a thousand saves
        for round_ in range(20):
            write_tree(sample, {name: text.replace("0", str(round_)) for name, text in storm.items()})
    found = watcher.next()
    assert (found["files"], found["added"], found["removed"]) == (55, 50, 0)
    # Another one right behind would be a second line for the storm.
    assert is_noticed(watcher, sample, "afterwards")["added"] == 1

    git(sample, "add", "-A")
    git(sample, "commit", "-qm", "storm")
    with watcher.held():
        git(sample, "checkout", "-q", "HEAD~1")
    found = watcher.next()
    assert (found["files"], found["added"], found["removed"]) == (4, 0, 52)
    assert is_noticed(watcher, sample, "last")["files"] == 5
    assert at("search", "storm7")[0] == 1

    watcher.process.send_signal(signal.SIGINT)
    assert watcher.process.wait(timeout=DEADLINE_S) == 130
    assert watcher.lines.empty()
    notes = []
    while not watcher.notes.empty():
        notes.append(watcher.notes.get())
    assert "interrupted" in "".join(notes) and "Traceback" not in "".join(notes)


def test_what_is_saved_while_the_first_index_is_made_is_not_lost(sample, model_folder, at):
    """Saved again and again from before it starts: whenever the last save is, it is in the index in the end."""
    started = Watcher(sample, model_folder)
    try:
        until = time.monotonic() + DEADLINE_S
        saves = 0
        while started.notes.empty():
            saves += 1
            write_tree(sample, {"src/busy.py": f"def busy{saves}():\n    return 1\n"})
            assert time.monotonic() < until
            time.sleep(0.01)
        while at("search", f"busy{saves}")[0] != 0:
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        started.process.kill()
        started.process.wait()


def test_watch_goes_on_encoding_while_nothing_changes(sample, model_folder):
    """Also across a change. A slice of no length makes one latent."""
    started = Watcher(sample, model_folder, "--minutes", "0.0001")
    try:
        first = started.next()
        assert (first["encoded"], first["pending"]) == (1, first["chunks"] - 1)
        write_tree(sample, {"src/zebra.py": "def zebra():\n    return 1\n"})
        encoded, last = 1, first
        while last["files"] == 4 or last["pending"]:
            last = started.next()
            encoded += last["encoded"]
        assert last["latents"] == last["chunks"] == first["chunks"] + 1
        assert encoded == last["chunks"]  # none twice, and none that is not told of
        assert started.process.poll() is None
    finally:
        started.process.kill()
        started.process.wait()


def test_an_index_inside_the_work_tree_does_not_wake_its_watcher(sample, model_folder, monkeypatch):
    """What the program writes there itself is no change. A third run would be one too many, and ends it."""
    from awareness.engine.indexing import Indexer

    monkeypatch.setenv("AWARENESS_INDEX_DIR", str(sample / "state" / "indexes"))
    write_tree(sample, {".gitignore": "state/\n"})
    runs: list[int] = []
    really = Indexer.run
    interrupt = threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGINT))

    def counted(indexer: Indexer, seconds: float, **options: Any) -> Any:
        runs.append(1)
        if len(runs) > 2:
            raise KeyboardInterrupt
        outcome = really(indexer, seconds, **options)
        if len(runs) == 1:
            write_tree(sample, {"src/once.py": "x = 1\n"})
        else:
            interrupt.start()
        return outcome

    monkeypatch.setattr(Indexer, "run", counted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = run(["index", str(sample), "--model", str(model_folder), "--watch", "--lazy"])
    finally:
        interrupt.cancel()
        signal.signal(signal.SIGINT, before)
    assert (code, len(runs)) == (130, 2)


@pytest.mark.parametrize("arguments", [["--rev", "main"]])
def test_nothing_to_watch(at, arguments):
    code, out, err = at("index", "--watch", *arguments)
    assert (code, out) == (2, "") and "--watch" in err
