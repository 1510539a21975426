"""The kind of a file, by its path: decides what is encoded first and what is ranked lower."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from enum import IntEnum

from awareness.errors import UsageError


class FileKind(IntEnum):
    """In order of their value for questions about code.

    LEGACY: kept for old callers. VENDORED: another project's code. GENERATED: made from other files. TRANSLATION:
    documentation in another language than English. OTHER: configuration, data, and languages that we don't know.
    """

    SOURCE = 0
    TEST = 1
    EXAMPLE = 2
    DOCS = 3
    OTHER = 4
    LEGACY = 5
    CHANGELOG = 6
    GENERATED = 7
    VENDORED = 8
    TRANSLATION = 9

    @property
    def word(self) -> str:
        """As users read and write it: `source`, `docs`."""
        return self.name.lower()

    @property
    def is_code(self) -> bool:
        """Code that other code may call: no test and no example."""
        return self in (FileKind.SOURCE, FileKind.LEGACY, FileKind.GENERATED, FileKind.VENDORED)


_ALIASES = {
    "code": FileKind.SOURCE,
    "tests": FileKind.TEST,
    "examples": FileKind.EXAMPLE,
    "doc": FileKind.DOCS,
    "documentation": FileKind.DOCS,
    "config": FileKind.OTHER,
    "deprecated": FileKind.LEGACY,
    "changes": FileKind.CHANGELOG,
    "vendor": FileKind.VENDORED,
    "translations": FileKind.TRANSLATION,
}


def kinds_named(words: Iterable[str]) -> frozenset[FileKind]:
    """The kinds that are named, as `source` or `code`; with a leading `!`, all others. Raises UsageError."""
    by_word = {kind.word: kind for kind in FileKind} | _ALIASES
    named: set[FileKind] = set()
    excluded: set[FileKind] = set()
    for word in words:
        kind = by_word.get(word.removeprefix("!").strip().lower())
        if kind is None:
            raise UsageError(f"there is no kind '{word}'", hint=f"one of {', '.join(kind.word for kind in FileKind)}")
        (excluded if word.startswith("!") else named).add(kind)
    return frozenset((named or set(FileKind)) - excluded)


_TEST = re.compile(
    r"(^|/)(tests?|__tests__|specs?|fixtures|testdata)/|(^|/)(test_[^/]*|conftest)\.py$"
    r"|[._-](tests?|spec)\.[a-z]+$|Tests?\.(java|cs|kt|php)$"
)
_EXAMPLE = re.compile(
    r"(^|/)(examples?|samples?|demos?|bench(es|marks?|suite)?|tutorials?|playgrounds?|sandbox(es)?)/", re.IGNORECASE
)
_DOCS = re.compile(r"(^|/)docs?/|\.(md|mdx|markdown|rst|txt|adoc|org|rmd|qmd|pod|texi)$", re.IGNORECASE)
_PROSE = re.compile(r"\.(md|mdx|markdown|rst|txt|adoc|org|rmd|qmd|html?|ipynb)$", re.IGNORECASE)
_CODE_ENDINGS = (
    "py pyi pyx js jsx mjs cjs ts tsx mts cts vue svelte go rs java kt kts scala c h cc cpp cxx hh hpp hxx cs rb php "
    "sh bash zsh swift m mm lua pl pm r jl ex exs erl hs ml mli clj dart sql proto graphql zig nim cu cuh ipynb astro "
    "rmd qmd lhs sol vy move cairo rego groovy gradle fs fsi fsx vb bas pas dpr d cr f for f90 f95 f03 f08 v sv svh "
    "vhd vhdl tcl el lisp cl scm rkt cljs cljc elm purs hx gd gml ps1 psm1 bat cmd fish awk nix tf hcl thrift asm s "
    "adb ads cob cbl cpy abap apex cls trigger prisma wgsl glsl hlsl metal vert frag comp coffee re res sml p4 pony "
    "odin jsonnet bzl star cmake mk robot feature liquid erb haml slim ejs hbs twig jinja j2 zon sbt luau "
    "bicep pp hrl t psgi"
).split()
_CODE = re.compile(rf"\.({'|'.join(_CODE_ENDINGS)})$|(^|/)CMakeLists\.txt$", re.IGNORECASE)
_SETTINGS = re.compile(
    r"(^|/)(\.[^/]+|dockerfile|makefile|license[^/]*|copying[^/]*|notice|manifest|authors|codeowners|procfile)$"
    r"|\.(json5?|ya?ml|toml|ini|cfg|conf|config|properties|env|xml|plist|csv|tsv|css|scss|less|sass|lock|in|svg|pem|key|crt|log|map|editorconfig)$",
    re.IGNORECASE,
)
_CHANGELOG = re.compile(
    r"(^|/)(change[s_-]?logs?|changes|history|news|releases?|release[_-]?notes|what'?s[_-]?new)([._-]?v?\d[^/]*)?"
    r"(\.(md|mdx|markdown|rst|txt|adoc|org))?$"
    r"|(^|/)(change[_-]?logs?|\.?changes(ets)?|news(fragments)?|releases?|release[_-]?notes|what'?s[_-]?new|history)/"
    r"([^/]+/)*[^/]+\.(md|mdx|markdown|rst|txt|adoc|org)$",
    re.IGNORECASE,
)
_VENDORED = re.compile(
    r"(^|/)(_?vendor(s|ed)?|third[_-]?part(y|ies)|3rd[_-]?party|_?thirdparty|bundled|externals?|extern)/", re.IGNORECASE
)
_LEGACY = re.compile(
    r"(^|/)([^/]+[_-])?(legacy|deprecated|obsolete)/|(^|/)(legacy[_-][^/]*|[^/]+[_.-](legacy|deprecated)|legacy)\.\w+$",
    re.IGNORECASE,
)
_GENERATED = re.compile(
    r"(^|/)dist/[^/]+\.(js|cjs|mjs|css|d\.ts)$|_pb2(_grpc)?\.pyi?$|\.pb\.(go|cc|h)$|\.g\.dart$|[._](generated|gen)\.\w+$"
    r"|\.designer\.cs$|\.snap$",
    re.IGNORECASE,
)
# Languages that documentation is translated into, without those whose code is a usual name of a folder.
_LANGUAGE = (
    "(?:af|ar|az|be|bg|bn|bs|ca|cs|cy|da|de|el|eo|es|et|eu|fa|fi|fil|fr|ga|gl|gu|he|hi|hr|hu|hy|id|it|ja|jp|ka|kk|km|kn|ko"
    "|kr|ku|lt|lv|mk|mn|mr|ms|nb|ne|nl|nn|pl|ptbr|pt|ro|ru|si|sk|sl|sq|sr|sv|ta|te|th|tl|tr|uk|ur|uz|vi|zh|cn|tw|hans|hant"
    "|farsi|chinese|japanese|korean|russian|german|french|spanish|portuguese|turkish|vietnamese)"
)
_REGION = f"{_LANGUAGE}(?:[-_](?:[a-z]{{2,4}}|[0-9]{{3}}))?"
_LANGUAGE_FOLDER = re.compile(rf"(?:^|/)({_REGION})/", re.IGNORECASE)
_LANGUAGE_NAME = re.compile(rf"(?<=[A-Za-z0-9])([._-]{_REGION})(?=\.\w+$)", re.IGNORECASE)
_README = re.compile(
    r"(?:^|/)readme([._-][a-z]{2,3}(?:[-_][a-z]{2,4})?)(?=\.(?:md|mdx|markdown|rst|txt|adoc|org)$)", re.IGNORECASE
)
_ENGLISH_FOLDER = re.compile(r"(?:^|(?<=/))en(?:[-_](?:us|gb))?/", re.IGNORECASE)
_ENGLISH_NAME = re.compile(r"[._-]en(?:[-_](?:us|gb))?(?=\.\w+$)", re.IGNORECASE)
_TRANSLATED_IN = re.compile(
    r"(^|/)(docs?|documentation|guide|i18n|locales?|lang|translations?|content|website|site|readmes?|\.github)/",
    re.IGNORECASE,
)


@functools.lru_cache(maxsize=1 << 14)
def kind_of(path: str) -> FileKind:
    if _VENDORED.search(path):
        return FileKind.VENDORED
    if _TEST.search(path):
        return FileKind.TEST
    if _EXAMPLE.search(path):
        return FileKind.EXAMPLE
    is_code = _CODE.search(path) is not None
    if (not is_code or _PROSE.search(path)) and language_of(path):
        return FileKind.TRANSLATION
    if not is_code and _CHANGELOG.search(path):
        return FileKind.CHANGELOG
    if _GENERATED.search(path):
        return FileKind.GENERATED
    if is_code:
        return FileKind.LEGACY if _LEGACY.search(path) else FileKind.SOURCE
    return FileKind.DOCS if _DOCS.search(path) else FileKind.OTHER


def may_be_code(path: str) -> bool:
    """Is it code, or a file in a language that we don't know: no settings and no data?"""
    kind = kind_of(path)
    return kind.is_code or (kind is FileKind.OTHER and not _SETTINGS.search(path))


