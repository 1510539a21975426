"""The comments at the top of a file: those above its first line of code, in the comment syntax of its language.

Package lines, imports, include guards and the like do not end the top. In Python the module's docstring counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

TOP_LINES = 60  # that are not imports

_C_BLOCK, _XML_BLOCK = (("/*", "*/"),), (("<!--", "-->"),)
_Syntax = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]  # openings of line comments; ends of block comments
_LANGUAGES: tuple[tuple[str, _Syntax], ...] = (
    (
        "c h cc cpp cxx c++ hh hpp hxx h++ inl ipp tcc m mm cs java kt kts scala sc groovy gradle js jsx mjs cjs ts "
        "tsx mts cts go rs swift dart proto thrift fbs css scss less sol zig v sv svh d glsl hlsl cu cuh metal wgsl "
        "idl jsonc json5 hx y yy l ll g4 pde ino prisma qml vala pas as cue jsonnet dts styl snap",
        (("//",), _C_BLOCK),
    ),
    ("php phtml hcl tf tfvars rego nix", (("//", "#"), _C_BLOCK)),
    (
        "py pyi pyw pyx pxd pxi rb rake gemspec rbi rbs sh bash zsh ksh fish pl pm t r yaml yml toml cfg conf mk mak "
        "make cmake properties ex exs jl nim cr tcl awk graphql gql graphqls ps1 psm1 psd1 po bzl bazel star coffee "
        "gyp gypi gn gni capnp ac am desktop service txt lock resolved bats rdoc namespace",
        (("#",), ()),
    ),
    ("ini el lisp cl clj cljs cljc scm rkt asm s edn nsi", (("#", ";", "//"), _C_BLOCK)),
    ("sql hs lhs lua elm ada adb ads vhd vhdl purs idr dhall", (("--",), (("/*", "*/"), ("{-", "-}"), ("--[[", "]]")))),
    ("erl hrl tex sty cls bib rd pro", (("%",), ())),
    ("ml mli mly mll fs fsi fsx sml", (("//", "#"), (("(*", "*)"),))),
    ("xml html htm xhtml svg md markdown mdx xaml csproj props targets resx plist vue svelte", ((), _XML_BLOCK)),
    ("f f90 f95 f03 f08 for", (("!", "C "), ())),
    ("vb bas vbs", (("'",), ())),
    ("bat cmd", (("REM ", "rem ", "::"), ())),
    ("m4", (("#", "dnl "), ())),
    ("vim", (('"',), ())),
    ("1 2 3 4 5 6 7 8 man", (('.\\"',), ())),
    ("rst adoc asciidoc org json ipynb csv tsv", ((), ())),
)
_SYNTAX = {f".{ending}": syntax for endings, syntax in _LANGUAGES for ending in endings.split()}
_UNKNOWN: _Syntax = (("#", "//", "dnl "), (("/*", "*/"), ("<!--", "-->")))
_DOCSTRING = re.compile(r"""[rRuU]?('''|\"\"\")""")
_STARS = re.compile(r"^\s*(?:\|\*|\*+(?!/))")
_PREAMBLE = re.compile(  # code that may stand above a marker
    r"""(?ix) <\?(?:php|xml|hh)? | <!doctype | </?(?:html|head|meta|title|link|project)\b | declare\s*\(
    | (?:package|import|from|use|using|namespace|module|library|open|part|syntax|option|edition|require\w*|include
      |extern)\b
    | ["']use\s\w+["'] | @(?:file:|import\b|charset\b|use\b|\w[\w.]*(?:\(|$)) | \#!?\[ | \#!
    | \#\s*(?:pragma|ifn?def|if|endif|define|undef|include|import|line|nullable)\b | [{}()]+$ | "name"\s*:
    """
)


@dataclass(slots=True)
class Comment:
    """A line of a comment. text: without decoration, words separated by one space; "" for a blank line."""

    text: str
    indent: int  # of the text behind the sign of the comment; a tab counts as four
    block: int  # comments with no code between them are one block
    is_docstring: bool = False


def top_comments(name: str, text: str) -> Iterator[Comment]:
    """The lines of the comments, ascending. name: of the file, in lower case. text: its start, with `\\n`."""
    ending = name[name.rfind(".") :] if "." in name[1:] else ""
    if name in ("cmakelists.txt", "makefile", "dockerfile", "gemfile", "rakefile", "podfile"):
        ending = ".mk"
    signs, blocks = _SYNTAX.get(ending, _UNKNOWN)
    is_python = ending in (".py", ".pyi")
    number, block, close, in_docstring = 0, 0, "", False
    for line in text.split("\n"):
        stripped = line.strip()
        if number >= TOP_LINES:
            return
        number += 1
        if close:
            body, end, rest = line.partition(close)
            yield _body(body, block, in_docstring)
            if end:
                close = ""
                if rest.strip():
                    return
            continue
        if not stripped:
            yield Comment("", 0, block)
            continue
        if is_python and (quote := _DOCSTRING.match(stripped)):
            opening, close, in_docstring = quote[0], quote[1], True
        else:
            opening, close = next(((o, c) for o, c in blocks if stripped.startswith(o)), ("", ""))
            in_docstring = False
        if opening:
            body, end, rest = stripped[len(opening) :].partition(close)
            yield _body(body, block, in_docstring)
            if end:
                close = ""
                if rest.strip(" ;"):
                    return
            continue
        if sign := next((sign for sign in signs if stripped.startswith(sign)), ""):
            yield _after(stripped, sign, block)
        elif _PREAMBLE.match(stripped):
            block += 1
            number -= 1
        else:
            return


def _after(line: str, sign: str, block: int) -> Comment:
    """A line comment. Text that starts with another sign of a comment is quoted, so it stays as it is."""
    rest = line[len(sign) :]
    rest = rest.lstrip(sign[-1]) if not sign[-1].isspace() else rest
    return _body(rest, block, False)


def _body(body: str, block: int, in_docstring: bool) -> Comment:
    body = _STARS.sub("", body).expandtabs(4)
    bare = body.lstrip()
    text = bare.lstrip(" *=~!_-").rstrip(" *=~#/|_-")
    return Comment(" ".join(text.split()), len(body) - len(bare), block, in_docstring)
