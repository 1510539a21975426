"""Sources of every sort become the same chunks; what may not be learned from is left out, and said."""

from __future__ import annotations

import io
import json
import stat
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from awareness.config.training import DataConfig
from awareness.errors import ModelNotAvailable, UsageError
from awareness.train.data import archives, repostack
from awareness.train.data.data_sources import fetch_wheel, find_sources, project, read_source
from awareness.train.data.disk_cache import DiskCache
from awareness.train.data.licences import UNKNOWN, family, is_permitted, licence_of, names_licence
from awareness.train.data.prepared_sources import PreparedSources
from awareness.train.data.repostack import RepoStack, read_stack
from awareness.train.samples.pairs import token_starts
from tests.conftest import git, write_tree

MIT = "Permission is hereby granted, free of charge, to any\nperson obtaining a copy of this software"
GPL = "                    GNU GENERAL PUBLIC LICENSE\n                       Version 3, 29 June 2007\n"
ISC = "Permission to use, copy, modify, and/or distribute this software for any\n# purpose with or without fee"


def code(word: str, functions: int = 6) -> str:
    """Functions that have hardly a shingle in common with those of another word."""
    return "\n\n".join(
        f"def {word}_{n}({word}_a{n}, {word}_b{n}):\n    {word}_c{n} = {word}_a{n} * {word}_{n}x + {n}{n}\n"
        f"    {word}_d{n}.{word}_e{n}({word}_c{n}, '{word} {n}')\n    return {word}_f{n}[{word}_b{n}]"
        for n in range(functions)
    )


def tree(word: str, licence: str = MIT) -> dict[str, str]:
    return {"LICENSE": licence, f"src/{word}.py": code(word)}


def read(sources: list, seed: int = 0, *, call: dict | None = None, **settings) -> RepoStack:
    """call: other arguments of read_stack."""
    data = {"kinds": {"needle": 1}, "validation": 0, "chunk_tokens": 64, **settings}
    config = DataConfig(sources=[str(source) for source in sources], **data)
    return read_stack(config, seed=seed, **{"token_starts": token_starts, **(call or {})})


