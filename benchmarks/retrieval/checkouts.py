"""Fetch the pinned repositories of the questions with git and the registries' own clients, as git checkouts.

python benchmarks/retrieval/checkouts.py FOLDER [--split dev|held_out] [--set packages|whole|tiny]
python benchmarks/retrieval/checkouts.py FOLDER --corpus                            # with pip, npm and apt-get

packages: what registries ship of a library. whole: repositories at a tag with their history, as people clone them.
tiny: repositories of 1 to 20 files. Existing checkouts are kept. A `deb:` archive needs a Debian or Ubuntu that has
that version. A `git:` one is cloned from its public address; git's own `url.<base>.insteadOf` leads to a mirror.
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
SETS = ("packages", "whole", "tiny")


def listed(split: str | None = None, chosen: str | None = None) -> dict[str, dict[str, Any]]:
    """Repository name -> where its archive is, for one split or for both. chosen: only this set of repositories."""
    table = json.loads((HERE / "checkouts.json").read_text())
    parts = [part for part in SPLITS if split in (None, part)]
    entries = {
        name: {"set": SETS[0]} | entry | {"split": part} for part in parts for name, entry in table[part].items()
    }
    return {name: entry for name, entry in entries.items() if chosen in (None, entry["set"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=SPLITS)
    parser.add_argument("--set", choices=SETS, dest="chosen")
    parser.add_argument(
        "--corpus", action="store_true", help="fetch the training packages of corpus.txt, not checkouts"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.corpus:
        wanted = {re.sub(r"[^\w.@=+-]", "_", archive): {"archive": archive} for archive in CORPUS.read_text().split()}
    else:
        wanted = listed(options.split, options.chosen)
    failed = []
    for name, entry in wanted.items():
        target = options.folder.resolve() / name
        if target.exists():
            continue
        try:
            if entry["archive"].startswith("git:"):
                _clone(target, entry["archive"].removeprefix("git:"))
            else:
                _fetch(target, entry)
                if not options.corpus:
                    commit_all(target, entry["archive"])
        except (subprocess.CalledProcessError, OSError) as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr)
        else:
            print(f"{name}: {entry['archive']}")
    if failed:
        sys.exit(f"not fetched: {', '.join(failed)}")


def _clone(target: Path, place: str) -> None:
    """place: an address, `#` and a tag. What came after the tag is not fetched: questions are made of it."""
    address, _, tag = place.rpartition("#")
    command = ["git", "-c", "advice.detachedHead=false", "clone", "-q", "--single-branch", "--branch", tag]
    subprocess.run([*command, address, str(target)], check=True)


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


def commit_all(target: Path, message: str) -> None:
    """Makes a git repository of a folder, with one commit of everything in it."""
    git = ["git", "-C", str(target), "-c", "user.name=x", "-c", "user.email=x", "-c", "core.autocrlf=false"]
    for arguments in (["init", "-q"], ["add", "-A", "-f"], ["commit", "-q", "-m", message]):
        subprocess.run([*git, *arguments], check=True)


if __name__ == "__main__":
    main()
