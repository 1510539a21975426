"""Is the code that a follow-up question is about found: by the question alone, and with what was said before?

    python benchmarks/retrieval/checkouts.py FOLDER
    python benchmarks/talks/follow_ups.py FOLDER [--top-k 8] [--json FILE] [--verbose]

`talks.json` has talks about repositories of development: questions that follow each other, a written answer to each,
and the files of which one has to be among the first hits of a follow-up. No model answers here; the earlier turns are
the written ones. `everything` searches with all that was said, for comparison.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import table

from awareness.engine.earlier_turns import EarlierTurns, Turn, stands_alone
from awareness.engine.engine import Engine
from awareness.evals.intervals import wilson
from awareness.index.search.ranking import GATHERED

TALKS = Path(__file__).parent / "talks.json"
WAYS = ("alone", "everything", "with the talk")


def queries(said: EarlierTurns, question: str) -> dict[str, str]:
    """way -> what is searched"""
    everything = " ".join([question, *(part for turn in said.turns for part in (turn.question, turn.answer))])
    return dict(zip(WAYS, (question, everything, said.query(question)), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path)
    parser.add_argument("--top-k", type=int, default=8)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--verbose", action="store_true", help="print every follow-up that was not found")
    arguments = parser.parse_args()
    talks = json.loads(TALKS.read_text(encoding="utf-8"))
    found: dict[str, list[bool]] = {way: [] for way in WAYS}
    first: dict[str, list[bool]] = {way: [] for way in WAYS}
    alone = 0
    for name in dict.fromkeys(talk["repository"] for talk in talks):
        with Engine.open(arguments.checkouts / name) as engine:
            engine.refresh()
            for talk in (talk for talk in talks if talk["repository"] == name):
                opening, *rest = talk["turns"]
                said = EarlierTurns.of([(opening["question"], opening["answer"])])
                for turn in rest:
                    alone += stands_alone(turn["question"])
                    for way, query in queries(said, turn["question"]).items():
                        hits = engine.search(query, top_k=arguments.top_k, rules=GATHERED)
                        paths = [hit.chunk.path for hit in hits]
                        found[way].append(any(path in turn["paths"] for path in paths))
                        first[way].append(bool(paths) and paths[0] in turn["paths"])
                        if arguments.verbose and not found[way][-1]:
                            print(f"{name}, {way}: {query!r} found {list(dict.fromkeys(paths))}", file=sys.stderr)
                    said = said.and_then(Turn(turn["question"], turn.get("answer", "")))
    number = len(found["alone"])
    print(f"{number} follow-ups in {len(talks)} talks; {alone} are taken to stand alone\n")
    rows = [[way, str(wilson(sum(found[way]), number)), str(wilson(sum(first[way]), number))] for way in WAYS]
    table(["searched with", f"right file among the first {arguments.top_k}", "right file is first"], rows)
    if arguments.json:
        results = {way: {"found": sum(found[way]), "first": sum(first[way]), "n": number} for way in WAYS}
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
