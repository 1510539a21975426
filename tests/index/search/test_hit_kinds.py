"""An old version beside a newer one is legacy."""

from __future__ import annotations

import pytest

from awareness.index.files.file_kinds import FileKind
from awareness.index.search.hit_kinds import HitKinds

PATHS = (
    "lib/v1/main.py lib/v1/only_old.py lib/main.py src/v3/types.ts src/v4/types.ts docs-v3/a.md docs/a.md"
    " api/v1/users.go docs/content/v4/index.md docs/content/index.md src/v4/tests/a.test.ts"
).split()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("lib/v1/main.py", FileKind.LEGACY),  # stands without v1 too
        ("lib/v1/only_old.py", FileKind.SOURCE),
        ("src/v3/types.ts", FileKind.LEGACY),
        ("src/v4/types.ts", FileKind.SOURCE),
        ("docs-v3/a.md", FileKind.LEGACY),
        ("docs/a.md", FileKind.DOCS),
        ("api/v1/users.go", FileKind.SOURCE),  # the only version
        ("docs/content/v4/index.md", FileKind.DOCS),
        ("src/v4/tests/a.test.ts", FileKind.TEST),
    ],
)
def test_kinds(path, kind):
    assert HitKinds(lambda: PATHS).of(path) is kind
