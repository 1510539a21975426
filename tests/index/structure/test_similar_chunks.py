"""Similar code: near copies first, without the chunk itself and its exact copies."""

from __future__ import annotations

import pytest

from awareness.errors import UsageError
from awareness.index.structure.similar_chunks import similar_chunks
from tests.index.structure.indexed import indexed

SIGN = "def sign_cookie(key, value):\n    digest = hmac.new(key, value, 'sha256')\n    return digest.hexdigest()\n"
FILES = {
    "a/cookies.py": SIGN,
    "b/copy.py": SIGN.replace("    ", "\t"),
    "b/tokens.py": SIGN.replace("cookie", "token").replace("value", "payload"),
    "c/pool.py": "class Pool:\n    def acquire(self):\n        return self.connections.pop()\n",
    **{f"d/m{i}.py": f"def step{i}(x{i}):\n    return x{i} + {i}\n" for i in range(12)},
}


def test_near_copies_come_first(tmp_path):
    with indexed(tmp_path, FILES) as (store, snapshot):
        hits = similar_chunks(store, snapshot, "a/cookies.py", 2, top_k=5)
        assert hits[0].chunk.path == "b/tokens.py"
        assert not {"a/cookies.py", "b/copy.py"} & {hit.chunk.path for hit in hits}
        assert 0.3 < hits[0].score <= 1 and hits[0].score > 2 * max(hit.score for hit in hits[1:])
        scoped = similar_chunks(store, snapshot, "a/cookies.py", 1, top_k=5, in_scope=lambda path: path[0] in "cd")
        assert all(hit.chunk.path[0] in "cd" for hit in scoped)
        assert similar_chunks(store, snapshot, "a/cookies.py", 1, top_k=1) == hits[:1]


@pytest.mark.parametrize(
    ("path", "line", "message"),
    [
        ("a/cookies.py", 4, "a/cookies.py has no line 4"),
        ("a/cookies.py", 0, "a/cookies.py has no line 0"),
        ("gone.py", 1, "gone.py is not indexed"),
    ],
)
def test_a_place_that_is_none_is_refused(tmp_path, path, line, message):
    with indexed(tmp_path, FILES) as (store, snapshot):
        with pytest.raises(UsageError) as error:
            similar_chunks(store, snapshot, path, line, top_k=5)
        assert error.value.message == message
