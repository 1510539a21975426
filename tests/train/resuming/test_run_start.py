"""Where a run begins, and what is refused."""

from __future__ import annotations

import json
import shlex

import pytest

from awareness.config.read import read_config
from awareness.errors import UsageError
from awareness.train.preparation import settings_about
from awareness.train.resuming.run_start import RunStart, find_start
from awareness.train.resuming.saved_steps import complete
from tests.conftest import write_tree


@pytest.fixture
def run(config_file):
    """(settings) -> the settings and the checkpoints of a run in the folder of the training file."""

    class Run:
        folder = read_config(config_file, []).output_dir

        def save(self, *steps, settings=(), folder=None, stopped_early=None):
            about = settings_about(read_config(config_file, list(settings)))
            for step in steps:
                path = (folder or self.folder) / f"checkpoint-{step}"
                write_tree(path, {"weights": "w", "trainer_state.json": json.dumps({"global_step": step})})
                complete(path, about, stopped_early)
            return path

        def end(self, folder=None):
            write_tree(folder or self.folder, {"final/config.json": "{}", "result.json": "{}", "log.jsonl": "{}"})

        def start(self, *settings, resume=None, warn=pytest.fail):
            config = read_config(config_file, list(settings))
            return find_start(config, resume, settings_about(config), warn)

        def refused(self, *settings, resume=None):
            """(message, details, hint)"""
            with pytest.raises(UsageError) as found:
                self.start(*settings, resume=resume)
            return found.value.message, found.value.details, found.value.hint

    return Run()


def settings_in(hint):
    words = shlex.split(hint.split(", or ")[0])
    return [words[i + 1] for i, word in enumerate(words) if word == "--set"]


def test_an_empty_folder_and_one_without_a_checkpoint_begin(run):
    assert run.start() == RunStart()
    begins = f"{run.folder} has no checkpoint yet: the run starts from the beginning"
    assert run.start(resume="latest").lines == (begins,)
    write_tree(run.folder, {"log.jsonl": '{"step": 1}\n', "checkpoint-2/weights": "half"})
    warnings = []
    start = run.start(warn=warnings.append)
    assert (start.saved, start.lines) == (None, (begins,))
    assert warnings == [
        f"{run.folder}/checkpoint-2 is skipped: complete.json is missing: the checkpoint was not finished"
    ]


def test_the_same_command_goes_on(run):
    path = run.save(2, 4)
    for resume in (None, "latest", str(path)):
        start = run.start(resume=resume)
        assert (start.step, start.is_finished) == (4, False)
        assert start.lines == (f"continues at step 4 of 8, from {path}",)


@pytest.mark.parametrize("resume", [None, "latest", "named"])
def test_other_settings_are_refused_with_all_that_differs(run, resume):
    path = run.save(2)
    message, details, hint = run.refused(
        "training.lora_lr=0.5", "memory.lora_rank=8", resume=str(path) if resume == "named" else resume
    )
    assert details == ("memory.lora_rank was 4, now 8", "training.lora_lr was 0.0003, now 0.5")
    begins = f"{run.folder} already holds a run" if resume is None else f"{path} is of another run"
    assert message == begins + ", of which this differs:"
    assert run.start("training.lora_lr=0.5", "memory.lora_rank=8", *settings_in(hint)).step == 2
    assert hint.endswith(", or --set output_dir=ANOTHER_FOLDER")


def test_a_finished_run_is_finished(run):
    path = run.save(8)
    start = run.start()  # killed before `final/` was written
    assert start.is_finished and start.lines == (f"{path}: step 8 of 8; {run.folder}/final is written from it",)
    run.end()
    message, _, hint = run.refused()
    assert message == f"{run.folder} is finished: step 8 of 8"
    assert hint == "--resume latest --set training.max_steps=16, or --set output_dir=ANOTHER_FOLDER"
    assert run.start("training.max_steps=16", resume="latest").step == 8
    assert run.start(resume="latest").is_finished  # a script may type it again


