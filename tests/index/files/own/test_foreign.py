"""Which folders are other people's code or made by a tool, in every place that files are listed from."""

from __future__ import annotations

from pathlib import Path

import pytest

from awareness.index.files.own.foreign import DEPENDENCIES, MADE
from awareness.index.files.own.own_files import CACHE_SIGNATURE
from tests.index.files.test_repository import commit, git, listed, write

TAG = CACHE_SIGNATURE + b"\n# made by cargo\n"
Files = dict[str, str | bytes]

# The folder that is left out, and the files of the case.
OTHERS: dict[str, tuple[str, Files]] = {
    "node_modules": ("web/node_modules", {"web/node_modules/a/index.js": "x", "web/package.json": "{}"}),
    "node_modules of a fixture": (
        "pkg/tests/fixtures/node_modules",
        {"pkg/__init__.py": "x", "pkg/tests/fixtures/node_modules/a.js": "x"},
    ),
    "bower_components": ("bower_components", {"bower_components/jquery/jquery.js": "x"}),
    "venv by its content": ("my env", {"my env/pyvenv.cfg": "home = /usr\n", "my env/bin/tool.py": "x"}),
    "conda": ("opt/conda", {"opt/conda/conda-meta/history": "", "opt/conda/lib/a.py": "x"}),
    "virtualenv": ("e", {"e/bin/activate": "x", "e/bin/python": "x", "e/lib/a.py": "x"}),
    "virtualenv on Windows": ("e", {"e/Scripts/activate": "x", "e/Scripts/python.exe": "x", "e/Lib/a.py": "x"}),
    ".venv": (".venv", {".venv/lib/a.py": "x"}),
    "site-packages": ("lib/python3/site-packages", {"lib/python3/site-packages/six.py": "x", "lib/own.py": "x"}),
    "__pypackages__": ("__pypackages__", {"__pypackages__/3.12/lib/six.py": "x"}),
    "Go": ("vendor", {"go.mod": "module x\n", "vendor/modules.txt": "# a.org/b v1\n", "vendor/a.org/b/b.go": "x"}),
    "Go without modules": ("vendor", {"vendor/github.com/a/b/b.go": "x", "vendor/golang.org/x/net/c.go": "x"}),
    "Composer": ("vendor", {"vendor/autoload.php": "<?php", "vendor/composer/installed.json": "[]"}),
    "Composer elsewhere": ("lib/php", {"lib/php/autoload.php": "x", "lib/php/composer/autoload_real.php": "x"}),
    "cargo": ("vendor", {"vendor/serde/.cargo-checksum.json": "{}", "vendor/serde/src/lib.rs": "x"}),
    "one crate": ("third/serde", {"third/serde/.cargo-checksum.json": "{}", "third/serde/src/lib.rs": "x"}),
    "Bundler": ("vendor/bundle", {"vendor/bundle/ruby/3.2.0/gems/rack/rack.rb": "x", "vendor/own.rb": "x"}),
    "mix": ("deps", {"mix.exs": "x", "deps/jason/lib/jason.ex": "x"}),
    "rebar": ("deps", {"rebar.config": "x", "deps/cowboy/src/cowboy.erl": "x"}),
    "CocoaPods": ("ios/Pods", {"ios/Podfile": "x", "ios/Pods/A/A.m": "x"}),
    "Carthage": ("Carthage/Checkouts", {"Carthage/Checkouts/A/A.swift": "x"}),
    "Yarn": (".yarn/cache", {".yarn/cache/a.zip.txt": "x", ".yarn/releases/yarn.cjs": "x"}),
    "pnpm": (".pnpm-store", {".pnpm-store/v3/files/00/a": "x"}),
    "Elm": ("elm-stuff", {"elm-stuff/0.19.1/d.dat": "x"}),
    "Go module cache": ("go/pkg/mod", {"go/pkg/mod/cache/download/a": "x", "go/pkg/mod/a.org/b/b.go": "x"}),
    "NuGet": ("packages", {"packages/Json.13/Json.13.nupkg": "x", "packages/Json.13/lib/a.xml": "x"}),
    "Perl": ("local", {"local/lib/perl5/Moo.pm": "x"}),
    "renv": ("renv/library", {"renv/activate.R": "x", "renv/library/R-4.2/dplyr/R/a.R": "x"}),
}
BUILDS: dict[str, tuple[str, Files]] = {
    "cargo target": ("target", {"Cargo.toml": "x", "target/debug/build/a.rs": "x"}),
    "Maven target": ("api/target", {"api/pom.xml": "x", "api/target/classes/a.txt": "x"}),
    "sbt target": ("target", {"build.sbt": "x", "target/a.scala": "x"}),
    "target by its content": ("out/target", {"out/target/.rustc_info.json": "{}", "out/target/a.rs": "x"}),
    "a tagged folder": ("whatever", {"whatever/CACHEDIR.TAG": TAG, "whatever/a.py": "x"}),
    "build of setuptools": ("build", {"setup.py": "x", "build/lib/a.py": "x"}),
    "dist of pyproject": ("dist", {"pyproject.toml": "x", "dist/a.txt": "x"}),
    "dist of package.json": ("web/dist", {"web/package.json": "{}", "web/dist/app.js": "x"}),
    "build of Gradle": ("build", {"build.gradle.kts": "x", "build/generated/A.java": "x"}),
    "out of TypeScript": ("out", {"package.json": "{}", "out/main.js": "x"}),
    "CMake": ("debug", {"debug/CMakeCache.txt": "x", "debug/a.c": "x"}),
    "CMakeFiles": ("CMakeFiles", {"CMakeFiles/3.25/a.c": "x"}),
    "Meson": ("builddir", {"builddir/meson-info/a.json": "{}", "builddir/config.h": "x"}),
    ".NET bin": ("app/bin", {"app/app.csproj": "x", "app/bin/Debug/a.json": "{}"}),
    ".NET obj": ("app/obj", {"app/app.fsproj": "x", "app/obj/a.cs": "x"}),
    "mix _build": ("_build", {"mix.exs": "x", "_build/dev/a.ex": "x"}),
    "dune _build": ("_build", {"dune-project": "x", "_build/default/a.ml": "x"}),
    "Sphinx _build": ("docs/_build", {"docs/conf.py": "x", "docs/_build/a.txt": "x"}),
    "coverage of Jest": ("coverage", {"coverage/lcov.info": "x", "coverage/a.js": "x"}),
    "htmlcov": ("htmlcov", {"htmlcov/a.html": "x"}),
    "egg-info": ("src/a.egg-info", {"src/a.egg-info/SOURCES.txt": "x"}),
    "Unity": ("Library", {"ProjectSettings/a.asset": "x", "Library/a.txt": "x"}),
    "Unreal": ("Intermediate", {"Game.uproject": "{}", "Intermediate/a.h": "x"}),
    "Swift": (".build", {"Package.swift": "x", ".build/checkouts/a/a.swift": "x"}),
    **{
        name: (f"sub/{name}", {f"sub/{name}/a.txt": "x"})
        for name in (
            *(".tox", ".nox", ".eggs", "__pycache__", ".gradle", ".next", ".nuxt", ".svelte-kit", ".turbo"),
            *(".parcel-cache", ".dart_tool", ".terraform", ".mypy_cache", ".ruff_cache", ".pytest_cache"),
            *(".hypothesis", ".ipynb_checkpoints", "dist-newstyle", ".stack-work"),
        )
    },
}
# Folders with the same names that people write in.
OWN: dict[str, Files] = {
    **{
        f"a folder {name}": {f"{name}/a.py": "x", f"src/{name}/b.py": "x"}
        for name in (
            *("target", "vendor", "build", "dist", "env", "venv", "packages", "lib", "deps", "out", "bin", "obj"),
            *("coverage", "_build", "Pods", "library", "local", "site", "Library", "Checkouts", "mod", "cache"),
        )
    },
    "a package site.packages": {"site/packages/a.py": "x", "site/__init__.py": "x"},
    "vendor written by hand": {"go.mod": "x", "package.json": "{}", "vendor/legacy/a.go": "x"},
    "a list of modules": {"vendor/modules.txt": "sales, stock\n", "vendor/a.py": "x"},
    "vendor with one crate": {"vendor/serde/Cargo.toml": "x", "vendor/own/src/lib.rs": "x"},
    "a package build": {"pyproject.toml": "x", "build/__init__.py": "x", "build/a.py": "x"},
    "a script in build": {"pyproject.toml": "x", "build/release.py": "x"},
    "a script in bin": {"a.csproj": "x", "bin/deploy.sh": "x"},
    "scripts of a build": {"package.json": "{}", "build/webpack.base.js": "x"},
    "a module target": {"Cargo.toml": "x", "src/target/mod.rs": "x"},
    "monorepo": {"package.json": "{}", "packages/a/index.js": "x", "packages/b/index.js": "x"},
    "a tag of nobody": {"data/CACHEDIR.TAG": "notes\n", "data/a.py": "x"},
    "lib of a venv-like project": {"bin/run.py": "x", "lib/a.py": "x"},
    "files with such names": {"node_modules": "x", "target": "x", "a/.venv": "x"},
}
PLACES = ("untracked", "tracked", "commit", "plain")


