"""A tiny decoder to train, and samples that it can learn."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pytest
import yaml

from awareness.model.model_files import models_dir
from awareness.types import Sample
from tests.conftest import write_tree

WORDS = "alpha beta gamma delta kappa sigma omega".split()


class Numbers(Sequence[Sample]):
    """Names with numbers in one of three chunks."""

    def __init__(self, length: int, seed: int = 0) -> None:
        self.length, self.seed = length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = random.Random(f"{self.seed}/{index}")
        names = rng.sample(WORDS, 3)
        values = [str(rng.randint(10, 99)) for _ in names]
        texts = tuple(f"# {name}\n{name} = {value}\n" for name, value in zip(names, values, strict=True))
        gold = rng.randrange(3)
        return Sample(texts, (gold,), f"What is {names[gold]}?", values[gold], f"{names[gold]} = ")


@pytest.fixture
def sources(tmp_path) -> Path:
    """Four packages with a licence, small definitions and docstrings in them."""
    root = tmp_path / "sources"
    for number, name in enumerate(["one", "two", "three", "four"]):
        functions = "".join(
            f"def {word}_{name}(a, b={number + i}):\n"
            f'    """{word.title()} the {name} of a and b, number {i}."""\n'
            f"    return a.{word}(b, {number}{i})\n\n\n"
            for i, word in enumerate(WORDS)
        )
        limits = "".join(f"{word.upper()}_{name.upper()} = {number}{i}\n" for i, word in enumerate(WORDS))
        licence = "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy\n"
        write_tree(root / name, {f"{name}/core.py": functions, f"{name}/limits.py": limits, "LICENSE": licence})
    return root


@pytest.fixture
def config_file(tmp_path, sources, model_folder, monkeypatch) -> Path:
    """A training of a few steps: joint form and LoRA. It sees the user's models, and a cache of its own."""
    monkeypatch.setenv("AWARENESS_MODELS_DIR", str(models_dir()))
    monkeypatch.setenv("MPLCONFIGDIR", matplotlib.get_cachedir())  # where its list of fonts is already
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own-cache"))
    settings = {
        "task": "memory",
        "model": str(model_folder),
        "memory": {
            "memory_form": "joint",
            "num_memory_tokens": 0,
            "use_both_memory_and_lora": True,
            "lora_rank": 4,
            "lora_dropout": 0.1,
        },
        "data": {
            "sources": [f"{sources}/*"],
            "validation": ["four"],
            "chunk_tokens": 100,
            "chunks": [1, 3],
            "kinds": {"constant": 1, "which": 1, "multi_value": 1},
        },
        "training": {
            "max_steps": 8,
            "batch_size": 2,
            "warmup_steps": 1,
            "save_steps": 2,
            "eval_steps": 4,
            "eval_samples": 4,
            "logging_steps": 3,
            "mixed_precision": "no",
        },
        "output_dir": str(tmp_path / "trained"),
    }
    path = tmp_path / "memory.yaml"
    path.write_text(yaml.safe_dump(settings), "utf-8")
    return path
