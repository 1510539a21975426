"""Training files by path and by name: the user's own first, then those that come with awareness."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from awareness.cli.app import run
from awareness.config.read import read_config
from awareness.config.training_files import COMPARED, find_file, shipped_files
from awareness.errors import UsageError

ROOT = Path(__file__).parents[2]


def test_the_folder_of_a_checkout_leads_to_the_files_of_the_package():
    assert (ROOT / "configs").resolve() == (ROOT / "awareness/config/shipped").resolve()
    assert set(COMPARED) < set(shipped_files()) and "smollm2-memory" in shipped_files()


def test_a_file_of_the_user_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = shipped_files()["compare-lora"]
    for name in ("compare-lora", "compare-lora.yaml", "configs/compare-lora.yaml"):
        assert find_file(Path(name)) == shipped
    (tmp_path / "compare-lora").mkdir()  # as the output of a training may be called
    assert find_file(Path("compare-lora")) == shipped
    (tmp_path / "compare-lora.yaml").touch()
    assert find_file(Path("compare-lora.yaml")) == Path("compare-lora.yaml")


@pytest.mark.parametrize(
    "name", ["mine/compare-lora.yaml", "/compare-lora.yaml", "compare-lora.json", "../router.yaml"]
)
def test_a_path_elsewhere_is_no_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="does not exist; awareness comes with compare-bank, "):
        find_file(Path(name))


def test_a_wrong_name_is_told_the_nearest(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run(["train", "--config", "configs/compare-lorra.yaml"]) == 2
    err = capfd.readouterr().err
    assert "configs/compare-lorra.yaml does not exist" in err and "--config configs/compare-lora.yaml" in err
    (tmp_path / "folder").mkdir()
    assert run(["train", "--config", "folder"]) == 2 and "folder is a folder" in capfd.readouterr().err


def test_a_file_of_the_user_extends_a_shipped_one(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("extends: compare-memory.yaml\noutput_dir: mine\n")
    read = read_config(own, [])
    assert (str(read.output_dir), read.memory.memory_form, len(read.data.sources)) == ("mine", "tanh", 38)
    (tmp_path / "compare-memory.yaml").write_text("extends: smollm2-memory.yaml\nmemory: {lora_rank: 3}\n")
    assert read_config(own, []).memory.lora_rank == 3  # the one beside it wins


def test_the_wheel_has_the_files_and_works_in_an_empty_folder(tmp_path):
    """As after `pip install`: without the checkout, from another folder."""
    pytest.importorskip("setuptools", minversion="77")
    build = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
    source = tmp_path / "source"  # setuptools writes beside what it builds
    source.mkdir()
    for name in ("awareness", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    subprocess.run([sys.executable, *build, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    empty = tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith("awareness/config/shipped/")}
        archive.extractall(tmp_path / "installed")
    assert {Path(name).stem for name in names if name.endswith(".yaml")} == set(shipped_files())
    assert "awareness/config/shipped/qwen-questions.jsonl" in names
    command = [sys.executable, "-m", "awareness.cli.app", "train", "--config", "configs/compare-lora.yaml"]
    done = subprocess.run(
        [*command, "--set", "training.max_steps=0"],
        cwd=empty,
        env={"PYTHONPATH": str(tmp_path / "installed"), "HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
    )
    told = " ".join(done.stderr.split())
    file = tmp_path / "installed/awareness/config/shipped/compare-lora.yaml"
    assert f"configs/compare-lora.yaml is not here; the file that comes with awareness is used: {file}" in told
    assert done.returncode == 2 and f"error: {file}: training.max_steps" in told  # the file that it extends was read