def at(place: str, root: Path, files: Files) -> dict[str, bytes | str]:
    """What is listed of the files, at the place."""
    write(root, {"own.py": "1", **files})
    if place != "plain":
        git(root, "init", "-q", "-b", "main")
        if place != "untracked":
            git(root, "add", "-A", "-f")
            git(root, "commit", "-q", "-m", "m")
    return listed(root, rev="HEAD" if place == "commit" else None)


def expected(files: Files, folder: str | None, reason: str = "") -> dict[str, bytes | str]:
    kept = {"own.py": "1", **files}
    found: dict[str, bytes | str] = {
        path: text if isinstance(text, bytes) else text.encode()
        for path, text in kept.items()
        if folder is None or not path.startswith(f"{folder}/")
    }
    return found if folder is None else {**found, f"{folder}/": reason}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", OTHERS)
def test_dependencies_are_left_out_even_if_tracked(tmp_path: Path, case: str, place: str) -> None:
    folder, files = OTHERS[case]
    assert at(place, tmp_path, files) == expected(files, folder, DEPENDENCIES)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", BUILDS)
def test_builds_are_left_out_unless_tracked(tmp_path: Path, case: str, place: str) -> None:
    folder, files = BUILDS[case]
    is_left_out = place in ("untracked", "plain")
    assert at(place, tmp_path, files) == expected(files, folder if is_left_out else None, MADE)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", OWN)
