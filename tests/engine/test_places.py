"""Which repositories, and which parts of them, a path means: alone, in a folder of clones, inside another one."""

from __future__ import annotations

import pytest

from awareness.engine.answer import NotAnswered
from awareness.engine.engine import Engine
from awareness.engine.places import expand_for_index, only_workspace, open_workspaces, remember_nested
from awareness.engine.reporter import Reporter
from awareness.engine.workspace import Workspace
from awareness.errors import NoIndex, UsageError
from tests.conftest import commit_all, git, write_tree


class Notes(Reporter):
    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)


def make(root, **functions):
    """A repository with a file for each function, in the folder that is named by its value."""
    files = {f"{folder}/{name}.py": f"def {name}(day):\n    return day\n" for name, folder in functions.items()}
    return commit_all(write_tree(root, files))


@pytest.fixture
def clones(tmp_path):
    """ws/till and ws/depot, and no file beside them."""
    make(tmp_path / "ws/till", till_audit=".")
    make(tmp_path / "ws/depot", depot_audit="src")
    return tmp_path / "ws"


@pytest.fixture
def shop(tmp_path):
    """A repository with two services."""
    return make(tmp_path / "shop", api_total="services/api", deep_total="services/api/deep", web_total="services/web")


@pytest.fixture
def opened(model_folder):
    """An engine whose repositories are indexed."""
    engines = []

    def call(*repos, packs=(), reporter=None):
        engine = Engine(repos, packs, model=str(model_folder), reporter=reporter or Notes())
        engines.append(engine)
        engine.refresh()
        return engine

    yield call
    for engine in engines:
        engine.close()


def places(workspaces):
    return [(str(workspace.repository.root.name), workspace.below) for workspace in workspaces]


def found(engine, query, **options):
    return {(hit.corpus.name, hit.chunk.path) for hit in engine.search(query, **options)}


# --- folders of clones ---


def test_a_folder_of_clones_stands_for_them(clones, opened):
    assert places(open_workspaces([clones], [])) == [("depot", ""), ("till", "")]
    engine = opened(clones)
    assert found(engine, "till_audit depot_audit") == {("till", "till_audit.py"), ("depot", "src/depot_audit.py")}
    assert not (clones / ".awareness").exists() and not Workspace.open(clones).layout.exists


def test_their_indexes_are_those_of_the_clones(clones, opened):
    opened(clones)
    with Engine([clones / "till"]) as engine:
        assert [hit.place for hit in engine.search("till_audit")] == ["till_audit.py:1-2"]


def test_files_beside_the_clones_are_one_more(clones, opened):
    write_tree(clones, {"notes/audit.md": "# Night audit\n\nThe auditor counts.\n"})
    assert places(open_workspaces([clones], [])) == [("ws", ""), ("depot", ""), ("till", "")]
    engine = opened(clones)
    assert ("ws", "notes/audit.md") in found(engine, "auditor counts")


def test_files_that_are_no_text_are_not_one_more(clones):
    (clones / "photo.png").write_bytes(b"\x89PNG\0\0")
    assert places(expand_for_index([clones])) == [("depot", ""), ("till", "")]
    write_tree(clones, {"notes.md": "text"})
    assert places(expand_for_index([clones])) == [("ws", ""), ("depot", ""), ("till", "")]


def test_a_clone_that_is_not_indexed_is_named(clones, opened):
    opened(clones / "till")
    notes = Notes()
    with Engine([clones], reporter=notes) as engine:
        assert engine.refresh(creates=False)[0].files == 1
        assert found(engine, "till_audit") == {("till", "till_audit.py")}
    assert notes.notes == [f"not indexed yet, and not searched: {clones}/depot; awareness index {clones}"]


def test_a_folder_of_clones_without_an_index(clones):
    with Engine([clones]) as engine, pytest.raises(NoIndex, match=r"depot.*till") as refusal:
        engine.search("till_audit")
    assert refusal.value.hint == f"awareness index {clones}"


def test_a_named_clone_has_to_be_indexed(clones, opened):
    opened(clones / "till")
    with Engine([clones / "till", clones / "depot"]) as engine, pytest.raises(NoIndex, match="depot is not indexed"):
        engine.search("till_audit")


def test_a_revision_of_a_folder_of_clones(clones):
    git(clones / "till", "tag", "v1")
    assert places(open_workspaces([clones], [], "v1")) == [("till", "")]
    with pytest.raises(UsageError, match="v2 names no commit"):
        open_workspaces([clones], [], "v2")


def test_commands_for_one_repository_name_those_in_the_folder(clones, shop):
    with pytest.raises(UsageError, match="holds depot, till") as refusal:
        only_workspace(clones, "awareness check")
    assert refusal.value.hint == f"awareness check --repo {clones}/depot"
    assert only_workspace(shop / "services", "awareness check").repository.root == shop


def test_each_is_indexed_once(clones, tmp_path):
    (tmp_path / "link").symlink_to(clones / "till")
    paths = [clones / "till", clones, tmp_path / "link", clones / "till/.git"]
    assert places(expand_for_index(paths)) == [("till", ""), ("depot", "")]


