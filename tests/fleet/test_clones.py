from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from awareness.fleet.clones import PREFIX, CloneFailed, cloned, newest
from awareness.index.files.repository import Repository
from tests.conftest import git


def test_the_newest_commit_is_read_without_a_work_tree(sample):
    address = f"file://{sample}"
    with cloned(address, 60) as folder:
        repository = Repository.open(folder)
        assert repository.is_bare and repository.resolve("HEAD") == newest(address, 60)
        assert repository.read_text("src/auth.py", rev="HEAD")
        assert not (folder / "hooks").exists()
    assert not folder.exists()


def test_it_is_shallow(sample):
    (sample / "more.py").write_text("y = 2\n")
    git(sample, "add", "-A")
    git(sample, "commit", "-qm", "second")
    with cloned(f"file://{sample}", 60) as folder:
        assert git(folder, "rev-list", "--count", "HEAD").strip() == "1"


def test_nothing_of_the_users_templates_or_of_the_environment_runs(sample, tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    hook = tmp_path / "templates/hooks/post-checkout"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(tmp_path / "templates"))
    monkeypatch.setenv("GIT_UPLOAD_PACK", f"touch {ran}")
    with cloned(f"file://{sample}", 60):
        pass
    assert not ran.exists()


@pytest.mark.parametrize("address", ["file:///no/such/repository", "https://127.0.0.1:9/x"])
def test_what_cannot_be_cloned_is_named(address):
    with pytest.raises(CloneFailed, match="cannot be cloned"), cloned(address, 30):
        pass
    with pytest.raises(CloneFailed):
        newest(address, 30)


def test_a_repository_without_a_commit_is_named(tmp_path):
    git(tmp_path, "init", "-q", "--bare", "empty.git")
    with pytest.raises(CloneFailed, match="no commit"):
        newest(f"file://{tmp_path}/empty.git", 30)


def test_git_may_not_take_for_ever(sample, tmp_path, monkeypatch):
    slow = tmp_path / "bin/git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    with pytest.raises(CloneFailed, match=r"more than 0\.2 s"):
        newest(f"file://{sample}", 0.2)


def test_clones_of_killed_processes_are_deleted(sample, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / f"{PREFIX}999999999-x"
    (left / "clone.git").mkdir(parents=True)
    ours = tmp_path / f"{PREFIX}{os.getpid()}-x"
    ours.mkdir()
    with cloned(f"file://{sample}", 60) as folder:
        assert Path(folder).is_relative_to(tmp_path)
    assert not left.exists() and ours.exists()
