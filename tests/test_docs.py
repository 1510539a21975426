"""Commands that stand in a document do what they say: each is run, on a sample repository with a tiny model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from awareness.cli.app import run
from tests.conftest import write_tree

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(document: Path) -> list[str]:
    """The indented lines that begin with `awareness`, without their remarks."""
    lines = re.findall(r"^    (awareness .*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.split("  #")[0].strip() for line in lines]


def test_the_readme_has_commands():
    assert len(commands(ROOT / "README.md")) >= 4


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_of_a_document(document, sample, model_folder, monkeypatch, capfd):
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


def test_links_lead_somewhere():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