def test_max_steps_may_be_raised_and_lowered_to_what_is_done(run):
    path = run.save(4)
    message, details, hint = run.refused("training.max_steps=16")
    assert details == ("training.max_steps was 8, now 16",) and "already holds a run" in message
    assert hint == "--resume latest, which goes on after step 4, or --set output_dir=ANOTHER_FOLDER"
    start = run.start("training.max_steps=16", resume="latest")
    assert start.lines[1] == (
        "training.max_steps was 8: from here on the learning rates and the stages of data.chunks follow 16 steps"
    )
    one = run.start("training.max_steps=16", resume=str(path))
    assert one == start and not one.is_finished
    run.save(4, settings=["data.chunks=[3]"])
    assert "stages" not in run.start("training.max_steps=16", "data.chunks=[3]", resume="latest").lines[1]
    run.save(4)
    assert run.start("training.max_steps=4", resume="latest").is_finished
    message, _, hint = run.refused("training.max_steps=3", resume="latest")
    assert message == f"training.max_steps: 3 is less than the 4 steps of {path}"
    assert run.start("training.max_steps=3", *settings_in(hint), resume="latest").step == 4


def test_early_stopping_ends_a_run_as_long_as_its_settings_are_the_same(run):
    stopped = {"patience": 1, "threshold": 0.0}
    own = ["training.early_stopping=true", "training.early_stopping_patience=1"]
    path = run.save(4, stopped_early=stopped)
    assert run.start(*own).lines == (f"{path}: step 4 of 8, by early stopping; {run.folder}/final is written from it",)
    run.end()
    message, _, hint = run.refused(*own)
    assert message == f"{run.folder} is finished: step 4 of 8, by early stopping"
    assert not run.start(*own, *settings_in(hint)).is_finished
    assert not run.start(*own, "training.early_stopping_patience=2").is_finished


def test_a_result_without_its_checkpoints_is_not_trained_over(run):
    run.end()
    for resume in (None, "latest"):
        message, _, hint = run.refused(resume=resume)
        assert message == f"{run.folder} already holds a run: final/, without a whole checkpoint to go on from"
        assert hint.startswith("--set output_dir=ANOTHER_FOLDER")


def test_what_is_no_checkpoint_says_what_is_meant(run, tmp_path):
    run.save(2, 4)
    run.end()
    write_tree(run.folder, {"checkpoint-6/weights": "half"})
    for folder, message, hint in [
        ("none", "there is no such folder", "--resume latest"),
        ("checkpoint-6", "complete.json is missing: the checkpoint was not finished", "--resume latest"),
        (
            "final",
            "it has trained tensors but no state of the optimizer, so no run can go on from it",
            f"--set start_from={run.folder}/final --set output_dir=ANOTHER_FOLDER, which begins a new run with its"
            " tensors",
        ),
        (".", "it holds checkpoints and is none", f"--resume {run.folder}/checkpoint-4"),
        ("..", "it is no checkpoint", "--resume latest"),
    ]:
        with pytest.raises(UsageError) as found:
            run.start(resume=str(run.folder / folder), warn=lambda _: None)
        assert found.value.message == f"--resume {run.folder / folder}: {message}"
        assert found.value.hint == hint


def test_a_checkpoint_of_another_folder_begins_a_run_in_this_one(run, tmp_path):
    path = run.save(4, folder=tmp_path / "other")
    assert run.start(resume=str(path)).saved.path == path
    own = run.save(6)  # the same command again, after it was interrupted
    assert run.start(resume=str(path)).saved.path == own
    later = run.save(8, folder=tmp_path / "other")
    message, _, hint = run.refused(resume=str(later))
    assert message == f"{run.folder} already holds a run, up to step 6; {later} would be mixed with it"
    assert hint == f"--resume {later} --set output_dir=ANOTHER_FOLDER"


def test_an_earlier_checkpoint_is_not_mixed_with_later_ones(run):
    """Rotation keeps the highest steps, which would be those of the other way on."""
    path = run.save(2)
    run.save(4)
    assert run.start(resume=str(path)).step == 4  # equal settings have equal losses
    assert "would be mixed" in run.refused("training.max_steps=16", resume=str(path))[0]
    assert run.start("training.max_steps=16", f"output_dir={run.folder}2", resume=str(path)).step == 2
