"""Tiny random decoders of every architecture, made on the spot, and SmolLM2 itself for what must be real."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

# One thread, here and in the processes that tests start: the order of a sum must not depend on how many cores there are
# (and with a pytest worker a core, more threads would only wait for each other). Before torch reads them.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from awareness.model import hf

pytest_plugins = ["tests.fleet.fixtures"]  # for the command line and the training, too

GEOMETRY = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,  # large enough that attention is not uniform
    "bos_token_id": 257,
    "eos_token_id": 258,
    "pad_token_id": 258,
}
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_model(architecture: str, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    if architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(**GEOMETRY))
    elif architecture == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**{k: v for k, v in GEOMETRY.items() if k != "head_dim"}))
        for layer in model.model.layers:  # random, so that a forgotten bias shows
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                torch.nn.init.normal_(projection.bias, std=0.5)
    else:
        model = Qwen3ForCausalLM(Qwen3Config(**GEOMETRY))
        for layer in model.model.layers:
            torch.nn.init.uniform_(layer.self_attn.k_norm.weight, 0.5, 1.5)
    model.generation_config.pad_token_id = GEOMETRY["pad_token_id"]
    return model.eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, plus the three chat tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture(params=["qwen3", "qwen2", "llama"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_model(request.param)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen3 with its tokenizer on disk, loadable like any model."""
    folder = tmp_path_factory.mktemp("models") / "tiny-qwen3"
    model = tiny_model("qwen3")
    model.config.max_position_embeddings = 4096  # a byte is a token here, and questions come with eight chunks
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def brief_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `model_folder`, but every answer is `Yes.`: for what happens around an answer. Attention is what it is
    anywhere else, but each token alone decides about the next one."""
    folder = tmp_path_factory.mktemp("models") / "brief"
    model, tokenizer = tiny_model("qwen3"), tiny_tokenizer()
    model.config.max_position_embeddings = 4096
    answer = [*tokenizer("\nYes.")["input_ids"], tokenizer.eos_token_id]  # the prompt ends with the line break
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        for place, (token, following) in enumerate(pairwise(answer)):
            direction = torch.eye(GEOMETRY["hidden_size"])[place]
            model.model.embed_tokens.weight[token] = direction
            model.lm_head.weight[following] = 10 * direction
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True, scope="session")
def _git_of_nobody() -> Iterator[None]:
    """No test sees the user's git configuration; commits are somebody's."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")):
            patch.setenv(name, value)
        for role in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{role}_NAME", "somebody")
            patch.setenv(f"GIT_{role}_EMAIL", "somebody@example.org")
        yield


@pytest.fixture(autouse=True, scope="session")
def _sigint_is_not_ignored() -> None:
    """A run in the background of a script (`nohup … &`) ignores SIGINT, and so would all programs that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _one_dtype() -> Iterator[None]:
    """Models that a test loads without naming a dtype are float32 on every processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hf, "cpu_multiplies_bf16", lambda: False)
        yield


@pytest.fixture(autouse=True)
def _own_index_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's indexes, settings or running server."""
    monkeypatch.setenv("AWARENESS_INDEX_DIR", str(tmp_path_factory.mktemp("indexes")))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    monkeypatch.delenv("AWARENESS_MODEL", raising=False)


def write_tree(root: Path, files: dict[str, str]) -> Path:
    """Writes files, by relative path."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    return root


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout


def commit_all(root: Path) -> Path:
    """Makes the folder a repository, with all of its files in one commit."""
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


SAMPLE = {
    "src/auth.py": (
        "import hmac\n\n\nclass Session:\n    def sign_cookie(self, value):\n"
        '        """Sign the cookie."""\n        return hmac.new(self.key, value).digest()\n'
    ),
    "src/pool.py": (
        "class HTTPConnectionPool:\n    max_size = 10\n\n    def acquire(self):\n        return self.idle.pop()\n"
    ),
    "tests/test_auth.py": "def test_sign_cookie():\n    assert Session().sign_cookie(b'')\n",
    "docs/guide.md": "# Guide\n\n## Cookies\n\nThe cookie is signed by the session.\n",
}


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A small git repository with one commit."""
    return commit_all(write_tree(tmp_path / "sample", SAMPLE))


@pytest.fixture
def nothing_ships(tmp_path, monkeypatch):
    """No adapter ships with any model: for tests that put a tiny model in the place of a preset."""
    monkeypatch.setattr("awareness.engine.modes._ADAPTERS", tmp_path / "no adapters")
