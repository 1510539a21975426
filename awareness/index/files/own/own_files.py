"""Files that this program writes itself, told by their content: an index, a pack, a report and its pictures.

They may lie in a work tree, under any name, moved or copied, and are never listed there. Whoever writes one of them
takes the mark from here.
"""

from __future__ import annotations

from collections.abc import Collection

from awareness.index.files.safe_read import START_BYTES

CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
"""The start of a CACHEDIR.TAG (bford.info/cachedir): the folder can be made again."""
CACHE_TAG = "CACHEDIR.TAG"
OWN_CACHE_TAG = CACHE_SIGNATURE + b"\n# This folder was made by awareness index, which can make it again.\n"
PICTURE_SOFTWARE = "awareness"
"""The text `Software` of a PNG."""
REPORT_MARK = ("made_by", "awareness")
"""The first field of a report in JSON."""

_PACK = (b'{"__metadata__":{"format":"awareness-pack"', b'{"__metadata__":{"format":"awareness-shard"')
_PICTURE = b"\x89PNG\r\n\x1a\n"
_PICTURE_MARK = b"tEXtSoftware\0" + PICTURE_SOFTWARE.encode()
_REPORT = '{{\n  "{}": "{}"'.format(*REPORT_MARK).encode()


def is_own_file(start: bytes) -> bool:
    """start: at least the first `START_BYTES` of the file, or all of it."""
    if start.startswith(_PICTURE):
        return _PICTURE_MARK in start[:START_BYTES]
    return start.startswith(_PACK, 8) or start.startswith(_REPORT)


def is_own_folder(names: Collection[str], tag: bytes) -> bool:
    """True for the folder of an index, or of all indexes. names: of what lies in it. tag: the bytes of its
    CACHEDIR.TAG, or empty."""
    return tag.startswith(OWN_CACHE_TAG) or ("manifest.db" in names and "shards" in names and "lock" in names)
