"""Names in one search: unique, as short as they can be, and independent of the order."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from awareness.engine.corpus_names import Named, unique_names


def folder(path: str, below: str = "") -> Named:
    return Named.of_folder(Path(path), below)


@pytest.mark.parametrize(
    ("named", "names"),
    [
        ([folder("/x/till"), folder("/x/depot")], ["till", "depot"]),
        ([folder("/x/a/api"), folder("/x/b/api"), folder("/x/till")], ["a/api", "b/api", "till"]),
        ([folder("/x/api"), folder("/x/api/api")], ["x/api", "api/api"]),
        ([folder("/api"), folder("/x/api")], ["/api", "x/api"]),
        ([folder("/x/shop", "services/api"), folder("/x/shop", "web")], ["shop/services/api", "shop/web"]),
        ([folder("/x/shop", "api"), folder("/y/shop", "api")], ["x/shop/api", "y/shop/api"]),
        ([Named.of_file(Path("/p/r.awm")), Named.of_file(Path("/q/r.awm"))], ["/p/r.awm", "/q/r.awm"]),
        ([Named.of_file(Path("r.awm")), Named.of_file(Path("q/r.awm"))], None),
        ([Named.of_file(Path("r")), folder("/x/r")], None),
        ([Named.of_file(Path("r.awm")), folder("/x/r")], ["r.awm", "r"]),
        ([], []),
    ],
)
def test_names(named, names):
    found = unique_names(named)
    assert len(set(found)) == len(named)
    if names is not None:
        assert found == names
    for order in permutations(range(len(named))):
        assert unique_names([named[i] for i in order]) == [found[i] for i in order]


def test_a_pack_that_needs_more_than_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = unique_names([Named.of_file(Path("r.awm")), Named.of_file(Path("q/r.awm"))])
    assert found == [f"{tmp_path.name}/r.awm", "q/r.awm"]