# --- parts of a repository ---


@pytest.mark.parametrize(
    ("parts", "kept"),
    [
        (["services/api"], ["services/api"]),
        (["services/api", "services/web"], ["services/api", "services/web"]),
        (["services/api/deep", "services/api"], ["services/api"]),
        (["services/api", "."], [""]),
        (["services/api", ".git"], [""]),
        (["services/web/web_total.py"], ["services/web/web_total.py"]),
        (["services/api", "services/api/"], ["services/api"]),
    ],
)
def test_parts_that_overlap_count_once(shop, parts, kept):
    assert places(open_workspaces([shop / part for part in parts], [])) == [("shop", part) for part in kept]


def test_without_an_argument_the_whole_repository_is_meant(shop, monkeypatch):
    monkeypatch.chdir(shop / "services/api")
    assert places(open_workspaces([], [])) == [("shop", "")]
    assert places([Workspace.open()]) == [("shop", "")]


def test_a_part_is_all_that_is_searched(shop, opened):
    engine = opened(shop / "services/api")
    assert found(engine, "api_total deep_total web_total") == {
        (None, "services/api/api_total.py"), (None, "services/api/deep/deep_total.py"),
    }  # fmt: skip
    with pytest.raises(NotAnswered) as refusal:
        engine.ask("quantum banana pudding")
    assert refusal.value.looked_at == 2
    with Engine([shop]) as whole:  # the index is that of the whole repository
        assert len(whole.search("api_total deep_total web_total")) == 3


def test_a_scope_counts_from_the_root_and_both_have_to_match(shop, opened):
    engine = opened(shop / "services/api")
    assert found(engine, "total", scope=["**/deep/**"]) == {(None, "services/api/deep/deep_total.py")}
    assert found(engine, "total", scope=["services/web/**"]) == set()


def test_only_the_part_is_cited_and_attached(shop, opened):
    answer = opened(shop / "services/web").ask("web_total api_total", max_new_tokens=2)
    assert {citation.path for citation in answer.citations} == {"services/web/web_total.py"}
    assert answer.memory.chunks == 1


def test_two_parts_are_told_apart_and_attached_together(shop, opened):
    engine = opened(shop / "services/api/deep", shop / "services/web")
    hits = engine.search("deep_total web_total")
    assert {(hit.corpus.name, hit.chunk.path) for hit in hits} == {
        ("shop/services/api/deep", "services/api/deep/deep_total.py"),
        ("shop/services/web", "services/web/web_total.py"),
    }
    assert {span.name for span in engine.attach(hits).spans} == {"sink", "0", "1"}


def test_a_part_without_an_indexed_file(shop, opened):
    (shop / "empty").mkdir()
    engine = opened(shop / "empty")
    with pytest.raises(UsageError, match=r"nothing in .*shop/empty is indexed"):
        engine.search("total")


# --- names ---


def test_repositories_with_one_name_are_told_apart(tmp_path, opened):
    for team in ("a", "b"):
        make(tmp_path / team / "api", **{f"{team}_audit": "."})
    one = found(opened(tmp_path / "a/api", tmp_path / "b/api"), "a_audit b_audit")
    assert one == {("a/api", "a_audit.py"), ("b/api", "b_audit.py")}
    assert found(opened(tmp_path / "b/api", tmp_path), "a_audit b_audit") == one


def test_two_work_trees_are_told_apart(shop, tmp_path, opened):
    git(shop, "worktree", "add", "-q", str(tmp_path / "fix/shop"))
    engine = opened(shop, tmp_path / "fix/shop")
    assert {name for name, _ in found(engine, "web_total")} == {f"{tmp_path.name}/shop", "fix/shop"}


def test_one_commit_of_two_work_trees_is_searched_once(shop, tmp_path):
    git(shop, "worktree", "add", "-q", str(tmp_path / "fix"))
    assert places(open_workspaces([shop, tmp_path / "fix"], [], "HEAD")) == [("shop", "")]


def test_a_name_stays_on_one_line(tmp_path, opened):
    engine = opened(make(tmp_path / "a\nb", a_audit="."), make(tmp_path / "c", c_audit="."))
    assert engine.search("a_audit")[0].place == "a_audit.py:1-2 (a\\nb)"


# --- repositories inside ---


@pytest.fixture
def outer(tmp_path):
    """A repository with a submodule and an ignored clone."""
    library = make(tmp_path / "library", library_audit=".")
    root = make(tmp_path / "outer", outer_audit=".")
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "libs/a")
    write_tree(root, {".gitignore": "/own/\n"})
    git(root, "add", ".")
    git(root, "commit", "-qm", "second")
    make(root / "own", own_audit=".")
    return root


