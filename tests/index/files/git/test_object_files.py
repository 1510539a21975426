"""object_files: every form in which git stores an object, and files that nobody should trust."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest

from awareness.errors import UsageError
from awareness.index.files.git import object_files
from awareness.index.files.git.object_files import BaseTooLarge, ObjectFiles, TooLarge
from awareness.index.files.git.random_access import NotRegular
from awareness.index.files.repository import Repository
from tests.index.files.git.reftable_repository import HASHES
from tests.index.files.test_repository import (
    commit,
    git,
    listed,
    make_blob,
    make_repo,
    no_user_config,  # noqa: F401
    write,
)

LIMIT = 1 << 20
HASH_BYTES = {"sha1": 20, "sha256": 32}
DAMAGE = (OSError, EOFError, LookupError, ValueError, zlib.error, struct.error, TooLarge)
STORAGE = {
    "loose": (),
    "packed": (("gc", "-q"),),
    "deltas by hash": (("config", "repack.useDeltaBaseOffset", "false"), ("gc", "-q")),
    "no deltas": (("repack", "-adfq", "--depth=0"),),
    "multi-pack-index": (("gc", "-q"), ("multi-pack-index", "write")),
    "commit-graph and bitmap": (("repack", "-adbq"), ("commit-graph", "write", "--reachable")),
}


def make_history(root: Path, hash_name: str = "sha1") -> dict[str, str]:
    """Five versions of a long file and a tag; returns hash -> kind of every object."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q", "-b", "main", f"--object-format={hash_name}")
    for version in range(5):
        lines = [f"line {number} of {version if number == 7 else 'all'}\n" for number in range(3000)]
        write(root, {"long.py": "".join(lines), "d/empty.py": "", f"d/{version}.py": str(version)})
        commit(root, f"version {version}")
    git(root, "tag", "-a", "-m", "tag", "v1")
    listing = git(root, "cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)")
    return dict(line.split(" ") for line in listing.splitlines())


def check_all(root: Path, kinds: dict[str, str], hash_name: str = "sha1", objects: Path | None = None) -> None:
    """What is read is what git reads."""
    files = ObjectFiles(objects or root / ".git/objects", HASH_BYTES[hash_name])
    for sha, kind in kinds.items():
        found = files.read(sha, LIMIT)
        assert found and (found[0], files.kind(sha)) == (kind, kind)
        assert git(root, "hash-object", "-t", kind, "--stdin", data=found[1]) == sha


@pytest.mark.parametrize("hash_name", HASHES)
@pytest.mark.parametrize("storage", STORAGE)
def test_every_object_is_what_git_reads(tmp_path: Path, storage: str, hash_name: str) -> None:
    kinds = make_history(tmp_path, hash_name)
    for command in STORAGE[storage]:
        git(tmp_path, *command)
    loose = [path for path in (tmp_path / ".git/objects").glob("??/*")]
    packs = list((tmp_path / ".git/objects/pack").glob("*.idx"))
    assert (bool(loose), bool(packs)) == (storage == "loose", storage != "loose")
    if packs:
        assert ("chain length" in git(tmp_path, "verify-pack", "-v", str(packs[0]))) == (storage != "no deltas")
    check_all(tmp_path, kinds, hash_name)
    missing = "ab" * HASH_BYTES[hash_name]
    files = ObjectFiles(tmp_path / ".git/objects", HASH_BYTES[hash_name])
    assert files.kind(missing) is files.read(missing, LIMIT) is None


@pytest.mark.parametrize("version", ["1", "2,0x40"])
def test_other_versions_of_the_index_of_a_pack(tmp_path: Path, version: str) -> None:
    """`2,0x40`: an offset of 64 or more takes 64 bits, as in a pack of more than 2 GiB."""
    kinds = make_history(tmp_path)
    git(tmp_path, "gc", "-q")
    pack = next((tmp_path / ".git/objects/pack").glob("*.pack"))
    pack.with_suffix(".idx").chmod(0o644)
    git(tmp_path, "index-pack", f"--index-version={version}", "-o", str(pack.with_suffix(".idx")), str(pack))
    assert pack.with_suffix(".idx").read_bytes().startswith(b"\xfftOc") == (version != "1")
    check_all(tmp_path, kinds)