def test_a_name_alone_does_not_make_a_folder_foreign(tmp_path: Path, case: str, place: str) -> None:
    assert at(place, tmp_path, OWN[case]) == expected(OWN[case], None)


def test_a_build_folder_that_only_git_keeps_is_left_out(tmp_path: Path) -> None:
    assert at("tracked", tmp_path, {"package.json": "{}", "dist/.gitkeep": ""})["dist/.gitkeep"] == b""
    write(tmp_path, {"dist/app.js": "x", "dist/assets/b.js": "x"})
    assert listed(tmp_path) == {"own.py": b"1", "package.json": b"{}", "dist/.gitkeep": b"", "dist/": MADE}


def test_a_new_file_in_a_build_folder_that_people_keep_is_theirs(tmp_path: Path) -> None:
    at("tracked", tmp_path, {"package.json": "{}", "build/release.js": "x"})
    write(tmp_path, {"build/new.js": "y", "build/steps/c.js": "z", "build/node_modules/a.js": "x"})
    assert listed(tmp_path) == {
        **{"own.py": b"1", "package.json": b"{}", "build/release.js": b"x"},
        **{"build/new.js": b"y", "build/steps/c.js": b"z", "build/node_modules/": DEPENDENCIES},
    }


def test_a_tracked_folder_of_dependencies_counts_its_files(tmp_path: Path) -> None:
    from awareness.index.files.repository import Repository, SkippedFile

    at("tracked", tmp_path, {"vendor/modules.txt": "# a\n", "vendor/a/a.go": "x", "vendor/a/b.go": "x"})
    write(tmp_path, {"vendor/new.go": "x", "node_modules/a.js": "x"})
    skipped = [file for file in Repository.open(tmp_path).scan() if isinstance(file, SkippedFile)]
    assert [(file.path, file.reason, file.files) for file in skipped] == [
        ("node_modules/", DEPENDENCIES, None),
        ("vendor/", DEPENDENCIES, 3),
    ]


def test_a_folder_that_git_ignores_is_not_named(tmp_path: Path) -> None:
    at("tracked", tmp_path, {".gitignore": "node_modules/\n/new/data/\n"})
    write(tmp_path, {"node_modules/a.js": "x", "new/a.py": "2", "new/data/node_modules/b.js": "x"})
    assert listed(tmp_path) == {".gitignore": b"node_modules/\n/new/data/\n", "own.py": b"1", "new/a.py": b"2"}
    commit(tmp_path)
    assert listed(tmp_path) == listed(tmp_path, rev="HEAD")
