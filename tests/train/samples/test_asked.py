"""Questions that people wrote about the sources."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from awareness.cli.app import run
from awareness.config.training_files import find_questions
from awareness.errors import UsageError
from awareness.model.not_said import NOT_SAID
from awareness.train.samples.asked import asked_sample, questions_of
from awareness.train.samples.pool import Pool
from awareness.types import Chunk

CHUNKS = [
    Chunk("pkg/lock.py", 1, 4, "wait", "def wait():\n    # how long a lock waits\n    return 30"),
    Chunk("pkg/lock.py", 5, 9, "give_up", "def give_up():\n    raise LockTimeout"),
    *(Chunk(f"pkg/part_{n}.py", 1, 2, f"part_{n}", f"def part_{n}(a):\n    return a + {n}") for n in range(6)),
    Chunk("pkg/doors.py", 1, 3, "doors", "# how long a door waits before the lock\nDOORS = 2"),
]
POOL = Pool(CHUNKS, "pkg-2.0")
LONG = {
    "question": "how long does a lock wait",
    "answer": "It waits `30` seconds.",
    "gold": ["pkg/lock.py:2-3"],
    "repo": "pkg-1.0",
}


@pytest.fixture
def file(tmp_path) -> Path:
    lost = {**LONG, "question": "what is elsewhere?", "gold": ["pkg/gone.py:1-2"]}
    other = {**LONG, "repo": "other-1.0"}
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (LONG, lost, other)))
    return path


def test_a_question_belongs_to_any_version_of_its_source_and_to_chunks_that_show_its_place(file):
    (asked,) = questions_of([str(file)], find_questions).about(POOL)
    assert (asked.question, asked.answer, asked.golds) == (LONG["question"], LONG["answer"], (0,))
    with pytest.raises(UsageError, match=r"none\.jsonl can't be read"):
        questions_of(["none.jsonl"], find_questions)


def test_with_and_without_the_chunk_that_answers(file):
    (asked,) = questions_of([str(file)], find_questions).about(POOL)
    endings = set()
    for seed in range(40):
        sample = asked_sample(random.Random(seed), asked, 5, is_answered=True)
        assert [sample.texts[place] for place in sample.gold] == [POOL.texts[0]] and len(set(sample.texts)) == 5
        assert sample.answer == LONG["answer"] and sample.question.startswith(LONG["question"])
        assert POOL.texts[8] in sample.texts  # which shares the most words
        endings.add(sample.question.removeprefix(LONG["question"]))
        unknown = asked_sample(random.Random(seed), asked, 5, is_answered=False)
        assert (unknown.answer, unknown.gold, len(unknown.texts)) == (NOT_SAID, (), 5)
        assert POOL.texts[0] not in unknown.texts and POOL.texts[8] in unknown.texts
    assert len(endings) == 3
    assert asked_sample(random.Random(0), asked, 1, is_answered=False).texts == (POOL.texts[8],)


def test_train_on_them(config_file, sources, tmp_path, capfd):
    """Chunks that answer are kept beside those that are drawn; a changed answer is another training."""
    question = {
        "question": "what does alpha do",
        "answer": "It returns `a.alpha`.",
        "gold": ["one/core.py:1-1"],
        "repo": "one",
    }
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps(question) + "\n")
    options = ["--set", f"data.questions=[{file}]", "--set", "data.kinds={asked: 1, asked_unknown: 1}"]
    options += ["--set", "data.chunks_per_source=1", "--set", "data.validation=0", "--set", "training.max_steps=2"]
    assert run(["train", "--config", str(config_file), *options]) == 0
    err = capfd.readouterr().err
    assert "1 question of data.questions for train" in err
    file.write_text(json.dumps({**question, "answer": "It returns `b`."}) + "\n")
    more = ["--set", "training.max_steps=3", "--resume", "latest"]
    assert run(["train", "--config", str(config_file), *options, *more]) == 2
    assert "questions of data.questions" in capfd.readouterr().err
