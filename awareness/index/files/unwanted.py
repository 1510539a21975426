"""Files that are not worth indexing, by their name or their content: secret, generated, binary, minified."""

from __future__ import annotations

import re

from awareness.index.files.safe_read import Skip

RULES_VERSION = 1
"""Raised whenever a file would be judged otherwise: every file is then read again."""

# Names in lower case. A name with a public ending is never secret.
SECRET_NAMES = frozenset(".env .envrc .netrc _netrc .npmrc .pypirc .htpasswd .pgpass .my.cnf .git-credentials".split())
SECRET_STARTS = (".env.", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519")
SECRET_ENDS = (".pem", ".key", ".p12", ".pfx", ".jks", ".keystore", ".kdbx", ".ppk")
SECRET_PATH_ENDS = ("/.aws/credentials", "/.docker/config.json")
PUBLIC_ENDS = (".pub", ".example", ".sample", ".template")
GENERATED_NAMES = frozenset(
    "package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock deno.lock poetry.lock uv.lock pdm.lock "
    "pipfile.lock cargo.lock go.sum gemfile.lock composer.lock".split()
)
GENERATED_ENDS = (".min.js", ".min.css", ".map")
SECRET_TEXT = re.compile(rb'^(?:\s*"private_key":\s*")?-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----', re.MULTILINE)
GENERATED_TEXT = re.compile(rb"(?<![\w`'\"])@generated\b|Code generated .*DO NOT EDIT")


def check_name(path: str) -> None:
    """Raises Skip for a name that is secret or generated; such a file is not opened."""
    path = f"/{path.lower()}"
    name = path.rpartition("/")[2]
    is_secret = name in SECRET_NAMES or name.startswith(SECRET_STARTS) or path.endswith(SECRET_ENDS + SECRET_PATH_ENDS)
    if is_secret and not name.endswith(PUBLIC_ENDS):
        raise Skip("secret")
    if name in GENERATED_NAMES or name.endswith(GENERATED_ENDS):
        raise Skip("generated")


def check_content(data: bytes) -> None:
    """Raises Skip for a file that is not worth indexing, mostly by its start: every refresh checks every file."""
    start = data[:8192]
    if b"\0" in start:
        raise Skip("binary")
    if not start.isascii():
        text = start.decode("utf-8", errors="replace")
        if text.count("\ufffd") > 0.3 * len(text):
            raise Skip("binary")
    top = start[:1024]
    if b"PRIVATE KEY" in top and SECRET_TEXT.search(top):
        raise Skip("secret")
    if (b"@generated" in top or b"DO NOT EDIT" in top) and GENERATED_TEXT.search(top):
        raise Skip("generated")
    if len(data) > 5000 and _line_bytes(start) > 100 and _line_bytes(data) > 500:
        raise Skip("minified")


def _line_bytes(data: bytes) -> float:
    """The mean length of a line, in bytes."""
    return len(data) / (data.count(b"\n") + 1)
