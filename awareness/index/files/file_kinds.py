"""The kind of a file, by its path: decides what is encoded first and what is ranked lower."""

from __future__ import annotations

import functools
import re
from enum import IntEnum


class FileKind(IntEnum):
    """In order of their value for questions about code."""

    SOURCE = 0
    TEST = 1
    EXAMPLE = 2
    DOCS = 3
    OTHER = 4


_TEST = re.compile(
    r"(^|/)(tests?|testing|__tests__|specs?|fixtures|testdata)/|(^|/)(test_[^/]*|conftest)\.py$"
    r"|[._-](tests?|spec)\.[a-z]+$|Tests?\.(java|cs|kt|php)$"
)
_EXAMPLE = re.compile(r"(^|/)(examples?|samples?|demos?|benchmarks?|tutorials?)/", re.IGNORECASE)
_DOCS = re.compile(r"(^|/)docs?/|\.(md|markdown|rst|txt|adoc)$", re.IGNORECASE)
_CODE_ENDINGS = (
    "py pyi pyx js jsx mjs cjs ts tsx mts cts vue svelte go rs java kt kts scala c h cc cpp cxx hh hpp hxx cs rb php "
    "sh bash zsh swift m mm lua pl pm r jl ex exs erl hs ml mli clj dart sql proto graphql zig nim cu cuh ipynb astro "
    "rmd qmd lhs sol vy move cairo rego groovy gradle fs fsi fsx vb bas pas dpr d cr f for f90 f95 f03 f08 v sv svh "
    "vhd vhdl tcl el lisp cl scm rkt cljs cljc elm purs hx gd gml ps1 psm1 bat cmd fish awk nix tf hcl thrift asm s "
    "adb ads cob cbl cpy abap apex cls trigger prisma wgsl glsl hlsl metal vert frag comp coffee re res sml p4 pony "
    "odin jsonnet bzl star cmake mk robot feature liquid erb haml slim ejs hbs twig jinja j2 zon sbt scss css luau "
    "bicep pp hrl t psgi"
).split()
_CODE = re.compile(rf"\.({'|'.join(_CODE_ENDINGS)})$|(^|/)CMakeLists\.txt$", re.IGNORECASE)


@functools.lru_cache(maxsize=1 << 14)
def kind_of(path: str) -> FileKind:
    if _TEST.search(path):
        return FileKind.TEST
    if _EXAMPLE.search(path):
        return FileKind.EXAMPLE
    if _CODE.search(path):
        return FileKind.SOURCE
    return FileKind.DOCS if _DOCS.search(path) else FileKind.OTHER
