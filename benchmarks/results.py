"""Write docs/results.md from the JSON files in benchmarks/results/.

    python benchmarks/results.py

`awareness eval … --out` or arms.py wrote them. A file is called EVALUATION.json or EVALUATION-WHAT.json; the PNG files
are in the same folder. Figures by layer, depth and shape are in the JSON only. quant.json is a table: `rows` with equal
keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from awareness.evals.intervals import wilson

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results"
TITLES = {
    "answers": "Right answers to short questions",
    "refusals": "What the chunks do not say",
    "needle": "Needles",
    "perplexity": "Lines that depend on another file",
    "retrieval": "Which chunk gets most attention",
    "qa": "Questions with a reference answer",
    "latency": "Time to first token, and tokens per second",
    "compare": "The comparison runs",
    "quant": "How latents are stored",
}
Found = dict[str, Any]


def estimate(found: Found | None, digits: int = 2) -> str:
    """Format an estimate {mean or accuracy, low, high} as `0.85 (0.64-0.95)`."""
    if found is None or (mean := found.get("mean", found.get("accuracy"))) is None:
        return "—"
    return f"{mean:.{digits}f} ({found['low']:.{digits}f}-{found['high']:.{digits}f})"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(str(cell) for cell in line)} |" for line in lines] + [""]


def signed(found: Found | None) -> str:
    """Format a difference {mean, low, high} as `+0.05 (-0.02 to +0.12)`."""
    return "—" if found is None else f"{found['mean']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})"


def answers(found: Found) -> Iterator[str]:
    if "answers" not in found:  # an earlier version wrote only what was answered
        yield from _rows_alone(found)
        return
    yield (
        f"{found['samples']} questions about {', '.join(found['repositories'])}, asked as `awareness ask` asks,"
        f" {found['model']}, latents in {found['quant']}, {found['threads']} threads."
    )
    yield ""
    if found.get("unanswerable"):
        yield "The chunks that answer were left out: to refuse is right."
        yield ""
        yield from table(
            ("chunks", "arm", "refused"), [(o["top_k"], o["arm"], estimate(o["refused"])) for o in found["answers"]]
        )
        return
    yield (
        "Where found: of the questions whose place was among the chunks. First token: the median, in seconds, and as a"
        " share of that of `text`:"
    )
    yield ""
    rows = [
        (
            o["top_k"] or "—",
            o["arm"],
            estimate(o["right"]),
            estimate(o["right_where_found"]),
            signed(o["minus_text"]),
            estimate(o["cited"]),
            estimate(o["refused"]),
            f"{o['first_token_s']:.2f}",
            "—" if o["of_text"] is None else f"{o['of_text']:.2f}",
            f"{o['tokens_per_s']:.1f}",
            f"{o['bytes'] / 1024**2:.1f}" if o["bytes"] else "—",
        )
        for o in found["answers"]
    ]
    columns = "chunks, arm, right, where found, minus text, cited, refused, first token, ÷ text, tokens/s, MiB"
    yield from table(columns.split(", "), rows)


def _rows_alone(found: Found) -> Iterator[str]:
    yield f"{found['processor']}, {found['threads']} threads, {found['top_k']} chunks for each question:"
    yield ""
    rows = []
    for arm in dict.fromkeys(row["arm"] for row in found["rows"]):
        own = [row for row in found["rows"] if row["arm"] == arm]
        right = wilson(sum(row["right"] for row in own), len(own))
        rows.append((arm, len(own), right, f"{median(row['first_token_s'] for row in own):.2f}"))
    yield from table(["arm", "questions", "right", "first token, s"], rows)


def refusals(found: Found) -> Iterator[str]:
    yield (
        f"{found['samples']} questions for each number of chunks of {found['chunk_tokens']} tokens of"
        f" {found['repository']}, {found['model']}, latents in {found['quant']}, seed {found['seed']}. Each is asked"
        " with the invented lines that answer it, and without them:"
    )
    yield ""
    columns = ["chunks", "arm", "refused without the lines", "refused with them", "value found"]
    keys = ("refused", "false_refusals", "found")
    yield from table(columns, [(o["chunks"], o["arm"], *(estimate(o[key]) for key in keys)) for o in found["refusals"]])


def needle(found: Found) -> Iterator[str]:
    yield (
        f"{found['samples']} needles for each number of chunks (or n), hidden in chunks of {found['chunk_tokens']}"
        f" tokens of {found['repository']}, latents in {found['quant']}, seed {found['seed']}."
        " Share found, with its 95 % interval:"
    )
    yield ""
    arms = list(found["arms"])
    for name, said in (
        ("intervals", None),
        ("which_chunk", "How often the right chunk got most attention, or is ranked first:"),
    ):
        by_place = {(one["chunks"], one["arm"]): one for one in found[name]}
        own = [arm for arm in arms if any(by_place.get((c, arm), {}).get("accuracy") is not None for c, _ in by_place)]
        if not own:
            continue
        if said:
            yield said
            yield ""
        numbers = sorted({chunks for chunks, _ in by_place})
        rows = []
        for number in numbers:
            cells = [by_place.get((number, arm)) for arm in own]
            n = max(cell["n"] for cell in cells if cell)
            few = f" (n = {n})" if n < found["samples"] else ""
            rows.append([f"{number}{few}", *map(estimate, cells)])
        yield from table(["chunks", *own], rows)


def perplexity(found: Found) -> Iterator[str]:
    repositories = ", ".join(found["repositories"])
    yield (
        f"{found.get('lines') or len(found['cases'])} lines of {repositories}, {found['chunks']} chunks of"
        f" {found['chunk_tokens']} tokens, with the chunk of the definition (gold), without it (shuffled), or without"
        f" any chunk, latents in {found['quant']}, seed {found['seed']}. Perplexity of the line:"
    )
    yield ""
    cells = {(o["arm"], o["condition"]): estimate(o["line"]) for o in found["perplexity"]}
    arms, conditions = dict.fromkeys(arm for arm, _ in cells), ("gold", "shuffled", "none")
    rows = [(arm, *(cells.get((arm, condition), "—") for condition in conditions)) for arm in arms]
    yield from table(["arm", *conditions], rows)


def retrieval(found: Found) -> Iterator[str]:
    yield (
        f"{found['samples']} {found['cases']} in {', '.join(found['repositories'])}, {found['chunks']} chunks, seed"
        f" {found['seed']}, by the mean of the retrieval layers:"
    )
    yield ""
    rows = [(o["order"], estimate(o["acc@1"]), estimate(o["acc@5"])) for o in found["retrieval"] if o["layer"] is None]
    yield from table(["order by", "Acc@1", "Acc@5"], rows)


def qa(found: Found) -> Iterator[str]:
    yield (
        f"{found['samples']} questions of {found['questions']}, {found['top_k']} chunks for each, latents in"
        f" {found['quant']}, answers of at most {found['max_new_tokens']} tokens:"
    )
    yield ""
    orders = ["routing", "attention", "both"]
    rows = [
        (o["arm"], estimate(o["f1"]), *(estimate(o["recall@3"].get(order)) for order in orders)) for o in found["qa"]
    ]
    yield from table(["arm", "token F1", *(f"citation recall@3 by {order}" for order in orders)], rows)


def latency(found: Found) -> Iterator[str]:
    rows = []
    for one in found["latency"]:
        known = one["first_token_s"] is not None
        ratio = "—" if one["ratio"] is None else f"{one['ratio']:.2f}"
        speed = (f"{one['first_token_s']:.2f}", ratio, f"{one['tokens_per_s']:.1f}") if known else ("—", "—", "—")
        rows.append((one["tokens"], one["arm"], *speed))
    yield from table(["tokens", "arm", "first token, s", "÷ text", "tokens/s"], rows)


def compare(found: Found) -> Iterator[str]:
    yield f"{found['samples']} samples of held-out repositories, seed {found['seed']}, {found['left_out']} too long:"
    yield ""
    yield from table(["run", "perplexity of the answer"], [(o["run"], estimate(o["all"])) for o in found["perplexity"]])


def quant(found: Found) -> Iterator[str]:
    if about := found.get("about"):
        yield about
        yield ""
    columns = list(found["rows"][0])
    yield from table(columns, [[_cell(row[column]) for column in columns] for row in found["rows"]])


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return estimate(value)
    return f"{value:.3g}" if isinstance(value, float) else "—" if value is None else str(value)


WRITERS = {
    "answers": answers,
    "refusals": refusals,
    "quant": quant,
    "needle": needle,
    "perplexity": perplexity,
    "retrieval": retrieval,
    "qa": qa,
    "latency": latency,
    "compare": compare,
}


def document() -> str:
    lines = [(RESULTS / "about.md").read_text("utf-8").rstrip(), ""]
    for kind, title in TITLES.items():
        files = sorted(RESULTS.glob(f"{kind}*.json"))
        if files:
            lines += [f"## {title}", ""]
        for path in files:
            found = json.loads(path.read_text("utf-8"))
            lines += [f"`{path.name}`, by `{found.get('command', 'benchmarks/answers/run.py')}`.", ""]
            lines += WRITERS[kind](found)
            for picture in sorted(RESULTS.glob(f"{path.stem}*.png")):
                lines += [f"![{picture.stem}](../benchmarks/results/{picture.name})", ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    (ROOT / "docs/results.md").write_text(document(), "utf-8")
    print(ROOT / "docs/results.md")
