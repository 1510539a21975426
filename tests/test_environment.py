"""Settings by environment: every variable has an owner, a default and a place where it is read."""

from __future__ import annotations

import pytest

from awareness.config.environment import Environment, environment, variable


def test_the_defaults(monkeypatch):
    for field in Environment.model_fields:
        monkeypatch.delenv(variable(field), raising=False)
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
