"""When a repository does not answer: terms weigh as in other code, and a tiny repository is judged like a large one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from awareness.index.search.evidence import (
    COEFFICIENTS,
    FEATURES,
    WEAK_SCORE,
    Coverage,
    Evidence,
    coverage,
    holds_all,
)
from awareness.index.search.question import Question
from awareness.index.search.ranking import HybridRouter
from awareness.types import Chunk
from tests.index.structure.indexed import indexed

SHOP = {
    "shop.py": (
        'def add_to_cart(cart, item):\n    """Puts an item into the shopping cart."""\n    cart.append(item)\n\n\n'
        'def remove_from_cart(cart, item):\n    """Takes an item out of the shopping cart."""\n    cart.remove(item)\n'
    ),
    "mailer.py": (
        'def send_receipt(order, address):\n    """Sends the receipt of an order by mail."""\n'
        '    with smtplib.SMTP("localhost") as server:\n        server.send_message(order, to_addrs=[address])\n'
    ),
    "auth.py": (
        'def hash_password(password, salt):\n    """Hashes a password with its salt."""\n'
        "    return hashlib.scrypt(password.encode(), salt=salt, n=16384, r=8, p=1)\n"
    ),
    "db.py": 'def connect(path):\n    """Opens the database."""\n    return sqlite3.connect(path, timeout=30)\n',
}
CHUNK = Chunk("a.py", 1, 2, "retry", "def retry(): wait()\nx ??= 1")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with indexed(tmp_path_factory.mktemp("shop"), SHOP) as (store, snapshot):
        yield HybridRouter(store, snapshot)


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("how do I remove something from the cart", "shop.py"),
        ("how long is the database timeout", "db.py"),
        ("how is the receipt sent by mail", "mailer.py"),
        ("where is the password hashed", "auth.py"),
        ("hash_password", "auth.py"),
        ("where is hash_pasword defined", "auth.py"),  # with a typo
        ("n=16384", "auth.py"),
    ],
)
def test_plain_questions_about_four_files_are_answered(shop, query, first):
    hits = shop.search(query, top_k=3)
    assert hits[0].chunk.path == first
    assert hits[0].score >= WEAK_SCORE


@pytest.mark.parametrize(
    "query", ["OAuthTokenRefresher", "where is parse_manifest defined", "kubernetes ingress rollout manifest sync"]
)
def test_what_four_files_do_not_have_is_refused(shop, query):
    hits = shop.search(query, top_k=3)
    assert not hits or hits[0].score < WEAK_SCORE


def test_the_score_does_not_depend_on_how_many_hits_are_asked_for(shop):
    one, ten = (shop.search("how is the receipt sent by mail", top_k=k)[0].score for k in (1, 10))
    assert one == ten


def test_a_coefficient_for_each_feature():
    evidence = Evidence(1.0, 0.5, 400, 0, False, Coverage())
    assert len(evidence.features()) == len(FEATURES) == len(COEFFICIENTS) - 1


def test_more_relevance_is_more_probable_and_a_missing_name_less():
    found = Evidence(0.6, 0.3, 400, 0, False, Coverage(1.0, 1.0, 0.5, 0.5))
    assert replace(found, worth=0.9).probability > found.probability > replace(found, worth=0.3).probability
    assert replace(found, named=-1).probability < found.probability
    assert 0 <= replace(found, worth=-1e9).probability <= replace(found, worth=1e9).probability <= 1


def test_a_name_that_is_looked_up_and_used_is_never_refused():
    nothing = Evidence(0.0, 0.0, 10**6, 1, True, Coverage(9.0))
    assert nothing.probability >= 0.5
    assert replace(nothing, is_lookup=False).probability < 0.5


def test_coverage_counts_terms_by_what_they_tell():
    found = coverage(
        {"retri": 1.0, "wait": 1.0, "quaternion": 1.0}, {"retri", "wait"}, {"retri", "quaternion"}, [CHUNK]
    )
    assert found.plain_share == pytest.approx(2 / 3)
    assert found.known_share < 2 / 3  # the word that is missing tells more than `wait`
    assert found.unknown > 0.0 < found.held
    assert coverage({}, set(), set(), []) == Coverage()
    assert coverage({"retri": 1.0}, {"retri"}, {"retri"}, []).held == 0.0


@pytest.mark.parametrize(
    ("text", "holds"), [("??=", True), ("`??=`", True), ("x ??= 1", False), ("!=", False), ("", False)]
)
def test_a_piece_of_code_stands_in_the_hit(text, holds):
    assert holds_all(Question(text), CHUNK) is holds
