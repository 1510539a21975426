"""Repositories are opened when they are asked for, closed when idle, and nothing else is served."""

from __future__ import annotations

import pytest

from awareness.engine.model_pool import ModelPool
from awareness.errors import UsageError
from awareness.serve.repositories import Repositories
from tests.conftest import commit_all, write_tree


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def two(tmp_path):
    for name in ("alpha", "beta"):
        commit_all(write_tree(tmp_path / name, {"main.py": f"def {name}_entry():\n    return 1\n"}))
    return tmp_path


def test_an_engine_is_opened_when_asked_for_and_closed_when_idle(two, model_folder):
    clock = Clock()
    with_two = Repositories([two / "alpha", two / "beta"], idle_s=10, clock=clock, model=str(model_folder))
    assert with_two.names == ["alpha", "beta"]
    assert [one.engine for one in with_two.all] == [None, None]
    with with_two.engine("beta") as engine:
        assert [hit.chunk.path for hit in engine.search("beta entry")] == ["main.py"]
        clock.now = 100
        assert with_two.close_idle() == []  # it is in use
        with with_two.engine("beta") as same:
            assert same is engine
    clock.now = 109
    assert with_two.close_idle() == []
    clock.now = 110
    assert with_two.close_idle() == ["beta"]
    with with_two.engine("beta") as again:
        assert again is not engine
    with_two.close()


def test_a_change_is_seen_after_a_moment(two, model_folder):
    clock = Clock()
    served = Repositories([two / "alpha"], clock=clock, model=str(model_folder))
    with served.engine() as engine:
        assert not engine.search("gamma_added")[0].hit.score > 0.9
    write_tree(two / "alpha", {"added.py": "def gamma_added():\n    return 3\n"})
    clock.now = 10
    with served.engine() as engine:
        assert engine.search("gamma_added")[0].chunk.path == "added.py"
    served.close()


def test_a_folder_of_clones_stands_for_each(two):
    assert Repositories([two]).names == ["alpha", "beta"]


@pytest.mark.parametrize("name", ["gamma", "/", "/etc/passwd", "../beta", "alpha/../beta", "x\0y", "/\0", "~root", ""])
def test_nothing_else_is_served(two, name):
    with pytest.raises(UsageError) as refusal:
        Repositories([two]).find(name)
    assert refusal.value.hint == "one of: alpha, beta"


def test_a_path_below_names_its_repository(two):
    served = Repositories([two])
    assert served.find(str(two / "beta" / "main.py")).name == "beta"
    (two / "beta" / "out").symlink_to("/etc")
    with pytest.raises(UsageError):
        served.find(str(two / "beta" / "out" / "passwd"))


def test_models_are_shared(two, model_folder):
    models = ModelPool()
    served = Repositories([two], models=models, model=str(model_folder))
    with served.engine("alpha") as alpha, served.engine("beta") as beta:
        assert alpha.load() is beta.load()
    served.close()
    assert len(models._models) == 1  # they belong to who made the pool
    models.close()
    assert len(models._models) == 0
