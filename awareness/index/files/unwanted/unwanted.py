"""Files that are not worth indexing: secret, generated, minified. Each has a file that decides.

The verdict depends on the path and the bytes only.
"""

from __future__ import annotations

import re

from awareness.index.files.safe_read import Skip
from awareness.index.files.unwanted.secret_files import is_secret_content, is_secret_name

RULES_VERSION = 2
"""Raised whenever a file would be judged otherwise: every file is then read again."""

ENCODED_WITHIN = 2048
"""Bytes at the start of a file, in which a binary that is written as text says so."""
_ENCODED = re.compile(  # uuencode, BinHex, yEnc
    rb"^(?:begin [0-7]{3,4} \S[^\n]*\r?\n[!-`]|\(This file must be converted with BinHex|=ybegin )", re.MULTILINE
)


def check_name(path: str) -> None:
    """Raises Skip for a name that is secret whatever is in the file; such a file is not opened."""
    if is_secret_name(path):
        raise Skip("secret")


def check_content(path: str, data: bytes) -> None:
    """Raises Skip for a text that is not worth indexing. data: the whole file, in UTF-8 or an extension of ASCII."""
    # imported late: a search where nothing has changed judges no file
    from awareness.index.files.unwanted.artefacts import is_artefact
    from awareness.index.files.unwanted.generated import is_generated
    from awareness.index.files.unwanted.minified import is_minified

    if is_secret_content(path, data):
        raise Skip("secret")
    if _ENCODED.search(data[:ENCODED_WITHIN]):
        raise Skip("binary")
    if is_artefact(path, data) or is_generated(path, data):
        raise Skip("generated")
    if is_minified(path, data):
        raise Skip("minified")
