"""Samples that a model writes before training: which, how many, by whom, and what a killed run leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections import Counter
from pathlib import Path

import pytest

from awareness.cli.app import run
from awareness.config.read import read_config
from awareness.model.load import load
from awareness.model.model_files import find
from awareness.train.preparation import prepare
from awareness.train.samples import teacher_samples
from awareness.train.samples.mixture import SampleStream
from awareness.train.samples.pool import Pool
from awareness.train.samples.teacher_samples import BATCH, PATIENCE, Models, closing, prepare_samples
from awareness.train.samples.written_questions import Result
from awareness.types import Chunk
from tests.conftest import tiny_model, tiny_tokenizer

CODE = [
    Chunk(
        f"src/{name}.py",
        1,
        3,
        name,
        f'def {name}(a):\n    a.{name}_first({n}7)\n    return {name}_last(a, "{name}s")\n',
    )
    for n, name in enumerate("render flush rotate merge parse filter".split(), 1)
]


class Scripted:
    """Stands for the writing model: every third request is refused, the others get a question of their own."""

    def __init__(self, usable=lambda request: True):
        self.requests, self.decoders, self.usable = [], [], usable

    def __call__(self, decoder):
        self.decoders.append((decoder.folder.name, weakref.ref(decoder.model)))
        return self.make

    def make(self, batch):
        self.requests += batch
        return [
            Result(
                f"{request.start} or {request.ask}?", f"It is `{request.fact}`.", "" if self.usable(request) else "no"
            )
            for request in batch
        ]


@pytest.fixture
def scripted(monkeypatch):
    made = Scripted()
    monkeypatch.setitem(teacher_samples._MAKERS, "written", made)
    return made


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where a training keeps what was written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AWARENESS_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "cache" / "awareness" / "prepared"


def written(folder, cache, count, pools=None, **options):
    """The samples of `written` by the model of a folder, and its report."""
    pools = pools or [Pool(CODE[:3], "one"), Pool(CODE[3:], "two")]
    with closing(Models()) as models:
        options = {"seed": 0, "models": models, **options}
        (made,) = prepare_samples(pools, {"written": find(str(folder))}, count=count, cache=cache, **options)
    return made


def test_more_samples_keep_the_first(model_folder, tmp_path, scripted):
    """What was written is never asked for again, and a larger number begins with the samples of a smaller one."""
    few = written(model_folder, tmp_path, 5)
    assert len(few.samples) == 5 and len(scripted.requests) == BATCH
    assert {sample.repository for sample in few.samples} == {"one", "two"}
    for prepared in few.samples:
        (text,) = prepared.sample.texts
        assert prepared.sample.gold == (0,) and text in {chunk.encoded_text for chunk in CODE}
        assert prepared.sample.kind == "written" and prepared.sample.answer[7:-2] in text
    assert written(model_folder, tmp_path, 5) == few and len(scripted.requests) == BATCH
    more = written(model_folder, tmp_path, 18)
    assert more.samples[:5] == few.samples and len(more.samples) == 18
    assert len(scripted.requests) == len(set(scripted.requests)) == 18
    assert written(model_folder, tmp_path / "other", 18).samples == more.samples  # it depends on nothing else
    assert written(model_folder, tmp_path, 5, seed=1).samples != few.samples


def test_two_requests_about_a_chunk_follow_each_other(model_folder, tmp_path, scripted):
    written(model_folder, tmp_path, 12)
    texts = [request.text for request in scripted.requests[:12]]
    assert texts[0::2] == texts[1::2] and len(set(texts)) == 6


def test_unusable_samples_and_repeated_questions_are_left_out(model_folder, tmp_path, monkeypatch):
    maker = Scripted(usable=lambda request: "first" not in request.fact)
    monkeypatch.setitem(teacher_samples._MAKERS, "written", maker)
    said = []
    made = written(model_folder, tmp_path, 100, say=said.append)
    assert made.tried == len(maker.requests) and 0 < len(made.samples) < 100
    assert made.rejected == {"no": made.tried - len(made.samples)}
    assert said[-1] == f"written: {len(made.samples)} samples, not 100: the chunks give no more"
    monkeypatch.setattr(maker, "make", lambda batch: [Result("What is it?", "It is `it`.") for _ in batch])
    same = written(model_folder, tmp_path / "other", 100)
    assert len(same.samples) == 1 and same.rejected == {"a question that was there before": same.tried - 1}


def test_damaged_lines_are_written_again(model_folder, tmp_path, scripted):
    first = written(model_folder, tmp_path, 12)
    (path,) = tmp_path.glob("*.jsonl")
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(b"Which", b"Whose").replace(b"What", b"Whom")
    lines[2], lines[9], lines[-2] = b"\xff{", b"{}", lines[-2][:40]
    path.write_bytes(b"\n".join(lines[:-1]))  # the last line was cut off
    said = []
    scripted.requests.clear()
    assert written(model_folder, tmp_path, 12, say=said.append) == first
    assert len(scripted.requests) == 4 and f"{path}: 4 damaged lines are not used" in said
    scripted.requests.clear()
    assert written(model_folder, tmp_path, 12) == first and not scripted.requests


def test_the_progress_is_told(model_folder, tmp_path, scripted, monkeypatch):
    monkeypatch.setattr(teacher_samples, "SAY_S", 0.0)
    said, moved = [], []
    written(model_folder, tmp_path, 18, say=said.append, progress=lambda *state: moved.append(state))
    states = ["written: 16 of 18 samples of 16 tries", "written: 18 of 18 samples of 18 tries"]
    assert [line.split(", ")[0] for line in said] == states
    assert "s each, about 0 min left" in said[0] and said[1].endswith("s each")
    assert moved == [("written: asking " + str(model_folder), done, 18) for done in (0, 16, 18)]


def test_distractors_are_answered_by_the_base(model_folder, tmp_path, monkeypatch):
    asked = []

    def say(decoder, prompts, *, max_new_tokens):
        asked.extend(decoder.tokenizer.decode(ids) for ids in prompts)
        return [
            f"I can't find number {len(asked)}. It is" if "?" in decoder.tokenizer.decode(ids) else ""
            for ids in prompts
        ]

    monkeypatch.setattr(teacher_samples, "generate_batch", say)
    pool, folder = Pool(CODE, "one"), find(str(model_folder))
    with closing(Models()) as models:
        (made,) = prepare_samples([pool], {"distractors": folder}, count=3, seed=0, cache=tmp_path, models=models)
    assert len(made.samples) == 3 and len(asked) == BATCH
    for prepared in made.samples:
        assert prepared.sample.texts == prepared.sample.gold == () and prepared.sample.question in "".join(asked)
        assert prepared.sample.answer.startswith("I can't find number") and prepared.sample.answer.endswith(".")
    stream = SampleStream(
        [pool], {"distractors": 1.0}, curriculum=[4], length=9, group=1, seed=0, prepared={"distractors": made.samples}
    )
    assert {stream[i].kind for i in range(9)} == {"distractors"}


def test_a_decoder_in_use_can_write_and_is_left_as_it_is(model_folder, tmp_path, scripted):
    own = load(find(str(model_folder)))
    assert Models(own).get(own.folder) is own
    loaded = Models(own)
    written(model_folder, tmp_path, 1, models=loaded)
    loaded.free()
    assert scripted.decoders[0][1]() is own.model and not any(hasattr(m, "codes") for m in own.model.modules())


# Through the command line


def train(config_file, *settings):
    options = [option for setting in settings for option in ("--set", setting)]
    return run(["train", "--config", str(config_file), *options])


WRITTEN = ("data.kinds={written: 1, constant: 1}", "data.written=6", "training.max_steps=1", "training.eval_samples=2")


def test_written_by(config_file, model_folder, tmp_path, cache, scripted):
    """Another model, with other weights and another vocabulary, writes; `data.json` and the cache name it."""
    other = tmp_path / "other-teacher"
    tiny_model("llama", seed=1).save_pretrained(other)
    tiny_tokenizer().save_pretrained(other)
    assert train(config_file, *WRITTEN, f"data.written_by={other}") == 0
    report = json.loads((tmp_path / "trained" / "data.json").read_text())["written"]
    assert [(split, made["kind"], made["samples"]) for split, kinds in report.items() for made in kinds] == [
        ("train", "written", 6),
        ("validation", "written", 2),  # as many as are drawn
    ]
    fingerprint = find(str(other)).fingerprint
    assert {(made["written_by"], made["fingerprint"]) for (made,) in report.values()} == {(str(other), fingerprint)}
    assert {name for name, _ in scripted.decoders} == {str(other)}
    (path,) = cache.glob("written-other-teacher-*.jsonl")
    assert {json.loads(line)["fingerprint"] for line in path.read_text().splitlines()} == {fingerprint}
    assert train(config_file, *WRITTEN, f"output_dir={tmp_path / 'base'}") == 0  # null: the base model
    assert scripted.decoders[-1][0] == str(model_folder)


def test_the_writing_model_is_freed_before_training(config_file, cache, scripted):
    prepared = prepare(read_config(config_file, list(WRITTEN)), pull=find)
    (_, model), (_, same) = scripted.decoders  # of training and of validation
    assert same is model and model() is None
    assert {prepared.trainer.train_dataset[i].kind for i in range(2)} <= {"written", "constant"}


def test_a_run_resumes_with_its_samples_only(config_file, tmp_path, cache, scripted, capsys):
    """Without its cache a run gets the same samples from the same model; other samples are refused."""
    assert train(config_file, *WRITTEN) == 0
    (path,) = cache.glob("*.jsonl")
    resume = ["train", "--config", str(config_file), "--resume", "latest"]
    for setting in WRITTEN:
        resume += ["--set", setting]
    assert run(resume) == 0
    path.unlink()
    first = scripted.requests[0]
    scripted.usable = lambda request: request != first
    assert run(resume) == 2 and "data" in capsys.readouterr().err


def test_a_model_that_cannot_be_had_ends_the_run_at_once(config_file, cache, scripted, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert train(config_file, *WRITTEN, "data.written_by=nobody/absent-model") == 3
    said = capsys.readouterr().err
    assert "data.written_by: model nobody/absent-model" in said
    assert "awareness models pull nobody/absent-model, or --set data.written_by=null" in said
    assert not cache.exists() and "reading sources" not in said
    assert train(config_file, *WRITTEN, "data.written_by=no-such-preset") == 2


def test_a_model_that_writes_nothing_usable_is_one_error(config_file, tmp_path, cache, capsys):
    """A tiny random decoder, really asked. The number of tries is bounded, and a second run asks nothing."""
    assert train(config_file, *WRITTEN, "training.eval_samples=0", "output_dir=" + str(tmp_path / "a")) == 2
    said = capsys.readouterr().err
    assert "usable samples in" in said and "data.written_by=qwen2.5-coder-1.5b" in said
    (path,) = cache.glob("*.jsonl")
    lines = path.read_text().splitlines()
    assert 0 < len(lines) <= PATIENCE and all(json.loads(line)["rejected"] for line in lines)
    assert train(config_file, *WRITTEN, "training.eval_samples=0", "output_dir=" + str(tmp_path / "b")) == 2
    assert path.read_text().splitlines() == lines


def test_settings_that_write_nothing_are_told(config_file, capsys, cache):
    only = ["data.kinds={written: 1}", "training.max_steps=1"]
    assert train(config_file, *only) == 2
    said = capsys.readouterr().err
    assert "data.kinds.written: no sample is written, because data.written is 0" in said and "data.written=100" in said
    scratch = "model={base_model_name: null, hidden_dim: 48, num_heads: 6, num_layers: 2, tokenizer_name: %s}"
    name = read_config(config_file, []).model.base_model_name
    for kind, hint in (("written", "data.written_by=qwen2.5-coder-0.5b"), ("distractors", "data.kinds.distractors=0")):
        assert train(config_file, scratch % name, f"data.kinds={{{kind}: 1}}", "data.written=3") == 2
        said = capsys.readouterr().err
        assert f"data.kinds.{kind}: a decoder from scratch has no base model" in said and hint in said


_DRIVER = """
import json, sys, time
from awareness.cli.app import run
from awareness.train.samples import teacher_samples
from awareness.train.samples.written_questions import Result

