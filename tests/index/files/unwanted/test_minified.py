"""Which files are minified as a whole, and that one long line does not make a file so."""

from __future__ import annotations

import random
import time

import pytest

from awareness.index.files.unwanted.minified import is_minified

WORDS = "e t n r this.a=b function(e,t){return e!==t} var c=[] if(!u) i.push(o) for(;n<r;n++) &&".split()


def dense(length: int, seed: int = 0) -> str:
    """Minified code of about this many characters."""
    chosen = random.Random(seed)
    text = ""
    while len(text) < length:
        text += ";".join(chosen.choices(WORDS, k=8))
    return text[:length]


LICENCE = "/*!\n * A library v1.0\n * (c) A\n * Released under the MIT license\n */\n"
FUNCTIONS = "".join(f"function f{n}(name) {{\n  return glyphs[name] + {n};\n}}\n\n" for n in range(12))

MINIFIED = {
    "lib.min.js": LICENCE + dense(30_000) + "\n//# sourceMappingURL=lib.min.js.map\n",
    "small.min.js": "!" + dense(400) + "\n",
    "style.min.css": ".a{color:red;margin:0}.b>.c{display:none!important}" * 20,
    "bundle.js": dense(30_000) + "\n",
    "behind_a_licence.js": LICENCE * 4 + dense(9000),
    "wrapped.js": "\n".join(dense(500, seed) for seed in range(40)) + "\n",
    "modules.js": "(function(root) {\n" + "".join(f"{dense(2000, n)}\n}},\n" for n in range(20)) + "})(this);\n",
    "wrapper.js": '"use strict";\nmodule.exports = {\n' + dense(20_000) + "\n};\n",
    "named.min.js": "(function(root) {\nreturn root;\n})({\n" * 20 + dense(20_000),
    "dump.json": '[{"a":1,"b":[2,3]},' + '{"a":1,"b":[2,3]},' * 900 + "{}]\n",
    "data.py": "x = '" + "a" * 1_000_000 + "'\n",
    "nested.py": "(" * 4000 + ")" * 4000,
}
KEPT = {
    "readable.min.js": FUNCTIONS,
    "readable.min.css": ".a {\n  color: red;\n}\n" * 400,
    "tiny.min.js": "f()\n",
    "icons.py": 'LOGO = "'
    + "QUFB" * 5000
    + '"\n\n\ndef toolbar_glyph(name):\n    return LOGO\n\n\ndef other():\n    return 1\n',
    "one_function.py": 'ICON = "' + "QUFB" * 5000 + '"\n\n\ndef paint_icon():\n    return ICON\n',
    "one_function.ts": 'const ICON = "'
    + "QUFB" * 5000
    + '";\n\nexport const paintIcon = () => {\n  return ICON;\n};\n',
    "one_function.js": 'var ICON = "' + "QUFB" * 5000 + '";\n\nexport function paintIcon() {\n  return ICON;\n}\n',
    "one_function.c": 'char i[] = "' + "QUFB" * 5000 + '";\n\nconst char *paint_icon(int a) {\n  return i;\n}\n',
    "icons.js": 'const LOGO = "' + "QUFB" * 5000 + '";\n' + FUNCTIONS,
    "many.js": "".join(f'const I{n} = "{dense(900, n)}";\n' for n in range(9)) + FUNCTIONS,
    "long.md": ("A paragraph on one line, as many editors write it. " * 80 + "\n\n") * 9,
    "prose.html": "<p>A paragraph on one line, as many editors write it, with a <b>word</b> in it.</p> " * 200,
    "chinese.txt": "这个函数返回下一个可用的文件名，如果目录不存在，就先创建目录，然后再返回结果。" * 300,
    "query.sql": "SELECT account.name, account.created FROM account JOIN invoice ON invoice.account = account.id " * 90,
    "one_line.json": "[" + "1," * 2400 + "1]",
    "rows.csv": "1,2,3,4,5,6,7,8\n" * 5000,
    "long.py": "x = 1  # " + "word " * 60 + "\n" + "y = 2\n" * 1200,
    "one_line.ipynb": '{"cells":[{"source":["x"],"outputs":[{"image/png":"' + "QUFB" * 9000 + '"}]}]}',
    "empty.js": "",
}


@pytest.mark.parametrize("path", MINIFIED)
def test_minified(path: str) -> None:
    assert is_minified(path, MINIFIED[path].encode())


@pytest.mark.parametrize("path", KEPT)
def test_kept(path: str) -> None:
    assert not is_minified(path, KEPT[path].encode())


@pytest.mark.parametrize("piece", ["/*", "*/", "<!--", "-->", "//", "/*\n" * 9, "a" * 201 + "\n", " "])
def test_the_time_is_bounded(piece: str) -> None:
    started = time.process_time()
    is_minified("a.min.js", (piece * (1_000_000 // len(piece))).encode())
    assert time.process_time() - started < 1.5
