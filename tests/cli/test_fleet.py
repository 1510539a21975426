"""`awareness fleet` as a program: one run of all its commands, and what it refuses."""

from __future__ import annotations

import json

import pytest

from awareness.cli.app import run
from tests.fleet.fixtures import upload


def output(capfd, *arguments: str, code: int = 0) -> dict:
    capfd.readouterr()
    assert run([*arguments, "--format", "json"]) == code, capfd.readouterr().err
    return json.loads(capfd.readouterr().out)


def test_a_fleet_from_index_to_gc(tmp_path, repositories, model_folder, ray_here, capfd):
    place = str(tmp_path / "store")
    report = tmp_path / "report.json"
    arguments = ["fleet", "index", str(repositories), "--out", place, "--model", str(model_folder), "--encoders", "1"]
    first = output(capfd, *arguments, "--report", str(report))
    assert sorted(first["indexed"]) == ["billing", "mail", "sample"] and first["saved_tokens"] > 0
    assert json.loads(report.read_text())["encoded_tokens"] == first["encoded_tokens"]
    assert sorted(output(capfd, "fleet", "refresh", place)["unchanged"]) == ["billing", "mail", "sample"]
    status = output(capfd, "fleet", "status", place, "--repositories")
    assert status["repositories"] == 3 and status["quant"] == "int4"
    assert sorted(status["listed"]) == sorted(first["indexed"])
    assert output(capfd, "fleet", "check", place, "--read-data")["ok"]
    assert output(capfd, "fleet", "gc", place, "--forget", "mail", "--older-than", "0")["objects"] > 0
    assert output(capfd, "fleet", "status", place)["repositories"] == 2
    hits = output(capfd, "search", "sum of the prices of an invoice", "--memory", place)["hits"]
    assert hits[0]["origin"] == "billing"


def test_it_is_said_in_words(store, capfd):
    for arguments, told in (
        (["status", str(store), "--repositories"], "3 repositories"),
        (["check", str(store)], "sound"),
        (["gc", str(store), "--dry-run"], "would delete 0 objects"),
    ):
        assert run(["fleet", *arguments]) == 0
        assert told in capfd.readouterr().out


def test_damage_is_told_with_what_helps(store, capfd):
    for path in (store / "routing").iterdir():
        path.write_bytes(b"x")
    assert run(["fleet", "check", str(store)]) == 1
    printed = capfd.readouterr()
    assert "its digest is another one" in printed.out and "--repair" in printed.err


def test_an_answer_comes_from_it(store, model_folder, capfd):
    arguments = ["ask", "how is mail sent", "--memory", str(store), "--model", str(model_folder), "-n", "4"]
    answer = output(capfd, *arguments)
    assert "mail" in json.dumps(answer["citations"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["status", "/no/such/store"], 10, "holds no fleet"),
        (["check", "ftp://host/x"], 2, "ftp"),
        (["index", "/no/such", "--out", "store"], 2, "/no/such"),
        (["gc", "/no/such/store"], 10, "holds no fleet"),
        (["refresh", "/no/such/store"], 10, "holds no fleet"),
    ],
)
def test_what_is_refused_is_named(arguments, code, says, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["fleet", *arguments]) == code
    printed = capfd.readouterr()
    assert says in printed.err and "try:" in printed.err and not printed.out


def test_a_report_that_cannot_be_written_is_refused_before_the_work(tmp_path, repositories, capfd):
    (tmp_path / "file").write_text("")
    arguments = [
        "index",
        str(repositories),
        "--out",
        str(tmp_path / "store"),
        "--report",
        str(tmp_path / "file/x.json"),
    ]
    assert run(["fleet", *arguments]) == 13
    assert not (tmp_path / "store").exists()


def test_folders_that_a_bucket_names_are_read_only_if_asked(store, s3, ray_here, capfd):
    upload(store, s3)
    capfd.readouterr()
    assert run(["fleet", "refresh", s3]) == 0
    printed = capfd.readouterr()
    assert "0 unchanged" in printed.out and "--folders" in printed.err
    assert len(output(capfd, "fleet", "refresh", s3, "--folders")["unchanged"]) == 3
