"""Which folders hold other people's code, or what a tool made: told by what lies in them and beside them.

A name alone decides only where nobody writes code under it by hand (`node_modules`, `__pycache__`). Names that people
use for their own code as well (`vendor`, `build`, `target`, `env`, `packages`) need a mark of the tool. folders.py
looks for such folders in a tree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Protocol

from awareness.index.files.own.own_files import CACHE_SIGNATURE, CACHE_TAG, is_own_folder

DEPENDENCIES = "dependencies"
MADE = "build or cache"
OWN = "own index"
"""Never listed, not even as left out."""

PLACEHOLDERS = frozenset({".gitkeep", ".keep", ".gitignore", ".placeholder"})
"""Files that people commit into a folder so that it exists."""

DEPENDENCY_NAMES = frozenset(
    "node_modules bower_components jspm_packages .pnpm-store site-packages dist-packages __pypackages__ .venv elm-stuff"
    " lua_modules nimbledeps vcpkg_installed .pub-cache .cabal-sandbox".split()
)
MADE_NAMES = frozenset(
    "__pycache__ .tox .nox .eggs .mypy_cache .ruff_cache .pytest_cache .pytype .pyre .hypothesis .ipynb_checkpoints"
    " htmlcov .cache .gradle .next .nuxt .svelte-kit .turbo .parcel-cache .angular .astro .docusaurus .expo .nx .vite"
    " .nyc_output .dart_tool .terraform .terragrunt-cache .serverless .aws-sam .vercel .sass-cache .jekyll-cache"
    " .bundle .stack-work dist-newstyle .bloop .metals .cxx .externalNativeBuild CMakeFiles _opam _esy .zig-cache"
    " zig-cache zig-out .godot .direnv .idea .vs .hg .svn".split()
)
MADE_ENDS = (".egg-info", ".dist-info", ".egg")
BY_NAME = DEPENDENCY_NAMES | MADE_NAMES

_WRITTEN = frozenset({"__init__.py", "mod.rs", "lib.rs", "main.rs", "main.go"})
"""Files that people write: a folder with one of them at its top was not made by a tool."""
_WRITTEN_ENDS = (".py", ".sh", ".ps1")
_WRITTEN_STARTS = ("webpack.", "rollup.", "gulpfile.", "vite.config.", "esbuild.")
_HOST = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?!git$)[a-z]{2,6}")
_FEW = 64
"""Inner folders that are looked at to judge the outer one."""


class Folder(Protocol):
    """A folder of a work tree or a commit. name: empty for the top."""

    @property
    def name(self) -> str: ...

    @property
    def names(self) -> Collection[str]:
        """Of what lies in it."""

    @property
    def folders(self) -> Collection[str]:
        """The names of its folders."""

    def inner(self, name: str) -> Folder: ...

    def read(self, name: str) -> bytes:
        """The bytes of a file in it; empty if it is missing or cannot be read."""


def judge(folder: Folder, outer: Folder) -> str | None:
    """DEPENDENCIES, MADE or OWN for a folder whose content is not the repository's; else None. outer: around it."""
    if is_own(folder):
        return OWN
    name, inside = folder.name, folder.names
    if name in DEPENDENCY_NAMES or _is_environment(folder) or ".cargo-checksum.json" in inside:
        return DEPENDENCIES
    if (rule := _DEPENDENCY_RULES.get(name)) and rule(folder, outer):
        return DEPENDENCIES
    if "autoload.php" in inside and _has(folder, "composer", "autoload_real.php"):
        return DEPENDENCIES
    if name in MADE_NAMES or name.endswith(MADE_ENDS) or not _MADE_MARKS.isdisjoint(inside):
        return MADE
    if _tag(folder).startswith(CACHE_SIGNATURE):
        return MADE
    if (rule := _MADE_RULES.get(name)) and rule(folder, outer) and not _is_written(folder):
        return MADE
    return None


def is_own(folder: Folder) -> bool:
    """Did this program make the folder?"""
    return is_own_folder(folder.names, _tag(folder))


def _tag(folder: Folder) -> bytes:
    return folder.read(CACHE_TAG) if CACHE_TAG in folder.names else b""


_MADE_MARKS = frozenset({"CMakeCache.txt", ".rustc_info.json", "meson-private", "meson-info"})


def _is_environment(folder: Folder) -> bool:
    """A virtual environment of Python: venv, virtualenv, conda."""
    inside = folder.names
    if "pyvenv.cfg" in inside or "conda-meta" in folder.folders:
        return True
    for scripts, python in (("bin", "python"), ("Scripts", "python.exe")):
        if scripts in folder.folders:
            names = folder.inner(scripts).names
            if "activate_this.py" in names or ("activate" in names and python in names):
                return True
    return False


def _is_written(folder: Folder) -> bool:
    return not _WRITTEN.isdisjoint(folder.names) or any(
        name.startswith(_WRITTEN_STARTS) or name.endswith(_WRITTEN_ENDS) for name in folder.names
    )


