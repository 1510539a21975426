"""A checkpoint is whole, or it is not there."""

from __future__ import annotations

import json

import pytest

from awareness.train.resuming.saved_steps import complete, rotate, saved_step, saved_steps
from tests.conftest import write_tree

ABOUT = {"base": "tiny", "steps": 10}


def saved(folder, *steps):
    for step in steps:
        state = json.dumps({"global_step": step, "best_global_step": None})
        files = {"weights": f"w{step}", "optimizer/state": f"o{step}", "trainer_state.json": state}
        write_tree(folder / f"checkpoint-{step}", files)
        complete(folder / f"checkpoint-{step}", ABOUT)
    return folder


def test_the_checkpoints_of_a_run_are_listed_the_latest_first(tmp_path):
    saved(tmp_path, 2, 10, 4)
    (tmp_path / "checkpoint-x").mkdir()
    (tmp_path / "checkpoint-12").touch()
    assert [(s.step, s.damage) for s in saved_steps(tmp_path)] == [(10, ""), (4, ""), (2, "")]
    latest = saved_steps(tmp_path)[0]
    others = (latest.path / "complete.json", latest.path / "trainer_state.json")
    assert latest.bytes == len("w10o10") + sum(path.stat().st_size for path in others)
    assert latest.about == ABOUT and latest.stopped_early is None and latest.state["global_step"] == 10
    assert saved_steps(tmp_path / "none") == []


DAMAGE = {
    "the checkpoint was not finished": lambda folder: (folder / "complete.json").unlink(),
    "the manifest half written": lambda folder: (folder / "complete.json").write_text('{"about": {'),
    "the manifest of another shape": lambda folder: (folder / "complete.json").write_text("[1]"),
    "the settings of another shape": lambda folder: (folder / "complete.json").write_text('{"about": 1, "files": {}}'),
    "a file half written": lambda folder: (folder / "weights").write_text("w"),
    "a bit flipped": lambda folder: (folder / "optimizer/state").write_text("o1p"),
    "a file gone": lambda folder: (folder / "weights").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_seen(tmp_path, damage):
    saved(tmp_path, 2, 10)
    DAMAGE[damage](tmp_path / "checkpoint-10")
    latest, before = saved_steps(tmp_path)
    assert latest.damage and not before.damage
    of_files = damage in ("a file half written", "a bit flipped", "a file gone")
    assert bool(latest.unfinished) is not of_files


def test_a_copy_of_a_checkpoint_may_have_any_name(tmp_path):
    saved(tmp_path, 4)
    (tmp_path / "checkpoint-4").rename(tmp_path / "kept")
    assert saved_step(tmp_path / "kept").step == 4 and not saved_step(tmp_path / "kept").damage
    (tmp_path / "kept/trainer_state.json").write_text("[]")
    assert saved_step(tmp_path / "kept") is None and saved_step(tmp_path) is None


def test_rotation_keeps_the_latest_whole_checkpoints(tmp_path):
    saved(tmp_path, 2, 4, 6, 8)
    (tmp_path / "checkpoint-8/weights").write_text("half")
    assert [path.name for path in rotate(tmp_path, 2)] == ["checkpoint-2"]
    assert [s.step for s in saved_steps(tmp_path)] == [8, 6, 4]  # what is newer than a whole one may be being written
    saved(tmp_path, 12)
    assert {path.name for path in rotate(tmp_path, 1)} == {"checkpoint-8", "checkpoint-6", "checkpoint-4"}
    assert rotate(tmp_path, 1) == [] and [s.step for s in saved_steps(tmp_path)] == [12]


def test_what_is_written(tmp_path):
    found = json.loads((saved(tmp_path, 2) / "checkpoint-2/complete.json").read_text())
    assert found["about"] == ABOUT and set(found) == {"about", "files"}
    assert set(found["files"]) == {"weights", "optimizer/state", "trainer_state.json"}
    complete(tmp_path / "checkpoint-2", ABOUT, {"patience": 3, "threshold": 0.0})
    assert saved_steps(tmp_path)[0].stopped_early == {"patience": 3, "threshold": 0.0}