log, pause, *arguments = sys.argv[1:]

def maker(decoder):
    def make(batch):
        time.sleep(float(pause))
        with open(log, "a") as out:
            out.write("".join(json.dumps([r.text, r.ask]) + "\\n" for r in batch))
        return [Result(f"{r.start} or {r.ask}?", f"It is `{r.fact}`.") for r in batch]
    return make

teacher_samples._MAKERS["written"] = maker
sys.exit(run(arguments))
"""


def test_kill_minus_9_loses_one_batch_and_of_two_processes_one_writes(config_file, tmp_path, cache):
    def start(name, pause):
        settings = [
            *WRITTEN[:1],
            "data.written=20",
            *WRITTEN[2:3],
            "training.eval_samples=0",
            f"output_dir={tmp_path / name}",
        ]
        options = [option for setting in settings for option in ("--set", setting)]
        command = [sys.executable, "-c", _DRIVER, str(tmp_path / f"{name}.asked"), str(pause), "train"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        return subprocess.Popen(
            [*command, "--config", str(config_file), *options], env=environment, stderr=subprocess.PIPE
        )

    killed = start("killed", 1.0)
    deadline = time.monotonic() + 300
    while not (stored := [path for path in cache.glob("*.jsonl") if path.stat().st_size]):
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    kept = [json.loads(line)["ask"] for line in stored[0].read_text().splitlines()]
    assert kept
    both = [start("one", 0.3), start("two", 0.3)]
    errors = [process.communicate(timeout=300)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    asked = [json.loads(line) for path in tmp_path.glob("*.asked") if path.stem != "killed" for line in path.open()]
    assert max(Counter(map(tuple, asked)).values()) == 1 and not {ask for _, ask in asked} & set(kept)
    reports = [json.loads((tmp_path / name / "data.json").read_text())["written"] for name in ("one", "two")]
    assert reports[0] == reports[1] and reports[0]["train"][0]["samples"] == 20
