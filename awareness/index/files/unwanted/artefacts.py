"""Files that a tool wrote from other files, known by their content: lock files, source maps, ABIs, reports.

A name alone proves nothing: `yarn.lock` may be a module, `.map` a level of a game. Kept is what cannot be made again
from other files: a project file of Xcode, a drawing, a linker map that somebody annotated, an amalgamation of C.
"""

from __future__ import annotations

import re


def _all(*parts: str) -> tuple[re.Pattern[bytes], ...]:
    """Patterns of which each has to be found."""
    return tuple(re.compile(part.encode(), re.MULTILINE) for part in parts)


_JSON = r"\A\s*\{"
_CARGO = r"(?:^\[\[package\]\]|^version = \d|^# This file is automatically @generated)"
# The name of a lock file, in lower case -> patterns of which each has to match.
_LOCK_KEYS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("package-lock.json", "npm-shrinkwrap.json"), (_JSON, r'"(?:lockfileVersion|dependencies|packages)"\s*:')
    ),
    "yarn.lock": (r"^# yarn lockfile v\d|^__metadata:|^  resolved \"http",),
    "pnpm-lock.yaml": (r"^lockfileVersion:",),
    "bun.lock": (_JSON, r'"lockfileVersion"\s*:'),
    "deno.lock": (_JSON, r'"(?:remote|specifiers|npm|jsr|redirects|packages|workspace)"\s*:'),
    **dict.fromkeys(("poetry.lock", "pdm.lock"), (r"^\[\[package\]\]|^\[metadata\]",)),
    **dict.fromkeys(("uv.lock", "cargo.lock"), (_CARGO,)),
    "pylock.toml": (r"^lock-version\s*=",),
    "pipfile.lock": (_JSON, r'"_meta"\s*:'),
    **dict.fromkeys(("go.sum", "go.work.sum"), (r"^\S+ v\S+ h1:[\w+/]{43}=$",)),
    "gemfile.lock": (r"^(?:GEM|GIT|PATH|PLATFORMS|DEPENDENCIES)$",),
    "gems.locked": (r"^(?:GEM|GIT|PATH|PLATFORMS|DEPENDENCIES)$",),
    **dict.fromkeys(("composer.lock", "symfony.lock"), (_JSON, r'"(?:content-hash|packages|hash|recipe)"\s*:')),
    "mix.lock": (r'\A\s*%\{\s*(?:\Z|\}|"[^"]+":)',),
    "pubspec.lock": (r"^packages:$",),
    "podfile.lock": (r"^PODS:",),
    "flake.lock": (_JSON, r'"nodes"\s*:'),
    "package.resolved": (_JSON, r'"pins"\s*:'),
    "packages.lock.json": (_JSON, r'"dependencies"\s*:'),
    "chart.lock": (r"^dependencies:", r"^digest: sha256:"),
    "buf.lock": (r"^deps:|^version: v\d",),
    "stack.yaml.lock": (r"^(?:packages|snapshots):",),
    "shard.lock": (r"^shards:",),
    "renv.lock": (_JSON, r'"R"\s*:'),
    "conda-lock.yml": (r"^(?:version|metadata|package):",),
    "rebar.lock": (r"\A\s*[\[{]",),
    "pixi.lock": (r"^version: \d", r"^packages:"),
    "devbox.lock": (_JSON, r'"lockfile_version"\s*:'),
    "paket.lock": (r"^(?:NUGET|GITHUB|HTTP|GIT|GROUP .*|RESTRICTION: .*|STORAGE: .*|REDIRECTS: .*)$",),
    **dict.fromkeys((".pnp.cjs", ".pnp.js"), (r"^const RAW_RUNTIME_STATE =|\$\$SETUP_STATE\(",)),
    "gopkg.lock": (r"^\[\[projects\]\]|^\[solve-meta\]",),
    "glide.lock": (r"^hash: [0-9a-f]{64}",),
    ".terraform.lock.hcl": (r'^provider "',),
    "gradle.lockfile": (r"^empty=|^[^\s:]+:[^\s:]+:[^\s:=]+=",),
    "module.bazel.lock": (_JSON, r'"lockFileVersion"\s*:'),
}
_LOCKS = {name: _all(*parts) for name, parts in _LOCK_KEYS.items()}

