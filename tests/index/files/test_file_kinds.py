"""What a file is, told by its path."""

from __future__ import annotations

import pytest

from awareness.errors import UsageError
from awareness.index.files.file_kinds import FileKind, is_written_in, kind_of, kinds_named, may_be_code, page_of

KINDS = {
    FileKind.SOURCE: "src/click/core.py packages/testing/src/index.ts celery/utils/deprecated.py lib/history.js"
    " ml/model.py src/de/parser.py src/changes.rs tokenizers/ja/split.py src/vendors.py",
    FileKind.TEST: "tests/test_core.py conftest.py src/app.spec.ts pkg/router_test.go src/FooTest.java"
    " tests/data/x.json tests/vendor.py",
    FileKind.EXAMPLE: "examples/colors/colors.py docs/examples/a.md packages/playground/src/main.ts bench/run.js",
    FileKind.DOCS: "README.md docs/guide.rst docs/en/docs/index.md docs/Makefile notes.txt docs/migration.md"
    " README.en.md docs/api/io/index.md",
    FileKind.OTHER: "setup.cfg .github/workflows/release.yml LICENSE data/locale.json",
    FileKind.LEGACY: "httpie/legacy/v3.py src/deprecated/api.ts pip/_internal/resolution/legacy/resolver.py"
    " lib/old_legacy.c",
    FileKind.CHANGELOG: "CHANGES.rst CHANGELOG.md docs/changelog.rst docs/releases/22/22.3.md HISTORY NEWS"
    " changelogs/1904.feature.rst docs/history/whatsnew-4.4.rst docs/release-notes.md docs/whatsnew/v1.2.0.rst"
    " packages/a/CHANGELOG.md docs/changes.rst",
    FileKind.GENERATED: "dist/axios.js api/user_pb2.py api/user.pb.go lib/model.g.dart src/schema.generated.ts",
    FileKind.VENDORED: "vendor/github.com/a/b.go src/pip/_vendor/urllib3/x.py third_party/zlib/z.c"
    " third-party/a/test/b.c include/spdlog/fmt/bundled/core.h",
    FileKind.TRANSLATION: "README.zh-CN.md README_ja.md .github/README_ckb.md docs/de/docs/index.md"
    " packages/docs/zh/guide.md docs/pt-BR/intro.mdx guide/content/zh/guide/a.md docs/guide.fr.md i18n/ko/readme.md",
}


@pytest.mark.parametrize(("path", "kind"), [(path, kind) for kind, paths in KINDS.items() for path in paths.split()])
def test_kind_of(path, kind):
    assert kind_of(path) is kind


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("README_ja.md", "README.md"),
        ("README.md", "README.md"),
        ("README.zh-CN.md", "README.md"),
        (".github/README_ckb.md", ".github/README.md"),
        ("docs/de/docs/tutorial/a.md", "docs/docs/tutorial/a.md"),
        ("docs/en/docs/tutorial/a.md", "docs/docs/tutorial/a.md"),
        ("packages/docs/zh/guide.md", "packages/docs/guide.md"),
        ("packages/docs/guide.md", "packages/docs/guide.md"),
        ("docs/guide.en.md", "docs/guide.md"),
        ("src/de/parser.py", "src/de/parser.py"),
        ("src/en/parser.py", "src/en/parser.py"),
    ],
)
def test_page_of(path, page):
    assert page_of(path) == page


def test_kinds_are_named_as_people_write_them():
    assert kinds_named(["code", "DOCS"]) == {FileKind.SOURCE, FileKind.DOCS}
    assert kinds_named(["!tests"]) == set(FileKind) - {FileKind.TEST}
    assert kinds_named(["source", "test", "!test"]) == {FileKind.SOURCE}
    with pytest.raises(UsageError, match="'sauce'") as refused:
        kinds_named(["sauce"])
    assert "source, test" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("path", "is_code"),
    [("a.py", True), ("contracts/A.unknownlang", True), (".gitignore", False), ("LICENSE", False), ("a.yaml", False)],
)
def test_settings_are_no_code_in_an_unknown_language(path, is_code):
    assert may_be_code(path) is is_code


@pytest.mark.parametrize(
    ("language", "path", "expected"),
    [
        ("zh", "README.zh-CN.md", True),
        ("zh", "docs/zh-hant/docs/index.md", True),
        ("pt", "docs/pt-BR/intro.mdx", True),
        ("ja", "README_ja.md", True),
        ("zh", "README_ja.md", False),
        ("de", "README.md", False),
        ("de", "src/de/parser.py", False),
        ("", "README.md", False),
        ("", "README_ja.md", False),
    ],
)
def test_the_language_of_a_translation(language, path, expected):
    assert is_written_in(language, path) is expected
