"""Keys and tokens: what a `.env` may set, and that none of them is ever printed."""

from __future__ import annotations

import json
import os

import pytest

from awareness.cli import app, render
from awareness.config.secrets import MAX_BYTES, Secrets, load_env
from awareness.errors import UsageError

KEY = 'k"\u00e9\\4f9c0b'  # a key that JSON would write with other characters


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    """No secret of the machine or of another test, and an environment that is put back."""
    monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"], "HOME": "/home/someone"})
    monkeypatch.setattr(render, "_hidden", Secrets())


def write(folder, text):
    (folder / ".env").write_text(text, "utf-8")
    return folder


def test_a_hostile_file_sets_nothing_but_what_it_may(tmp_path):
    before = dict(os.environ)
    hostile = (
        "PATH HOME PYTHONPATH HF_ENDPOINT HF_HOME LD_PRELOAD WANDB_BASE_URL WANDB_DIR WANDB__EXECUTABLE wandb_api_key"
    )
    text = "".join(f"{name}=/evil\n" for name in hostile.split())
    load_env(write(tmp_path, f"{text}HF_TOKEN=hf_abcdefgh\nexport WANDB_PROJECT='mine'\n"))
    assert dict(os.environ) == before | {"HF_TOKEN": "hf_abcdefgh", "WANDB_PROJECT": "mine"}


def test_every_name_that_it_may_set(tmp_path):
    names = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_NAME"}
    names |= {"WANDB_NOTES", "WANDB_TAGS", "WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_MODE"}
    before = set(os.environ)
    load_env(write(tmp_path, "".join(f"{name}=x\n" for name in names)))
    assert set(os.environ) - before == names


def test_what_is_set_already_stays(tmp_path):
    os.environ["HF_TOKEN"] = "of-the-user"
    load_env(write(tmp_path, "HF_TOKEN=of-the-file\n"))
    assert os.environ["HF_TOKEN"] == "of-the-user"


def test_no_value_is_made_from_the_environment(tmp_path):
    os.environ["GITHUB_TOKEN"] = "ghp_12345678"
    load_env(write(tmp_path, "WANDB_NAME=${GITHUB_TOKEN}\nWANDB_NOTES=$(id)\n"))
    assert (os.environ["WANDB_NAME"], os.environ["WANDB_NOTES"]) == ("${GITHUB_TOKEN}", "$(id)")


def test_lines_that_say_nothing_set_nothing(tmp_path):
    before = dict(os.environ)
    (tmp_path / ".env").write_bytes(b'HF_TOKEN\nWANDB_NAME=\nWANDB_NOTES="a\0b"\n= =\n\xff\n')
    load_env(tmp_path)
    assert dict(os.environ) == before


def test_without_a_file_the_environment_alone(tmp_path):
    os.environ["OPENAI_API_KEY"] = "sk-12345678"
    assert load_env(tmp_path) == Secrets(("sk-12345678",))


def test_links_folders_pipes_and_large_files_are_not_read(tmp_path):
    target = write(tmp_path, "HF_TOKEN=hf_abcdefgh\n") / ".env"
    places = {name: tmp_path / name for name in ("link", "folder", "pipe", "large", "allowed")}
    for place in places.values():
        place.mkdir()
    (places["link"] / ".env").symlink_to(target)
    (places["folder"] / ".env").mkdir()
    os.mkfifo(places["pipe"] / ".env")
    write(places["large"], "HF_TOKEN=hf_abcdefgh\n".ljust(MAX_BYTES + 1, "#"))
    for name, what in (("link", "symbolic"), ("folder", "directory"), ("pipe", "not a file"), ("large", "65536")):
        with pytest.raises(UsageError, match=what):
            load_env(places[name])
    assert "HF_TOKEN" not in os.environ
    load_env(write(places["allowed"], "HF_TOKEN=hf_abcdefgh\n".ljust(MAX_BYTES, "#")))
    assert os.environ["HF_TOKEN"] == "hf_abcdefgh"


def test_which_values_are_secrets():
    names = {"A_KEY": "1" * 8, "b_token": "2" * 8, "SECRET": "3" * 8, "DB_PASSWORD": " 44444444\n", "KEYS": "5" * 8}
    assert set(Secrets.of(names, {"C_KEY": "short77"}).values) == {"1" * 8, "2" * 8, "3" * 8, "4" * 8}


def test_a_secret_within_another_leaves_nothing_of_it():
    secrets = Secrets.of({"A_KEY": "12345678"}) | Secrets.of({"B_KEY": "12345678-and-more", "C_KEY": "12345678"})
    assert secrets.mask("12345678-and-more, 12345678, 1234567") == "****, ****, 1234567"


def put_out():
    render.data({"key": KEY, KEY: [{"deep": (f"a {KEY} b", 1, None)}]})
    render.text(f"text {KEY}")
    with render.answering(is_shown=True) as shown:
        shown.sentence(f"stream {KEY}")
    render.table(("column",), [(f"cell {KEY}",)])
    render.note(f"note {KEY}")
    render.error(f"error\n{KEY}", f"--key {KEY}")


def test_no_output_shows_a_key_of_the_environment(capfd):
    os.environ["WANDB_API_KEY"] = KEY
    put_out()
    out, err = capfd.readouterr()
    assert json.loads(out.splitlines()[0]) == {"key": "****", "****": [{"deep": ["a **** b", 1, None]}]}
    assert [line.strip() for line in out.splitlines()[1:]] == ["text ****", "stream ****", "column", "cell ****"]
    assert err.splitlines() == ["note ****", "error: error ****", "  try: --key ****"]


def test_a_key_in_the_file_is_masked_even_if_it_sets_nothing(capfd, tmp_path):
    render.hide(load_env(write(tmp_path, "DATABASE_PASSWORD=hunter2-hunter2\n")))
    render.hide(Secrets())
    render.note("postgres://me:hunter2-hunter2@host")
    assert "DATABASE_PASSWORD" not in os.environ
    assert capfd.readouterr().err == "postgres://me:****@host\n"


def test_a_key_over_two_lines_is_masked_in_an_error(capfd):
    os.environ["PRIVATE_KEY"] = "first-line\nsecond-line"
    render.error("with first-line\nsecond-line here", None)
    assert capfd.readouterr().err == "error: with **** here\n"


def test_a_traceback_shows_no_key(capfd, monkeypatch):
    os.environ["HF_TOKEN"] = "hf_abcdefgh"

    def fails(*_, **__):
        render.set_volume(verbose=True)
        raise RuntimeError("401 for hf_abcdefgh\x1b[2J")

    monkeypatch.setattr(app, "app", fails)
    assert app.run([]) == 70
    render.set_volume(verbose=False)
    err = capfd.readouterr().err
    assert "Traceback" in err and err.count("****") == 3  # message, source line, message
    assert "hf_abcdefgh" not in err and "\x1b[2J" not in err
