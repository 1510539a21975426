"""The logs of training runs are read without torch, and nothing outside their folder is."""

from __future__ import annotations

import json
import subprocess
import sys

from awareness.serve.run_curves import MOST_POINTS, Curve, count_steps, find_runs, read_curves
from tests.conftest import write_tree


def log_of(lines):
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_figures_become_curves_by_step(tmp_path):
    lines = [{"step": 1, "loss": 2.0, "lr": 0.1}, {"step": 2, "loss": 1.0}, {"step": 2, "eval_loss": 1.5}]
    write_tree(tmp_path, {"log.jsonl": log_of(lines) + '{"step": 3, "loss": 0.'})
    assert read_curves(tmp_path / "log.jsonl") == {
        "loss": Curve((1, 2), (2.0, 1.0)),
        "eval_loss": Curve((2,), (1.5,)),
        "lr": Curve((1,), (0.1,)),
    }
    assert count_steps(tmp_path / "log.jsonl") == 2


def test_what_is_no_figure_is_left_out(tmp_path):
    odd = [{"step": 1, "loss": float("nan")}, {"step": 1, "note": "text", "loss": 1}, {"step": "2", "loss": 3}, [1], 7]
    write_tree(tmp_path, {"log.jsonl": log_of(odd)})
    assert read_curves(tmp_path / "log.jsonl") == {"loss": Curve((1,), (1.0,))}


def test_a_long_curve_is_thinned_and_keeps_its_end(tmp_path):
    count = 3 * MOST_POINTS + 2
    write_tree(tmp_path, {"log.jsonl": log_of({"step": step, "loss": float(step)} for step in range(1, count + 1))})
    curve = read_curves(tmp_path / "log.jsonl")["loss"]
    assert len(curve.steps) <= MOST_POINTS + 1 and curve.steps[0] == 1 and curve.steps[-1] == count
    assert curve.values == tuple(map(float, curve.steps))


def test_runs_are_found_below_the_folder_and_no_symlink_is_followed(tmp_path):
    line = log_of([{"step": 1, "loss": 1.0}])
    write_tree(tmp_path / "elsewhere", {"log.jsonl": line})
    runs = write_tree(tmp_path / "runs", {"one/log.jsonl": line, "group/two/log.jsonl": line, "empty/x.txt": ""})
    (runs / "link").symlink_to(tmp_path / "elsewhere")
    (runs / "file").mkdir()
    (runs / "file" / "log.jsonl").symlink_to(tmp_path / "elsewhere" / "log.jsonl")
    assert list(find_runs(runs)) == ["group/two", "one"]
    assert list(find_runs(runs / "one")) == ["one"]


def test_it_needs_no_torch():
    code = "import sys, awareness.serve.run_curves; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
