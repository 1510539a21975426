"""Fetch the pinned repositories of the questions with the registries' own clients, and make git checkouts of them.

python benchmarks/retrieval/checkouts.py FOLDER [--split dev|held_out | --corpus]   # with pip, npm and apt-get

Existing checkouts are kept. A `deb:` archive needs a Debian or Ubuntu that has that version.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CORPUS = HERE / "corpus.txt"
SPLITS = ("dev", "held_out")


def listed(split: str | None = None) -> dict[str, dict[str, Any]]:
    """Repository name -> where its archive is, for one split or for both."""
    table = json.loads((HERE / "checkouts.json").read_text())
    parts = [part for part in SPLITS if split in (None, part)]
    return {name: entry | {"split": part} for part in parts for name, entry in table[part].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=SPLITS)
    parser.add_argument(
        "--corpus", action="store_true", help="fetch the training packages of corpus.txt, not checkouts"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.corpus:
        wanted = {re.sub(r"[^\w.@=+-]", "_", archive): {"archive": archive} for archive in CORPUS.read_text().split()}
    else:
        wanted = listed(options.split)
    failed = []
    for name, entry in wanted.items():
        target = options.folder.resolve() / name
        if target.exists():
            continue
        try:
            _fetch(target, entry)
            if not options.corpus:
                _commit(target, entry["archive"])
        except (subprocess.CalledProcessError, OSError) as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr)
        else:
            print(f"{name}: {entry['archive']}")
    if failed:
        sys.exit(f"not fetched: {', '.join(failed)}")


def _fetch(target: Path, entry: dict[str, Any]) -> None:
    """Download an archive and unpack what is below its `root`, except what is to be dropped."""
    kind, _, package = entry["archive"].partition(":")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "pypi":
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
            # A checkout is the source; to train on, whatever the package installs will do.
            command += ["--no-binary", package.partition("==")[0], package] if "root" in entry else [package]
        else:
            command = ["npm", "pack", "--silent", package] if kind == "npm" else ["apt-get", "download", "-q", package]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        (archive,) = folder.iterdir()
        unpacked = folder / "unpacked"
        unpacked.mkdir()
        if archive.suffix in (".whl", ".zip"):
            shutil.unpack_archive(archive, unpacked, "zip")
        else:
            unpack = ["dpkg-deb", "-x", str(archive), str(unpacked)]
            subprocess.run(unpack if kind == "deb" else ["tar", "xf", str(archive), "-C", str(unpacked)], check=True)
        root = unpacked / entry.get("root", ".")
        for dropped in entry.get("drop", ()):
            shutil.rmtree(root / dropped)
        shutil.copytree(root, target, symlinks=True)


def _commit(target: Path, message: str) -> None:
    git = ["git", "-C", str(target), "-c", "user.name=x", "-c", "user.email=x", "-c", "core.autocrlf=false"]
    for arguments in (["init", "-q"], ["add", "-A", "-f"], ["commit", "-q", "-m", message]):
        subprocess.run([*git, *arguments], check=True)


if __name__ == "__main__":
    main()