def put_zip(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def put_tar(path: Path, files: dict[str, str], *others: tarfile.TarInfo) -> Path:
    with tarfile.open(path, f"w:{path.suffix.removeprefix('.').replace('tgz', 'gz')}") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
        for info in others:
            archive.addfile(info)
    return path


@pytest.fixture
def three(tmp_path) -> list[Path]:
    return [write_tree(tmp_path / f"{word}-1.0", tree(word)) for word in ("ant", "bee", "cat")]


# --- sources ---


def test_every_sort_of_source_gives_the_same_chunks(tmp_path):
    files = tree("ant")
    inside = {f"ant-1.0/{name}": text for name, text in files.items()}
    repository = write_tree(tmp_path / "git/ant-1.0", files)
    git(repository, "init", "-q")
    sources = [repository, write_tree(tmp_path / "plain/ant-1.0", files)]
    sources += [put_zip(tmp_path / f"ant-1.0{suffix}", inside) for suffix in (".zip", "-py3-none-any.whl")]
    sources += [put_tar(tmp_path / f"ant-1.0{suffix}", inside) for suffix in (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")]
    stacks = [read([source]) for source in sources]
    assert stacks[0].train[0].name == "ant-1.0" and stacks[0].train[0].licence == "MIT"
    assert [chunk.symbol for chunk in stacks[0].train[0].chunks] == [f"ant_{n}" for n in range(6)]
    assert stacks[0].train[0].chunks[0].place == "src/ant.py:1-4"
    assert all(stack == stacks[0] for stack in stacks)


def test_a_folder_in_a_repository_is_read_alone_and_without_vendored_code(tmp_path):
    files = {"a.py": code("ant"), "tests/test_a.py": code("t"), "vendor/v.py": code("v"), "notes.md": code("n")}
    files |= {"big.py": code("big", 4000), "min.js": f"f({'1,' * 300}1)", "x/README.rst": "x", "unknown.xyz": code("z")}
    outer = write_tree(tmp_path / "outer", {"secret.py": code("s")} | {f"inner/{name}": t for name, t in files.items()})
    git(outer, "init", "-q")
    (outer / "inner/link.py").symlink_to(outer / "secret.py")
    stack = read([outer / "inner"], licences=[])
    assert {chunk.path for chunk in stack.train[0].chunks} == {"a.py"}
    assert stack.report.sources[0].files == 1


def test_only_chunks_of_a_quarter_of_the_tokens_are_kept(tmp_path):
    source = write_tree(tmp_path / "a", {"tiny.py": "x = 1\n", "a.py": code("ant", 1)})
    chunks = read([source], licences=[], chunk_tokens=128).train[0].chunks
    tokens = len(token_starts(chunks[0].encoded_text))
    assert [chunk.path for chunk in chunks] == ["a.py"]
    assert read([source], licences=[], chunk_tokens=4 * tokens).train[0].chunks == chunks
    with pytest.raises(UsageError, match="no chunk is left to train on"):
        read([source], licences=[], chunk_tokens=4 * tokens + 1)


def test_patterns_are_sorted_and_each_source_is_taken_once(tmp_path):
    for name in ("b/src", "a/src", "c-2.0"):
        write_tree(tmp_path / name, {"x.py": ""})
    put_zip(tmp_path / "d-1.0-cp311-cp311-linux.whl", {})
    (tmp_path / "notes.txt").write_text("")
    names = [source.name for source in find_sources([f"{tmp_path}/*/src", f"{tmp_path}/[cdn]*", f"{tmp_path}/a/src"])]
    assert names == ["a/src", "b/src", "c-2.0", "d-1.0"]


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("nothing-here", "'nothing-here' does not exist"),
        ("nothing-*", r"'nothing-\*' does not exist"),
        ("{}/a.txt", "a.txt' is not an archive"),
        ("pypi:flask", "'pypi:flask' has no exact version"),
        ("pypi:flask>=3", "'pypi:flask>=3' has no exact version"),
        ("pypi:flask==3.*", "has no exact version"),
        ("pypi:--index-url==1", "has no exact version"),
        ("pypi:flask==1/../..", "has no exact version"),
    ],
)
def test_a_bad_source_is_refused(tmp_path, source, wrong):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UsageError, match=wrong) as raised:
        read([source.format(tmp_path)])
    assert raised.value.message.startswith("data.sources: ") and raised.value.hint


