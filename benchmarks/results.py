"""Write docs/results.md from the JSON files in benchmarks/results/, which `awareness eval … --out` wrote.

    python benchmarks/results.py

A file is called EVALUATION.json or EVALUATION-WHAT.json. The PNG files are in the same folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results"
TITLES = {
    "needle": "Needles",
    "perplexity": "Lines that depend on another file",
    "retrieval": "Which chunk gets most attention",
    "qa": "Questions with a reference answer",
    "latency": "Time to first token, and tokens per second",
    "compare": "The comparison runs",
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


def needle(found: Found) -> Iterator[str]:
    yield (
        f"{found['samples']} needles for each number of chunks, hidden in chunks of {found['chunk_tokens']} tokens of"
        f" {found['repository']}, latents in {found['quant']}, seed {found['seed']}."
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
        yield from table(["chunks", *own], [[n, *(estimate(by_place.get((n, arm))) for arm in own)] for n in numbers])
    shapes = {(one["shape"], one["arm"], one["chunks"]): one for one in found["shapes"]}
    most = max((chunks for _, arm, chunks in shapes if arm == arms[-1]), default=0)
    yield f"By shape, at {most} chunks:"
    yield ""
    names = list(dict.fromkeys(shape for shape, _, _ in shapes))
    own = [arm for arm in arms if any((name, arm, most) in shapes for name in names)]
    yield from table(["shape", *own], [[n, *(estimate(shapes.get((n, arm, most))) for arm in own)] for n in names])


def perplexity(found: Found) -> Iterator[str]:
    repositories = ", ".join(found["repositories"])
    yield (
        f"{len(found['cases'])} lines of {repositories}, {found['chunks']} chunks of {found['chunk_tokens']} tokens,"
        f" with the chunk of the definition (`gold`) or without it (`shuffled`), latents in {found['quant']},"
        f" seed {found['seed']}:"
    )
    yield ""
    rows = [(o["arm"], o["condition"], estimate(o["line"]), estimate(o["name"])) for o in found["perplexity"]]
    yield from table(["arm", "reads", "perplexity of the line", "of the name in it"], rows)


def retrieval(found: Found) -> Iterator[str]:
    yield (
        f"{found['samples']} {found['cases']} in {', '.join(found['repositories'])}, {found['chunks']} chunks, seed"
        f" {found['seed']}. A row without a layer is a baseline, or the mean of the retrieval layers:"
    )
    yield ""
    rows = [
        (o["order"], o["layer"] if o["layer"] is not None else "—", estimate(o["acc@1"]), estimate(o["acc@5"]))
        for o in found["retrieval"]
    ]
    yield from table(["order by", "layer", "Acc@1", "Acc@5"], rows)


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


WRITERS = {
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
            lines += [f"`{path.name}`, by `{found['command']}`.", ""]
            lines += WRITERS[kind](found)
            for picture in sorted(RESULTS.glob(f"{path.stem}*.png")):
                lines += [f"![{picture.stem}](../benchmarks/results/{picture.name})", ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    (ROOT / "docs/results.md").write_text(document(), "utf-8")
    print(ROOT / "docs/results.md")
