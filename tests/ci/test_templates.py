"""The templates in `ci/`: what they may say, and their very lines, run in a shell as the platform runs them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from tests.ci.shell import HOSTILE_BRANCH, ROOT, environment, plant_traps, shell
from tests.conftest import commit_all, git

ACTION = yaml.safe_load((ROOT / "ci/github/action.yml").read_text("utf-8"))
WORKFLOW = yaml.safe_load((ROOT / "ci/github/pack.yml").read_text("utf-8"))
GITLAB = yaml.safe_load((ROOT / "ci/gitlab/awareness.gitlab-ci.yml").read_text("utf-8"))
JOB = GITLAB["awareness-pack"]
STEPS = {step.get("id") or step.get("name"): step for step in ACTION["runs"]["steps"]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository of awareness, without the adapters, which are large."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path / "source"
    leave_out = shutil.ignore_patterns("__pycache__", "adapters")
    for name in ("awareness", "ci"):
        shutil.copytree(ROOT / name, folder / name, ignore=leave_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return commit_all(folder)


@pytest.fixture
def hostile(sample: Path, tmp_path: Path) -> Path:
    """A repository that runs something where a tool is careless; `pwned` would be in tmp_path."""
    plant_traps(sample, tmp_path / "pwned")
    git(sample, "add", "-Af")
    git(sample, "commit", "-qm", "second")
    git(sample, "branch", "-m", HOSTILE_BRANCH)
    return sample


def run_installing(lines: str, folder: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs lines that install the source with pip, offline: what it depends on is that of this Python.

    The variable that stops pip from fetching setuptools has the meaning of its contrary in some versions of pip."""
    installed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PYTHONPATH": ":".join(installed)}
    done = shell(lines, folder, {**variables, **offline, "PIP_NO_BUILD_ISOLATION": "0"})
    if "satisfies the requirement setuptools" in done.stderr:
        done = shell(lines, folder, {**variables, **offline, "PIP_NO_BUILD_ISOLATION": "1"})
    return done


# GitHub


def expanded(value: str, contexts: Mapping[str, str]) -> str:
    """As GitHub fills in `${{ … }}`. Only plain names: KeyError for what the test does not know."""
    return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda found: contexts[found[1]], value)


def test_no_line_of_a_shell_holds_an_expression():
    runs = [step["run"] for step in STEPS.values() if "run" in step]
    assert len(runs) == 2 and not any("${{" in run for run in runs)
    assert all(step["shell"] == "bash" for step in STEPS.values() if "run" in step)