def test_a_pinned_wheel_is_fetched_once_and_only_when_it_is_read(tmp_path, monkeypatch):
    about = {
        "ant-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: ant\nVersion: 1.0\nLicense: MIT\n\nLicense: GPL"
    }
    about["ant-1.0.dist-info/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    wheel = put_zip(tmp_path / "ant-1.0-py3-none-any.whl", {"ant/a.py": code("ant"), **about})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UsageError, match=r"of data\.test"):
        read(["pypi:ant==1.0"], test=["ant"])
    assert not (tmp_path / "cache").exists()
    stack = read(["pypi:ant==1.0"])
    assert (stack.train[0].name, stack.train[0].licence) == ("ant-1.0", "MIT")
    assert {chunk.path for chunk in stack.train[0].chunks} == {"ant/a.py"}
    wheel.unlink()
    assert read(["pypi:ant==1.0"]) == stack
    with pytest.raises(ModelNotAvailable, match=r"data.sources: pypi:ant==1.1: pip could not download ant==1.1"):
        fetch_wheel("ant==1.1")
    assert {path.name for path in (tmp_path / "cache/awareness/sources").iterdir()} == {".lock", "ant-1.0"}


def test_wheels_are_fetched_in_their_order_while_others_are_cut_and_the_first_that_fails_is_named(tmp_path):
    wheels = {
        f"{word}==1.0": put_zip(tmp_path / f"{word}-1.0-py3-none-any.whl", tree(word)) for word in ("ant", "bee", "cat")
    }
    sources, order, cut = [f"pypi:{pinned}" for pinned in wheels], [], []
    both, main = threading.Event(), threading.current_thread()

    def fetch(pinned: str) -> Path:
        assert threading.current_thread() is not main
        order.append(pinned)
        if pinned == "bee==1.0":
            both.set()
        return wheels[pinned]

    def starts(text: str) -> list[int]:
        cut.append(both.wait(20))  # the second wheel comes before the first is cut
        return token_starts(text)

    stack = read(sources, call={"fetch": fetch, "token_starts": starts})
    assert order == list(wheels) and all(cut) and stack == read(list(wheels.values()))

    def failing(pinned: str) -> Path:
        if pinned != "ant==1.0":
            raise ModelNotAvailable(f"no {pinned}")
        return wheels[pinned]

    with pytest.raises(ModelNotAvailable, match=r"no bee==1\.0"):
        read(sources, call={"fetch": failing})


# --- what is kept ---


@pytest.fixture
def prepared(tmp_path) -> PreparedSources:
    return PreparedSources(DiskCache(tmp_path / "kept"), "tests")


def not_again(*_: object) -> None:
    raise AssertionError("what was kept is made again")


def test_a_second_run_cuts_and_compares_nothing_and_gives_the_same(tmp_path, three, prepared, monkeypatch):
    write_tree(three[1], {"src/twin.py": code("ant", 2)})
    put_zip(tmp_path / "dog-1.0.zip", tree("dog"))
    sources = [*three, tmp_path / "dog-1.0.zip"]
    plain = read(sources, chunks_per_source=3)
    assert plain.report.sources[1].near_duplicates == 2
    assert read(sources, chunks_per_source=3, call={"prepared": prepared}) == plain
    entries = {path.name for path in prepared.cache.folder.iterdir()}
    assert len(entries) == 5
    other = read(sources, chunks_per_source=2, licences=["MIT"], seed=4)
    with monkeypatch.context() as patch:
        patch.setattr(repostack, "NearDuplicates", not_again)
        kept = {"prepared": prepared, "token_starts": not_again}
        assert read(sources, chunks_per_source=3, call=kept) == plain
        assert read(sources, chunks_per_source=2, licences=["MIT"], seed=4, call=kept) == other != plain
    assert {path.name for path in prepared.cache.folder.iterdir()} == entries


def test_what_is_kept_is_never_out_of_date(three, prepared):
    def both(**settings) -> RepoStack:
        plain = read(three, **settings)
        assert read(three, **settings, call={"prepared": prepared}) == plain
        return plain

    first = both()
    (three[0] / "src/ant.py").write_text(code("wasp", 3))  # a change that no commit has
    second = both()
    assert {chunk.symbol for chunk in second.train[0].chunks} == {"wasp_0", "wasp_1", "wasp_2"} != first.train[0].chunks
    write_tree(three[0], {"LICENSE": GPL})
    assert both().report.refused == {"ant-1.0": "GPL"}
    (three[0] / "LICENSE").unlink()
    (three[0] / "src/ant.py").rename(three[0] / "src/bug.py")
    assert {chunk.path for chunk in both(licences=[]).train[0].chunks} == {"src/bug.py"}
    assert both(chunk_tokens=32) != both(chunk_tokens=128)
    assert both(near_duplicates=0) and both(validation=["bee"]) != both(validation=["cat"])


def test_a_damaged_entry_is_made_again(three, prepared):
    plain = read(three, call={"prepared": prepared})
    for path in prepared.cache.folder.iterdir():
        whole = path.read_bytes()
        for damaged in (b"", whole[: len(whole) // 2], whole[:15] + bytes(5) + whole[20:]):
            path.write_bytes(damaged)
            assert read(three, call={"prepared": prepared}) == plain
            assert path.read_bytes() == whole


def test_a_line_is_said_for_each_source(tmp_path, three, prepared):
    gpl, said = write_tree(tmp_path / "gnu-1.0", tree("gnu", GPL)), []
    call = {"prepared": prepared, "say": said.append}
    read([*three, gpl], call=call)
    assert [line.rpartition(", ")[0] for line in said[:3]] == [
        f"{word}-1.0: MIT, 1 file, 6 chunks" for word in ("ant", "bee", "cat")
    ]
    assert all(line.endswith(" s") for line in said)
    assert said[3].startswith("gnu-1.0: GPL, 1 file, left out, as data.licences does not permit it, ")
    del said[:]
    read([*three, gpl], call=call)
    assert [line.endswith(" s, from the cache") for line in said] == [True, True, True, False]


# --- archives ---


def read_archive(path: Path) -> dict[str, bytes]:
    (source,) = find_sources([str(path)])
    return read_source(source, fetch_wheel)


def test_hostile_members_are_skipped(tmp_path):
    files = dict.fromkeys(["../up.py", "/etc/abs.py", "a/../b.py", "a/.git/hooks.py", "a//b.py"], "x")
    files |= {"a/ok.py": "1", "./a/dot.py": "2", "a/big.py": "x" * (archives.MAX_FILE + 1), "a/image.png": "x"}
    kept = {"ok.py": b"1", "dot.py": b"2"}
    others = []
    for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("fifo", tarfile.FIFOTYPE)):
        others.append(tarfile.TarInfo(f"a/{name}.py"))
        others[-1].type, others[-1].linkname = kind, "/etc/passwd"
    assert read_archive(put_tar(tmp_path / "a.tgz", files, *others)) == kept
    path = put_zip(tmp_path / "a.zip", files)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("a/link.py")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr(zipfile.ZipInfo("a/bomb.py"), "x", zipfile.ZIP_LZMA)
    assert read_archive(path) == kept


def test_an_archive_is_refused_beyond_its_limits(tmp_path, monkeypatch):
    files = {f"{n}.py": "x" * 5000 for n in range(20)}
    paths = [put_tar(tmp_path / "a.tar.xz", files), put_zip(tmp_path / "b.zip", files)]
    assert [len(read_archive(path)) for path in paths] == [20, 20]
    monkeypatch.setattr(archives, "MAX_MEMBERS", 19)
    for path in paths:
        with pytest.raises(UsageError, match="more than 19 members"):
            read_archive(path)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 20)
    monkeypatch.setattr(archives, "MAX_BYTES", 90_000)
    for path in paths:
        with pytest.raises(UsageError, match="unpacks to more than"):
            read_archive(path)
    blank = put_tar(tmp_path / "c.tar.gz", {"a/skipped.bin": "x" * 99_000})  # what is skipped is unpacked, too
    with pytest.raises(UsageError, match="unpacks to more than"):
        read_archive(blank)


@pytest.mark.parametrize("suffix", archives.SUFFIXES)
def test_a_damaged_archive_is_a_clear_error(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    whole = (put_zip if suffix in (".zip", ".whl") else put_tar)(path, {"a.py": code("ant", 200)}).read_bytes()
    for data in (b"", b"no archive", whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=rf"data.sources: .*a\{suffix} cannot be read"):
            read_archive(path)
    for place in range(0, len(whole), 61):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xA5]) + whole[place + 1 :])
        try:
            read_archive(path)
        except UsageError as error:
            assert "cannot be read" in error.message


