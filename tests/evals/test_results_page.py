"""benchmarks/results.py: docs/results.md has the figures of the JSON files, and no others than a reader wants."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HALF = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 8}
GAIN = {"mean": 0.125, "low": -0.1, "high": 0.3}
SHARED = {"command": "benchmarks/arms.py", "model": "m", "quant": "int4", "seed": 11, "samples": 8}
SCORE = {"top_k": 8, "right": HALF, "right_where_found": None, "minus_text": None, "cited": None, "refused": HALF}
SCORE |= {"first_token_s": 4.0, "of_text": 1.0, "tokens_per_s": 9.0, "bytes": 0}
FOUND = {
    "answers-arms": {
        "answers": [
            SCORE | {"arm": "text"},
            SCORE
            | {
                "arm": "joint",
                "minus_text": {"mean": 0.125, "low": -0.1, "high": 0.3},
                "of_text": 0.06,
                "bytes": 1 << 21,
            },
        ],
        "repositories": ["one"],
        "threads": 2,
    },
    "answers-unanswerable-arms": {
        "answers": [SCORE | {"arm": "joint", "top_k": 32}],
        "repositories": ["one"],
        "threads": 2,
        "unanswerable": True,
    },
    "refusals-arms": {
        "refusals": [{"arm": "joint", "chunks": 16, "refused": HALF, "false_refusals": HALF, "found": HALF}],
        "chunk_tokens": 120,
        "repository": "one",
    },
    "quant": {"about": "Sizes.", "rows": [{"quant": "pca", "bytes a token": 1024, "right": HALF, "decoding": 1.2345}]},
    "perplexity-arms": {
        "perplexity": [
            {"arm": "joint", "condition": condition, "line": HALF, "name": HALF} for condition in ("gold", "none")
        ],
        "lines": 5,
        "repositories": ["one"],
        "chunks": 4,
        "chunk_tokens": 120,
    },
}


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    results = importlib.import_module("results")
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    (tmp_path / "about.md").write_text("# Results\n")
    for name, found in FOUND.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(SHARED | found))
    (tmp_path / "answers-arms.png").write_bytes(b"")
    return results.document()


@pytest.mark.parametrize(
    "line",
    [
        "| 8 | joint | 0.50 (0.25-0.75) | — | +0.12 (-0.10 to +0.30) | — | 0.50 (0.25-0.75) | 4.00 | 0.06 | 9.0"
        " | 2.0 |",
        "| 8 | text | 0.50 (0.25-0.75) | — | — | — | 0.50 (0.25-0.75) | 4.00 | 1.00 | 9.0 | — |",
        "![answers-arms](../benchmarks/results/answers-arms.png)",
        "| 32 | joint | 0.50 (0.25-0.75) |",
        "| 16 | joint | 0.50 (0.25-0.75) | 0.50 (0.25-0.75) | 0.50 (0.25-0.75) |",
        "| pca | 1024 | 0.50 (0.25-0.75) | 1.23 |",
        "| joint | 0.50 (0.25-0.75) | — | 0.50 (0.25-0.75) |",
        "## Right answers to short questions",
    ],
)
def test_a_line_of_the_page(page, line):
    assert line in page.splitlines()


def test_the_real_files_can_be_written(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    results = importlib.import_module("results")
    page = results.document()
    assert page.count("\n## ") == len(
        {path.name.split(".")[0].split("-")[0] for path in results.RESULTS.glob("*.json")}
    )
    assert "| layer |" not in page
