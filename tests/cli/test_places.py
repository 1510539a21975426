"""Commands in a folder of clones, in a repository with others inside, and in a part of one."""

from __future__ import annotations

import json

import pytest

from awareness.cli.app import run
from awareness.engine.workspace import Workspace
from awareness.index.store.lock import writing
from tests.conftest import commit_all, git, write_tree


@pytest.fixture
def at(tmp_path, model_folder, capfd, monkeypatch):
    """Runs one command line in `folder`: (exit code, stdout, stderr)."""
    monkeypatch.setenv("AWARENESS_MODEL", str(model_folder))

    def call(*arguments, folder=tmp_path):
        monkeypatch.chdir(folder)
        code = run([*arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


@pytest.fixture
def json_of(at):
    def call(*arguments, **options):
        code, out, err = at(*arguments, "--format", "json", **options)
        assert code == 0, err
        return json.loads(out)

    return call


def make(root, name):
    return commit_all(write_tree(root, {f"{name}.py": f"def {name}_night_audit(day):\n    return day\n"}))


@pytest.fixture
def clones(tmp_path):
    for name in ("depot", "till"):
        make(tmp_path / "ws" / name, name)
    return tmp_path / "ws"


@pytest.fixture
def outer(tmp_path):
    """A repository with the submodules libs/a, and libs/b, which is not initialised."""
    library, root = make(tmp_path / "library", "library"), make(tmp_path / "outer", "outer")
    for path in ("libs/a", "libs/b"):
        git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), path)
    git(root, "commit", "-qm", "second")
    git(root, "submodule", "--quiet", "deinit", "-f", "libs/b")
    return root


# --- folders of clones ---


def test_each_clone_is_indexed_with_a_line(at, clones):
    code, out, err = at("index", "--lazy", folder=clones)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[:2] == [f"{name}: 1 files, 1 chunks (1 added, 0 reused, 0 removed)" for name in ("depot", "till")]
    assert lines[2].startswith("2 repositories: 2 files, 2 chunks, 0 latents, in ")
    assert lines[3:] == ["2 chunks without a latent yet: made when a question needs them"]


def test_the_report_of_several_has_totals_and_each(json_of, clones):
    report = json_of("index", "--lazy", str(clones))
    one = json_of("index", "--lazy", str(clones / "till"))
    assert [one_of["repository"] for one_of in report["repositories"]] == [f"{clones}/depot", f"{clones}/till"]
    assert {*one} == {*report["repositories"][0]} and {*report} == {*one, "repositories", "failed"}
    assert (report["repository"], report["files"], report["chunks"], report["added"]) == (str(clones), 2, 2, 2)
    assert (report["model"], report["quant"], report["skipped"], report["failed"]) == (one["model"], "int4", [], [])
    assert (one["added"], one["reused"]) == (0, 1)


def test_latents_of_all_are_made(json_of, clones):
    report = json_of("index", "--all", str(clones))
    assert [one["latents"] for one in report["repositories"]] == [1, 1] and report["pending"] == 0


def test_several_arguments_with_one_name_twice(json_of, clones):
    report = json_of("index", "--lazy", "till", "depot", f"{clones}/till/", folder=clones)
    assert [one["repository"] for one in report["repositories"]] == [f"{clones}/till", f"{clones}/depot"]
    assert report["repository"] is None


def test_one_that_fails_does_not_stop_the_others(at, json_of, clones):
    layout = Workspace.open(clones / "depot").layout
    with writing(layout):
        code, out, err = at("index", "--lazy", str(clones), "--format", "json")
    report = json.loads(out)
    assert code == 11 and "depot is not indexed" in err
    assert [one["repository"] for one in report["repositories"]] == [f"{clones}/till"]
    assert [one["repository"] for one in report["failed"]] == [f"{clones}/depot"]


def test_search_and_ask_in_the_folder(at, json_of, clones):
    at("index", "--lazy", str(clones))
    hits = json_of("search", "till_night_audit", folder=clones)["hits"]
    assert (hits[0]["origin"], hits[0]["path"]) == ("till", "till.py")
    assert "till.py:1-2 (till)" in at("search", "till_night_audit", folder=clones)[1]
    answer = json_of("ask", "depot_night_audit", "-n", "1", folder=clones)
    assert (answer["citations"][0]["origin"], answer["citations"][0]["path"]) == ("depot", "depot.py")


def test_ask_indexes_what_is_not_indexed(at, clones):
    code, out, err = at("ask", "depot_night_audit", "-n", "1", folder=clones)
    assert code == 0 and "depot.py" in out
    assert "indexed 1 files of depot" in err and "indexed 1 files of till" in err


def test_status_of_the_folder(at, json_of, clones):
    code, _, err = at("status", folder=clones)
    assert code == 10 and str(clones) in err
    json_of("index", "--lazy", str(clones / "till"))
    report = json_of("status", folder=clones)
    assert (report["repository"], report["not_indexed"]) == (str(clones), [f"{clones}/depot"])
    assert [one["repository"] for one in report["repositories"]] == [f"{clones}/till"]
    assert report["bytes"] == report["repositories"][0]["bytes"]
    out = at("status", folder=clones)[1]
    assert f"not indexed yet: {clones}/depot; awareness index {clones}" in out


@pytest.mark.parametrize("command", [("check",), ("repair",), ("gc",), ("pack", "x.awm"), ("status", "--files")])
def test_what_works_on_one_index_names_the_clones(at, clones, command):
    code, _, err = at(*command, folder=clones)
    assert code == 2 and "holds depot, till" in err and f"--repo {clones}/depot" in err


def test_one_repository_is_watched(at, clones):
    code, _, err = at("index", "--watch", folder=clones)
    assert code == 2 and "--watch follows one repository" in err


# --- repositories inside ---


