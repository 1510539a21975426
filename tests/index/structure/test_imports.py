"""The imports of a file, and the files of the repository that they mean."""

from __future__ import annotations

import pytest

from awareness.index.structure.imports import ALL, Modules, imports_of
from awareness.index.structure.references import CodeFile


def read(path: str, text: str) -> list[tuple[str, str, str]]:
    return [(each.local, each.module, each.name) for each in imports_of(CodeFile(path, text))]


def test_python():
    text = "import a.b, c as d\nfrom . import x\nfrom ..y.z import (q as r, # hi\n s)\n"
    text += "from m import *\ndef f():\n import g\n"
    assert read("a.py", text + '"""\nimport no\n"""\n# import no\n') == [
        ("a.b", "a.b", ""),
        ("d", "c", ""),
        ("x", ".", "x"),
        ("r", "..y.z", "q"),
        ("s", "..y.z", "s"),
        (ALL, "m", ALL),
        ("g", "g", ""),
    ]


def test_typescript():
    text = """import a, {b as c, type T} from './x'
import * as ns from '../y'
export {q as w, r} from './z'
export * from './w'
const {a:b2, c3} = require('m'), d = require('n').x, e = require('p')
const s = "import no from 'no'"
"""
    assert read("a.ts", text) == [
        ("a", "./x", "default"),
        ("c", "./x", "b"),
        ("T", "./x", "T"),
        ("ns", "../y", ""),
        ("w", "./z", "q"),
        ("r", "./z", "r"),
        (ALL, "./w", ALL),
        ("b2", "m", "a"),
        ("c3", "m", "c3"),
        ("d", "n", "x"),
        ("e", "p", ""),
    ]


def test_go_rust_and_java():
    go = 'package a\nimport (\n f "fmt"\n . "x/y"\n "github.com/o/fiber/v3"\n)\nimport "z/w"\n'
    assert read("a.go", go) == [
        ("f", "fmt", ""),
        (ALL, "x/y", ""),
        ("fiber", "github.com/o/fiber/v3", ""),
        ("w", "z/w", ""),
    ]
    rust = "use a::b::{self, c as d, e::{f, g}, *};\npub use crate::x::Y;\nuse super::z;\n"
    assert read("a.rs", rust) == [
        ("b", "a", "b"),
        ("d", "a::b", "c"),
        ("f", "a::b::e", "f"),
        ("g", "a::b::e", "g"),
        (ALL, "a::b", ALL),
        ("Y", "crate::x", "Y"),
        ("z", "super", "z"),
    ]
    java = "package p;\nimport a.b.C;\nimport static a.b.C.m;\nimport a.b.*;\n"
    assert read("A.java", java) == [("C", "a.b", "C"), ("m", "a.b.C", "m"), (ALL, "a.b", ALL)]
    assert read("a.rb", "require 'x'\n") == []


PATHS = [
    "src/pkg/__init__.py",
    "src/pkg/log.py",
    "src/pkg/sub/__init__.py",
    "src/pkg/sub/logging.py",
    "tests/helpers.py",
    "web/package.json",
    "web/src/index.ts",
    "web/src/util/index.ts",
    "web/src/a.ts",
    "go.mod",
    "ctx.go",
    "utils/convert.go",
    "crates/core-lib/src/lib.rs",
    "crates/core-lib/src/flags/mod.rs",
    "crates/core-lib/src/flags/parse.rs",
    "main/java/org/x/A.java",
    "main/java/org/x/y/B.java",
]
MODULES = Modules(
    PATHS, lambda path: {"go.mod": "module github.com/o/fiber/v2\n", "ctx.go": ""}.get(path, "mod inner {")
)


@pytest.mark.parametrize(
    ("module", "path", "language", "files"),
    [
        ("pkg.log", "tests/helpers.py", "python", ["src/pkg/log.py"]),
        ("pkg.sub", "tests/helpers.py", "python", ["src/pkg/sub/__init__.py"]),
        (".logging", "src/pkg/sub/__init__.py", "python", ["src/pkg/sub/logging.py"]),
        ("..log", "src/pkg/sub/logging.py", "python", ["src/pkg/log.py"]),
        ("logging", "src/pkg/log.py", "python", []),  # of the standard library: below a package it is another module
        ("helpers", "tests/test_a.py", "python", ["tests/helpers.py"]),
        ("./util", "web/src/a.ts", "typescript", ["web/src/util/index.ts"]),
        ("./a.js", "web/src/index.ts", "typescript", ["web/src/a.ts"]),
        ("@/a", "web/src/util/index.ts", "typescript", ["web/src/a.ts"]),
        ("@org/web", "x.ts", "typescript", ["web/src/index.ts"]),
        ("react", "web/src/a.ts", "typescript", []),
        ("github.com/o/fiber/v2/utils", "ctx.go", "go", ["utils/convert.go"]),
        ("github.com/o/fiber/v2", "utils/convert.go", "go", ["ctx.go"]),
        ("fmt", "ctx.go", "go", []),
        ("crate::flags::parse", "crates/core-lib/src/lib.rs", "rust", ["crates/core-lib/src/flags/parse.rs"]),
        ("super", "crates/core-lib/src/flags/parse.rs", "rust", ["crates/core-lib/src/flags/mod.rs"]),
        ("crate::flags::Mode", "crates/core-lib/src/lib.rs", "rust", ["crates/core-lib/src/flags/mod.rs"]),
        ("crate::flags::inner", "crates/core-lib/src/lib.rs", "rust", ["crates/core-lib/src/flags/mod.rs"]),
        ("crate::flags::gone", "crates/core-lib/src/lib.rs", "rust", []),
        ("core_lib::flags", "other/src/main.rs", "rust", ["crates/core-lib/src/flags/mod.rs"]),
        ("std::fmt", "crates/core-lib/src/lib.rs", "rust", []),
        ("org.x.A", "Z.java", "java", ["main/java/org/x/A.java"]),
        ("org.x.y", "Z.java", "java", ["main/java/org/x/y/B.java"]),
        ("org.x.y.B", "Z.java", "java", ["main/java/org/x/y/B.java"]),
        ("java.util.List", "Z.java", "java", []),
    ],
)
def test_the_files_of_a_module(module, path, language, files):
    assert MODULES.files(module, path, language) == files


def test_packages_share_a_folder():
    assert MODULES.package("utils/other.go") == ["utils/convert.go"]
