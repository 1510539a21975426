"""The arrows of the design: cli -> engine, evals, train -> model, index -> types; index and model never meet."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from awareness.cli.app import COMMANDS, load_command

PACKAGE = Path(__file__).parent.parent / "awareness"
MAY_IMPORT = {
    "cli": {"cli", "engine", "evals", "train", "index", "model", "config", "types", "errors", ""},
    "engine": {"engine", "index", "model", "config", "types", "errors"},
    "train": {"train", "index", "model", "config", "types", "errors"},
    "config": {"config", "errors"},
    "evals": {"evals", "engine", "train", "index", "model", "types", "errors"},
    "index": {"index", "config", "types", "errors"},
    "model": {"model", "config", "types", "errors"},
    "types": set(),
    "errors": set(),
    "": {"engine", "model", "config", "types", "errors", ""},
}


def imports_of(path: Path) -> set[str]:
    """The parts of our package that a module imports, anywhere in it: 'index' for awareness.index.store.store."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = [name.split(".") for name in names if name.split(".")[0] == "awareness"]
    known = {part.stem for part in PACKAGE.iterdir()}
    return {parts[1] if len(parts) > 1 and parts[1] in known else "" for parts in ours}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    relative = path.relative_to(PACKAGE)
    part = relative.parts[0] if len(relative.parts) > 1 else relative.stem.removeprefix("__init__")
    assert imports_of(path) <= MAY_IMPORT[part]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_is_too_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_commands_without_a_model_import_no_torch():
    code = "import sys; from awareness.cli.app import COMMANDS, load_command; [load_command(c) for c in COMMANDS]\n"
    code += "sys.exit('torch' in sys.modules or 'transformers' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_the_program_says_of_a_command_is_the_first_line_of_its_help():
    for name, first_line in COMMANDS.items():
        assert load_command(name).help.partition("\n")[0] == first_line
