"""Settings by environment: every variable has an owner, a default and a place where it is read."""

from __future__ import annotations

from dataclasses import fields

import pytest

from awareness.config.environment import Environment, cache_dir, environment, variable
from awareness.errors import UsageError
from awareness.index.store.layout import indexes_dir
from awareness.model.model_files import models_dir


def test_the_defaults(monkeypatch):
    for field in fields(Environment):
        monkeypatch.delenv(variable(field.name), raising=False)
    defaults = environment()
    assert (defaults.index_dir, defaults.model, defaults.latents_budget, defaults.index_minutes) == (
        None,
        None,
        "2GiB",
        "3",
    )


def test_a_variable_is_read_when_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("AWARENESS_INDEX_DIR", str(tmp_path))
    monkeypatch.setenv("AWARENESS_ROUTER", "all-minilm-l6-v2")
    monkeypatch.setenv("AWARENESS_ADAPTER", "")  # empty is as if it were not set
    now = environment()
    assert (now.index_dir, now.router, now.adapter) == (tmp_path, "all-minilm-l6-v2", None)


def test_a_field_that_is_not_there_has_no_variable():
    with pytest.raises(KeyError):
        variable("nonsense")


def test_an_env_file_of_a_stranger_sets_nothing(monkeypatch, tmp_path):
    monkeypatch.delenv("AWARENESS_MODEL", raising=False)
    (tmp_path / ".env").write_text("AWARENESS_MODEL=evil/model\n")
    monkeypatch.chdir(tmp_path)
    assert environment().model is None


@pytest.mark.parametrize("found", ["~/.cache/awareness", RuntimeError("could not determine the home directory")])
def test_a_user_without_a_home_folder_is_told_which_variables_to_set(monkeypatch, found):
    def user_cache_dir(*_: object, **__: object) -> str:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr("platformdirs.user_cache_dir", user_cache_dir)
    monkeypatch.delenv("AWARENESS_INDEX_DIR", raising=False)
    for folder in (cache_dir, indexes_dir, models_dir):
        with pytest.raises(UsageError, match="HOME is not set") as raised:
            folder()
        assert "AWARENESS_INDEX_DIR=" in str(raised.value.hint) and "AWARENESS_MODELS_DIR=" in str(raised.value.hint)


def test_the_folder_of_the_models_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("AWARENESS_MODELS_DIR", str(tmp_path / "m"))
    assert models_dir() == tmp_path / "m"


def test_the_case_of_a_variable_does_not_matter(monkeypatch):
    monkeypatch.delenv("AWARENESS_LATENTS_BUDGET", raising=False)
    monkeypatch.setenv("awareness_latents_budget", "1MiB")
    assert environment().latents_budget == "1MiB"