def test_repositories_inside_are_named_with_the_command_that_indexes_them(at, json_of, outer):
    code, _, err = at("index", "--lazy", str(outer))
    assert code == 0
    assert (
        f"1 repository inside, not part of this index: libs/a; to index and search it too: awareness index {outer}"
        in err
    )
    assert f"1 submodule not initialised: libs/b; to fetch: git -C {outer} submodule update --init" in err
    report = json_of("index", "--lazy", str(outer))
    nested = [{"path": "libs/a", "initialised": True}, {"path": "libs/b", "initialised": False}]
    assert report["nested"] == nested
    code, _, err = at("search", "library_night_audit", folder=outer)
    assert code == 1 and "not searched: libs/a" in err
    whole = json_of("index", "--lazy", "--nested", str(outer))
    assert [one["repository"] for one in whole["repositories"]] == [str(outer), f"{outer}/libs/a"]
    hit = json_of("search", "library_night_audit", folder=outer)["hits"][0]
    assert (hit["origin"], hit["path"]) == ("a", "library.py")
    status = json_of("status", folder=outer)
    assert status["repository"] == str(outer)
    assert [one["repository"] for one in status["repositories"]] == [f"{outer}/libs/a"]


def test_nested_is_remembered_until_it_is_switched_off(json_of, at, outer):
    at("index", "--lazy", "--nested", str(outer))
    again = json_of("index", "--lazy", str(outer))
    assert len(again["repositories"]) == 2
    assert "not part of this index" not in at("index", "--lazy", str(outer))[2]
    alone = json_of("index", "--lazy", "--no-nested", str(outer))
    assert "repositories" not in alone and alone["nested"]
    assert at("search", "library_night_audit", folder=outer)[0] == 1


# --- parts of a repository ---


@pytest.fixture
def shop(tmp_path):
    files = {f"services/{name}/{name}.py": f"def {name}_total(cart):\n    return cart\n" for name in ("api", "web")}
    write_tree(tmp_path / "shop", {**files, "services/web/id_rsa": "-----BEGIN RSA PRIVATE KEY-----\n"})
    return make(tmp_path / "shop", "top")


def test_index_of_a_part_is_that_of_the_whole(at, json_of, shop):
    code, _, err = at("index", "--lazy", "services/api", folder=shop)
    assert code == 0 and f"services/api is a part of {shop}, whose whole index is brought up to date" in err
    report = json_of("index", "--lazy", str(shop / "services/web"))
    assert (report["repository"], report["files"], report["added"]) == (str(shop), 3, 0)
    assert "is a part of" not in at("index", "--lazy", folder=shop / "services/api")[2]


def test_search_of_a_part(at, json_of, shop):
    at("index", "--lazy", str(shop))
    hits = json_of("search", "total", "--repo", "services/api", folder=shop)["hits"]
    assert [(hit["path"], hit["origin"]) for hit in hits] == [("services/api/api.py", None)]
    here = json_of("search", "total", "--repo", ".", folder=shop / "services/web")["hits"]
    assert [hit["path"] for hit in here] == ["services/web/web.py"]
    assert len(json_of("search", "total", folder=shop / "services/web")["hits"]) == 2
    one = json_of("search", "total", "--repo", "services/api/api.py", folder=shop)["hits"]
    assert [hit["path"] for hit in one] == ["services/api/api.py"]


def test_status_of_a_part(json_of, at, shop):
    at("index", "--lazy", str(shop))
    for name in ("api", "web"):
        write_tree(shop, {f"services/{name}/new.py": "x = 1\n"})
    whole, part = json_of("status", folder=shop), json_of("status", "--repo", "services/web", folder=shop)
    assert whole["below"] is None and len(whole["drift"]["added"]) == 2 and len(whole["secret_files"]) == 1
    assert part["below"] == {"path": "services/web", "files": 1, "chunks": 1}
    assert part["drift"]["added"] == ["services/web/new.py"] and part["snapshots"] == whole["snapshots"]
    assert part["secret_files"] == ["services/web/id_rsa"]
    assert json_of("status", "--repo", "services/api", folder=shop)["secret_files"] == []
    listed = json_of("status", "--files", "--repo", "services/api", folder=shop)["files"]
    assert [file["path"] for file in listed] == ["services/api/api.py", "services/api/new.py"]
    assert "services/web: 1 files, 1 chunks" in at("status", "--repo", "services/web", folder=shop)[1]


def test_a_pack_of_a_part(json_of, at, shop, tmp_path):
    packed = json_of("pack", str(tmp_path / "api.awm"), "--repo", str(shop / "services/api"))
    assert (packed["repository"], packed["files"]) == ("shop", 1)
    hits = json_of("search", "total", "--memory", str(tmp_path / "api.awm"))["hits"]
    assert [hit["path"] for hit in hits] == ["services/api/api.py"]
    code, _, err = at("search", "total", "--repo", str(tmp_path / "api.awm"))
    assert code == 2 and "is a pack" in err and f"--memory {tmp_path}/api.awm" in err


def test_packs_of_one_file_name(json_of, at, shop, clones, tmp_path):
    for folder, repo in (("p", shop), ("q", clones / "till")):
        (tmp_path / folder).mkdir()
        json_of("pack", str(tmp_path / folder / "x.awm"), "--repo", str(repo))
    packs = [part for name in ("x.awm", "../q/x.awm", "./x.awm") for part in ("--memory", name)]
    line = ("search", "api_total till_night_audit", *packs)
    found = {(hit["origin"], hit["path"]) for hit in json_of(*line, folder=tmp_path / "p")["hits"]}
    assert found >= {("p/x.awm", "services/api/api.py"), ("../q/x.awm", "till.py")}
    assert {origin for origin, _ in found} == {"p/x.awm", "../q/x.awm"}