def test_more_packs_than_files_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_files, "MAX_OPEN_FILES", 3)
    root = make_repo(tmp_path, {"a.py": "0"})
    for number in range(5):
        git(root, "repack", "-q", "-d")
        write(root, {"a.py": f"{number + 1}"})
        commit(root)
    listing = git(root, "cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)")
    before = len(os.listdir("/proc/self/fd"))
    files = ObjectFiles(root / ".git/objects", 20)
    for line in listing.splitlines():
        assert files.kind(line.split(" ")[0]) == line.split(" ")[1]
    assert len(os.listdir("/proc/self/fd")) <= before + 3
    del files
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("packed", [False, True])
def test_starts_of_hashes(tmp_path: Path, packed: bool) -> None:
    kinds = make_history(tmp_path)
    if packed:
        git(tmp_path, "gc", "-q")
    files = ObjectFiles(tmp_path / ".git/objects", 20)
    for length in (2, 3, 4, 7, 39):
        for sha in kinds:
            assert files.starting_with(sha[:length]) == {other for other in kinds if other.startswith(sha[:length])}
    assert files.starting_with("0123456789") == set()


# alternates


@pytest.mark.parametrize("clone", [["--shared"], ["--no-local", "--reference", "{}"], ["--shared", "--bare"]])
@pytest.mark.parametrize("packed", [False, True])
def test_a_clone_that_borrows_objects(tmp_path: Path, clone: list[str], packed: bool) -> None:
    kinds = make_history(tmp_path / "r")
    if packed:
        git(tmp_path / "r", "gc", "-q")
    git(tmp_path, "clone", "-q", *(word.format(tmp_path / "r") for word in clone), str(tmp_path / "r"), "c")
    objects = tmp_path / ("c" if "--bare" in clone else "c/.git") / "objects"
    assert (objects / "info/alternates").exists() and not list(objects.glob("??/*"))
    check_all(tmp_path / "r", kinds, objects=objects)
    assert listed(tmp_path / "c", rev="HEAD") == listed(tmp_path / "r", rev="HEAD")
    assert Repository.open(tmp_path / "c").resolve(git(tmp_path / "r", "rev-parse", "HEAD")[:8])


@pytest.mark.parametrize("hash_name", HASHES)
def test_forms_of_alternates(tmp_path: Path, hash_name: str) -> None:
    """A comment, an empty line, a relative path, one in quotes, a missing folder, another alternate, a circle."""
    kinds = make_history(tmp_path / "r", hash_name)
    (tmp_path / "r/.git/objects").rename(tmp_path / 'o "1"\n')
    for name in ("a", "b", 'o "1"\n'):
        (tmp_path / name / "info").mkdir(parents=True, exist_ok=True)
    (tmp_path / "a/info/alternates").write_text("# comment\n\n/nowhere\n../b\n")
    (tmp_path / "b/info/alternates").write_bytes(b'../a\n"../\\157 \\"1\\"\\n"\n')
    (tmp_path / 'o "1"\n/info/alternates').write_text("../a\n../b\n.\n")
    files = ObjectFiles(tmp_path / "a", HASH_BYTES[hash_name])
    assert {sha: files.kind(sha) for sha in kinds} == kinds


