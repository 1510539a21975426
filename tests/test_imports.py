"""The structure of the package: imports point one way and never in a circle, and a file's name is its own."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from awareness.cli.app import COMMANDS, load_command

PACKAGE = Path(__file__).parent.parent / "awareness"
FILES = sorted(PACKAGE.rglob("*.py"))
# cli -> serve -> engine, evals -> model, index; cli -> train, fleet; train -> fleet -> engine; all -> config, types,
# errors; index, model never meet.
MAY_IMPORT = {
    "cli": {"cli", "serve", "fleet", "engine", "evals", "train", "index", "model", "config", "types", "errors", ""},
    "serve": {"serve", "fleet", "engine", "evals", "index", "config", "types", "errors", ""},
    "engine": {"engine", "index", "model", "config", "types", "errors"},
    "fleet": {"fleet", "engine", "index", "model", "config", "types", "errors"},
    "train": {"train", "fleet", "index", "model", "config", "types", "errors"},
    "config": {"config", "errors"},
    "evals": {"evals", "engine", "train", "index", "model", "types", "errors"},
    "index": {"index", "config", "types", "errors"},
    "model": {"model", "config", "types", "errors"},
    "types": set(),
    "errors": set(),
    "": {"engine", "model", "config", "types", "errors", ""},
}


def module_of(path: Path) -> str:
    """`awareness.index.build` for awareness/index/build.py; the package itself for its `__init__.py`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in FILES}


def imports_of(path: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            dotted = (f"{node.module}.{alias.name}" for alias in node.names)
            names |= {name if name in MODULES else str(node.module) for name in dotted}
    return names & MODULES


def room_of(module: str) -> str:
    """`index` for awareness.index.store.store; empty for the package itself."""
    return module.partition(".")[2].partition(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    assert {room_of(module) for module in imports_of(path)} <= MAY_IMPORT[room_of(module_of(path))]


def test_evaluations_share_the_samples_of_training_and_nothing_else():
    for path in (PACKAGE / "evals").glob("*.py"):
        shared = {module for module in imports_of(path) if room_of(module) == "train"}
        assert all(module.startswith("awareness.train.samples") for module in shared), path


def test_no_two_files_import_each_other():
    graph = {module_of(path): imports_of(path) - {module_of(path)} for path in FILES if path.parent != PACKAGE}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_every_file_has_a_name_of_its_own():
    """Except in cli/, whose files are named after their commands."""
    names = Counter(path.stem for path in FILES if path.stem != "__init__" and path.parent.name != "cli")
    assert [name for name, count in names.items() if count > 1] == []


def test_commands_without_a_model_import_no_torch():
    code = "import sys; from awareness.cli.app import COMMANDS, load_command; [load_command(c) for c in COMMANDS]\n"
    code += "sys.exit('torch' in sys.modules or 'transformers' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_list_of_commands_shows_the_first_line_of_each_help():
    for name, first_line in COMMANDS.items():
        assert load_command(name).help.partition("\n")[0] == first_line
