"""What is kept is found again as it was; what is damaged, or does not fit, is simply not there."""

from __future__ import annotations

import os

from awareness.train.data.disk_cache import DiskCache

VALUE = {"paths": ["a.py", "caf\u00e9 \udcff.py"], "lines": [1, 2]}


def test_a_value_is_found_as_it_was_and_by_the_user_alone(tmp_path):
    cache = DiskCache(tmp_path / "new" / "cache")
    assert cache.get("a") is None and not cache.folder.exists()
    cache.put("a", VALUE)
    assert cache.get("a") == VALUE and cache.get("b") is None
    cache.put("a", [])
    assert cache.get("a") == [] and len(list(cache.folder.iterdir())) == 1
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o077 for path in cache.folder.iterdir()] == [0]
    cache.folder.chmod(0o755)
    cache.put("b", 1)
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_a_damaged_entry_counts_as_missing_and_is_made_again(tmp_path):
    cache = DiskCache(tmp_path)
    cache.put("a", VALUE)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        assert cache.get("a") in (None, VALUE)  # bytes of the header that say nothing
        path.write_bytes(whole[:place])
        assert cache.get("a") is None
    assert sum(cache.get("a") is None for _ in [path.write_bytes(whole[:10] + b"\xff" * 40)]) == 1
    cache.put("a", VALUE)
    assert cache.get("a") == VALUE


def test_what_was_used_longest_ago_makes_room(tmp_path):
    cache = DiskCache(tmp_path)
    for number, name in enumerate("abcd"):
        cache.put(name, os.urandom(1000).hex())
        path = next(path for path in tmp_path.iterdir() if path.name.startswith(f"{name}."))
        os.utime(path, (number, number))
    (tmp_path / "killed.partial").write_bytes(bytes(1000))
    os.utime(tmp_path / "killed.partial", (0, 0))
    size = path.stat().st_size
    assert cache.get("a") is not None  # used now
    DiskCache(tmp_path, limit=4 * size + 40).put("e", os.urandom(1000).hex())
    assert {path.name.partition(".")[0] for path in tmp_path.iterdir()} == {"a", "c", "d", "e"}
    DiskCache(tmp_path, limit=100).put("f", os.urandom(1000).hex())
    assert cache.get("f") is None and cache.get("e") is not None


def test_a_disk_that_takes_nothing_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    cache = DiskCache(tmp_path / "file" / "cache")
    cache.put("a", VALUE)
    assert cache.get("a") is None
