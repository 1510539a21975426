"""Files that are secret as a whole: keys, and files of passwords and tokens.

A name that may be secret is secret, unless its ending or the content shows plainly that the file is code, a template or
public. credentials.py finds single credentials in other files.
"""

from __future__ import annotations

import re

# Names in lower case, without the endings of a backup.
_NAMES = frozenset(
    ".envrc .netrc _netrc .htpasswd .pgpass .pypirc .my.cnf .git-credentials .dockercfg .s3cfg .boto "
    ".vault-token".split()
)
_ENDS = (".p12", ".pfx", ".jks", ".keystore", ".kdbx", ".ppk")
_PATH_ENDS = ("/.aws/credentials", "/.docker/config.json", "/.kube/config", "/.gem/credentials")
_BY_CONTENT = (".pem", ".key")
_SSH = re.compile(r"id_(?:rsa|dsa|ecdsa|ed25519)(?![a-z])")
_ENV = re.compile(r"\.env(?:[._-]|$)|.*\.env$")
_BACKUP = re.compile(
    r"(?:\.(?:bak|backup|old|orig|saved?|copy|swp|swo|tmp|prev|\d[\d.-]*)|~|[ _-](?:copy|backup|old|bak))$"
)
_TEMPLATE_WORDS = frozenset(
    "example examples sample samples template tmpl tpl dist default defaults dummy skeleton schema".split()
)
_PUBLIC_ENDS = (".pub", ".example", ".sample", ".template", ".dist", ".tmpl", ".tpl", ".j2", ".erb", ".default")
_CODE_ENDS = tuple(
    f".{ending}"
    for ending in "py pyi pyx ipynb js jsx mjs cjs ts tsx mts cts vue svelte go rs java kt kts scala groovy c h cc cpp "
    "cxx hh hpp hxx cs fs vb rb php swift m mm lua pl pm r jl ex exs erl hs ml mli clj dart sql proto graphql zig nim "
    "d cu md markdown mdx rst adoc org tex html htm css scss".split()
)
_SHELL_ENDS = (".sh", ".bash", ".zsh", ".fish", ".ps1", ".bat")

_BLOCK = re.compile(rb"^[ \t]*-----BEGIN ([A-Za-z0-9 ]+?)-----", re.MULTILINE)
_PRIVATE = re.compile(
    rb'^(?:\s*"private_key":\s*")?-----BEGIN (?:[A-Z ]*PRIVATE KEY(?: BLOCK)?|OpenVPN Static key V1)-----'
    rb"|\APuTTY-User-Key-File-\d", re.MULTILINE,
)  # fmt: skip
_PRIVATE_BODY = re.compile(
    rb'(?:^[ \t]*|"private_key"\s{0,4}:\s{0,4}")-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----'
    rb"(?:\\n|\s{1,40})(?:[A-Za-z-]{4,20}: [^\n]{1,200}\s{1,40}){0,6}[0-9A-Za-z+/=]{40}",
    re.MULTILINE,
)
_WHOLE_KEY = re.compile(rb"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----[^-]{0,20000}-----END")
_PUBLIC_BLOCK = re.compile(
    rb"(?:(?:TRUSTED |X509 |ATTRIBUTE )?CERTIFICATE|(?:NEW )?CERTIFICATE REQUEST|(?:RSA |DSA |EC |SSH2 )?PUBLIC KEY"
    rb"|X509 CRL|PKCS7|CMS|(?:X9\.42 )?DH PARAMETERS|EC PARAMETERS|DSA PARAMETERS|PGP PUBLIC KEY BLOCK|PGP SIGNATURE)"
)
_NPM_SETTING = re.compile(  # of npm, pnpm and yarn, without those of an account
    r"(?:@[\w.-]+:)?registry|save(?:-\w+)*|(?:engine|use-node|strict)-[\w-]+|package-lock|lockfile(?:-[\w-]+)?|legacy-[\w-]+"
    r"|(?:shamefully-|public-)?hoist(?:-[\w-]+)?(?:\[\])?|node-[\w-]+|auto-[\w-]+|prefer-[\w-]+|ignore-[\w-]+|link-[\w-]+"
    r"|(?:fund|audit|progress|loglevel|color|cache|prefix|proxy|noproxy|https-proxy|tag-version-prefix|access|target|runtime"
    r"|disturl|build-from-source|(?:fetch|init|update|side|shared|enable|manage|resolution|dedupe|verify|minimum)-[\w-]+)"
)
_ACCOUNT = re.compile(r"(?i)://[^/\s]*@|_auth|password|token(?!\})")
_TOKEN = re.compile(r"[\w+/=-]{16,}")
_NAMES_A_SECRET = re.compile(r"(?i)private|secret|passw|passphrase|token|credential|BEGIN ")


