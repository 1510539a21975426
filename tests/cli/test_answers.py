"""What `ask` shows of an answer: in a pipe, in a terminal, as JSON."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from awareness.cli import render
from awareness.cli.app import run
from awareness.cli.live import growing
from awareness.model import answering
from awareness.model.not_said import NOT_SAID, is_refusal
from tests.conftest import commit_all, write_tree


@pytest.fixture
def asked(sample, model_folder, capfd):
    def ask(*options):
        code = run(["ask", "HTTPConnectionPool acquire", "--repo", str(sample), "--model", str(model_folder), *options])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return ask


def test_json_has_each_sentence_with_its_source(asked):
    code, out, _ = asked("-n", "8", "--format", "json")
    answer = json.loads(out)
    assert code == 0
    assert answer["weights"] == "none"  # nobody has measured this model
    assert 1 <= len(answer["sentences"]) <= 3
    for sentence in answer["sentences"]:
        assert set(sentence) == {"text", "marked", "source", "unknown", "lines", "confidence"}
        assert 1 <= sentence["source"] <= len(answer["citations"])
        assert (sentence["lines"] is None) == (sentence["confidence"] is None)
        if sentence["lines"]:
            source = answer["citations"][sentence["source"] - 1]
            assert source["start_line"] <= sentence["lines"][0] <= sentence["lines"][1] <= source["end_line"]
            assert sentence["lines"] in source["evidence"]
        assert f"[{sentence['source']}]" in answer["answer"]


def test_text_ends_with_the_sources_that_are_cited(asked):
    code, out, _ = asked("-n", "8")
    answer, _, sources = out.partition("\nSources\n")
    assert code == 0
    numbers = {int(number) for number in re.findall(r" \[(\d)\]", answer)}
    listed = {int(number) for number in re.findall(r"^  \[(\d)\] \S+:\d+", sources, re.MULTILINE)}
    assert numbers and numbers <= listed


LONG = "MAX_LENGTH = 10  # the longest \x1b[31mname" + " that is allowed" * 8


def test_the_line_that_a_sentence_rests_on_is_shown(model_folder, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("awareness.model.sentences.ENOUGH", 0.0)  # this model looks everywhere
    repos = [
        commit_all(write_tree(tmp_path / name, {f"{name}/size.py": f"# the size of a {name}\n{LONG}\nsize = 5\n"}))
        for name in ("one", "two")
    ]
    options = ["-n", "8", "--model", str(model_folder), *(part for repo in repos for part in ("--repo", str(repo)))]
    assert run(["ask", "MAX_LENGTH of one", *options, "--format", "json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert run(["ask", "MAX_LENGTH of one", *options]) == 0
    sources = capfd.readouterr().out.partition("\nSources\n")[2].splitlines()
    cited = {sentence["source"] for sentence in answer["sentences"]}
    assert cited
    for number in cited:
        citation = answer["citations"][number - 1]
        (first, last), name = citation["evidence"][0], citation["origin"]
        lines = str(first) if first == last else f"{first}-{last}"
        at = next(i for i, row in enumerate(sources) if row.startswith(f"  [{number}] {name}/size.py:{lines} ({name})"))
        text = (tmp_path / citation["path"].partition("/")[0] / citation["path"]).read_text().splitlines()
        shown = sources[at + 1]
        assert len(shown) <= 80 and "\x1b" not in shown
        assert shown.startswith(f"      {first}  {text[first - 1][:30]}")


def test_a_shown_line_is_cut_at_80_columns_and_harmless(capfd):
    render.text(f"      1  {LONG}", style="dim", columns=80)
    render.text("      2  " + "長" * 50, columns=80)
    first, second = capfd.readouterr().out.splitlines()
    assert len(first) == 80 and first.endswith("…") and "\\x1b[31mname" in first
    assert second == "      2  " + "長" * 35 + "…"


def test_without_chunks_nothing_is_cited(asked):
    _, out, _ = asked("-n", "8", "--mode", "none", "--format", "json")
    assert {sentence["source"] for sentence in json.loads(out)["sentences"]} <= {None}


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_weights_change_how_it_decodes_and_no_latent(asked, weights):
    _, plain, _ = asked("-n", "2", "--format", "json")
    code, out, err = asked("-n", "2", "--format", "json", "--weights", weights, "--verbose")
    assert code == 0 and json.loads(out)["weights"] == weights
    assert json.loads(out)["memory"] == json.loads(plain)["memory"]
    assert "encoding" not in err


def test_a_terminal_shows_markdown_and_keeps_whole_sentences_only():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=60, color_system="standard")
    with growing(console, render.safe) as shown:
        shown.begun("The `max_size` is")
        shown.sentence("The `max_size` is 10 [1]. ")
        shown.begun("And then \x1b[31mthe")
    drawn = file.getvalue()
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.rpartition("\x1b[2K")[2])
    assert "`" not in last and "max_size is 10 [1]." in last and "And then" not in last
    assert "\x1b[31m" not in drawn


def test_a_memory_is_read_again_for_the_question(asked):
    _, plain, _ = asked("-n", "1", "--format", "json")
    code, out, _ = asked("-n", "1", "--format", "json", "--recompute", "0.5", "--read-chunks", "1")
    before, after = json.loads(plain)["memory"], json.loads(out)["memory"]
    assert code == 0
    assert before["recomputed"] == 0 and before["read"] == before["chunks"] == 2
    assert after["read"] == 1 and 0 < after["recomputed"] < before["tokens"]
    assert {key: after[key] for key in ("chunks", "tokens", "bytes")} == {
        key: before[key] for key in ("chunks", "tokens", "bytes")
    }
    timings = json.loads(out)["timings"]
    assert 0 < timings["prepare_s"] < timings["first_token_s"]


def test_without_a_memory_there_is_nothing_to_read_again(asked):
    code, _, err = asked("-n", "1", "--mode", "text", "--recompute", "0.5")
    assert code == 2
    assert "mode text has no memory that could be read again" in err
    assert asked("-n", "1", "--mode", "text")[0] == 0  # the hint


@pytest.mark.parametrize("said", [NOT_SAID, "The code does not contain `retry`.", "The pool does not retry."])
def test_an_answer_that_says_it_is_not_there_is_no_answer(asked, monkeypatch, said):
    """Only the decoder's words are given; a real one that says them takes a trained adapter."""
    whole = answering.generate

    def generate(*args, on_text, **options):
        done = whole(*args, on_text=lambda _: None, **options)
        on_text(said)
        return replace(done, text=said, is_ended=True)

    monkeypatch.setattr(answering, "generate", generate)
    refused = is_refusal(said)
    code, out, err = asked("-n", "3")
    assert code == refused and ("[1]" in out) != refused
    assert ("says that the answer is not there" in err) == refused and ("--top-k 16" in err) == refused
    code, out, _ = asked("-n", "3", "--format", "json")
    answer = json.loads(out)
    assert (code, answer["abstained"]) == (refused, refused) and answer["citations"]
    assert [sentence["source"] is None for sentence in answer["sentences"]] == [refused]
