from __future__ import annotations

import pytest

from awareness.fleet import catalogue as catalogues
from awareness.fleet.checking import check, make_way
from awareness.fleet.object_store import open_store
from tests.fleet.fixtures import index


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_sound_store_is_sound(store):
    found = check(open_store(str(store)), sample=None)
    assert not found.problems and found.latents_read == found.latents > 0 and found.repositories == 3


def test_a_sample_reads_less(store):
    found = check(open_store(str(store)), sample=1)
    assert found.latents_read == 1 and not found.problems


@pytest.mark.parametrize(("kind", "how"), [("repositories", "missing"), ("routing", "damaged"), ("shards", "damaged")])
def test_damage_is_found_and_made_again(kind, how, store, indexed_repositories, model_folder, ray_here):
    path = sorted((store / kind).iterdir())[0]
    if how == "missing":
        path.unlink()
    else:
        damage(path)
    opened = open_store(str(store))
    found = check(opened, sample=None)
    assert [problem.kind for problem in found.problems] == [kind]
    again = make_way(opened, found.problems)
    assert again
    report = index(store, indexed_repositories, model_folder, again=again)
    assert set(report.indexed) == again
    assert not check(opened, sample=None).problems
    described = {name for shard in catalogues.read(opened)[0].routing for name in shard.objects}
    assert described >= {entry.object for entry in catalogues.read(opened)[0].repositories.values()}
