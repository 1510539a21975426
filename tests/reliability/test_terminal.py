"""What a terminal obeys never reaches it: not from code, not from file names, not from what the user typed.

Text that a command prints consists of printable characters, line feeds and tabs; JSON is ASCII.
"""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
import tty
from pathlib import Path

import pytest

from awareness.cli.app import run
from tests.conftest import git, write_tree

BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e\ufff9\U000e0041\u2028\u2029"
PAYLOADS = [
    *(chr(code) for code in range(0x20) if chr(code) not in "\t\n"),  # C0
    "\x7f",
    *(chr(code) for code in range(0x80, 0xA0)),  # C1
    *(f"{c}evil" for c in BIDI),
    *(f"a{c}b" for c in INVISIBLE),
    *("\x1b[31;44;5m", "\x1b[2J\x1b[H", "\x1b[1A\x1b[2K", "\x1b[?1049h", "\x1b[6n", "\x1b[200~", "\x1bc", "\x1b(0"),
    *("\x1b]0;title\x07", "\x1b]52;c;cHduZWQ=\x07", "\x1b]8;;http:evil\x1b\\link\x1b]8;;\x1b\\", "\x1b]4;1;rgb\x9c"),
    *("\x1bP1$r0m\x1b\\", "\x1b_Gf=100;AA\x1b\\", "\x1b^pm\x1b\\", "\x1bXsos\x1b\\", "\x90q\x9c", "\x9f+\x9c"),
    *("\x9d0;t\x9c", "\x9b31m", "\x1b\x1b[31m", "\x0e\x0f", "[red]evil[/red]\x1b[0m"),
    *("safe\rEVIL", "safe\b\b\b\bEVIL", "a\x0bb\x0cc\x85d", "\udc9b31m", "\udcff\udcfe", "\udc1b[31m"),
    *("\ud800", "\udfff", "\ud83d\udcff"),  # lone surrogates; those above stand for raw bytes
]  # fmt: skip
TYPED = [p for p in PAYLOADS if not re.search("[\0\ud800-\udc7f\udd00-\udfff]", p)]  # what a program can be given
RAW_BYTES = {"c1": b"\x9b31m\x90q\x9c", "latin1": b"caf\xe9 \x85", "overlong": b"\xc0\x9b\xe0\x80\x9b[31m"}
SGR = re.compile(r"\x1b\[[0-9;]*m")


def test_there_are_a_hundred_payloads() -> None:
    assert len(set(PAYLOADS)) == len(PAYLOADS) >= 100
    assert not any(is_plain(payload) for payload in PAYLOADS), "each one would be seen"


def is_plain(text: str) -> bool:
    return all(c in "\n\t" or c.isprintable() for c in text)


def raw(text: str) -> bytes:
    return b"".join(
        c.encode("utf-8", "surrogateescape" if "\udc80" <= c <= "\udcff" else "surrogatepass") for c in text
    )


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("terminal-indexes")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every payload in the text of a file, in its name, in the name of a definition, and in a name left out."""
    root = write_tree(tmp_path_factory.mktemp("terminal") / "repo", {"good.py": "def canary_good():\n    return 1\n"})
    for i, payload in enumerate(PAYLOADS):
        code = f"canary{i} = '{payload}'  # payload{i} {payload}"
        text = f"# Canary {payload}\n\n{code}\n" + "More of it, or it would count as binary.\n" * 9
        (root / f"text{i}.md").write_bytes(raw(text))
        if "\0" not in payload:
            name = os.fsencode(root) + b"/" + raw(payload.replace("/", "_"))
            Path(os.fsdecode(name + b"name%d.py" % i)).write_text(f"name{i} = 1\n")
            Path(os.fsdecode(name + b"%d.pem" % i)).write_text("x")
    for name, data in RAW_BYTES.items():
        (root / f"{name}.py").write_bytes(b"canary_" + name.encode() + b" = '" + data + b"'\n" + b"# plain\n" * 20)
    git(root, "init", "-q")
    return root


@pytest.fixture
def indexed(root: Path, indexes: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary) -> Path:
    monkeypatch.setenv("AWARENESS_INDEX_DIR", str(indexes))
    if not any(indexes.iterdir()):
        assert run(["index", str(root), "--lazy", "--model", str(model_folder)]) == 0
        capfdbinary.readouterr()
    return root


@pytest.fixture
def call(indexed: Path, capfdbinary):
    """Runs a command line; stdout and stderr are UTF-8 and plain."""

    def called(*line: str) -> tuple[int, str, str]:
        code = run([*line])
        out, err = (data.decode("utf-8") for data in capfdbinary.readouterr())
        assert is_plain(out), repr(out)
        assert is_plain(err), repr(err)
        return code, out, err

    return called


def test_code_and_headings_in_search(call, indexed):
    for i, payload in enumerate(PAYLOADS):
        code, out, _ = call("search", f"payload{i}", "--repo", str(indexed), "--top-k", "3")
        if payload != "\0":  # which makes a file binary
            assert code == 0 and f"text{i}.md:" in out and "Canary " in out


def test_file_names_in_search(call, indexed):
    for i, payload in enumerate(PAYLOADS):
        code, out, _ = call("search", f"name{i}", "--repo", str(indexed), "--top-k", "3", "--scope", "*.py")
        if "\0" not in payload:
            assert code == 0 and f"name{i}.py:1-1" in out


@pytest.mark.parametrize("name", RAW_BYTES)
def test_bytes_that_are_not_text(name, call, indexed):
    code, out, _ = call("search", f"canary_{name}", "--repo", str(indexed), "--top-k", "1")
    assert code == 0 and f"{name}.py:1-" in out and ("café" if name == "latin1" else "\ufffd") in out


def test_input_of_the_user_in_search(call, indexed):
    for payload in TYPED:
        code, _, err = call("search", payload + "qwertz", "--repo", str(indexed))
        assert code in (0, 1) and bool(err) == (code == 1)


def test_names_that_are_left_out(call, indexed, model_folder):
    code, _, err = call("index", str(indexed), "--lazy", "--verbose", "--model", str(model_folder))
    assert code == 0
    assert all(f"{i}.pem: secret\n" in err for i, payload in enumerate(PAYLOADS) if "\0" not in payload)


@pytest.mark.parametrize(
    "line",
    [
        "search x --repo {}",
        "search x --rev {}",
        "search x --scope {}[",
        "search x --format {}",
        "search x --top-k {}",
        "search x --{}",
        "search x y{}",
        "index . --budget {}",
        "index . --model ./{}",
        "models path {}",
        "{}",
    ],
)
def test_errors_that_quote_the_user(line, call, indexed, monkeypatch):
    monkeypatch.chdir(indexed)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for payload in TYPED[::4]:
        code, _, err = call(*(part.replace("{}", payload) for part in line.split()))
        assert code in (0, 1, 2, 3) and "Traceback" not in err


def test_a_requested_traceback(call, indexed, monkeypatch):
    """A name in an exception's text is shown by --verbose, as harmless as everywhere."""
    monkeypatch.chdir(indexed)
    for payload in TYPED:
        code, _, err = call("search", "x", "--rev", payload, "--verbose")
        assert code == 2 and "error: " in err


