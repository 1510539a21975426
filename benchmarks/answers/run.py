"""Ask the questions of the answers benchmark about the checkouts of one split: `awareness eval answers` with its files.

    python benchmarks/retrieval/checkouts.py FOLDER
    python benchmarks/answers/run.py FOLDER [--split dev|held_out] [--repos httpx,cobra] [option of eval answers]…

    python benchmarks/answers/run.py FOLDER --arms none,text,joint,text@qwen2.5-coder-1.5b --top-k 8,16 --out OUT

arms.py measures the same in small parts, with the other sets.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from questions import files_of

from awareness.cli.app import run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the checkouts")
    parser.add_argument("--split", choices=("dev", "held_out"), default="dev")
    parser.add_argument("--repos", help="only these repositories, separated by commas")
    options, others = parser.parse_known_args()
    only = set(options.repos.split(",")) if options.repos else None
    line = ["eval", "answers", *others]
    for file in files_of(options.split):
        if only is None or file.stem in only:
            line += ["--repo", str(options.folder / file.stem), "--questions", str(file)]
    return run(line)


if __name__ == "__main__":
    sys.exit(main())
