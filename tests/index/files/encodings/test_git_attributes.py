"""`working-tree-encoding`: which files of the work tree it is declared for, and that they are read by it."""

from __future__ import annotations

from pathlib import Path

from awareness.index.files.encodings.git_attributes import DeclaredEncodings
from awareness.index.files.repository import Repository, SourceFile
from tests.index.files.test_repository import commit, git, make_repo, write


def declared(files: dict[str, str], path: str) -> str | None:
    def load(name: str) -> bytes:
        if name not in files:
            raise FileNotFoundError(name)
        return files[name].encode()

    return DeclaredEncodings(load)(path)


def test_the_deepest_file_and_its_last_line_decide():
    files = {
        ".gitattributes": "# c\n*.rc text working-tree-encoding=UTF-16LE\n*.txt text\n"
        "/top.txt working-tree-encoding=cp932\n"
        '"a b.txt" working-tree-encoding=big5\n*.h working-tree-encoding=gbk eol=crlf\nno.h -working-tree-encoding\n',
        "sub/.gitattributes": "*.rc working-tree-encoding=UTF-16\n*.rc working-tree-encoding=euc-kr\n",
        "sub/off/.gitattributes": "*.rc !working-tree-encoding\n",
    }
    expected = {
        "a.rc": "UTF-16LE",
        "x/y/a.rc": "UTF-16LE",
        "sub/a.rc": "euc-kr",
        "sub/deep/a.rc": "euc-kr",
        "sub/off/a.rc": None,
        "top.txt": "cp932",
        "x/top.txt": None,
        "a b.txt": "big5",
        "a.h": "gbk",
        "no.h": None,
        "a.py": None,
    }
    assert {path: declared(files, path) for path in expected} == expected


def test_lines_that_are_no_attributes_are_passed_over():
    text = '[attr]x working-tree-encoding=gbk\n!*.a working-tree-encoding=gbk\n"broken working-tree-encoding=gbk\n'
    assert declared({".gitattributes": text + "*.c xworking-tree-encoding=gbk\n"}, "b.c") is None


def test_files_of_the_work_tree_are_read_by_it_and_those_of_commits_as_git_keeps_them(tmp_path: Path) -> None:
    text = "// 中 x\n"
    make_repo(tmp_path, {".gitattributes": "*.c working-tree-encoding=Big5\n", "a.c": text.encode("big5")})
    assert git(tmp_path, "show", "HEAD:a.c") == text.strip()
    repository = Repository.open(tmp_path)
    for rev in (None, "HEAD"):
        texts = {file.path: file.text for file in repository.scan(rev=rev) if isinstance(file, SourceFile)}
        assert texts["a.c"] == repository.read_text("a.c", rev=rev) == text


def test_another_declaration_is_another_file(tmp_path: Path) -> None:
    make_repo(tmp_path, {"a.c": "// 中\n".encode("big5")})
    before = {file.path: file.digest for file in Repository.open(tmp_path).scan()}
    write(tmp_path, {".gitattributes": "*.c working-tree-encoding=Big5\n"})
    commit(tmp_path)
    after = {file.path: file.digest for file in Repository.open(tmp_path).scan()}
    assert after["a.c"] != before["a.c"]