def test_actions_are_pinned_by_commit_and_no_secret_is_asked_for():
    text = "".join((ROOT / f"ci/github/{name}.yml").read_text("utf-8") for name in ("action", "pack"))
    uses = [line.strip().removeprefix("- ") for line in text.splitlines() if "uses: actions/" in line]
    assert len(uses) == 7
    for line in uses:
        assert re.fullmatch(r"uses: actions/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line
    assert not re.search(r"\bsecrets\.|github\.token|^ *pull_request_target", text, re.MULTILINE)
    assert WORKFLOW["permissions"] == {"contents": "read"}


def test_the_workflow_gives_the_action_only_inputs_that_it_has():
    checkout, pack = WORKFLOW["jobs"]["pack"]["steps"]
    assert checkout["with"] == {"persist-credentials": False}
    assert pack["uses"] == "OWNER/awareness/ci/github@COMMIT"
    text = (ROOT / "ci/github/pack.yml").read_text("utf-8")
    offered = re.findall(r"^ {10}(?:# )?([\w-]+):", text, re.MULTILINE)
    assert set(offered) == {"persist-credentials", "model", "scope", "retention-days"}
    assert set(offered) - {"persist-credentials"} <= set(ACTION["inputs"])


def test_the_caches_of_the_action_are_restored_and_saved_under_one_key():
    caches = [step for step in STEPS.values() if "actions/cache/" in step.get("uses", "")]
    keys = {(step["with"]["path"], step["with"]["key"]) for step in caches}
    assert len(caches) == 4 and len(keys) == 2
    newest = STEPS["Restore the newest index"]["with"]
    assert newest["key"].startswith(newest["restore-keys"])
    folders = {path for path, _ in keys}
    assert folders == {STEPS["build"]["env"][f"AWARENESS_{name}_DIR"] for name in ("INDEX", "MODELS")}


def test_the_lines_of_the_action_build_a_pack(source, hostile, tmp_path, model_folder):
    runner_temp, outputs = tmp_path / "runner", tmp_path / "outputs"
    runner_temp.mkdir()
    inputs = {name: str(given["default"]) for name, given in ACTION["inputs"].items()}
    inputs |= {"model": str(model_folder), "scope": "src/**\ndocs/**\n", "pip-index": ""}
    contexts = {f"inputs.{name}": value for name, value in inputs.items()} | {"runner.temp": str(runner_temp)}
    platform = environment(tmp_path, Path()) | {
        "RUNNER_TEMP": str(runner_temp),
        "GITHUB_ACTIONS": "true",
        "GITHUB_ACTION_PATH": str(source / "ci/github"),
        "GITHUB_OUTPUT": str(outputs),
        "GITHUB_REF_NAME": HOSTILE_BRANCH,
        "GITHUB_REPOSITORY": "someone/cookies",
        "GITHUB_SHA": git(hostile, "rev-parse", "HEAD").strip(),
        "GITHUB_WORKSPACE": str(hostile),
    }
    for name in ("Install awareness", "build"):
        own = {key: expanded(value, contexts) for key, value in STEPS[name]["env"].items()}
        done = run_installing(STEPS[name]["run"], hostile, platform | own)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (runner_temp / "awareness/venv/bin/awareness").exists()
    built = dict(line.split("=", 1) for line in outputs.read_text().splitlines())
    contexts |= {f"steps.build.outputs.{name}": value for name, value in built.items()}
    kept = expanded(STEPS["upload"]["with"]["path"], contexts).split()
    assert [Path(path).is_file() for path in kept] == [True, True]
    assert expanded(ACTION["outputs"]["pack"]["value"], contexts) == kept[0]
    assert Path(kept[0]).name == f"cookies-{platform['GITHUB_SHA'][:12]}.awm"
    assert len(expanded(ACTION["outputs"]["sha256"]["value"], contexts)) == 64
    assert all(Path(expanded(path, contexts)).is_dir() for path in [STEPS["Restore the newest index"]["with"]["path"]])
    assert not list(tmp_path.rglob("pwned"))


# GitLab


def test_the_variables_of_a_user_win():
    assert set(GITLAB["variables"]) & set(JOB["variables"]) == set()
    assert JOB["variables"]["GIT_STRATEGY"] == "empty"


def test_the_lines_of_the_job_build_a_pack(source, hostile, tmp_path, model_folder):
    project = tmp_path / "builds/someone/cookies"
    project.mkdir(parents=True)
    given = {"AWARENESS_SOURCE": f"file://{source}", "AWARENESS_SOURCE_REV": git(source, "rev-parse", "HEAD").strip()}
    given |= {"AWARENESS_MODEL": str(model_folder), "AWARENESS_SCOPE": "src/**\ndocs/**", "AWARENESS_PIP_INDEX": ""}
    platform = environment(tmp_path, Path()) | {
        "CI": "true",
        "CI_COMMIT_BRANCH": HOSTILE_BRANCH,
        "CI_COMMIT_REF_NAME": HOSTILE_BRANCH,
        "CI_COMMIT_SHA": git(hostile, "rev-parse", "HEAD").strip(),
        "CI_PROJECT_DIR": str(project),
        "CI_PROJECT_NAME": "cookies",
        "CI_REPOSITORY_URL": f"file://{hostile}",
    }
    variables = platform | GITLAB["variables"] | given
    for name, value in JOB["variables"].items():  # as GitLab fills in variables of variables
        variables[name] = re.sub(r"\$(\w+)", lambda found: variables[found[1]], value)
    done = run_installing("\n".join([*JOB["before_script"], *JOB["script"]]), project, variables)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = JOB["artifacts"]["paths"]
    name = f"cookies-{platform['CI_COMMIT_SHA'][:12]}"
    assert {file.name for file in (project / folder).iterdir()} == {f"{name}.awm", f"{name}.json"}
    index, _ = JOB["cache"]
    assert all((project / path).is_dir() for path in index["paths"])
    assert {path.name for path in project.iterdir()} == {".awareness", "awareness-pack"}, (
        "the commit is not checked out"
    )
    assert not list(tmp_path.rglob("pwned"))


def test_a_job_without_a_source_says_which_variable_is_missing(tmp_path, model_folder):
    variables = environment(tmp_path, model_folder) | GITLAB["variables"]
    done = shell("\n".join(JOB["before_script"]), tmp_path, variables)
    assert done.returncode != 0 and "AWARENESS_SOURCE: is not set" in done.stderr


def test_every_line_of_a_template_is_a_line_of_a_shell():
    lines = [step["run"] for step in STEPS.values() if "run" in step] + [*JOB["before_script"], *JOB["script"]]
    for line in lines:
        assert isinstance(line, str)
        checked = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True)
        assert checked.returncode == 0, f"{shlex.quote(line)}: {checked.stderr}"
