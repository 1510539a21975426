"""Measure the whole table of arms in parts of less than 20 minutes. A part that is there is not measured again.

    python benchmarks/retrieval/checkouts.py CHECKOUTS
    python benchmarks/arms.py CHECKOUTS OUT [--split dev|held_out] [--checkpoint FOLDER]… [--chunks 8,16] [--list]
    python benchmarks/arms.py CHECKOUTS OUT --summary benchmarks/results

A part is one `awareness eval` of one arm. Its report is OUT/PART.json. --list prints the commands with the minutes that
they take on two idle cores with the default model, and measures nothing. --only takes a part of a part's name: answers,
needle-two_hop, @recompute. --summary joins the parts that are there: right answers are compared question by question,
over all repositories. Latents are encoded once and kept, for answers in the index, for the others in OUT/latents.

Text in the prompt is measured up to 16 chunks with all questions and at 64 with some: 64 chunks take half a minute a
question, and 256 have more tokens than the decoder has positions for.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "retrieval"))

from checkouts import listed

from awareness.evals import answers, refusals
from awareness.evals.intervals import wilson
from awareness.evals.report import as_json, write_json
from awareness.model.checkpoint import Checkpoint

QUESTIONS = Path(__file__).parent / "answers/questions"
ARMS = "none,text,joint,joint@recompute=0.1,joint@recompute=0.2,joint@quant=pca,text@qwen2.5-coder-1.5b"
NEEDLE_REPOSITORIES = {"dev": ("celery",), "held_out": ("scrapy",)}
"""With enough source for 256 chunks."""
LINES_REPOSITORIES = {"dev": ("httpx", "celery"), "held_out": ("starlette", "scrapy")}
"""Lines that depend on another file are found in Python alone."""
SHAPES = {"held-out": 36, "ruler": 20, "two_hop": 30}
"""Groups of needles, and how many there are at 16 chunks; half as many at more."""
UNANSWERABLE = "unanswerable"
"""In the names of the parts without the chunks that answer."""
SEED = 11
# On two idle cores with Qwen2.5-Coder-0.5B:
TOKENS_PER_S = 390  # that are encoded, or read in a prompt
ANSWER_S, VALUE_S, LINE_S = 4.0, 1.5, 0.5  # of an answer of `ask`, of a needle's value, of the likelihood of a line
ATTACH_S = 0.015  # of a chunk's latents
ASK_TOKENS, NEEDLE_TOKENS = 200, 110  # of a chunk
MOST_CHUNKS = 900  # different ones that the questions about one repository read
LARGER = 3.0  # times as slow is the 1.5B


@dataclass(frozen=True)
class Part:
    """name: of the file. line: after `awareness`. minutes: an estimate."""

    name: str
    line: tuple[str, ...]
    minutes: float

    @property
    def measure(self) -> str:
        return self.line[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path, help="folder of the checkouts")
    parser.add_argument("out", type=Path, help="folder of the parts")
    parser.add_argument("--split", choices=("dev", "held_out"), default="dev")
    parser.add_argument("--repos", help="only these repositories, separated by commas")
    parser.add_argument("--arms", default=ARMS, help="separated by commas; those of --checkpoint are added")
    parser.add_argument("--checkpoint", type=Path, action="append", default=[], help="one more arm; repeatable")
    parser.add_argument("--model", help="instead of the default model")
    parser.add_argument("--samples", type=int, help="maximum samples of a part, to try it")
    parser.add_argument("--only", action="append", default=[], help="text in the names of the parts; repeatable")
    parser.add_argument("--chunks", help="only these numbers of chunks, separated by commas")
    parser.add_argument("--list", action="store_true", help="print the parts, and measure nothing")
    parser.add_argument("--summary", type=Path, help="join the parts into this folder, and measure nothing")
    options = parser.parse_args()
    parts = [p for p in _parts(options) if all(word in p.name for word in options.only)]
    if options.summary:
        _summarise(parts, options)
        return
    left = [part for part in parts if not (options.out / f"{part.name}.json").exists()]
    print(f"{len(parts)} parts, {len(left)} to measure, about {sum(p.minutes for p in left):.0f} minutes")
    for part in left:
        print(f"{part.minutes:5.1f} min  awareness {shlex.join(part.line)}", flush=True)
        if not options.list:
            _measure(part, options.out)


def run_part(command: Sequence[str]) -> int:
    """Run a program and wait; its exit code. A process for each part gives all memory back."""
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode


def _measure(part: Part, out: Path) -> None:
    """Write OUT/PART.json, or nothing if the part fails."""
    started = time.perf_counter()
    written = out / ".part" / part.name
    command = [sys.executable, "-m", "awareness.cli.app", *part.line, "--out", str(written), "--quiet"]
    if code := run_part(command):
        print(f"  exit code {code}: left out", flush=True)
        return
    (written / f"{part.measure}.json").replace(out / f"{part.name}.json")
    print(f"  {(time.perf_counter() - started) / 60:.1f} minutes", flush=True)


# --- the parts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """An arm and what it costs on two idle cores. line: the options that open it. encodes: it is the first arm whose
    latents are missing."""

    name: str
    line: tuple[str, ...]
    encodes: bool = False

    @property
    def reads(self) -> str:
        return self.name if self.name == "none" else "text" if self.name.startswith("text") else "memory"

    @property
    def quant(self) -> str:
        return self.name.partition("@quant=")[2]

    @property
    def slowness(self) -> float:
        return LARGER if "1.5b" in self.name else 1.0

    def minutes(self, cases: int, numbers: Sequence[int], tokens: int, answer_s: float) -> float:
        """Of that many cases with each number of chunks, each chunk of so many tokens."""
        read_s = tokens / TOKENS_PER_S if self.reads == "text" else ATTACH_S if self.reads == "memory" else 0.0
        if share := re.search(r"@recompute=([\d.]+)", self.name):
            read_s += float(share[1]) * tokens / TOKENS_PER_S
        seconds = cases * sum(answer_s + k * read_s for k in numbers) * self.slowness
        if self.encodes:
            seconds += min(cases * max(numbers), MOST_CHUNKS) * tokens / TOKENS_PER_S
        return 0.5 + seconds / 60

    def part(self, measure: str, what: str, line: Sequence[str], minutes: float) -> Part:
        name = re.sub(r"[^\w.+=@-]", "_", self.name)
        return Part(f"{measure}-{what}-{name}", ("eval", measure, *line, *self.line), minutes)


def _arms(options: argparse.Namespace) -> list[Arm]:
    trained = {Checkpoint.read(folder).arm: folder for folder in options.checkpoint}
    model = ["--model", options.model] if options.model else []
    arms: list[Arm] = []
    for name in dict.fromkeys((*options.arms.split(","), *trained)):
        folder = trained.get(name.split("@")[0])
        own = [] if folder is None else ["--checkpoint", str(folder)]
        arm = Arm(name, ("--arms", name, *own, "--seed", str(SEED), *model))
        encodes = arm.reads == "memory" and not any((o.reads, o.quant) == (arm.reads, arm.quant) for o in arms)
        arms.append(replace(arm, encodes=encodes))
    return arms


def _parts(options: argparse.Namespace) -> Iterator[Part]:
    only = set(options.repos.split(",")) if options.repos else None
    repositories = [repo for repo in listed(options.split) if only is None or repo in only]
    for arm in _arms(options):
        yield from _answer_parts(arm, repositories, options)
        kept = ["--latents", str(options.out / "latents")]
        for repo in (r for r in NEEDLE_REPOSITORIES[options.split] if r in repositories):
            of = ["--repo", str(options.checkouts / repo), *kept]
            yield from _needle_parts(arm, repo, of, options)
        lines = [r for r in LINES_REPOSITORIES[options.split] if r in repositories]
        if lines and "@" not in arm.name:
            n = _fewer(25, options)
            of = [word for repo in lines for word in ("--repo", str(options.checkouts / repo))]
            minutes = arm.minutes(3 * n * len(lines), [4], NEEDLE_TOKENS, LINE_S)
            yield arm.part("perplexity", "-".join(lines), [*of, *kept, "--samples", str(n)], minutes)


def _answer_parts(arm: Arm, repositories: Sequence[str], options: argparse.Namespace) -> Iterator[Part]:
    every = {"none": [[8]], "text": [[8, 16], [64]], "memory": [[8, 16], [64], [256]]}[arm.reads]
    for repo in repositories:
        file = QUESTIONS / f"{repo}.jsonl"
        if not file.exists():
            continue
        of = ["--repo", str(options.checkouts / repo), "--questions", str(file)]
        count = _fewer(sum(1 for line in file.open() if line.strip()), options)
        for numbers in filter(None, (_wanted(numbers, options) for numbers in every)):
            is_long = arm.reads == "text" and max(numbers) > 16
            if is_long and arm.slowness > 1:
                continue
            n, ks = (min(count, 7) if is_long else count), ",".join(map(str, numbers))
            minutes = arm.minutes(n, numbers, ASK_TOKENS, ANSWER_S)
            line = [*of, "--top-k", ks, "--samples", str(n)]
            yield arm.part("answers", f"{repo}-{ks.replace(',', '-')}", line, minutes)
        if arm.reads != "none" and _wanted([16], options):
            line = [*of, "--top-k", "16", "--samples", str(count), "--unanswerable"]
            minutes = arm.minutes(count, [16], ASK_TOKENS, ANSWER_S)
            yield arm.part("answers", f"{UNANSWERABLE}-{repo}-16", line, minutes)


def _needle_parts(arm: Arm, repo: str, of: Sequence[str], options: argparse.Namespace) -> Iterator[Part]:
    for shapes, number in SHAPES.items():
        every = (16,) if arm.reads == "none" else (16, 64) if arm.reads == "text" else (16, 64, 256)
        for k in _wanted(every, options):
            n = _fewer(number if k == 16 else number // 2, options)
            minutes = arm.minutes(n, [k], NEEDLE_TOKENS, VALUE_S)
            line = [*of, "--shapes", shapes, "--chunks", str(k), "--samples", str(n)]
            if k == 16 or arm.slowness == 1:
                yield arm.part("needle", f"{shapes}-{repo}-{k}", line, minutes)
    for k in _wanted((16, 64) if arm.reads == "memory" else (16,), options):
        n = _fewer(21, options)
        minutes = arm.minutes(2 * n, [k], NEEDLE_TOKENS, ANSWER_S)
        yield arm.part("refusals", f"{repo}-{k}", [*of, "--chunks", str(k), "--samples", str(n)], minutes)


def _wanted(numbers: Sequence[int], options: argparse.Namespace) -> list[int]:
    """Those of the numbers of chunks that `--chunks` names; without it, all."""
    if not options.chunks:
        return list(numbers)
    return [k for k in numbers if str(k) in options.chunks.split(",")]


def _fewer(number: int, options: argparse.Namespace) -> int:
    return min(number, options.samples) if options.samples else number


# --- the summary ------------------------------------------------------------------------------------------------------


def _summarise(parts: Sequence[Part], options: argparse.Namespace) -> None:
    """Write one JSON file for each measure, and the picture of right answers against waiting."""
    found: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        path = options.out / f"{part.name}.json"
        if path.exists():
            group = part.measure
            if group == "needle":
                group += "-" + next(s for s in ("held-out", "ruler", "two_hop") if f"needle-{s}-" in part.name)
            elif UNANSWERABLE in part.name:
                group += f"-{UNANSWERABLE}"
            found.setdefault(group, []).append(json.loads(path.read_text("utf-8")))
    command = f"benchmarks/arms.py --split {options.split}"
    for group, reports in found.items():
        kind = group.split("-")[0]
        content = {"command": command, **_SUMMARIES[kind](reports, options.summary)}
        path = write_json(options.summary, f"{group}-arms", content)
        print(f"{path}: {len(reports)} parts")


def _shared(reports: Sequence[dict[str, Any]], *keys: str) -> dict[str, Any]:
    """What all parts have in common."""
    return {key: reports[0].get(key) for key in ("model", "quant", "seed", *keys)}


def _answers(reports: Sequence[dict[str, Any]], folder: Path) -> dict[str, Any]:
    asked = [answers.Asked(**row) for report in reports for row in report["rows"]]
    scores = answers.scored(asked, SEED)
    repositories = list(dict.fromkeys(row.repo for row in asked))
    count = len({(row.repo, row.question) for row in asked})
    title = f"{reports[0]['model']}, {count} questions about {len(repositories)} repositories"
    if not reports[0].get("unanswerable"):
        answers.draw(scores, title, folder, "answers-arms.png")
    shared = _shared(reports, "max_new_tokens", "unanswerable", "second_stage", "threads")
    return {"answers": [as_json(s) for s in scores], **shared, "samples": count, "repositories": repositories}


def _needle(reports: Sequence[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Estimates of the same arm and number of chunks, over repositories."""
    joined: dict[str, Any] = {"arms": list(dict.fromkeys(arm for report in reports for arm in report["arms"]))}
    for table, keys in (("intervals", ("arm", "chunks")), ("which_chunk", ("arm", "chunks"))):
        rows: dict[tuple[Any, ...], list[tuple[float, int]]] = {}
        for report in reports:
            for row in report[table]:
                if row["accuracy"] is not None:
                    rows.setdefault(tuple(row[key] for key in keys), []).append((row["accuracy"], row["n"]))
        joined[table] = [dict(zip(keys, cell, strict=True)) | _over(own) for cell, own in rows.items()]
    most = max(report["samples"] for report in reports)
    repositories = list(dict.fromkeys(report["repository"] for report in reports))
    return {**joined, **_shared(reports, "chunk_tokens"), "samples": most, "repository": ", ".join(repositories)}


