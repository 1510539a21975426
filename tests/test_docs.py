"""Every command in a document runs, on a sample repository with a tiny model; every link, path and test exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from awareness.cli.app import run
from tests.conftest import write_tree

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*DOCUMENTS, ROOT / "benchmarks/README.md", *sorted((ROOT / "awareness/adapters").glob("*/README.md"))]


def commands(document: Path) -> list[str]:
    """The indented lines that begin with `awareness`, without their comments."""
    lines = re.findall(r"^    (awareness .*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.split("  #")[0].strip() for line in lines]


def test_the_readme_has_commands():
    assert len(commands(ROOT / "README.md")) >= 4


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_of_a_document_runs(document, sample, model_folder, monkeypatch, capfd):
    functions = "".join(f"def session_cookie_{i}(a, b):\n    return a.sign(b, {i})\n\n\n" for i in range(40))
    write_tree(sample, {"src/many.py": functions})
    monkeypatch.chdir(sample.parent)
    sample.rename(sample.parent / "repo")
    (sample.parent / "configs").symlink_to(ROOT / "configs")
    monkeypatch.setenv("AWARENESS_MODEL", str(model_folder))
    for line in commands(document):
        code = run(shlex.split(line)[1:])
        out, err = capfd.readouterr()
        assert code == 0, f"{line}: exit {code}: {err}"
        assert out, line


def test_every_link_leads_to_a_file():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def missing_paths(text: str, folder: Path) -> list[str]:
    """The paths in backticks that do not exist, relative to the repository, to awareness/ or to the page's `folder`.

    A path counts if its first part is a folder in one of these three: `index/build.py` does, `src/app.py` of an
    example does not.
    """
    roots = (ROOT, ROOT / "awareness", folder)
    first_parts = {child.name for root in roots for child in root.iterdir() if child.is_dir()}
    paths = re.findall(r"`((?:[\w.-]+/)+[\w.*-]*)(?:::\w+)?`", text)
    ours = [path for path in paths if path.split("/")[0] in first_parts]
    return [path for path in ours if not any(any(root.glob(path.rstrip("/"))) for root in roots)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_on_a_page_exists(page):
    assert missing_paths(page.read_text(encoding="utf-8"), page.parent) == []


def test_a_missing_path_would_be_reported():
    there = ["awareness/index/build.py", "index/store/", "adapters/*/config.json", "tests/test_docs.py::test_x"]
    text = "".join(f"`{path}` and " for path in [*there, "src/app.py"])
    assert missing_paths(text, ROOT / "docs") == []
    gone = ["index/gone.py", "awareness/model/sources.py", "tests/index/test_gone.py", "train/gone/"]
    assert missing_paths("".join(f"`{path}` and " for path in gone), ROOT / "docs") == gone


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_named_on_a_page_exists(page):
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text(encoding="utf-8")):
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"
