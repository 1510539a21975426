"""Is a file generated? Judged by what generators write: a comment line of its own at the top of the file.

The top ends at the first line of code; package lines, imports, include guards and the like do not end it. The marker
has to be the whole line, in the comment syntax of the language: a text that mentions, prints, parses or documents a
marker is not generated, and neither is a template. Python has its module docstring in place of a comment for some
generators, Java an annotation.

Kept are files that a tool starts or rewrites but that say what no other file says: `db/schema.rb` of Rails (the only
list of all tables and columns), the manifest of a published crate, migrations of Django, what `init` commands write once for people to edit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

TOP_BYTES = 16384  # a licence, or a description of an API in one line, may stand above the marker
TOP_LINES = 60  # that are not imports

_HINTS = tuple(
    hint.encode()
    for hint in "gnu bison|do not edit|do not modify|produced by gperf|$antlr|created by:|object code".split("|")
)

_C, _HASH, _DASH, _SEMICOLON, _PERCENT = ("//",), ("#",), ("--",), (";",), ("%",)
_C_BLOCK, _XML_BLOCK = (("/*", "*/"),), (("<!--", "-->"),)
_Syntax = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]  # openings of line comments; ends of block comments
_OF_LANGUAGES: tuple[tuple[str, _Syntax], ...] = (
    (
        "c h cc cpp cxx c++ hh hpp hxx h++ inl ipp tcc m mm cs java kt kts scala sc groovy gradle js jsx mjs cjs ts tsx mts "
        "cts go rs swift dart proto thrift fbs css scss less sol zig v sv svh d glsl hlsl cu cuh metal wgsl idl jsonc "
        "json5 hx y yy l ll g4 pde ino prisma qml vala pas as cue jsonnet dts styl snap",
        (_C, _C_BLOCK),
    ),
    ("php phtml hcl tf tfvars rego nix", (("//", "#"), _C_BLOCK)),
    (
        "py pyi pyw pyx pxd pxi rb rake gemspec rbi rbs sh bash zsh ksh fish pl pm t r yaml yml toml cfg conf mk mak make "
        "cmake properties ex exs jl nim cr tcl awk graphql gql graphqls ps1 psm1 psd1 po bzl bazel star coffee gyp gypi gn "
        "gni capnp ac am desktop service txt lock resolved bats rdoc namespace",
        (_HASH, ()),
    ),
    ("ini el lisp cl clj cljs cljc scm rkt asm s edn nsi", (("#", ";", "//"), _C_BLOCK)),
    ("sql hs lhs lua elm ada adb ads vhd vhdl purs idr dhall", (_DASH, (("/*", "*/"), ("{-", "-}"), ("--[[", "]]")))),
    ("erl hrl tex sty cls bib rd pro", (_PERCENT, ())),
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
_SYNTAX = {f".{ending}": syntax for endings, syntax in _OF_LANGUAGES for ending in endings.split()}
_UNKNOWN: _Syntax = (("#", "//", "dnl "), (("/*", "*/"), ("<!--", "-->")))
_DOCSTRING = re.compile(r"""[rRuU]?('''|\"\"\")""")
_STARS = re.compile(r"^\s*\*+(?!/)")
_TEMPLATE = re.compile(
    r"\.(?:tmpl|tpl|template|mustache|hbs|handlebars|j2|jinja2?|erb|ejs|ftl|vm|gotmpl|stg|tt|t4|liquid|in|mako|xslt?|dot|"
    r"njk|twig|eex|heex|leex|gsp|scriban|cookiecutter|skel|snippets?)(?:\.\w{1,6})?$"
)
_PLACEHOLDER = re.compile(r"\{\{|\{%|<%|\$\{|\$\(|%\(?[sdr]\b|@[A-Z_]+@|\{[\w.]*\}")
_PREAMBLE = re.compile(  # code that may stand above a marker
    r"""(?ix) <\?(?:php|xml|hh)? | <!doctype | </?(?:html|head|meta|title|link|project)\b | declare\s*\(
    | (?:package|import|from|use|using|namespace|module|library|open|part|syntax|option|edition|require\w*|include|extern)\b
    | ["']use\s\w+["'] | @(?:file:|import\b|charset\b|use\b|\w[\w.]*(?:\(|$)) | \#!?\[ | \#!
    | \#\s*(?:pragma|ifn?def|if|endif|define|undef|include|import|line|nullable)\b | [{}()]+$ | "name"\s*:
    """
)

_FORBID = (
    r"(?:(?:please )?(?:do not|do n[o']t|don'?t|never|must not(?: be)?|should not(?: be)?|not to be) "
    r"(?:(?:ever|manually|directly|be|hand|attempt to|try to|make (?:any )?(?:manual )?) ?-?){0,3}"
    r"(?:edit|modif|chang|touch|alter|update|hand-edit|tamper)\w*"
    r"|(?:(?:any|all|your|manual|local|these) )*(?:changes|modifications|edits)\b.{0,80}\b"
    r"(?:lost|overwrit\w+|eras\w+|discard\w+|incorrect behaviou?r|clobber\w+)"
    r"|edit(?:ing|s)? .{0,40}(?:not advised|not recommended|discouraged))"
)
_OPENING = r"(?:(?:warning|note|notice|attention|caution|important|nb|info)\b[:!,. -]*)?"
_AUTO = r"@?(?:(?:auto(?:matically|matic|magically)?|machine|programmatically|mechanically)[- ]*)"
_THING = (
    r"(?:this|the) (?:[\w.+#/-]+ ){0,2}?(?:file|code|source|class|module|script|header|document|page|makefile|unit|package|"
    r"interface|stub|crate|library|client|sdk)s?(?: \S+)? (?:is|was|has been|have been|were|are) (?:\*+)?"
)
_MADE = r"@?(?:generated|created|built|produced|written|auto-?created|maintained)\b\*{0,2}"
_END = (
    r"(?=\s*(?:$|[.,:;!()<—–-]|by |from |with |using |via |on |at |in |for |during |as |and (?:should|must|will)|do ))"
)
_STATES_AUTO = re.compile(
    rf"(?i){_OPENING}(?:{_THING}(?:an? )?{_AUTO}(?:generated|created|built|produced|written)\b{_END}"
    rf"|{_AUTO}generated (?:\w+ )?(?:by|from|with|using) \S"
    rf"|{_AUTO}generated(?: (?:file|code|source|header|class|content))?[.!]*$)"
)
_STATES = re.compile(
    rf"(?i){_OPENING}(?:{_THING}(?:{_AUTO})?{_MADE}{_END}"
    rf"|(?:{_AUTO})?generated(?: (?:automatically|file|code|source|header|class|data|content|module|script))?{_END}"
    rf"|code generated (?:by|from|with|using)\b"
    rf"|(?:it|this) (?:is|was) (?:an? )?(?:{_AUTO})?generated(?: (?:file|code|header|class))?{_END})"
)
_FORBIDS = re.compile(rf"(?i)(?:{_OPENING}|.*?[.!;:,(—–-] ?(?:so |and |please |therefore ){{0,2}}){_FORBID}")
_FORBIDS_FIRST = re.compile(
    rf"(?i){_OPENING}{_FORBID}\b.{{0,60}}?\b(?:(?:it|this|file|this file) (?:is|was|has been) )?(?:{_AUTO})?generated{_END}"
)
_BY_HAND = re.compile(
    r"(?i)feel free|edit (?:it |this |this file )?(?:freely|as you|to your|at will|to taste|to suit)|safe to edit"
    r"|\b(?:can|may|should|could|has been|was|were|then|since|now|is now) (?:safely |then |been |be )*(?:hand-?)?(?:edited|modified|customi[sz]ed|adapted|maintained)\b"
    r"|(?:maintained|edited|modified|written|changed) by hand\b(?<!not changed by hand)(?<!not be changed by hand)"
    r"|no longer|not generated|starting point|current state of the database|generated by cargo\b|hand-?(?:edited|maintained|written|tuned)"
)
_MENTION = re.compile(  # a line that cannot be the end of a sentence: the next line is part of a text
    r"(?i)(?:[,(:]|\b(?:a|an|the|this|that|these|is|are|was|be|and|or|not|no|of|in|to|for|with|without|by|as|like|on|at|"
    r"says?|say|read|reads|named|called|tag|line|lines|marker|marked|comment|contains?|starts?|begins?|having|have|has|"
    r"writes?|emits?|prints?|adds?|e\.g\.|i\.e\.|such|any|every|each|all|find|skip|skips|if|when|where|which|its|their))$"
)
_GOES_ON = re.compile(
    r"(?i)(?:is|are|means|tells|marks?|makes|was|at the|in the|to the|on the|and|or|so|which|that|as|but|appears?)\b"
)
_KNOWN = re.compile(
    r"""(?x)
    [Cc]ode\ generated\ .*\ DO\ NOT\ EDIT\.?$
    | (?:(?i:this\ (?:file|code|module)\ (?:is|was)\ )?(?i:automatically\ )?)@generated(?![\w-])
      (?:$ | [.,:;(<{] | \s+(?!NOT\b)(?:$|(?i:by|from|with|using|via|and|at|on|automatically|do)\b|SignedSource|[-–—:(<{"]))
    | <auto-?generated\s*/?>
    | (?i:generated\ by\ the\ (?:protocol\ buffer|grpc|swift\ generator\ plugin|nanopb|protobuf|protoc)\b)
    | Generated\ by\ (?:gRPC|Cap'?n\ Proto)\b
    | (?:gRPC-Web|@fileoverview\ gRPC-Web)\ generated\ client\ stub
    | Auto-?generated\ by\ (?:Apache\ )?(?:Thrift|Avro|Frugal)\b
    | (?:NOTE:\ )?This\ class\ is\ auto\ generated\ by\ (?:the\ )?(?i:OpenAPI|swagger)
    | Generated\ by:?\ (?:OpenAPI\ Generator|https?://(?:www\.)?(?:openapi-generator\.tech|github\.com/swagger-api/swagger-codegen))
    | Do\ not\ edit\ the\ class\ manually\.$
    | Generated\ from\ .*\.g4?\ by\ ANTLR\ \d | \$ANTLR\ [\d.]
    | Generated\ from\ \S+\.sbl\ by\ Snowball | Automatically\ generated\ by\ Pod::Man
    | A\ Bison\ parser,\ made\ (?:by|from)\ GNU\ Bison | A\ lexical\ scanner\ generated\ by\ flex$
    | (?i:generated\ by\ re2c\ \d) | (?:ANSI-C|C\+\+|C|KR-C)\ code\ produced\ by\ gperf\ version
    | This\ file\ was\ automatically\ generated\ by\ SWIG
    | Generated\ by\ Cython\ [\d.]+\S*(?:\ on\ .*)?$
    | automatically\ generated\ by\ rust-bindgen | (?:A|a)utomatically\ generated\ by\ the\ FlatBuffers\ compiler
    | Generated\ (?:with|by)\ cbindgen | This\ file\ is\ generated\ by\ jOOQ\.?$
    | Generated\ by\ (?:roxygen2:|using\ Rcpp::compileAttributes)
    | Generated\ by\ GNU\ Autoconf\ [\d.]+ | generated\ automatically\ by\ aclocal\ [\d.]+
    | \S*Makefile\.in\ generated\ by\ automake\ [\d.]+ | [\w./-]+\.\s+Generated\ from\ \S+\ by\ (?:autoheader|configure|config\.status)\.?$
    | Generated\ automatically\ (?:from\ \S+\ )?by\ (?:config\.status|configure)\b
    | CMAKE\ generated\ file:\ DO\ NOT\ EDIT
    | Form\ (?:implementation\ )?generated\ from\ reading\ (?:UI|ui)\ file | Meta\ object\ code\ from\ reading\ C\+\+\ file
    | Resource\ object\ code(?:\ \(Python\ \d\))?$
    | Created\ by:\ (?:The\ Qt|Qt\ User|PyQt\d?|PySide\d?|The\ Resource\ Compiler|Qt\b)
    | smithy-typescript\ generated\ code | Generated\ by\ Microsoft\ Kiota | Code\ generated\ by\ Microsoft\ \(R\)\ AutoRest
    | (?:WARNING:\ )?this\ file\ was\ generated\ by\ (?:the\ )?(?:pulumi|Pulumi|crd2pulumi)
    | This\ is\ code\ generated\ by\ Prisma
    | (?i:(?:parser\ )?generated\ by\ (?:wayland-scanner|gdbus-codegen|glib-mkenums|peg\.js|peggy|jison|xtext|valac|doxygen|javadoc|
      haxe|coffeescript|jflex|racc|ffigen|datamodel-codegen|js_of_ocaml|rescript|bucklescript|purs|gyp|pub$|ragel|buf\b|dagger|
      nswag|fern|speakeasy|stainless|orval|hey-api|graphql-codegen|mockery|counterfeiter|ent\b|sqlboiler|xo\b|oapi-codegen|
      vcr|spark|phpgrpc|betterproto|sourcery|swiftgen|r\.swift|kotlinpoet|jaxb|axis|wsimport|xjc)\b)
    | (?i:generated\ automatically\ by\ nearley) | The\ following\ code\ was\ generated\ by\ JFlex
    | This\ file\ is\ maintained\ automatically\ by\ "terraform
    | This\ is\ a\ Gradle\ generated\ file\ for\ dependency\ locking
    | This\ file\ is\ machine-generated\ -\ editing\ it\ directly\ is\ not\ advised
    """
)
_IN_DOCSTRING = re.compile(
    r"(?:Generated by: https?://\S+|Do not edit the class manually\.|@generated by \S+.*[Dd]o not edit.*"
    r"|(?:NOTE: )?This class is auto generated by (?:OpenAPI|[Ss]wagger).*|Code generated .* DO NOT EDIT\.)$"
)
_OF_AUTOTOOLS = re.compile(
    r"\S*Makefile\.in generated by automake|[\w./-]+\.\s+Generated from \S+ by (?:autoheader|configure)"
)
_JAVA = re.compile(
    r"@(?:(javax|jakarta)\.annotation\.(?:processing\.)?)?Generated\((?:\s*(?:value\s*=\s*)?\{?\s*(?:\"|$)|\s*$)"
)
_JAVA_IMPORT = re.compile(r"^import (?:javax|jakarta)\.annotation\.(?:processing\.)?(?:Generated|\*);?", re.MULTILINE)


@dataclass(slots=True)
class _Comment:
    """A line of a comment. text: without decoration. block: number of its block: comments without code between."""

    text: str
    indent: int  # of the text behind the sign of the comment, tabs as four
    block: int
    is_docstring: bool = False


def is_generated(path: str, data: bytes) -> bool:
    """Does the top of the file say that a program wrote it? data: the whole file; UTF-8, else only its ASCII counts."""
    top = data[:TOP_BYTES]
    lower = top.lower()
    if b"generated" not in lower and not any(hint in lower[:2048] for hint in _HINTS):
        return False
    text = top.decode("utf-8", errors="replace").removeprefix("\ufeff").replace("\r\n", "\n")
    name = path.rpartition("/")[2].lower()
    comments = list(_comments(name, text))
    if _TEMPLATE.search(name):
        return any(_OF_AUTOTOOLS.match(comment.text) for comment in comments)
    if name.endswith((".java", ".kt", ".scala", ".groovy")) and _is_annotated(text):
        return True
    return any(_is_marker(comments, row) for row in range(len(comments))) and b"@generated NOT" not in data


def _is_marker(comments: list[_Comment], row: int) -> bool:
    comment = comments[row]
    if not comment.text or _PLACEHOLDER.search(comment.text) or _is_mentioned(comments, row):
        return False
    if comment.is_docstring:
        return _IN_DOCSTRING.match(comment.text) is not None
    if _KNOWN.match(comment.text):
        return True
    block = [(i, c.text) for i, c in enumerate(comments) if c.block == comment.block and abs(i - row) <= 8]
    near = " ".join(text for i, text in block if abs(i - row) <= 4)
    if _BY_HAND.search(near):
        return False
    if _STATES_AUTO.match(comment.text) or _FORBIDS_FIRST.match(comment.text):
        return True
    return _STATES.match(comment.text) is not None and any(_FORBIDS.match(text) for _, text in block)


def _is_mentioned(comments: list[_Comment], row: int) -> bool:
    """Is the line part of a text or a quotation in a comment: does the text before lead to it, or go on after it?"""
    comment = comments[row]
    block = [c for c in comments[:row] if c.block == comment.block and c.text]
    if block:
        if comment.indent >= block[0].indent + 3 and not comment.is_docstring:
            return True
        above = comments[row - 1].text
        leads = _MENTION.search(above) if above else block[-1].text.endswith(":")
        if leads and not block[-1].text.startswith(("The version of", "source:", "@")):
            return True
    below = comments[row + 1] if row + 1 < len(comments) else None
    return below is not None and below.block == comment.block and _GOES_ON.match(below.text) is not None


def _is_annotated(text: str) -> bool:
    """Is the first type of a Java file annotated as generated, with the name of the generator?"""
    for line in text.split("\n"):
        if match := _JAVA.match(line):
            return bool(match[1]) or _JAVA_IMPORT.search(text) is not None
        if line[:1].isalpha() and not re.match(r"(?:package|import)\b", line):
            return False
    return False


def _comments(name: str, text: str) -> Iterator[_Comment]:
    """The comment lines above the first line of code; blank lines of a comment have the text ""."""
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
            yield _Comment("", 0, block)
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


def _after(line: str, sign: str, block: int) -> _Comment:
    """A line comment. Text that starts with another sign of a comment is quoted, so it stays as it is."""
    rest = line[len(sign) :]
    rest = rest.lstrip(sign[-1]) if not sign[-1].isspace() else rest
    return _body(rest, block, False)


def _body(body: str, block: int, in_docstring: bool) -> _Comment:
    body = _STARS.sub("", body).expandtabs(4)
    bare = body.lstrip()
    text = bare.lstrip(" *=~!_-").rstrip(" *=~#/_-")
    return _Comment(text, len(body) - len(bare), block, in_docstring)