def is_secret_name(path: str) -> bool:
    """Is a file secret by its name alone, so that it need not be opened?"""
    path = _without_backup(f"/{path.lower()}")
    name = path.rpartition("/")[2]
    if name in _NAMES or path.endswith(_ENDS + _PATH_ENDS):
        return True
    if name.endswith(_PUBLIC_ENDS):
        return False
    if _ENV.match(name):
        is_template = _TEMPLATE_WORDS.intersection(re.split(r"[._-]", name))
        return not is_template and not name.endswith(_CODE_ENDS)
    return _SSH.match(name) is not None and not name.endswith((*_CODE_ENDS, *_SHELL_ENDS))


def is_secret_content(path: str, data: bytes) -> bool:
    """Is the file a key, or not plainly public while its name may be that of a key? data: the whole file."""
    name = _without_backup(f"/{path.lower()}").rpartition("/")[2]
    if name.endswith(_BY_CONTENT):
        return not _is_public(data)
    if name == ".npmrc":
        return not _is_plain_npmrc(data)
    if b"PRIVATE KEY" not in data and b"OpenVPN Static" not in data and not data.startswith(b"PuTTY-User-Key"):
        return False
    if name.endswith((*_CODE_ENDS, *_SHELL_ENDS)):
        block = _WHOLE_KEY.search(data)
        return block is not None and 2 * len(block[0]) > len(data.strip())
    return _PRIVATE.search(data[:1024]) is not None or _PRIVATE_BODY.search(data) is not None


def _without_backup(path: str) -> str:
    while match := _BACKUP.search(path):
        path = path[: match.start()]
    return path


def _is_public(data: bytes) -> bool:
    """Does a file that is named like a key hold only public blocks, or a text of words?"""
    if data.startswith(b"PK\x03\x04"):
        return True  # a presentation of Keynote
    if b"\0" in data[:8192]:
        return False
    blocks = _BLOCK.findall(data)
    if blocks:
        return all(_PUBLIC_BLOCK.fullmatch(block) for block in blocks) and b"PRIVATE" not in data
    text = data.decode("utf-8", errors="replace")
    if _NAMES_A_SECRET.search(text) or any(_is_random(token) for token in _TOKEN.findall(text)):
        return False
    words = re.findall(r"[^\W\d_]{2,}", text)
    return len(words) >= 5 and sum(map(len, words)) > 0.6 * len("".join(text.split()))


def _is_random(token: str) -> bool:
    return len(token) >= 32 or (any(map(str.isdigit, token)) and any(map(str.isalpha, token)))


def _is_plain_npmrc(data: bytes) -> bool:
    """Does every line set what is no account, or take the value from the environment?"""
    for line in data.decode("utf-8", errors="replace").splitlines():
        name, _, value = (part.strip() for part in line.strip().partition("="))
        if not name or name.startswith(("#", ";")) or re.fullmatch(r"\$\{\w+\}", value):
            continue
        if not _NPM_SETTING.fullmatch(name) or _ACCOUNT.search(line):
            return False
    return True
