"""What the tests of `ci/` share: a shell like that of a CI runner, and commits that try to run something."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import write_tree

ROOT = Path(__file__).parent.parent.parent
HOSTILE_BRANCH = "x$(touch${IFS}pwned)`touch${IFS}pwned`;touch${IFS}pwned;'\""


def plant_traps(repository: Path, marker: Path) -> None:
    """Writes modules that Python would import if it started in the repository, a settings file, and a file whose name
    is a command to GitHub's runner. Each module creates `marker`."""
    trap = f"open({str(marker)!r}, 'w').close()\n"
    modules = ("json", "pip", "venv", "hashlib", "sitecustomize", "torch", "awareness/__init__", "awareness/cli/app")
    files = {f"{module}.py": trap for module in modules}
    files |= {".env": "AWARENESS_MODEL=stranger/model\n", "node_modules/::error::boo/index.js": "x\n"}
    files["tiny-qwen3/config.json"] = "{}\n"
    write_tree(repository, files)


def environment(tmp_path: Path, model_folder: Path, **more: str) -> dict[str, str]:
    """Variables of a runner with `awareness` on PATH, as pip would install it."""
    program = write_tree(
        tmp_path / "bin", {"awareness": f"#!{sys.executable}\nfrom awareness.cli.app import main\n\nmain()\n"}
    )
    (program / "awareness").chmod(0o755)
    own = {name: value for name, value in os.environ.items() if name.startswith(("GIT_", "OMP_", "MKL_"))}
    return {
        **own,
        "PATH": f"{program}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "AWARENESS_INDEX_DIR": str(tmp_path / "index"),
        "AWARENESS_MODEL": str(model_folder),
        **more,
    }


def shell(script: str, folder: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs lines as both platforms do: in one bash that ends with the first line that fails."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, env=dict(variables), capture_output=True, text=True)
