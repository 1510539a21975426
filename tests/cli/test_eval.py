"""`awareness eval`: every measure prints tables or JSON, and writes the same JSON and its pictures to --out."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from awareness.cli.app import run
from tests.conftest import git, write_tree

USES = "import many\n\n\ndef use_{0}(a):\n    b = a\n    b += 1\n    return many.function_{0}(a, b)\n"
FILES = {
    "src/many.py": "".join(f"def function_{i}(a, b):\n    return a * {i} + b\n\n\n" for i in range(40)),
    **{f"src/use_{i}.py": USES.format(i) for i in range(4)},
}
QUESTIONS = [
    {"question": "How is the cookie signed?", "answer": "With HMAC.", "gold": ["src/auth.py"], "repo": "sample"},
    {"question": "What does acquire return?", "answer": "an idle one", "gold": ["src/pool.py:1-5"]},
    {"question": "Which?", "answer": "none", "gold": ["x.py"], "repo": "elsewhere"},
]
SHORT = {"question": "How is a cookie signed?", "expected": "hmac", "contains": ["hmac"], "place": "src/auth.py:1-3"}
KEYS = {
    "needle": "arms grid intervals which_chunk shapes model seed samples chunk_tokens quant repository",
    "perplexity": "perplexity cases model quant seed samples chunks chunk_tokens repositories",
    "retrieval": "retrieval retrieval_layers cases shuffled model quant seed samples chunks chunk_tokens repositories",
    "qa": "qa answers questions model quant seed samples top_k max_new_tokens",
    "answers": "answers rows questions repositories model quant seed samples max_new_tokens unanswerable"
    " second_stage threads",
    "refusals": "refusals answers model quant seed samples chunk_tokens max_new_tokens shapes repository",
    "latency": "latency model quant seed rounds decode chunk_tokens repository latents",
}


@pytest.fixture
def evaluate(sample, model_folder, tmp_path, capfd):
    """Runs a measure on the sample repository and checks its report: -> the JSON."""
    write_tree(sample, FILES)
    git(sample, "add", "-A")
    (tmp_path / "short.jsonl").write_text(json.dumps(SHORT) + "\n")
    questions = tmp_path / "q.jsonl"
    questions.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))

    def evaluate(name: str, *arguments: str) -> dict:
        out = tmp_path / "out"
        line = ["eval", name, "--repo", str(sample), "--model", str(model_folder), "--out", str(out)]
        files = {"QUESTIONS": str(questions), "SHORT": str(tmp_path / "short.jsonl")}
        line += [files.get(argument, argument) for argument in arguments]
        assert run([*line, "--format", "json"]) == 0
        result = json.loads(capfd.readouterr().out)
        assert json.loads((out / f"{name}.json").read_text()) == {"made_by": "awareness", **result}
        assert set(result) == set(KEYS[name].split()) and result["quant"] == "int4"
        pictures = {"needle": ["needle.png", "needle_curve.png"]}.get(name, [f"{name}.png"])
        assert sorted(path.name for path in out.glob("*.png")) == pictures
        assert all((out / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)
        if name != "latency":  # which takes another time
            assert run(line) == 0
            text, notes = capfd.readouterr()
            assert "95 % interval" in text and f"{name}.json" in notes
        return result

    return evaluate


def test_needle(evaluate):
    arms = ("none", "text", "joint", "bm25")
    names = ["--arms", ",".join(arms)]
    result = evaluate("needle", "--samples", "2", "--chunks", "1,2", "--chunk-tokens", "200", *names)
    assert set(result["arms"]) == set(arms) and result["arms"]["bm25"] is None
    assert {(cell["arm"], cell["chunks"]) for cell in result["grid"]} == {(arm, n) for arm in arms for n in (1, 2)}
    assert sum(cell["n"] for cell in result["grid"]) == 2 * 2 * 4
    which = {(row["arm"], row["chunks"]): row for row in result["which_chunk"]}
    assert which["bm25", 1]["accuracy"] == 1.0 and which["bm25", 1]["n"] == 2 and which["text", 1]["n"] == 0


def test_perplexity(evaluate):
    result = evaluate("perplexity", "--samples", "3", "--chunks", "2", "--chunk-tokens", "140", "--arms", "none,joint")
    rows = {(row["arm"], row["condition"]): row for row in result["perplexity"]}
    assert set(rows) == {("none", "none"), *(("joint", condition) for condition in ("gold", "shuffled", "none"))}
    assert rows["none", "none"]["line"] == rows["joint", "none"]["line"] != rows["joint", "gold"]["line"]
    assert len(result["cases"]) == rows["joint", "gold"]["line"]["n"] == 3
    for case in result["cases"]:
        assert re.fullmatch(r"src/use_\d.py:7", case["place"]) and set(case["nll"]["joint/gold"]) == {"line", "name"}


def test_retrieval_of_needles_and_of_questions(evaluate):
    result = evaluate("retrieval", "--samples", "3", "--chunks", "4")
    orders = ["bm25", "nearest", "joint"]
    assert [row["order"] for row in result["retrieval"] if row["layer"] is None] == orders
    assert [row["layer"] for row in result["retrieval"] if row["layer"] is not None] == [1, 2, 3, 4, 5]
    assert result["retrieval_layers"] == {"joint": [2, 3, 4]} and result["cases"] == "single"
    result = evaluate("retrieval", "--questions", "QUESTIONS", "--shuffle", "--chunks", "4", "--max-new-tokens", "2")
    assert [row["order"] for row in result["retrieval"] if row["layer"] is None] == [
        "bm25",
        "nearest",
        "routing",
        "joint",
    ]
    assert (result["cases"], result["shuffled"], result["chunk_tokens"]) == ("q.jsonl", True, None)


def test_qa(evaluate):
    arguments = ["--questions", "QUESTIONS", "--top-k", "2", "--max-new-tokens", "3", "--arms", "none,joint"]
    result = evaluate("qa", *arguments)
    orders = {score["arm"]: set(score["recall@3"]) for score in result["qa"]}
    assert orders == {"none": {"routing"}, "joint": {"routing", "attention", "both"}, "bm25": {"routing"}}
    assert result["samples"] == 2 and len(result["answers"]) == 4


def test_answers(evaluate):
    arguments = ["--questions", "SHORT", "--top-k", "1,2", "--max-new-tokens", "2", "--arms", "none,text,joint"]
    result = evaluate("answers", *arguments)
    scores = {(score["arm"], score["top_k"]): score for score in result["answers"]}
    assert list(scores) == [("none", 0), ("text", 1), ("joint", 1), ("text", 2), ("joint", 2)]
    assert scores["joint", 1]["bytes"] < scores["joint", 2]["bytes"] and scores["text", 2]["bytes"] == 0
    assert scores["joint", 2]["of_text"] > 0 and scores["joint", 2]["minus_text"]["n"] == 1
    assert all(row["is_found"] == (row["top_k"] > 0) for row in result["rows"])


def test_answers_without_the_chunks_that_answer(evaluate):
    arguments = ["--questions", "SHORT", "--top-k", "1,2", "--max-new-tokens", "2", "--arms", "joint"]
    result = evaluate("answers", "--unanswerable", *arguments)
    assert result["unanswerable"] is True
    assert [(row["top_k"], row["chunks"], row["is_found"]) for row in result["rows"]] == [(1, 1, False), (2, 2, False)]


def test_refusals_of_two_hops(evaluate):
    shapes = ["--shapes", "two_hop", "--max-new-tokens", "2", "--arms", "joint"]
    result = evaluate("refusals", "--samples", "2", "--chunks", "2", "--chunk-tokens", "200", *shapes)
    assert [score["chunks"] for score in result["refusals"]] == [2]
    assert result["shapes"] == ["hop_import", "hop_override", "hop_call"]
    assert [answer["is_answerable"] for answer in result["answers"]] == [True, False] * 2


def test_an_invalid_question_is_named_by_its_line(evaluate, tmp_path, capfd):
    (tmp_path / "short.jsonl").write_text(json.dumps(SHORT) + "\n{}\n")
    assert run(["eval", "answers", "--questions", str(tmp_path / "short.jsonl")]) == 2
    assert "short.jsonl:2: 'question' must be a str that is not empty" in " ".join(capfd.readouterr().err.split())


def test_latency(evaluate):
    result = evaluate("latency", "--tokens", "200", "--rounds", "1", "--decode", "2", "--chunk-tokens", "40")
    assert [row["arm"] for row in result["latency"]] == ["none", "text", "joint"]
    assert all(row["first_token_s"] > 0 and row["ratio"] > 0 for row in result["latency"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["needle", "--chunks", "0"], "--chunks '0' is not a list of positive numbers"),
        (["needle", "--chunks", "900"], "--chunks 900, but the repository has only"),
        (["needle", "--shapes", "hexx"], "unknown needle shape hexx"),
        (["needle", "--arms", "tanh"], "unknown arm tanh; there are none, text, joint"),
        (["perplexity", "--arms", "bm25"], "unknown arm bm25"),
        (["retrieval", "--arms", "text"], "none of the arms text has a memory"),
        (["latency", "--tokens", "90000"], "--tokens 90000, but the chunks that fit have"),
        (["qa"], "Missing option '--questions'"),
    ],
)
def test_what_cannot_be_measured_is_refused(line, message, sample, model_folder, capfd):
    write_tree(sample, FILES)
    more = ["--repo", str(sample), "--model", str(model_folder)]
    if line[0] in ("needle", "retrieval"):
        more += ["--chunk-tokens", "100"] + (["--chunks", "2"] if "--chunks" not in line else [])
    assert run(["eval", *line, *more]) == 2
    assert message in capfd.readouterr().err


def test_questions_without_an_answer_are_refused(tmp_path, capfd):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "Which?", "gold": ["a.py"]}\n')
    assert run(["eval", "qa", "--questions", str(path)]) == 2
    assert "1 of 1 questions" in capfd.readouterr().err


def test_help_imports_neither_torch_nor_numpy():
    code = (
        "import sys; from awareness.cli.app import run\n"
        "names = 'needle answers refusals qa compare'.split()\n"
        "codes = [run(['eval', *name, '--help']) for name in ([], *([name] for name in names))]\n"
        "sys.exit(any(codes) or any(name in sys.modules for name in ('torch', 'numpy', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
