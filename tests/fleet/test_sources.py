from __future__ import annotations

import pytest

from awareness.errors import UsageError
from awareness.fleet.sources import Source, read_sources
from tests.conftest import commit_all, write_tree


def repository(folder):
    return commit_all(write_tree(folder, {"a.py": "x = 1\n"}))


def names(words, taken=None):
    return {source.name: source.place for source in read_sources(words, taken)}


def test_addresses_are_named_by_their_end_as_far_as_needed():
    words = ["https://github.com/acme/api.git", "git@github.com:other/api.git", "ssh://git@host:22/acme/web"]
    assert names(words) == {"acme/api": words[0], "other/api": words[1], "web": words[2]}
    assert not any(source.is_folder for source in read_sources(words))


@pytest.mark.parametrize("user", ["user:token", "token", ":token"])
def test_a_secret_in_an_address_is_refused_and_not_shown(user):
    with pytest.raises(UsageError, match="secret") as refused:
        names([f"https://{user}@host/acme/api"])
    assert "token" not in refused.value.message
    assert list(names(["ssh://git@host/acme/api"])) == ["api"]


def test_a_folder_of_clones_stands_for_each(tmp_path):
    for name in ("one", "two"):
        repository(tmp_path / "clones" / name)
    found = read_sources([str(tmp_path / "clones")])
    assert [(source.name, source.is_folder) for source in found] == [("one", True), ("two", True)]


def test_folders_of_one_name_are_told_apart(tmp_path):
    for owner in ("a", "b"):
        repository(tmp_path / owner / "api")
    assert sorted(names([str(tmp_path / "a" / "api"), str(tmp_path / "b" / "api")])) == ["a/api", "b/api"]


def test_a_list_has_comments_names_and_folders_beside_it(tmp_path):
    repository(tmp_path / "here")
    (tmp_path / "list").write_text("# all\n\nhere\nmine\thttps://host/x/y.git\n")
    assert names([str(tmp_path / "list")]) == {"here": str(tmp_path / "here"), "mine": "https://host/x/y.git"}


def test_known_repositories_keep_their_names(tmp_path):
    word = "https://host/acme/api"
    assert names([word], {"old": word}) == {"old": word}
    assert names([word], {"api": "https://elsewhere/api"}) == {"acme/api": word}


def test_a_repository_is_named_once(tmp_path):
    place = str(repository(tmp_path / "one"))
    assert read_sources([place, place, str(tmp_path)]) == [Source("one", place, True)]


@pytest.mark.parametrize("word", ["-x", "a\x1b", "\t", "ext::sh -c x", "ftp://host/x", "/no/such", "", "n\t-x"])
def test_what_is_no_repository_is_refused_by_name(word):
    with pytest.raises(UsageError):
        read_sources([word])


def test_a_folder_that_cannot_be_shown_is_refused(tmp_path):
    repository(tmp_path / "clones" / "a\u00a0b")
    with pytest.raises(UsageError, match="no name that can be shown"):
        read_sources([str(tmp_path / "clones")])


def test_two_of_one_given_name_are_refused(tmp_path):
    (tmp_path / "list").write_text("n\thttps://host/a\nn\thttps://host/b\n")
    with pytest.raises(UsageError, match="two repositories"):
        read_sources([str(tmp_path / "list")])


def test_a_list_with_bytes_is_refused(tmp_path):
    (tmp_path / "list").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="text file"):
        read_sources([str(tmp_path / "list")])