# --- licences ---


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"LICENSE": MIT}, "MIT"),
        ({"COPYING.txt": GPL}, "GPL"),
        ({"LICENCE": f"# {ISC}"}, "ISC"),
        (
            {"LICENSE": "Mozilla Public License Version 2.0\nthe GNU General Public License, Version 2.0, the"},
            "MPL-2.0",
        ),
        ({"x-1.dist-info/licenses/LICENSE.rst": MIT, "x-1.dist-info/METADATA": "License: GPL"}, "MIT"),
        ({"LICENSE-MIT": MIT, "LICENSE-ISC": ISC, "Cargo.toml": '[package]\nlicense = "MIT OR ISC"'}, "MIT OR ISC"),
        ({"LICENSE-MIT": MIT, "COPYING": GPL}, "GPL AND MIT"),
        ({"LICENSE": f"{MIT}\n{GPL}", "package.json": '{"license": "MIT"}'}, "MIT AND GPL"),
        ({"package.json": '{"license": "(MIT OR GPL-3.0)"}'}, "MIT OR GPL"),
        ({"package.json": '{"license": {"type": "BSD-2-Clause"}}'}, "BSD"),
        ({"package.json": '{"license": "(MIT OR ISC) AND CC0-1.0"}'}, "MIT AND ISC AND CC0-1.0"),
        ({"package.json": "[" * 100_000}, UNKNOWN),
        (
            {"pyproject.toml": '[x]\nlicense = "MIT"\n[project]\nname = "a"\nlicense = {text = "Apache 2.0"}'},
            "Apache-2.0",
        ),
        ({"PKG-INFO": "License-Expression: Apache-2.0 WITH LLVM-exception\nLicense: GPL"}, "Apache-2.0"),
        ({"METADATA": "License: see LICENSE\nClassifier: License :: OSI Approved :: BSD License\n"}, "BSD"),
        ({"METADATA": "License: see LICENSE\n\nLicense: MIT"}, UNKNOWN),
        ({"LICENSE": "All rights reserved.", "vendored/LICENSE": MIT, "license.py": MIT}, UNKNOWN),
        ({}, UNKNOWN),
    ],
)
def test_the_licence_of_a_source(files, licence):
    assert licence_of({name: text.encode() for name, text in files.items()}) == licence