def _has(folder: Folder, inner: str, name: str) -> bool:
    """Is there a file or folder `name` in the folder `inner` of this one?"""
    return inner in folder.folders and name in folder.inner(inner).names


def _ends(names: Collection[str], *ends: str) -> bool:
    return any(name.endswith(ends) for name in names)


def _all_inner(folder: Folder, is_one: Callable[[Folder], bool]) -> bool:
    """True if there are inner folders, and all are such (the first ones, if there are many)."""
    inner = sorted(folder.folders)[:_FEW]
    return bool(inner) and all(is_one(folder.inner(name)) for name in inner)


def _is_vendor(folder: Folder, outer: Folder) -> bool:
    """`vendor` of Go, Composer or cargo. Old tools of Go write no list, so the folders are named by hosts."""
    inside = folder.names
    if "modules.txt" in inside:
        return "go.mod" in outer.names or folder.read("modules.txt")[:1] in (b"#", b"")
    if "autoload.php" in inside and "composer" in folder.folders:
        return True
    if _all_inner(folder, lambda host: _HOST.fullmatch(host.name) is not None):
        return True
    return _all_inner(folder, lambda crate: ".cargo-checksum.json" in crate.names)


_DEPENDENCY_RULES: dict[str, Callable[[Folder, Folder], bool]] = {
    "vendor": _is_vendor,
    "bundle": lambda folder, outer: outer.name == "vendor" and not {"ruby", "jruby"}.isdisjoint(folder.folders),
    "deps": lambda folder, outer: not {"mix.exs", "rebar.config"}.isdisjoint(outer.names),
    "Pods": lambda folder, outer: "Podfile" in outer.names or "Manifest.lock" in folder.names,
    "Checkouts": lambda folder, outer: outer.name == "Carthage",
    "cache": lambda folder, outer: outer.name == ".yarn",
    "unplugged": lambda folder, outer: outer.name == ".yarn",
    "mod": lambda folder, outer: outer.name == "pkg" and _has(folder, "cache", "download"),
    "local": lambda folder, outer: _has(folder, "lib", "perl5"),
    "library": lambda folder, outer: outer.name == "renv" and "activate.R" in outer.names,
    "packages": lambda folder, outer: _all_inner(folder, lambda package: _ends(package.names, ".nupkg")),
}


def _beside(*manifests: str) -> Callable[[Folder, Folder], bool]:
    """True if one of these files lies beside the folder. A manifest that starts with `*` is the end of a name."""
    exact = frozenset(name for name in manifests if not name.startswith("*"))
    ends = tuple(name[1:] for name in manifests if name.startswith("*"))

    def rule(folder: Folder, outer: Folder) -> bool:
        return not exact.isdisjoint(outer.names) or (bool(ends) and _ends(outer.names, *ends))

    return rule


def _holds(*names: str) -> Callable[[Folder, Folder], bool]:
    """True if one of these lies in the folder."""
    return lambda folder, outer: not frozenset(names).isdisjoint(folder.names)


_NET = ("*.csproj", "*.fsproj", "*.vbproj", "*.vcxproj")
_PYTHON = ("setup.py", "setup.cfg", "pyproject.toml")
_GRADLE = ("build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts")
_UNITY = ("ProjectSettings",)

_MADE_RULES: dict[str, Callable[[Folder, Folder], bool]] = {
    "target": _beside("Cargo.toml", "pom.xml", "build.sbt", "build.properties", "project.clj", "build.mill"),
    "build": _beside("package.json", *_PYTHON, *_GRADLE, "pubspec.yaml", "build.xml", "elm.json", "gleam.toml"),
    "dist": _beside("package.json", *_PYTHON, "*.cabal", "build.xml", ".goreleaser.yml", ".goreleaser.yaml"),
    "out": _beside("package.json", "*.iml", *_GRADLE, "foundry.toml"),
    "bin": _beside(*_NET, ".classpath"),
    "obj": _beside(*_NET),
    "_build": _beside("mix.exs", "dune-project", "rebar.config", "conf.py"),
    ".build": _beside("Package.swift"),
    "_site": _beside("_config.yml"),
    "site": lambda folder, outer: "mkdocs.yml" in outer.names and "sitemap.xml" in folder.names,
    "coverage": _holds("lcov.info", "lcov-report", "coverage-final.json", "clover.xml", ".resultset.json"),
    "DerivedData": _beside("*.xcodeproj", "*.xcworkspace", "Package.swift"),
    "Build": lambda folder, outer: outer.name == "Carthage",
    ".output": _beside("package.json"),
    "storybook-static": _beside("package.json"),
    "Library": _beside(*_UNITY),
    "Temp": _beside(*_UNITY),
    "Obj": _beside(*_UNITY),
    "Logs": _beside(*_UNITY),
    "Intermediate": _beside("*.uproject", "*.uplugin"),
    "Saved": _beside("*.uproject"),
    "Binaries": _beside("*.uproject", "*.uplugin"),
    "DerivedDataCache": _beside("*.uproject"),
}