def language_of(path: str) -> str:
    """The language code in the path of a translated document, else an empty string."""
    if not _PROSE.search(path):
        return ""
    if found := _translated_name(path):
        return found[1]
    found = _LANGUAGE_FOLDER.search(path)
    return found[1] if found and _TRANSLATED_IN.search(path) else ""


_CODES = {
    "zh": ("zh", "cn", "tw", "hans", "hant", "chinese"),
    "ja": ("ja", "jp", "japanese"),
    "ko": ("ko", "kr", "korean"),
    "de": ("de", "german"),
    "fr": ("fr", "french"),
    "es": ("es", "spanish"),
    "pt": ("pt", "ptbr", "portuguese"),
    "ru": ("ru", "russian"),
}


def is_written_in(language: str, path: str) -> bool:
    """Is it a document that is translated to this language, `zh`?"""
    code = re.split("[-_]", language_of(path).strip("._-").lower())[0]
    return bool(code) and code in _CODES.get(language, ())


def _translated_name(path: str) -> re.Match[str] | None:
    """Where the name of a file has a language code: `guide.zh-CN.md`; a README is never named after anything else."""
    found = _LANGUAGE_NAME.search(path) or _README.search(path)
    return None if found is None or _ENGLISH_NAME.search(path) else found


@functools.lru_cache(maxsize=1 << 14)
def page_of(path: str) -> str:
    """What the translations of one document have in common: its path without the language."""
    if not _PROSE.search(path):
        return path
    if language_of(path):
        if found := _translated_name(path):
            return path[: found.start(1)] + path[found.end(1) :]
        found = _LANGUAGE_FOLDER.search(path)
        assert found
        return path[: found.start(1)] + path[found.end() :]
    return _ENGLISH_NAME.sub("", _ENGLISH_FOLDER.sub("", path, count=1))