def _over(parts: Sequence[tuple[float, int]]) -> dict[str, Any]:
    """Shares of several parts -> the share of all."""
    n = sum(count for _, count in parts)
    whole = as_json(wilson(min(n, sum(share * count for share, count in parts)), n))
    return {"accuracy": whole.pop("mean"), **whole}


def _refusals(reports: Sequence[dict[str, Any]], folder: Path) -> dict[str, Any]:
    asked = [refusals.Asked(**row) for report in reports for row in report["answers"]]
    repositories = list(dict.fromkeys(report["repository"] for report in reports))
    shared = _shared(reports, "samples", "chunk_tokens", "max_new_tokens", "shapes")
    return {
        "refusals": [as_json(score) for score in refusals.scored(asked)],
        **shared,
        "repository": ", ".join(repositories),
    }


def _perplexity(reports: Sequence[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Of the same lines: the rows of all arms."""
    rows = [row for report in reports for row in report["perplexity"]]
    shared = _shared(reports, "samples", "chunks", "chunk_tokens", "repositories")
    return {"perplexity": rows, "lines": len(reports[0]["cases"]), **shared}


_SUMMARIES = {"answers": _answers, "needle": _needle, "refusals": _refusals, "perplexity": _perplexity}


if __name__ == "__main__":
    main()
