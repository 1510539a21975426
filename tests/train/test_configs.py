"""The files in configs/ run as they are, and none learns from what is measured on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from awareness.config.read import read_config
from awareness.config.training_files import find_questions
from awareness.model.checkpoint import Checkpoint
from awareness.model.model_files import find
from awareness.model.presets import DEFAULT_MODEL
from awareness.train.data.data_sources import project
from awareness.train.preparation import prepare
from awareness.train.samples.asked import questions_of

ROOT = Path(__file__).parent.parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
MEMORY = [path for path in CONFIGS if "task: memory" in path.read_text() or "extends:" in path.read_text()]
ON_REPOSITORIES = [path for path in MEMORY if path.stem != "scratch-small"]


def evaluated_on(*, only_answers: bool = False) -> set[str]:
    """Every repository that a benchmark or an evaluation of docs/results.md measures on, without its version.
    only_answers: without those that only searches are measured on."""
    checkouts = json.loads((ROOT / "benchmarks/retrieval/checkouts.json").read_text())
    names = {n for half in checkouts.values() for n, entry in half.items() if not (only_answers and "set" in entry)}
    names |= {path.stem for path in (ROOT / "benchmarks/qa").glob("*.jsonl")}
    for path in (ROOT / "benchmarks/results").glob("*.json"):
        found = json.loads(path.read_text())
        names |= set(found.get("repositories", [])) | {found.get("repository", "rich")}
    return {project(name) for name in names} | {"rich", "click", "flask", "httpx"}


MEASURED_ELSEWHERE = (
    "aiohttp astropy django fastapi flask matplotlib model2vec pydantic pylint pytest requests scikit_learn seaborn"
    " sphinx sqlfluff sympy xarray"
).split()
COPIES = {  # package -> the project whose code it carries
    "pypi:mitmproxy": "click",
    "pypi:pip": "requests and rich",
    "pypi:salt": "tornado",
    "pypi:typer": "click",
    "npm:leveldown": "leveldb",
    "npm:react-query": "query-core",
    "deb:puma": "rack",
    "deb:librust-globset-dev": "ripgrep",
    "deb:librust-grep-dev": "ripgrep",
    "deb:librust-ignore-dev": "ripgrep",
    "deb:golang-github-julienschmidt-httprouter-dev": "gin",
    "deb:golang-github-gorilla-schema-dev": "fiber",
}


def test_the_shipped_router_learned_from_no_project_that_search_is_measured_on():
    corpus = (ROOT / "benchmarks/retrieval/corpus.txt").read_text().split()
    packages = {re.split(r"(?<=.)[@=]", archive.replace("npm:@", "npm:"))[0] for archive in corpus}
    packages.remove("npm:react-three/fiber")  # React's, not Go's
    assert len(packages) > 700 and not packages & set(COPIES)
    names = {project(name) for name in evaluated_on() | set(MEASURED_ELSEWHERE)}
    assert not {project(package.partition(":")[2]) for package in packages} & names
    of_debian = {
        package.removesuffix("-dev").removeprefix("deb:") for package in packages if package.startswith("deb:")
    }
    last = {project(name.removeprefix("lib").rpartition("-")[2]) for name in of_debian}
    assert not last & names


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_file_is_read(path):
    assert read_config(path, []).task in ("router", "memory")


@pytest.mark.parametrize("path", ON_REPOSITORIES, ids=lambda path: path.stem)
def test_no_validation_repository_is_trained_on(path):
    data = read_config(path, []).data
    sources = {project(source.removeprefix("pypi:").partition("==")[0]) for source in data.sources}
    assert len(sources) > 30 and not sources & evaluated_on(only_answers=True)
    assert {"rich", "click", "starlette", "scrapy"} <= {project(name) for name in data.test}


def test_the_adapter_of_the_default_model_learned_from_no_project_that_anyone_measures_on():
    data = read_config(ROOT / "configs/qwen-memory.yaml", []).data
    sources = {project(source.removeprefix("pypi:").partition("==")[0]) for source in data.sources}
    assert not sources & ({project(name) for name in MEASURED_ELSEWHERE} | evaluated_on())
    assert set(MEASURED_ELSEWHERE) & {"flask", "requests", "pytest"} <= {project(name) for name in data.test}


@pytest.mark.parametrize("last, model", [("smollm2-memory-long", "smollm2-135m"), ("qwen-memory-long", DEFAULT_MODEL)])
def test_a_shipped_adapter_has_the_settings_of_its_last_file(last, model):
    shipped = Checkpoint.read(ROOT / "awareness/adapters" / model)
    config = read_config(ROOT / f"configs/{last}.yaml", [])
    assert shipped.base == model == config.model.base_model_name
    assert shipped.memory == config.memory


def test_people_asked_only_about_the_sources():
    data = read_config(ROOT / "configs/qwen-memory.yaml", []).data
    sources = {project(source.removeprefix("pypi:").partition("==")[0]) for source in data.sources}
    asked = questions_of(data.questions, find_questions).by_project
    assert set(asked) <= sources and sum(map(len, asked.values())) > 700
    questions = [question.question for own in asked.values() for question in own]
    assert len(set(questions)) == len(questions) and all(len(q.gold) == 1 for own in asked.values() for q in own)


@pytest.mark.parametrize("path", ON_REPOSITORIES, ids=lambda path: path.stem)
def test_the_files_run_on_a_tiny_qwen3(path, sources, model_folder, tmp_path):
    """`--set model=…`: the path of Qwen3, with the settings of the file, on small sources."""
    settings = [f"model={model_folder}", f"data.sources=[{sources}/*]", "data.validation=[four]", "data.test=[]"]
    settings += ["memory.gca_start_layer=2", f"output_dir={tmp_path}", "training.eval_samples=2", "start_from=null"]
    if path.stem == "compare-vanilla":
        with pytest.raises(Exception, match="nothing is trained"):
            prepare(read_config(path, settings), pull=find)
        return
    run = prepare(read_config(path, settings), pull=find)
    step = run.trainer.model.train()
    out = step(**run.trainer.data_collator([run.trainer.train_dataset[i] for i in range(2)]))
    out["loss"].backward()
    assert out["loss"].isfinite() and any(p.grad.abs().sum() > 0 for p in run.module.trainable().values())
