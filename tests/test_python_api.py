"""`import awareness` is cheap, exports what it says, and every example of docs/python-api.md runs as it is written."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import awareness
from awareness.model.presets import KNOWN
from tests.conftest import tiny_model, tiny_tokenizer, write_tree

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "python-api.md"
MODEL = "qwen2.5-coder-0.5b"


def examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run_page() -> dict[str, object]:
    """Every example of the page, one after the other; the names that they leave."""
    names: dict[str, object] = {}
    for number, code in enumerate(examples(), 1):
        exec(compile(code, f"{PAGE.name}, example {number}", "exec"), names)
    return names


def test_importing_loads_nothing_large():
    code = (
        "import sys, awareness\n"
        "large = {'torch', 'transformers', 'numpy', 'pydantic', 'apsw'} & set(sys.modules)\n"
        "dir(awareness); awareness.errors.UsageError\n"
        "print([*large, *({'torch', 'numpy'} & set(sys.modules))])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout == "[]\n"


def test_every_export_is_what_its_module_defines():
    for name in awareness.__all__:
        assert name in dir(awareness)
        own = getattr(awareness, name)
        if name != "errors":
            assert own is getattr(importlib.import_module(own.__module__), name)
    assert awareness.errors.UsageError.exit_code == 2
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        awareness.Nothing  # noqa: B018


def test_type_checkers_see_the_exports():
    """The imports that only type checkers read are those that `__getattr__` makes."""
    tree = ast.parse((ROOT / "awareness" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == {"errors": "awareness", **awareness._MODULES}


@pytest.fixture
def tiny_preset(tmp_path, monkeypatch, nothing_ships):
    """A cache in which the preset of the page is a tiny model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "awareness" / "models" / KNOWN[MODEL].fingerprint
    model = tiny_model("qwen2")
    model.config.max_position_embeddings = 4096  # one byte is one token here
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """The current folder of the page, with the repository that it asks."""
    write_tree(
        tmp_path / "repo",
        {
            "src/session.py": "def sign_session_cookie(value):\n    return hmac_of(value)\n",
            "src/pool.py": "class Pool:\n    size = 10\n",
        },
    )
    monkeypatch.chdir(tmp_path)


def checked(names) -> None:
    """What the page says about its results."""
    assert names["hits"][0].place == "src/session.py:1-2"
    assert names["memory"].tokens > 0
    out, keys, encoder = names["out"], names["keys"], names["encoder"]
    assert out.logits.shape[:2] == names["batch"].input_ids.shape
    assert [*out.memory_attention_weights] == [*encoder.spec.layers]
    assert out.memory_attention_weights[encoder.spec.layers[0]].shape[-1] == keys.shape[2]
    assert out.documents == ("src/main.py",)
    assert torch.allclose(out.document_attention.sum(1).float(), torch.ones(2))
    assert names["answer"].attention == {"src/main.py": pytest.approx(1.0)}
    assert re.match(rf"the memory was made by another-model .*, which {MODEL} .* cannot read", names["refusal"])
    assert [document.id for document in names["store"].documents()] == ["src/limits.py", "src/main.py"]
    assert len(names["pieces"]) > 1


def test_the_page_runs_with_a_tiny_model(tiny_preset, repository):
    names = run_page()
    checked(names)
    assert names["logits"].isfinite().all()


@pytest.mark.weights
def test_the_page_runs_with_the_model_that_it_names(repository):
    names = run_page()
    checked(names)
    layers, kv_heads, _, head_dim = names["keys"].shape
    assert (layers, kv_heads, head_dim) == (20, 2, 64)
    assert "3.14159" in names["answer"].text


def test_the_page_names_every_export():
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in awareness.__all__ if not re.search(rf"\b{name}\b", text)] == []
