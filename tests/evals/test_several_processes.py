"""Cases are shared among processes, and the report is that of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from awareness.evals import several_processes
from tests.cli.test_eval import FILES
from tests.conftest import git, write_tree

ROOT = Path(__file__).parents[2]
LAUNCHED = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.parametrize("number", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_shares_in_their_order_are_all_cases(number, processes, monkeypatch):
    class State:
        num_processes = processes

    shares = []
    for index in range(processes):
        State.process_index = index
        monkeypatch.setattr(several_processes, "_processes", lambda: State)
        shares.append(several_processes.share_of_this_process(range(number)))
    assert [case for share in shares for case in share] == list(range(number))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.fixture
def command(tmp_path, model_folder):
    write_tree(tmp_path / "repo", FILES)
    git(tmp_path / "repo", "init", "-q")
    options = ["--samples", "3", "--chunks", "2", "--chunk-tokens", "140", "--arms", "joint", "--format", "json"]
    return ["eval", "perplexity", "--repo", str(tmp_path / "repo"), "--model", str(model_folder), *options]


def start(command, *launcher):
    return subprocess.run(
        [sys.executable, *launcher, "-m", "awareness.cli.app", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )


def test_two_processes_report_once_what_one_reports(command, tmp_path):
    """Chunks are encoded in other batches, so the last digits may differ."""
    alone = json.loads(start(command).stdout)
    assert len(alone["cases"]) == 3  # an odd number: the shares are not equal
    done = start([*command, "--processes", "2", "--out", str(tmp_path / "out")])
    assert done.returncode == 0, done.stderr
    both = json.loads(done.stdout)  # one report
    assert [case["place"] for case in both["cases"]] == [case["place"] for case in alone["cases"]]
    for row, of_both in zip(alone["perplexity"], both["perplexity"], strict=True):
        assert (row["arm"], row["condition"], row["tokens"]) == (
            of_both["arm"],
            of_both["condition"],
            of_both["tokens"],
        )
        for part in ("line", "name"):
            assert of_both[part] == pytest.approx(row[part], rel=0.02)
    for case, of_both in zip(alone["cases"], both["cases"], strict=True):
        for key, nll in case["nll"].items():
            assert of_both["nll"][key] == pytest.approx(nll, rel=0.02)
    assert json.loads((tmp_path / "out/perplexity.json").read_text()) == {"made_by": "awareness", **both}
    assert done.stderr.count("wrote perplexity.json") == 1


def test_what_a_launcher_starts_is_counted_and_one_measure_is_not_shared(command):
    done = start([*command, "--processes", "3"], *LAUNCHED)
    assert done.returncode != 0 and done.stdout == ""
    assert done.stderr.count("--processes 3, but the launcher started 2") == 1
    done = start(["eval", "latency", *command[2:6]], *LAUNCHED)
    assert done.returncode != 0 and done.stderr.count("eval latency runs in one process; a launcher started 2") == 1
