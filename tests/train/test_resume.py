"""A checkpoint is whole, or it is not there."""

from __future__ import annotations

import json

import pytest

from awareness.errors import UsageError
from awareness.train.resume import complete, resumable, rotate, saved_steps
from tests.conftest import write_tree

ABOUT = {"base": "tiny", "steps": 10}


def saved(folder, *steps):
    for step in steps:
        write_tree(folder / f"checkpoint-{step}", {"weights": f"w{step}", "optimizer/state": f"o{step}"})
        complete(folder / f"checkpoint-{step}", ABOUT)
    return folder


def test_a_run_resumes_from_the_latest_whole_checkpoint(tmp_path):
    saved(tmp_path, 2, 10, 4)
    assert [(s.step, s.damage) for s in saved_steps(tmp_path)] == [(10, ""), (4, ""), (2, "")]
    assert saved_steps(tmp_path)[0].bytes == len("w10o10") + (tmp_path / "checkpoint-10/complete.json").stat().st_size
    assert resumable(tmp_path, "latest", ABOUT, pytest.fail) == tmp_path / "checkpoint-10"


DAMAGE = {
    "the checkpoint was not finished": lambda folder: (folder / "complete.json").unlink(),
    "the manifest half written": lambda folder: (folder / "complete.json").write_text('{"about": {'),
    "the manifest of another shape": lambda folder: (folder / "complete.json").write_text("[1]"),
    "a file half written": lambda folder: (folder / "weights").write_text("w"),
    "a bit flipped": lambda folder: (folder / "optimizer/state").write_text("o1p"),
    "a file gone": lambda folder: (folder / "weights").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path, damage):
    saved(tmp_path, 2, 10)
    DAMAGE[damage](tmp_path / "checkpoint-10")
    warnings = []
    assert resumable(tmp_path, "latest", ABOUT, warnings.append) == tmp_path / "checkpoint-2"
    assert len(warnings) == 1 and str(tmp_path / "checkpoint-10") in warnings[0] and "is skipped: " in warnings[0]
    with pytest.raises(UsageError, match="checkpoint-10: "):
        resumable(tmp_path, str(tmp_path / "checkpoint-10"), ABOUT, pytest.fail)


def test_without_checkpoints_a_run_starts_from_the_beginning(tmp_path):
    assert resumable(tmp_path, "latest", ABOUT, pytest.fail) is None
    assert resumable(tmp_path / "none", "latest", ABOUT, pytest.fail) is None
    with pytest.raises(UsageError, match="there is no such folder"):
        resumable(tmp_path, str(tmp_path / "checkpoint-3"), ABOUT, pytest.fail)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    saved(tmp_path, 2)
    with pytest.raises(UsageError, match="its steps was 10, now it is 11"):
        resumable(tmp_path, "latest", {**ABOUT, "steps": 11}, pytest.fail)
    with pytest.raises(UsageError, match="its seed was None"):
        resumable(tmp_path, "latest", {**ABOUT, "seed": 0}, pytest.fail)


def test_rotation_keeps_the_latest_whole_checkpoints(tmp_path):
    saved(tmp_path, 2, 4, 6, 8)
    (tmp_path / "checkpoint-8/weights").write_text("half")
    assert [path.name for path in rotate(tmp_path, 2)] == ["checkpoint-2"]
    assert [s.step for s in saved_steps(tmp_path)] == [8, 6, 4]  # what is newer than a whole one may be being written
    saved(tmp_path, 12)
    assert {path.name for path in rotate(tmp_path, 1)} == {"checkpoint-8", "checkpoint-6", "checkpoint-4"}
    assert rotate(tmp_path, 1) == [] and [s.step for s in saved_steps(tmp_path)] == [12]


def test_what_is_listed(tmp_path):
    found = json.loads((saved(tmp_path, 2) / "checkpoint-2/complete.json").read_text())
    assert found["about"] == ABOUT and set(found["files"]) == {"weights", "optimizer/state"}
