"""Short questions: which repository they are about, and how answers become figures."""

from __future__ import annotations

import json

import pytest

from awareness.errors import UsageError
from awareness.evals.answers import Asked, assigned, scored
from awareness.evals.intervals import wilson
from awareness.evals.setup import Setup
from tests.conftest import git, write_tree

ENTRY = {"question": "which port", "expected": "5000.", "contains": ["5000"], "place": "src/cli.py:2-3"}


def row(
    arm: str, question: str, *, right: bool, found: bool = True, cited: bool = False, first: float = 1.0, k: int = 8
):
    return Asked(arm, k, "repo", question, "", right, found, cited, not right, k, 100, 300, first, 9, 12.0)


def test_scores_are_paired_with_text():
    asked = [
        row("text", "a", right=True, first=4.0),
        row("text", "b", right=False, first=2.0),
        row("text", "c", right=False, found=False, first=9.0),
        row("joint", "a", right=True, cited=True, first=0.5),
        row("joint", "b", right=True, first=1.0),
        row("joint", "c", right=False, found=False, first=2.0),
        row("none", "a", right=False, found=False, k=0),
    ]
    none, text, joint = scored(asked, seed=0)
    assert (none.arm, none.top_k, none.minus_text, none.of_text, none.right_where_found) == (
        "none",
        0,
        None,
        None,
        None,
    )
    assert (text.right, text.right_where_found, text.minus_text, text.of_text) == (
        wilson(1, 3),
        wilson(1, 2),
        None,
        1.0,
    )
    assert (joint.right, joint.right_where_found, joint.cited) == (wilson(2, 3), wilson(2, 2), wilson(1, 2))
    assert joint.minus_text is not None and joint.minus_text.mean == pytest.approx(1 / 3)
    assert (joint.first_token_s, joint.of_text) == (1.0, 0.25)
    assert joint.refused == wilson(1, 3)


def test_without_text_there_is_no_difference():
    (joint,) = scored([row("joint", "a", right=True)], seed=0)
    assert (joint.minus_text, joint.of_text) == (None, None)


@pytest.fixture
def repositories(tmp_path):
    for name in ("one", "two"):
        write_tree(tmp_path / name, {"a.py": "port = 5000\n"})
        git(tmp_path / name, "init")
    return [tmp_path / "one", tmp_path / "two"]


def questions(folder, name, *entries):
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(ENTRY | entry) + "\n" for entry in entries))
    return path


def test_questions_by_file_name_or_by_line(tmp_path, repositories):
    one, mixed = questions(tmp_path, "one", {}, {"question": "b"}), questions(tmp_path, "mixed", {"repo": "two"}, {})
    by_repository = assigned([one, mixed], Setup(repositories))
    assert {root.name: [q.question for q in own] for root, own in by_repository.items()} == {
        "one": ["which port", "b"],
        "two": ["which port"],
    }
    (own,) = assigned([one], Setup(repositories[:1]), samples=1).values()
    assert len(own) == 1


def test_one_file_about_one_repository_may_have_any_name(tmp_path, repositories):
    path = questions(tmp_path, "mixed", {}, {"repo": "two"})
    (own,) = assigned([path], Setup(repositories[:1])).values()
    assert [q.is_named for q in own] == [False]
    with pytest.raises(UsageError, match="none of 2 questions is about one") as caught:
        assigned([path], Setup(repositories))
    assert caught.value.hint == '"repo": "one" in a line, or the file named one.jsonl'
