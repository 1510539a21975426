"""For any path: is it indexed, as what, and if not, why not?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from awareness.cli.app import run
from awareness.engine.file_status import FileReport, FileStatus
from awareness.engine.workspace import Workspace
from awareness.errors import UsageError
from tests.conftest import git, write_tree

FILES = {
    "src/a.py": "def a():\n    return 1\n",
    "src/b.py": "def b():\n    return 2\n",
    ".gitignore": "# logs\n*.log\n",
    "out/run.log": "started\n",
    "out/notes.txt": "what was run\n",
    "id_rsa": "secret\n",
    "docs/guide.md": "# Guide\n",
    ".awarenessignore": "docs/\n",
}


@pytest.fixture
def root(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = write_tree(tmp_path / "repo", FILES)
    (root / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (root / "link").symlink_to("src")
    git(root, "init", "-q")
    write_tree(root / "nested", {"n.py": "n = 1\n"})
    git(root / "nested", "init", "-q")
    assert run(["index", str(root), "--lazy", "--quiet", "--model", str(model_folder)]) == 0
    monkeypatch.chdir(tmp_path)
    return root


def why(root: Path, path: str | Path) -> list[FileStatus]:
    workspace = Workspace.open(root)
    store, snapshot = workspace.open_snapshot()
    with store, store.reading():
        return FileReport(workspace, store, snapshot).why(Path(path))


def test_an_indexed_file_has_kind_language_and_chunks(root):
    assert why(root, "src/a.py") == [FileStatus("src/a.py", True, "source", "python", 1, encoding="utf-8")]


def test_what_of_a_file_is_not_indexed_is_told(root, capfd):
    write_tree(root, {"src/icons.py": f"LOGO = '{'QUFB' * 500}'\n\n\ndef glyph():\n    return LOGO\n"})
    (root / "src/old.py").write_bytes("# déjà vu, naïve café\ndef old():\n    return 1\n".encode("latin-1"))
    rows = "".join(f"{i},{i}\n" for i in range(20_000))
    write_tree(root, {"rows.csv": f"id,port\n{rows}"})
    assert why(root, "src/icons.py")[0].omitted == ("line 1: 1,870 characters of data",)
    assert why(root, "src/old.py")[0].encoding == "cp1252"
    (data,) = why(root, "rows.csv")
    assert data.omitted and data.omitted[0].endswith("-20001: data")
    assert run(["index", str(root), "--lazy", "--quiet"]) == 0
    assert run(["status", "--why", "src/icons.py", "--repo", str(root)]) == 0
    assert "  not indexed: line 1: 1,870 characters of data" in capfd.readouterr().out


def test_how_to_have_a_file_is_told(root, capfd):
    assert run(["status", "--why", "out/run.log", "--repo", str(root)]) == 0
    assert "awareness index --include 'out/run.log'" in capfd.readouterr().err
    assert run(["status", "--why", "id_rsa", "--repo", str(root)]) == 0
    assert "--include" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("id_rsa", "secret"),
        ("logo.png", "binary"),
        ("link", "symlink"),
        ("link/a.py", "symlink, as all of link"),
        ("docs/guide.md", "ignored by .awarenessignore"),
        ("out/run.log", "ignored by git, .gitignore:2: *.log"),
        ("nested", "submodule"),
        ("nested/n.py", "submodule, as all of nested"),
        (".git/HEAD", "git's own folder"),
    ],
)
def test_a_path_that_is_left_out_has_a_reason(root, path, reason):
    (status,) = why(root, path)
    assert (status.path, status.indexed, status.reason) == (path, False, reason)


def test_what_has_changed_since_is_told(root):
    (root / "src/a.py").write_text("def a():\n    return 3\n")
    (root / "src/b.py").unlink()
    (root / "src/c.py").write_text("c = 1\n")
    assert {status.path: status.change for status in why(root, "src")} == {
        "src/a.py": "changed", "src/b.py": "gone", "src/c.py": "new",
    }  # fmt: skip


def test_a_path_is_named_from_the_repository_from_the_working_folder_or_absolutely(root, monkeypatch):
    monkeypatch.chdir(root / "src")
    for path in ("a.py", "src/a.py", "../src/a.py", root / "src/a.py", "./a.py"):
        assert [status.path for status in why(root, path)] == ["src/a.py"]


def test_a_path_counts_from_the_part_that_is_named(root, capfd):
    assert run(["status", "--repo", str(root / "src"), "--why", "b.py"]) == 0
    assert capfd.readouterr().out.startswith("src/b.py  indexed: source, python, 1 chunk")


@pytest.mark.parametrize("folder", [".", "elsewhere", "repo/src"])
@pytest.mark.parametrize("path", ["src/a.py", "docs/gone.md"])
def test_a_path_is_found_from_anywhere(root, tmp_path, monkeypatch, capfd, folder, path):
    git(write_tree(tmp_path / "elsewhere", {"x.py": "x = 1\n"}), "init", "-q")
    monkeypatch.chdir(tmp_path / folder)
    code = run(["status", "--why", os.path.relpath(root / path)])
    out, err = capfd.readouterr()
    if path == "src/a.py":
        assert (code, out) == (0, "src/a.py  indexed: source, python, 1 chunk\n")
    else:
        assert code == 2 and f"docs/gone.md does not exist in {root}" in err


def test_a_file_out_of_scope_is_told(root, model_folder):
    run(["index", str(root), "--lazy", "--quiet", "--scope", "src/**", "--model", str(model_folder)])
    assert why(root, "out/notes.txt")[0].reason == "outside the scope that the index was made with: src/**"


@pytest.mark.parametrize("path", ["nowhere.py", "/etc/hostname", ".."])
def test_a_path_that_is_not_there_is_refused(root, path):
    with pytest.raises(UsageError):
        why(root, path)


def test_a_name_that_is_not_utf8(root):
    name = os.fsdecode(b"b\xe9.log")
    (root / name).write_text("x")
    assert why(root, name)[0].reason == "ignored by git, .gitignore:2: *.log"


def test_every_file_is_listed(root, capfd):
    assert run(["status", "--files", "--repo", str(root)]) == 0
    out, err = capfd.readouterr()
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    assert lines["src/a.py"] == "indexed: source, python, 1 chunk"
    assert lines["logo.png"] == "left out: binary"
    assert "out/run.log" not in lines
    assert "5 files indexed, 5 not" in err


def test_why_answers_in_json(root, capfd):
    assert run(["status", "--why", "id_rsa", "--repo", str(root), "--format", "json"]) == 0
    assert '"path": "id_rsa", "indexed": false' in capfd.readouterr().out