def test_alternates_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain as long as git follows it, one that is longer, and a list without end."""
    kinds = make_history(tmp_path / "r")
    some = next(iter(kinds))
    (tmp_path / "r/.git/objects").rename(tmp_path / "0")
    for number in range(1, 8):
        (tmp_path / f"{number}/info").mkdir(parents=True)
        (tmp_path / f"{number}/info/alternates").write_text(f"../{number - 1}\n")
    assert [bool(ObjectFiles(tmp_path / f"{number}", 20).kind(some)) for number in range(8)] == [True] * 6 + [False] * 2
    for number in range(object_files.MAX_ALTERNATES):
        (tmp_path / f"many/{number}").mkdir(parents=True)
    names = [*(f"../many/{number}" for number in range(object_files.MAX_ALTERNATES)), "../0"]
    (tmp_path / "1/info/alternates").write_text("\n".join(names))
    assert ObjectFiles(tmp_path / "1", 20).kind(some) is None
    (tmp_path / "1/info/alternates").unlink()
    os.mkfifo(tmp_path / "1/info/alternates")
    assert ObjectFiles(tmp_path / "1", 20).kind(some) is None


def test_alternates_open_regular_files_only(tmp_path: Path) -> None:
    root = make_repo(tmp_path / "r", {"a.py": "1"})
    blob = git(root, "rev-parse", "HEAD:a.py")
    (root / ".git/objects" / blob[:2] / blob[2:]).unlink()
    (tmp_path / "o" / blob[:2]).mkdir(parents=True)
    os.mkfifo(tmp_path / "o" / blob[:2] / blob[2:])
    write(root, {".git/objects/info/alternates": f"{tmp_path}/o\n/dev\n/proc/self/fd\n"})
    with pytest.raises(UsageError, match="is not in a regular file"):
        listed(root, rev="HEAD")


# hostile files


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "dangling link"])
@pytest.mark.parametrize("suffix", ["idx", "pack"])
def test_a_pack_that_is_not_a_regular_file_does_not_block(tmp_path: Path, kind: str, suffix: str) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    git(root, "gc", "-q")
    path = next((root / ".git/objects/pack").glob(f"*.{suffix}"))
    path.unlink()
    make = {"fifo": os.mkfifo, "folder": os.mkdir, "device": lambda path: os.symlink("/dev/zero", path)}
    make.get(kind, lambda path: os.symlink("nowhere", path))(path)
    with pytest.raises(UsageError, match="is damaged" if kind == "dangling link" else "is not in a regular file"):
        listed(root, rev="HEAD")


def test_a_folder_beside_the_packs_changes_nothing(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    git(root, "gc", "-q")
    (root / ".git/objects/pack/multi-pack-index.d").mkdir()
    os.mkfifo(root / ".git/objects/pack/tmp_pack_x")
    assert listed(root, rev="HEAD") == {"a.py": b"1"}


@pytest.mark.parametrize("hash_name", HASHES)
@pytest.mark.parametrize("suffix", ["idx", "pack"])
def test_damage_raises_one_of_a_few_exceptions(tmp_path: Path, suffix: str, hash_name: str) -> None:
    kinds = make_history(tmp_path, hash_name)
    git(tmp_path, "gc", "-q")
    path = next((tmp_path / ".git/objects/pack").glob(f"*.{suffix}"))
    data = path.read_bytes()
    path.chmod(0o644)
    raised = 0
    some = [next(sha for sha in kinds if kinds[sha] == kind) for kind in ("tag", "commit", "tree")]
    for position in range(0, len(data), max(1, len(data) // 200)):
        for wrong in (data[:position], data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]):
            path.write_bytes(wrong)
            files = ObjectFiles(tmp_path / ".git/objects", HASH_BYTES[hash_name])
            for sha in some:
                try:
                    files.read(sha, LIMIT)
                    files.kind(sha)
                    files.starting_with(sha[:4])
                except DAMAGE:
                    raised += 1
    assert raised > 20


def pack_number(number: int) -> bytes:
    """A number as the headers of deltas write it."""
    parts = [number & 0x7F]
    while number := number >> 7:
        parts[-1] |= 0x80
        parts.append(number & 0x7F)
    return bytes(parts)


def pack_header(kind: int, size: int) -> bytes:
    first, size = kind << 4 | size & 15, size >> 4
    return bytes([first | 0x80]) + pack_number(size) if size else bytes([first])


def make_pack(root: Path, entries: list[bytes]) -> list[str]:
    """A pack of entries as they are, with an index in which the hashes are 1, 2, 3 ...; returns those hashes."""
    folder = root / ".git/objects/pack"
    pack, offsets = bytearray(b"PACK" + struct.pack(">II", 2, len(entries))), []
    for entry in entries:
        offsets.append(len(pack))
        pack += entry
    hashes = [b"\0" * 16 + struct.pack(">I", number) for number in range(1, len(offsets) + 1)]
    index = b"\xfftOc\0\0\0\2" + struct.pack(">256I", *[len(hashes)] * 256) + b"".join(hashes) + bytes(4 * len(hashes))
    (folder / "pack-x.pack").write_bytes(pack + bytes(20))
    (folder / "pack-x.idx").write_bytes(index + struct.pack(f">{len(offsets)}I", *offsets) + bytes(40))
    return [sha.hex() for sha in hashes]


def delta_entry(base: str, delta: bytes) -> bytes:
    return pack_header(7, len(delta)) + bytes.fromhex(base) + zlib.compress(delta)


def copy_all(size: int, times: int = 1) -> bytes:
    """The instructions that copy a base of `size` bytes (less than 2^24) several times."""
    return pack_number(size) + pack_number(size * times) + (b"\xf0" + size.to_bytes(3, "little")) * times


def sha_of(number: int) -> str:
    return f"{number:040x}"


def test_what_a_pack_by_hand_holds_is_read(tmp_path: Path) -> None:
    """Else the next tests would prove nothing."""
    root = make_repo(tmp_path, {})
    delta = pack_number(3) + pack_number(8) + b"\x90\x03" + b"\x02de" + b"\x91\x00\x03"
    shas = make_pack(root, [pack_header(3, 3) + zlib.compress(b"abc"), delta_entry(sha_of(1), delta)])
    files = ObjectFiles(root / ".git/objects", 20)
    assert [files.read(sha, LIMIT) for sha in shas] == [("blob", b"abc"), ("blob", b"abcdeabc")]


def test_a_bomb_of_deltas_costs_little(tmp_path: Path) -> None:
    """Each delta makes sixteen times what it is based on: 2^20 bytes, 2^24, 2^28, 2^32, 2^36."""
    root = make_repo(tmp_path, {})
    entries = [pack_header(3, 1 << 20) + zlib.compress(bytes(1 << 20), 9)]
    for number in range(1, 5):
        size = 1 << (20 + 4 * (number - 1))
        delta = pack_number(size) + pack_number(size * 16) + b"\xf0\0\0\x10" * (size >> 16)
        entries.append(delta_entry(sha_of(number), delta))
    entries.append(delta_entry(sha_of(5), pack_number(1 << 36) + pack_number(1) + b"\x90\x01"))
    shas = make_pack(root, entries)
    files = ObjectFiles(root / ".git/objects", 20)
    tracemalloc.start()
    try:
        for sha in shas[1:5]:
            with pytest.raises(TooLarge) as caught:
                files.read(sha, LIMIT)
            assert not isinstance(caught.value, BaseTooLarge)
        with pytest.raises(BaseTooLarge):
            files.read(shas[5], LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_a_long_chain_of_large_results_ends(tmp_path: Path) -> None:
    """4,000 deltas that copy 2^20 bytes each: four GiB for one object."""
    root = make_repo(tmp_path, {})
    size = (1 << 20) - 1
    entries = [pack_header(3, size) + zlib.compress(bytes(size), 9)]
    entries += [delta_entry(sha_of(number), copy_all(size)) for number in range(1, 4000)]
    shas = make_pack(root, entries)
    files = ObjectFiles(root / ".git/objects", 20)
    start = time.perf_counter()
    assert files.read(shas[50], LIMIT) == ("blob", bytes(size)), "what git writes: chains of 50"
    with pytest.raises(BaseTooLarge):
        files.read(shas[-1], LIMIT)
    assert time.perf_counter() - start < 5


def test_deltas_that_run_in_circles_end(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {})
    make_pack(root, [delta_entry(sha_of(2), copy_all(9)), delta_entry(sha_of(1), copy_all(9))])
    files = ObjectFiles(root / ".git/objects", 20)
    with pytest.raises(BaseTooLarge):
        files.read(sha_of(1), LIMIT)
    with pytest.raises(ValueError, match="too long"):
        files.kind(sha_of(1))
    with pytest.raises(UsageError, match="is damaged"):
        Repository.open(root).resolve(sha_of(1))


@pytest.mark.parametrize(
    "entry",
    [
        delta_entry(sha_of(2), copy_all(9)),  # based on itself
        delta_entry(sha_of(9), copy_all(9)),  # on an object that is not there
        b"\x61\x7f" + zlib.compress(b"x"),  # on one before the start of the pack
        b"\x61\x00" + zlib.compress(b"x"),  # on itself, by its offset
        b"\x51" + zlib.compress(b"x"),  # of a kind that is not used
        delta_entry(sha_of(1), pack_number(4) + pack_number(3) + b"\x90\x03"),  # for a base of another size
        delta_entry(sha_of(1), pack_number(3) + pack_number(3) + b"\x90\x04"),  # copies more than there is
        delta_entry(sha_of(1), pack_number(3) + pack_number(9) + b"\x90\x03"),  # makes less than it says
        delta_entry(sha_of(1), pack_number(3) + pack_number(3) + b"\x00"),  # an instruction without a meaning
        delta_entry(sha_of(1), pack_number(3) + pack_number(3) + b"\x9f"),  # the instruction ends early
        delta_entry(sha_of(1), b"\xff" * 40),  # a size without end
        pack_header(3, 4) + zlib.compress(b"abc"),  # fewer bytes than it says
        pack_header(3, 2) + zlib.compress(b"abc"),  # more bytes
        pack_header(3, 3) + b"no zlib",
        pack_header(3, 3) + zlib.compress(b"abc")[:5],
        b"\xff" * 5000,
    ],
)
def test_a_damaged_entry_of_a_pack(tmp_path: Path, entry: bytes) -> None:
    root = make_repo(tmp_path, {})
    make_pack(root, [pack_header(3, 3) + zlib.compress(b"abc"), entry])
    with pytest.raises(DAMAGE) as caught:
        ObjectFiles(root / ".git/objects", 20).read(sha_of(2), LIMIT)
    assert not isinstance(caught.value, TooLarge | NotRegular)


@pytest.mark.parametrize("packed", [False, True])
def test_a_huge_object_is_not_inflated(tmp_path: Path, packed: bool) -> None:
    """64 MiB of zeros, which take 64 KiB on the disk."""
    root = make_repo(tmp_path, {"a.py": "1"})
    write(root, {"zeros": bytes(1 << 26)})
    commit(root)
    if packed:
        git(root, "gc", "-q")
    assert listed(root, rev="HEAD") == {"a.py": b"1", "zeros": "larger than 16 MiB"}
    blob = git(root, "rev-parse", "HEAD:zeros")
    files = ObjectFiles(root / ".git/objects", 20)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            files.read(blob, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_loose_object_that_is_larger_than_it_says(tmp_path: Path) -> None:
    root = make_repo(tmp_path, {"a.py": "1"})
    blob = make_blob(root, b"abc")
    path = root / ".git/objects" / blob[:2] / blob[2:]
    path.chmod(0o644)
    files = ObjectFiles(root / ".git/objects", 20)
    path.write_bytes(zlib.compress(b"blob 3\0" + bytes(1 << 26)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="another size"):
            files.read(blob, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    path.write_bytes(zlib.compress(b"blob 99999999999999999999\0"))
    with pytest.raises(ValueError, match="header"):
        files.read(blob, LIMIT)


def test_a_commit_or_tree_that_is_too_large_raises_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_repo(tmp_path, {f"{'x' * 100}{number}.py": "1" for number in range(30)})
    tree = git(root, "rev-parse", "HEAD^{tree}")
    monkeypatch.setattr("awareness.index.files.git.git_objects.GitObjects._read.__kwdefaults__", {"limit": 1000})
    monkeypatch.setattr("awareness.index.files.git.git_objects.GitObjects.entries.__defaults__", (1000,))
    with pytest.raises(UsageError, match=f"object {tree} is larger than 1000 bytes"):
        listed(root, rev="HEAD")