def test_repositories_inside_are_searched_once_they_are_indexed_with_it(outer, opened):
    engine = opened(outer)
    assert found(engine, "outer_audit library_audit own_audit") == {
        (None, "outer_audit.py"), (None, ".gitmodules"), (None, ".gitignore"),
    }  # fmt: skip
    everything = expand_for_index([outer], nested=True)
    assert places(everything) == [("outer", ""), ("a", ""), ("own", "")]
    remember_nested(everything[0], everything)
    assert places(open_workspaces([outer], [])) == places(expand_for_index([outer])) == places(everything)
    assert places(open_workspaces([outer / "libs"], [])) == [("outer", "libs"), ("a", "")]
    assert found(opened(outer / "libs"), "library_audit") == {("a", "library_audit.py")}
    assert places(expand_for_index([outer / "libs"])) == places(everything)
    assert places(open_workspaces([outer], [], "HEAD")) == [("outer", "")]
    remember_nested(everything[0], [])
    assert places(open_workspaces([outer], [])) == [("outer", "")]


def test_a_repository_inside_that_went_is_not_searched(outer, opened, tmp_path):
    opened(outer)
    everything = expand_for_index([outer], nested=True)
    remember_nested(everything[0], everything)
    (outer / "own").rename(tmp_path / "secret")
    (outer / "own").symlink_to(tmp_path / "secret")
    assert places(open_workspaces([outer], [])) == [("outer", ""), ("a", "")]
    (outer / "own").unlink()
    (outer / "own").mkdir()
    assert places(open_workspaces([outer], [])) == [("outer", ""), ("a", "")]


def test_what_was_not_searched_is_named(outer, opened):
    notes = Notes()
    engine = opened(outer, reporter=notes)
    notes.notes.clear()
    engine.note_unsearched()
    assert notes.notes == [f"repositories inside that were not searched: libs/a, own; awareness index {outer} --nested"]


def test_a_submodule_has_an_index_of_its_own(outer, opened):
    assert found(opened(outer / "libs/a"), "library_audit") == {(None, "library_audit.py")}


def test_a_submodule_that_is_not_initialised_is_named(outer):
    git(outer, "submodule", "--quiet", "deinit", "-f", "libs/a")
    for call in (open_workspaces, lambda paths, packs: expand_for_index(paths)):
        with pytest.raises(UsageError, match="libs/a is a submodule that is not initialised") as refusal:
            call([outer / "libs/a"], [])
        assert refusal.value.hint == f"git -C {outer} submodule update --init libs/a"


# --- folders without git ---


def test_a_part_of_an_indexed_folder_without_git(tmp_path, opened, monkeypatch):
    notes = write_tree(tmp_path / "notes", {"a/one.py": "def one_note(): ...\n", "b/two.py": "def two_note(): ...\n"})
    assert places(open_workspaces([notes / "a"], [])) == [("a", "")]
    opened(notes)
    assert places(open_workspaces([notes / "a"], [])) == [("notes", "a")]
    assert places([only_workspace(notes / "a", "awareness check")]) == [("notes", "a")]
    assert found(opened(notes / "a"), "one_note two_note") == {(None, "a/one.py")}
    monkeypatch.chdir(notes / "a")
    assert places(open_workspaces([], [])) == [("notes", "")]
    assert places(expand_for_index([notes / "a"])) == [("a", "")]


def test_work_trees_in_a_folder_show_shared_code_once(shop, tmp_path, opened):
    git(shop, "worktree", "add", "-q", str(tmp_path / "fix"))
    write_tree(tmp_path / "fix", {"new.py": "def new_total(day):\n    return day\n"})
    hits = found(opened(tmp_path), "web_total new_total")
    assert {path for _, path in hits} >= {"services/web/web_total.py", "new.py"}
    assert len([path for _, path in hits if path == "services/web/web_total.py"]) == 1
    named = found(opened(shop, tmp_path / "fix"), "web_total")
    assert {name for name, path in named if path == "services/web/web_total.py"} == {"shop", "fix"}


def test_a_folder_that_is_too_large_is_noted(clones, monkeypatch):
    monkeypatch.setattr("awareness.index.files.nested.MAX_FOLDERS", 2)
    notes = Notes()
    assert places(open_workspaces([clones], [], reporter=notes)) == [("depot", "")]
    assert len(notes.notes) == 1 and "repositories are looked for in the first ones only" in notes.notes[0]


def test_what_was_searched_is_said_in_words(shop, clones):
    for repos, words in (
        ([shop], "this repository"), ([shop / "services/api"], "services/api"), ([clones], "these 2 repositories"),
    ):  # fmt: skip
        with Engine(repos) as engine:
            assert engine.searched == words


def test_nested_ones_of_clones_are_searched_in_their_folder(outer, opened):
    opened(outer)
    everything = expand_for_index([outer.parent], nested=True)
    assert places(everything) == [("library", ""), ("outer", ""), ("a", ""), ("own", "")]
    for workspace in everything:
        if workspace.layout.exists:
            remember_nested(workspace, everything)
    assert {name for name, _ in places(open_workspaces([outer.parent], []))} == {"library", "outer", "a", "own"}
    assert places(expand_for_index([outer.parent], nested=False)) == [("library", ""), ("outer", "")]