@pytest.mark.parametrize(
    "payload", ["\x1b]52;c;cHduZWQ=\x07", "\x9b31m", "\u202eevil", "\udc9b31m", "a\rb\b\x7f\u2028"]
)
def test_questions(payload, call, indexed, model_folder):
    line = ["--repo", str(indexed), "--model", str(model_folder), "-n", "2", "--top-k", "1"]
    code, out, _ = call("ask", f"canary_good {payload}", *line)
    assert code in (0, 1) and ("Sources" in out or "Nearest" in out or out == "")
    name = PAYLOADS.index("\x1b]0;title\x07")
    code, out, _ = call("ask", f"name{name}", "--scope", "*.py", *line)
    assert code == 0 and f"name{name}.py:1-1" in out


def test_json_is_ascii_and_keeps_the_names(call, indexed, model_folder):
    code, out, err = call("search", "name canary payload", "--repo", str(indexed), "--top-k", "50", "--format", "json")
    assert (code, err) == (0, "") and out.isascii() and out.count("\n") == 1
    assert len(json.loads(out)["hits"]) > 0
    for payload in TYPED:
        _, out, _ = call("search", f"canary {payload}", "--repo", str(indexed), "--format", "json")
        assert out.isascii() and json.loads(out)["query"] == f"canary {payload}"
    code, out, _ = call("index", str(indexed), "--lazy", "--format", "json", "--model", str(model_folder))
    assert code == 0 and out.isascii()
    skipped = {os.fsencode(file["path"]) for file in json.loads(out)["skipped"]}
    names = {
        raw(payload.replace("/", "_")) + b"%d.pem" % i for i, payload in enumerate(PAYLOADS) if "\0" not in payload
    }
    assert names <= skipped


def on_a_terminal(*line: str) -> str:
    """What a terminal is sent: stdout and stderr are one, and nothing on the way changes a byte."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "50"}
    environment.pop("NO_COLOR", None)
    received: list[bytes] = []

    def receive() -> None:
        while True:
            try:
                data = os.read(master, 1 << 16)
            except OSError:  # the other end is closed
                return
            if not data:
                return
            received.append(data)

    reader = threading.Thread(target=receive)
    reader.start()
    command = [sys.executable, "-m", "awareness.cli.app", *line]
    subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, stdout=slave, stderr=slave, timeout=60)
    os.close(slave)
    reader.join(10)
    os.close(master)
    return b"".join(received).decode("utf-8")


def test_on_a_terminal_only_our_own_colours(indexed):
    sent = on_a_terminal("search", "canary name", "--repo", str(indexed), "--top-k", "150", "--scope", "*.py")
    sent += on_a_terminal("search", "canary", "--repo", str(indexed), "--top-k", "150", "--scope", "*.md")
    sent += on_a_terminal("search", "qwertz\x1b\x07\x9b\u202e", "--repo", str(indexed))
    assert "error: " in sent and sent.count(".py:") > 100 and sent.count(".md:") > 100
    assert (
        {"\x1b[1m", "\x1b[0m"} < set(SGR.findall(sent)) <= {"\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[1;31m", "\x1b[36m"}
    )
    assert is_plain(SGR.sub("", sent)), repr(sent)
