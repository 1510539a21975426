"""Latents in RAM: encoded once, the shortest first; the least recently used go first."""

from __future__ import annotations

from awareness.model.latent_cache import LatentCache


def test_texts_are_encoded_once_and_the_least_recently_used_go_first():
    encoded: list[str] = []

    def encode(texts: list[str]) -> list[bytes]:
        encoded.extend(texts)
        return [text.encode() for text in texts]

    cache = LatentCache(encode, len, limit=8)
    first = cache.get(["bbbb", "aa", "bbbb"])
    assert first == [b"bbbb", b"aa", b"bbbb"] and first[0] is first[2]
    assert encoded == ["aa", "bbbb"] and cache.bytes == 6
    assert cache.get(["aa"])[0] is first[1]
    cache.get(["cccc"])  # bbbb was used before aa, and leaves
    assert cache.bytes == 6
    encoded.clear()
    cache.get(["aa", "cccc"])
    assert encoded == []
    cache.get(["bbbb"])
    assert encoded == ["bbbb"]


def test_latents_larger_than_the_limit_are_given_and_not_kept():
    cache = LatentCache(lambda texts: [text * 2 for text in texts], len, limit=1)
    assert cache.get(["ab", "a"]) == ["abab", "aa"]
    assert cache.bytes == 0 and cache.get([]) == []
