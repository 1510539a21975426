"""Scopes as people type them, from the top folder, from a subfolder, from elsewhere."""

from __future__ import annotations

import pytest

from awareness.errors import UsageError
from awareness.index.files.repository import build_scope
from awareness.index.files.scopes import no_match, rooted
from tests.conftest import write_tree

FILES = ["a.py", "src/a.py", "src/api/b.py", "src/api/[id]/page.tsx", "lib/src/c.py", "docs/x.md"]


@pytest.fixture
def root(tmp_path):
    return write_tree(tmp_path / "repo", dict.fromkeys(FILES, "x\n"))


def shown(root, folder, *patterns):
    in_scope = build_scope(rooted(patterns, root))
    return [path for path in FILES if in_scope(path)]


API = ["src/api/b.py", "src/api/[id]/page.tsx"]
SRC = ["src/a.py", *API]


@pytest.mark.parametrize(
    ("folder", "patterns", "expected"),
    [
        ("", ["./src"], SRC),
        ("", ["./src/"], SRC),
        ("", [".//src//api"], API),
        ("", ["src//api/"], API),
        ("", ["src/./api"], API),
        ("", ["src/api/../api"], API),
        ("", ["{root}/src"], SRC),
        ("", ["{root}/src/api/*.py"], ["src/api/b.py"]),
        ("", ["{root}"], FILES),
        ("", ["."], FILES),
        ("", ["./"], FILES),
        ("", [r"src\api"], API),
        ("", [r".\src\api"], API),
        ("", ["src\\api\\"], API),
        ("", [r"src\api\*.py"], ["src/api/b.py"]),
        ("", ["src"], [*SRC, "lib/src/c.py"]),
        ("", ["./*.py"], ["a.py"]),
        ("", ["src/api/[id]"], ["src/api/[id]/page.tsx"]),
        ("", ["src/api/[id]/"], ["src/api/[id]/page.tsx"]),
        ("", ["./src", "!./src/api"], ["src/a.py"]),
        ("", [r"src/\[id\]"], []),
        ("src", ["./api"], API),
        ("src", ["api"], API),
        ("src", ["api/*.py"], ["src/api/b.py"]),
        ("src", ["."], SRC),
        ("src", ["../docs"], ["docs/x.md"]),
        ("src", [".."], FILES),
        ("src", ["src/api"], API),
        ("src", ["docs"], ["docs/x.md"]),
        ("src", ["*.py"], ["a.py", "src/a.py", "src/api/b.py", "lib/src/c.py"]),
        ("src/api", ["!b.py"], ["a.py", "src/a.py", "src/api/[id]/page.tsx", "lib/src/c.py", "docs/x.md"]),
        (None, ["./src"], SRC),
        (None, ["src/api"], API),
        (None, ["/elsewhere"], []),
    ],
)
def test_a_scope_means_what_people_mean(root, tmp_path, monkeypatch, folder, patterns, expected):
    monkeypatch.chdir(tmp_path if folder is None else root / folder)
    assert shown(root, folder, *(pattern.replace("{root}", str(root)) for pattern in patterns)) == expected


def test_a_scope_through_a_link_to_the_repository(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    assert shown(root, None, f"{tmp_path}/link/src") == SRC
    assert shown(root, None, f"{tmp_path}/link/src/api/*.py") == ["src/api/b.py"]
    assert shown(root, None, f"{tmp_path}/link") == FILES


def test_a_scope_of_the_index_means_the_same_the_next_time(root, monkeypatch):
    monkeypatch.chdir(root / "src")
    for pattern in ("./api", "api", "docs", "..", f"{root}/src", "*.py", r"lib\src"):
        once = rooted([pattern], root)
        assert rooted(once, root) == once


def test_a_scope_of_a_pack_knows_no_folder():
    assert rooted(["./src//api/", r"a\b", "/home/x", "."], None) == ("/src/api/", "a/b", "/home/x", "/**")


def test_a_scope_that_leads_out_is_refused(root, monkeypatch):
    monkeypatch.chdir(root / "src")
    with pytest.raises(UsageError, match=r"\.\./\.\./x is outside of the repository"):
        rooted(["../../x"], root)


def test_without_a_working_folder_it_counts_from_the_top(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.getcwd", lambda: (_ for _ in ()).throw(FileNotFoundError(2, "gone")))
    assert shown(root, None, "./src") == SRC


def test_an_empty_scope_names_what_is_nearest():
    paths = [f"src/m{i}.py" for i in range(1200)] + ["src/hinge.py"]
    assert (
        no_match(["scr"], paths, "indexed files")
        == "--scope 'scr' matches none of the 1,201 indexed files; the nearest: src/"
    )
    assert no_match(["Hinge.py/**"], paths, "files").endswith("; the nearest: src/hinge.py")
    assert no_match(["qqqq"], ["a.py"], "files") == "--scope 'qqqq' matches none of the 1 files"
