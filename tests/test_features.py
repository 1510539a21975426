"""The commands of docs/features.md run, in the order of the page, with tiny models in place of the real ones."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from awareness.cli.app import run
from awareness.model.presets import DEFAULT_MODEL, KNOWN
from tests.conftest import commit_all, tiny_model, tiny_tokenizer, write_tree

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "features.md"
USE = "import core\n\n\ndef cookie_{0}(a):\n    b = a\n    return core.{1}(a, b)\n"
WRITTEN = "data.written=1"
"""In a command whose samples a model writes; one with random weights writes none that can be used."""
SEVERAL = re.compile(r"num_gpus=2|--processes 2")
WORDS = "alpha beta gamma delta kappa sigma omega".split()


def files_of_the_page() -> dict[str, str]:
    """Name -> content of the fenced files: `small.yaml` and those after it, each named in the sentence before."""
    found = re.findall(r"`(\w+\.yaml)`[^`]*?:\n\n```yaml\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return dict(found)


def sections() -> dict[str, list[str]]:
    """Heading -> the commands of its table."""
    parts = re.split(r"^## (.*)$", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {
        heading: re.findall(r"`(awareness [^`]*)`", text)
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
        if "| command |" in text
    }


@pytest.fixture
def folder(tmp_path, monkeypatch, nothing_ships):
    """The folder that the page begins with, and a cache in which its models are tiny."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache" / "datasets"))
    for name in ("smollm2-135m", DEFAULT_MODEL):
        model = tiny_model("qwen2")
        model.config.max_position_embeddings = 4096  # one byte is one token here
        place = tmp_path / "cache" / "awareness" / "models" / KNOWN[name].fingerprint
        model.save_pretrained(place)
        tiny_tokenizer().save_pretrained(place)
    work = tmp_path / "work"
    for name in ("repo", "other"):
        functions = "".join(
            f'def {word}_{name}(a, b):\n    """{word.title()} the {name} of a and b."""\n    return a.{word}(b)\n\n\n'
            for word in WORDS
        )
        limits = "".join(f"{word.upper()}_{name.upper()} = {100 + i}\n" for i, word in enumerate(WORDS))
        uses = {f"src/cookie_{i}.py": USE.format(i, f"{word}_{name}") for i, word in enumerate(WORDS[:4])}
        commit_all(write_tree(work / name, {"src/core.py": functions, "src/limits.py": limits, **uses}))
    question = {"question": "where is the cookie signed", "answer": "In cookie.", "gold": ["src/cookie_0.py"]}
    chat = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]}
    texts = "".join(json.dumps({"text": f"text {i} " * 9}) + "\n" for i in range(8))
    write_tree(work, {"texts.jsonl": texts, "chats.jsonl": (json.dumps(chat) + "\n") * 8, **files_of_the_page()})
    short = {"question": question["question"], "expected": "In cookie.", "contains": ["cookie"]}
    short_file = json.dumps({**short, "place": "src/cookie_0.py:1-2", "repo": "repo"}) + "\n"
    write_tree(work, {"questions.jsonl": json.dumps(question) + "\n", "short.jsonl": short_file})
    monkeypatch.chdir(work)
    return work


@pytest.mark.parametrize("heading", sections())
def test_every_command_runs(heading, folder, capfd, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")  # for processes it starts
    for line in (line for line in sections()[heading] if WRITTEN not in line):
        arguments = shlex.split(line)[1:]
        if SEVERAL.search(line):  # processes that it starts run the command line of this one
            code = subprocess.run([sys.executable, "-m", "awareness.cli.app", *arguments]).returncode
        else:
            code = run(arguments)
        out, err = capfd.readouterr()
        assert code == 0, f"{line}: exit {code}: {err}"
        assert out, line
