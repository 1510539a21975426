"""What counts as an answer that says that it is not in the code."""

from __future__ import annotations

import pytest

from awareness.model.not_said import NOT_SAID, is_refusal, refuses


@pytest.mark.parametrize(
    "answer",
    [
        "The code above does not say.",
        "The code above doesn’t say.",
        "The provided code does not explicitly define `LEASE_TTL`.",
        "The code snippet provided does not contain any information about it.",
        "The value of `lease_ttl` is not specified in the code.",
        "It isn't explicitly mentioned.",
        "I cannot find it in these files.",
        "It can't be determined from the code above.",
        "There is no `lease_ttl` in the code.",
        "There is no information about that.",
        "I don't have enough context to answer.",
        "`lease_ttl` is not in the given code.",
    ],
)
def test_refusals(answer):
    assert refuses(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "The default is `4821`.",
        "`lease_ttl` is `00ff12ab`.",
        "It raises `KeyError`, and does not retry.",
        "The error code is E4821.",
        "`None`: redirects are not followed.",
        "It returns False if the lease is stale.",
        "No more than 5 connections.",
        "",
    ],
)
def test_answers(answer):
    assert not refuses(answer)


@pytest.mark.parametrize(
    "sentence",
    [
        NOT_SAID,
        f"\n{NOT_SAID}",
        "The code does not explicitly define `LEASE_TTL`.",
        "The provided code snippet doesn’t contain it.",
        "These files do not mention a lease.",
    ],
)
def test_a_blunt_refusal(sentence):
    assert is_refusal(sentence) and refuses(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "It raises `KeyError` if the key is not found.",
        "The default is 5, which is not mentioned in the documentation.",
        "`open_code` does not say why it failed: it returns False.",
        "Requests are not included in the retry.",
        "",
    ],
)
def test_an_answer_is_no_refusal_for_what_it_denies(sentence):
    assert not is_refusal(sentence)
