"""The files of a snapshot are read once, and only if they are needed."""

from __future__ import annotations

from awareness.index.files.file_kinds import FileKind
from awareness.index.search.snapshot_paths import SnapshotPaths


def test_reads_the_paths_once_and_late():
    calls = []

    def read():
        calls.append(1)
        return {"src/types.ts": 3, "lib/v1/a.py": 1, "lib/v2/a.py": 2, "web/types.js": 4, "types.py": 5}

    paths = SnapshotPaths(read)
    assert paths.kinds.of("src/main.py") is FileKind.SOURCE
    assert not calls
    assert paths.kinds.of("lib/v1/a.py") is FileKind.LEGACY
    assert paths.named("types.js") == [(3, "src/types.ts"), (4, "web/types.js")]
    assert paths.named("types.py") == [(5, "types.py")]
    assert paths.named("types.go") == ()
    assert list(paths.ids) == ["src/types.ts", "lib/v1/a.py", "lib/v2/a.py", "web/types.js", "types.py"]
    assert len(calls) == 1