_JSON_ARTEFACTS = (
    _all(r'"version"\s*:\s*3\b', r'"sources"\s*:\s*\[', r'"(?:mappings"\s*:\s*"|sections"\s*:\s*\[)'),  # source map
    _all(
        r'"abi"\s*:\s*\[', r'"(?:bytecode|deployedBytecode|contractName|evm|devdoc|userdoc|metadata)"\s*:'
    ),  # solc, truffle
    _all(r'"_format"\s*:\s*"(?:hh-|hh3-|ethers-rs-|forge-)'),  # Hardhat, Foundry
    _all(r'"assetsByChunkName"\s*:', r'"(?:chunks|modules|assets)"\s*:'),  # statistics of webpack
    _all(r'"statementMap"\s*:', r'"fnMap"\s*:'),  # coverage of Istanbul
    _all(r'"executed_lines"\s*:', r'"(?:summary|meta)"\s*:'),  # coverage.py
    _all(r'"targets"\s*:', r'"libraries"\s*:', r'"(?:projectFileDependencyGroups|runtimeTarget)"\s*:'),  # NuGet, .NET
)
_KEYS = (
    b'"mappings"',
    b'"sections"',
    b'"abi"',
    b'"_format"',
    b'"assetsByChunkName"',
    b'"fnMap"',
    b'"executed_lines"',
    b'"libraries"',
)
_ABI = re.compile(
    rb'\A\s*\[\s*\{(?=.{0,4000}?"type"\s*:\s*"(?:function|constructor|event|error|fallback|receive)")'
    rb'(?=.{0,4000}?"(?:inputs|outputs|stateMutability)"\s*:)(?=.{0,8000}?"(?:stateMutability|anonymous|payable|internalType)"\s*:)',
    re.DOTALL,
)
_XML_REPORT = re.compile(
    rb"\A\s*(?:<\?xml[^>]{0,200}\?>\s*)?(?:<!--.{0,500}?-->\s*)*(?:<!DOCTYPE (?:report PUBLIC \"-//JACOCO|coverage )"
    rb"|<coverage\s[^>]{0,1000}?(?:line-rate|lines-covered|generated)=|<testsuites?\b[^>]{0,1000}?\b(?:tests|failures)="
    rb"|<testsuites>\s*<testsuite\s)",
    re.DOTALL,
)
_LCOV = re.compile(rb"\A(?:TN:[^\n]*\n)?SF:[^\n]+\n(?:[A-Z]{2,4}:[^\n]*\n)*(?:DA|FN|FNF|LF|BRF):")
_META = re.compile(rb"\A(?:\xef\xbb\xbf)?fileFormatVersion: \d+\r?\nguid: [0-9a-f]{32}\b")
_SNAPSHOT = re.compile(rb"\A// (?:Jest|Vitest|Bun) Snapshot v\d")
_CASSETTE = re.compile(rb"^recorded_with: VCR ", re.MULTILINE)
_COMPILED = re.compile(
    rb"^[ \t]*\.ident[ \t]+\"(?:GCC|clang|Apple|rustc|Homebrew|Debian|Ubuntu)|\A\s*\S+:\s+file format \S+", re.MULTILINE
)


def is_artefact(path: str, data: bytes) -> bool:
    """Did a tool write the file from other files? data: the whole file."""
    name = path.rpartition("/")[2].lower()
    if name in _LOCKS:
        return all(pattern.search(data) for pattern in _LOCKS[name])
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n)]}'")[:1]
    if start == b"{":
        if name.endswith(".tsbuildinfo"):
            return b'"version"' in data or b'"root"' in data
        if not any(key in data for key in _KEYS):
            return False
        return any(all(pattern.search(data) for pattern in artefact) for artefact in _JSON_ARTEFACTS)
    if start == b"[":
        return name.endswith((".json", ".abi")) and _ABI.match(data[:16384]) is not None
    if start == b"<":
        return name.endswith(".xml") and _XML_REPORT.match(data[:4096]) is not None
    if name.endswith((".info", ".lcov")):
        return _LCOV.match(data[:65536]) is not None
    if name.endswith(".meta"):
        return _META.match(data) is not None
    if name.endswith(".snap"):
        return _SNAPSHOT.match(data) is not None
    if name.endswith((".s", ".asm")):
        return _COMPILED.search(data) is not None
    return name.endswith((".yml", ".yaml")) and _CASSETTE.search(data[-4096:]) is not None
