"""`ci/build-pack.sh`, run in a shell against local repositories."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
from pathlib import Path

import pytest

from awareness.cli.app import run
from tests.ci.shell import HOSTILE_BRANCH, ROOT, environment, plant_traps, shell
from tests.conftest import git, write_tree

SCRIPT = shlex.quote(str(ROOT / "ci/build-pack.sh"))


@pytest.fixture
def build(tmp_path, model_folder):
    """Runs the script in a folder, with variables."""

    def run_script(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return shell(SCRIPT, folder, environment(tmp_path, model_folder, **variables))

    return run_script


def test_the_next_commit_encodes_only_what_changed(build, sample, tmp_path, capfd, monkeypatch):
    first = build(tmp_path, AWARENESS_REPO="sample", AWARENESS_SCOPE="src/**\ndocs/**\n")
    assert first.returncode == 0, first.stderr
    commit = git(sample, "rev-parse", "HEAD").strip()
    pack = tmp_path / f"awareness-pack/sample-{commit[:12]}.awm"
    described = json.loads(pack.with_suffix(".json").read_text())
    digest = hashlib.sha256(pack.read_bytes()).hexdigest()
    assert described == {
        "file": pack.name,
        "repository": "sample",
        "commit": commit,
        "sha256": digest,
        "bytes": pack.stat().st_size,
        "files": 3,
        "chunks": described["encoded"],
        "tokens": described["tokens"],
        "model": described["model"],
        "quant": "int4",
        "encoded": 3,
    }
    assert "; all latents encoded now\n" in first.stdout
    assert first.stdout.endswith(f"\nsha256 {digest}\n{pack}\n")
    assert {file.name for file in pack.parent.iterdir()} == {pack.name, pack.with_suffix(".json").name}
    assert run(["search", "sign cookie", "--memory", str(pack), "--format", "json"]) == 0
    assert json.loads(capfd.readouterr().out)["hits"][0]["path"] == "src/auth.py"

    write_tree(sample, {"src/pool.py": "class HTTPConnectionPool:\n    max_size = 11\n"})
    git(sample, "commit", "-qam", "second")
    second = build(tmp_path, AWARENESS_REPO="sample", AWARENESS_SCOPE="src/**\ndocs/**\n", AWARENESS_QUANT="int4")
    assert second.returncode == 0, second.stderr
    assert "; 1 of 3 latents encoded now\n" in second.stdout
    made = Path(second.stdout.splitlines()[-1])
    assert json.loads(made.with_suffix(".json").read_text())["encoded"] == 1
    assert made != pack and pack.exists()
    monkeypatch.setenv("AWARENESS_INDEX_DIR", str(tmp_path / "index"))
    capfd.readouterr()
    assert run(["status", "--repo", str(sample), "--format", "json"]) == 0
    snapshots = json.loads(capfd.readouterr().out)["snapshots"]
    assert [snapshot["rev"] for snapshot in snapshots] == [git(sample, "rev-parse", "HEAD").strip()]


def test_a_hostile_commit_in_a_shallow_clone_runs_nothing(build, sample, tmp_path):
    marker = tmp_path / "pwned"
    plant_traps(sample, marker)
    git(sample, "add", "-Af")
    git(sample, "commit", "-qm", "second")
    git(sample, "branch", "-m", HOSTILE_BRANCH)
    clone = tmp_path / "-clone $(touch pwned)"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{sample}", "--", str(clone))
    assert (clone / ".git/shallow").exists()
    outputs = {"GITHUB_OUTPUT": str(tmp_path / "outputs"), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    refs = dict.fromkeys(("GITHUB_REF_NAME", "GITHUB_HEAD_REF", "CI_COMMIT_REF_NAME"), HOSTILE_BRANCH)
    done = build(
        clone,
        AWARENESS_REV=HOSTILE_BRANCH,
        AWARENESS_NAME="o/$(touch pwned)\n::x",
        AWARENESS_OUT=str(tmp_path / "out"),
        GITHUB_ACTIONS="true",
        GITHUB_SHA="0" * 40,
        **outputs,
        **refs,
    )
    assert done.returncode == 0, done.stderr
    assert not marker.exists() and not list(tmp_path.rglob("pwned"))
    stop, *lines, resume = done.stdout.splitlines()
    assert stop.startswith("::stop-commands::") and len(stop) == 17 + 32
    assert resume == f"::{stop[17:]}::" and not any(line.startswith("::") for line in lines)
    commit = git(clone, "rev-parse", "HEAD").strip()
    name = f"touch-pwned-x-{commit[:12]}"
    pack = tmp_path / f"out/{name}.awm"
    digest = hashlib.sha256(pack.read_bytes()).hexdigest()
    assert (tmp_path / "outputs").read_text() == f"name={name}\npack={pack}\nsha256={digest}\n"
    assert digest in (tmp_path / "summary").read_text()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AWARENESS_REV": "v9"}, "v9 names no commit of"),
        ({"GITHUB_SHA": "ab" * 20}, f"{'ab' * 20} names no commit of"),
        ({"AWARENESS_REV": "--rebuild"}, "--rebuild names no commit of"),
        ({"AWARENESS_SCOPE": "scr/**"}, "'scr/**' matches none of the 4 files"),
        ({"AWARENESS_QUANT": "int3"}, "int3"),
        ({"AWARENESS_REPO": "absent"}, "AWARENESS_REPO: absent is not a folder"),
        ({"AWARENESS_REPO": ".."}, "is not in a git repository"),
        ({"AWARENESS_INDEX_DIR": "cache"}, "AWARENESS_INDEX_DIR: cache is in the repository"),
        ({"AWARENESS_MODELS_DIR": "elsewhere/x"}, "AWARENESS_MODELS_DIR: elsewhere/x is in the repository"),
        ({"AWARENESS_OUT": "elsewhere"}, "AWARENESS_OUT: elsewhere leads through a link of the repository"),
        ({"AWARENESS_OUT": "elsewhere/in/it"}, "AWARENESS_OUT: elsewhere/in/it leads through a link of the repository"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(build, sample, tmp_path, variables, said):
    (tmp_path / "outside").mkdir()
    (sample / "elsewhere").symlink_to(tmp_path / "outside")
    done = build(sample, **{"AWARENESS_OUT": str(tmp_path / "out"), **variables})
    assert (done.returncode, done.stdout) == (2, "")
    error = " ".join(done.stderr.split())
    assert said in error and done.stderr.count("\n") <= (2 if "QUANT" not in str(variables) else 9)
    assert not list((tmp_path / "outside").iterdir())
    assert not list(tmp_path.rglob("*.awm")) and not list(tmp_path.rglob(".new.*"))