@pytest.mark.parametrize(
    ("licence", "permitted", "may"),
    [
        ("MIT", ["MIT"], True),
        ("BSD", ["BSD-3-Clause"], True),
        ("MIT OR GPL", ["MIT"], True),
        ("MIT AND GPL", ["MIT"], False),
        ("MIT AND BSD OR GPL", ["MIT", "BSD"], True),
        ("LGPL", ["GPL"], False),
        (UNKNOWN, ["MIT"], False),
        (UNKNOWN, [], True),
    ],
)
def test_permitted_licences(licence, permitted, may):
    assert is_permitted(licence, permitted) is may


def test_names_of_licences_are_of_a_family():
    assert [family(name) for name in DataConfig.model_fields["licences"].default] == (
        "MIT BSD Apache-2.0 ISC PSF Zlib Unlicense MPL-2.0".split()
    )
    names = {"AGPL-3.0-only": "AGPL", "GNU Lesser General Public License v3 (LGPLv3)": "LGPL", "MIT-ish": "MIT-ish"}
    names |= {
        "Apache-1.1": "Apache-1.1",
        "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
        "0BSD": "BSD",
        "?": UNKNOWN,
    }
    assert {name: family(name) for name in names} == names


def test_blank_lines_do_not_slow_a_licence_down():
    assert licence_of({"LICENSE": b"\n" * archives.MAX_FILE}) == UNKNOWN
    assert names_licence("LICENSE") and not names_licence("src/LICENSE")


def test_a_source_is_refused_for_its_licence_and_named(tmp_path, three):
    gpl = write_tree(tmp_path / "gnu-1.0", tree("gnu", GPL))
    stack = read([*three, gpl])
    assert [source.name for source in stack.train] == ["ant-1.0", "bee-1.0", "cat-1.0"]
    assert stack.report.refused == {"gnu-1.0": "GPL"} and "gnu-1.0 (GPL)" in stack.report.summary
    assert len(read([*three, gpl], licences=[]).train) == 4
    with pytest.raises(UsageError, match=r"data.licences permits none of the sources: gnu-1.0 \(GPL\)"):
        read([gpl])


# --- split, near duplicates, draw ---


@pytest.mark.parametrize("name", ["bee", "BEE", "bee-1.0", "Bee_1.0"])
def test_validation_is_by_name(three, name):
    stack = read(three, validation=[name])
    assert [source.name for source in stack.validation] == ["bee-1.0"]
    assert [source.name for source in stack.train] == ["ant-1.0", "cat-1.0"]
    assert [source.split for source in stack.report.sources] == ["train", "validation", "train"]


def test_validation_by_an_unknown_source_or_by_all_is_refused(three, monkeypatch):
    """An unknown name is told before anything is read."""
    reading = []
    monkeypatch.setattr("awareness.train.data.repostack._read", lambda *source: reading.append(source))
    with pytest.raises(UsageError, match=r"data.validation: 'bee-2.0' is none of .*: ant-1.0, bee-1.0, cat-1.0"):
        read(three, validation=["bee-2.0"])
    assert not reading
    monkeypatch.undo()
    with pytest.raises(UsageError, match="of 3 sources 3 are permitted, 3 of them for validation"):
        read(three, validation=["ant", "bee", "cat"])


def test_a_share_is_at_least_one_of_each_side_and_drawn_by_the_seed(three):
    names = [{s.name for s in read(three, seed=seed, validation=0.1).validation} for seed in range(12)]
    assert {len(chosen) for chosen in names} == {1} and len(set.union(*names)) == 3
    assert names[:3] == [{s.name for s in read(three, seed=seed, validation=0.1).validation} for seed in range(3)]
    assert len(read(three, validation=1.0).train) == 1
    assert read(three, validation=0).validation == read(three[:1], validation=0.5).validation == ()


