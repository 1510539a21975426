"""The places of code in tracebacks and sentences."""

from __future__ import annotations

import pytest

from awareness.index.search.mentions import Mention, mentions_in

FRAMES = [
    ('  File "/usr/lib/site-packages/click/core.py", line 12, in invoke', "click/core.py", 12, "invoke"),
    ("\tat com.google.gson.Gson.fromJson(Gson.java:932)", "com/google/gson/Gson.java", 932, "fromJson"),
    ("    at ZodObject.parse (/app/node_modules/zod/lib/types.js:12:3)", "lib/types.js", 12, "parse"),
    ("    at async Server.handle (file:///x/server.mjs:9:1)", "x/server.mjs", 9, "handle"),
    ("    at /srv/app/index.js:7:2", "app/index.js", 7, ""),
    ("\t/go/pkg/mod/fiber/router.go:145 +0x1b", "fiber/router.go", 145, ""),
    ("             at ./src/main.rs:55:10", "src/main.rs", 55, ""),
    ("lib/sinatra/base.rb:12:in `call'", "sinatra/base.rb", 12, "call"),
    ("#0 /app/src/Client.php(123): GuzzleHttp\\Client->send()", "src/Client.php", 123, "send"),
    ("   at Foo.Bar.Baz(String s) in C:\\src\\Foo.cs:line 12", "src/Foo.cs", 12, "Baz"),
]


@pytest.mark.parametrize(("line", "path", "number", "function"), FRAMES)
def test_frames(line, path, number, function):
    (mention,) = mentions_in(f"It crashes:\n{line}\nand that is all")
    assert (mention.line, mention.function, mention.is_frame) == (number, function, True)
    assert mention.fits(f"repo/{path}") == len(path.split("/"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see path/to/file.py:120, please", [(("path", "to", "file.py"), 120)]),
        ("panicked at crates/core/main.rs:55:10", [(("crates", "core", "main.rs"), 55)]),
        ("what does utils.py do", [(("utils.py",), 0)]),
        ("src\\app.ts(3,5): error TS1", [(("src", "app.ts"), 0)]),
        ("e.g. obj.method, v1.2.3 or https://example.org/a/b.py", []),
        ("where is Session.get defined", []),
    ],
)
def test_files_in_sentences(text, found):
    assert [(mention.parts, mention.line) for mention in mentions_in(text)] == found


def test_a_mention_fits_only_the_end_of_a_path():
    mention = Mention(("click", "core.py"))
    assert mention.fits("src/click/core.py") == 2
    assert mention.fits("other/core.py") == 1
    assert mention.fits("src/click/score.py") == 0


def test_a_long_hostile_text_is_read_quickly():
    assert mentions_in("a/" * 200_000 + "\n" + ("./" * 190 + "x\n") * 5_000) == []