def test_versions_of_a_project_are_on_the_same_side(tmp_path, three):
    twin = write_tree(tmp_path / "bee-2.0", tree("wasp"))
    for seed in range(6):
        stack = read([*three, twin], seed=seed, validation=0.5)
        sides = [{project(source.name) for source in side} for side in (stack.train, stack.validation)]
        assert not sides[0] & sides[1]
    stack = read([*three, twin], validation=["bee-1.0"])
    assert [source.name for source in stack.validation] == ["bee-1.0", "bee-2.0"]
    copy = write_tree(tmp_path / "copy/ant-1.0", tree("fly"))
    stack = read([*three, copy], validation=["ant-1.0"])
    assert [source.name for source in stack.validation] == [f"{tmp_path.name}/ant-1.0", "copy/ant-1.0"]


@pytest.mark.parametrize("name", ["bee", "Bee", "bee-1.0", "bee-7", "BEE-2.0.1rc1"])
def test_a_test_project_is_never_learned_from(three, name):
    with pytest.raises(UsageError, match=rf"data.sources: bee-1.0 is '{name}' of data.test"):
        read(three, test=["dog", name])
    assert len(read(three, test=["dog", "bee-hive", "be", "src"]).train) == 3


def test_projects_are_compared_without_version_case_and_separators():
    names = ["my_lib", "My.Lib-1.2", "x/my-lib-v3", "my-lib==1.0", "my-lib@2", "my-lib-1.0+local", "my-lib-3d-tools"]
    assert [project(name) for name in names] == ["my-lib"] * 6 + ["my-lib-3d-tools"]


def test_near_duplicates_of_validation_are_dropped_from_train(tmp_path):
    shared, common = code("shared", 2), code("common", 1)
    for word, more in (("ant", shared), ("bee", common), ("cat", shared), ("dog", common)):
        text = f"{code(word)}\n\n\n{more}\n"
        write_tree(tmp_path / word, {"LICENSE": MIT, f"{word}.py": text})
    stack = read([f"{tmp_path}/*"], validation=["cat"])
    kept = {s.name: {chunk.symbol for chunk in s.chunks} for s in (*stack.train, *stack.validation)}
    own = {word: {f"{word}_{n}" for n in range(6)} for word in ("ant", "bee", "cat", "dog")}
    assert kept == {**own, "bee": own["bee"] | {"common_0"}, "cat": own["cat"] | {"shared_0", "shared_1"}}
    dropped = {source.name: source.near_duplicates for source in stack.report.sources}
    assert dropped == {"ant": 2, "bee": 0, "cat": 0, "dog": 1}
    assert stack.report.examples == (
        ("ant ant.py:32-35", "cat cat.py:32-35"),
        ("ant ant.py:37-40", "cat cat.py:37-40"),
        ("dog dog.py:32-35", "bee bee.py:32-35"),
    )
    assert sum(len(s.chunks) for s in read([f"{tmp_path}/*"], near_duplicates=0).train) == 30


def test_chunks_are_drawn_by_seed_and_name_and_keep_their_order(three):
    whole = {source.name: source.chunks for source in read(three).train}
    drawn = read(three, chunks_per_source=3)
    for source in drawn.train:
        assert len(source.chunks) == 3
        assert [chunk for chunk in whole[source.name] if chunk in source.chunks] == list(source.chunks)
    assert len({tuple(whole[s.name].index(chunk) for chunk in s.chunks) for s in drawn.train}) > 1
    assert read(three, chunks_per_source=3) == drawn
    others = [read(three, seed=seed, chunks_per_source=3).train[0].chunks for seed in range(8)]
    assert len(set(others)) > 2
    assert read(three[::-1], chunks_per_source=3).train == drawn.train[::-1]
    assert [(s.chunks, s.kept) for s in drawn.report.sources] == [(6, 3)] * 3


def test_the_report_as_json_and_as_one_line(three):
    report = read(three, validation=["cat"]).report
    assert json.loads(json.dumps(report.to_json()))["sources"][2] == {
        "name": "cat-1.0",
        "licence": "MIT",
        "files": 1,
        "chunks": 6,
        "near_duplicates": 0,
        "kept": 6,
        "split": "validation",
    }
    summary = "12 chunks of 2 sources for train · 6 chunks of 1 sources for validation · 0 near duplicates left out"
    assert report.summary == summary
