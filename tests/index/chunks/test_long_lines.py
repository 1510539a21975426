"""Lines of data are shortened and told; lines of words stay whole."""

from __future__ import annotations

import base64
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awareness.index.chunks.long_lines import LONG, LongLine, is_text, shorten_long_lines

NOISE = random.Random(1).randbytes(60_000)
BASE64 = base64.b64encode(NOISE).decode()
WRAPPED = base64.encodebytes(NOISE[:2000]).decode().replace("\n", "")
CODE = "function(e,t,n){if(e!==t)return n.push(t),this.a=e;for(var r=0;r<n.length;r++)n[r]&&n[r](e)}"

DATA = {
    "base64": f'LOGO = "{BASE64[:20_000]}"',
    "base64 in a sentence": f"![the logo](data:image/png;base64,{BASE64[:4000]})",
    "minified code": CODE * 40,
    "numbers": str(list(range(1000))),
    "numbers without spaces": "1," * 2000,
    "hex": ", ".join(f"0x{byte:02x}" for byte in NOISE[:600]),
    "a drawing": '<path d="'
    + " ".join(f"{a}.{b}c{b} {a}" for a, b in zip(NOISE[:300], NOISE[300:600], strict=True))
    + '"/>',
    "json": '{"name": "a", "value": [1, 2], "is": true}, ' * 60,
    "json without spaces": '{"locale":"ca","kind":"actions","rules":["Action","abstr"]},' * 40,
    "letters": "x" * 5000,
    "a table of characters": "".join(map(chr, range(0x4E00, 0x5A00))),
    "brackets": "(" * 2000 + ")" * 2000,
}
TEXT = {
    "prose": "A paragraph on one line, as many editors write it; it has (some) signs and 12 numbers. " * 40,
    "german": "Die Geschwindigkeitsbegrenzung der Autobahn wird nach der Verkehrsverordnung aufgehoben. " * 40,
    "russian": "Функция возвращает следующее свободное имя файла, если папка существует. " * 40,
    "chinese": "这个函数返回下一个可用的文件名，如果目录不存在，就先创建目录，然后再返回结果。" * 80,
    "japanese": "この関数は次に使えるファイル名を返します。フォルダーがなければ作ります。" * 80,
    "thai": "ฟังก์ชันนี้จะคืนชื่อไฟล์ถัดไปที่ใช้ได้ถ้าไม่มีโฟลเดอร์ก็จะสร้างขึ้น" * 40,
    "sql": "SELECT a.name, b.total FROM account a JOIN invoice b ON b.account = a.id WHERE b.total > 10 AND " * 30,
    "markdown": "See [the guide](https://example.org/guide) for the **details** of each of the settings, and `run`. "
    * 30,
    "a signature": "def f("
    + ", ".join(f"argument_{n}: Optional[str] = None" for n in "abcdefghijklmnopqrstuvwxyz" * 2)
    + "):",
    "html": "<p>A paragraph on one line, as many editors write it, with a <b>word</b> that is bold.</p> " * 30,
}


@pytest.mark.parametrize("name", DATA)
def test_data_is_shortened(name: str) -> None:
    line = DATA[name].rstrip()
    text, shortened = shorten_long_lines(f"first = 1\n{line}\nlast = 2\n")
    first, short, last, end = text.split("\n")
    assert (first, last, end) == ("first = 1", "last = 2", "")
    (place,) = shortened
    assert place.line == 2 and len(short) < 300 and short.startswith(line[:100]) and line.endswith(short[-10:])
    remark = f" … [{place.characters:,} characters left out] "
    assert remark in short and len(short) - len(remark) + place.characters == len(line)


@pytest.mark.parametrize("name", TEXT)
def test_words_stay_whole(name: str) -> None:
    assert len(TEXT[name]) > LONG and is_text(TEXT[name])
    text = f"first\n{TEXT[name]}\n"
    assert shorten_long_lines(text) == (text, ())


def test_the_form_of_the_remark() -> None:
    line = 'LOGO = "' + "QUFB" * 5000 + '"'
    text, shortened = shorten_long_lines(line + "\n\n\ndef f():\n    return LOGO\n")
    assert shortened == (LongLine(1, 19_870),)
    assert text == (
        'LOGO = "' + "QUFB" * 29 + "QUF" + ' … [19,870 characters left out] UFBQUFBQUFB"'
        "\n\n\ndef f():\n    return LOGO\n"
    )


def test_words_beside_data_stay() -> None:
    line = (
        f"The logo ![logo](data:image/png;base64,{BASE64[:3000]}) is followed by a word, {BASE64[3000:5000]} ends it."
    )
    (short, (place,)) = shorten_long_lines(line)
    assert place.line == 1 and short.startswith("The logo ![logo](data:")
    assert ") is followed by a word, " in short and short.endswith(" ends it.")
    assert short.count("characters left out]") == 2 and len(line) - len(short) < place.characters < len(line)


def test_a_wrapped_block_is_one_place() -> None:
    rows = [WRAPPED[start : start + 64] for start in range(0, 1280, 64)]
    text = "-----BEGIN CERTIFICATE-----\n" + "\n".join(rows) + "\n-----END CERTIFICATE-----\nmore\n"
    short, shortened = shorten_long_lines(text)
    assert shortened == (LongLine(2, 1216),)
    lines = short.split("\n")
    assert lines[:2] == ["-----BEGIN CERTIFICATE-----", rows[0] + " … [1,216 characters left out]"]
    assert lines[2:21] == [""] * 19 and lines[21:] == ["-----END CERTIFICATE-----", "more", ""]


@pytest.mark.parametrize(
    "line",
    [
        "-" * 80,
        "=" * 80,
        "A" * 70,
        "some_function_name_that_is_very_long_and_goes_on_for_more_than_sixty_characters",
        "src/components/navigation/sidebar/items/collapsible/headers/default",
    ],
)
def test_rows_that_are_no_wrapped_data_stay(line: str) -> None:
    text = (line + "\n") * 30
    assert shorten_long_lines(text) == (text, ())


def test_a_line_of_at_most_the_limit_stays() -> None:
    for length, places in ((LONG, 0), (LONG + 1, 1)):
        assert len(shorten_long_lines("x" * length)[1]) == places


def test_no_places_in_most_files() -> None:
    text = "def f():\n    return 1\n" * 200
    assert shorten_long_lines(text) == (text, ()) and shorten_long_lines("") == ("", ())


@given(
    st.lists(st.sampled_from([*DATA.values(), *TEXT.values(), BASE64[:64], BASE64[64:128], "x = 1", ""]), max_size=12)
)
def test_rows_stay_where_they_are(lines: list[str]) -> None:
    text = "\n".join(lines)
    short, shortened = shorten_long_lines(text)
    assert short.count("\n") == text.count("\n")
    assert [place.line for place in shortened] == sorted({place.line for place in shortened})
    changed = {
        row for row, pair in enumerate(zip(text.split("\n"), short.split("\n"), strict=True), 1) if pair[0] != pair[1]
    }
    assert changed >= {place.line for place in shortened}
    assert shorten_long_lines(short)[0] == short


@pytest.mark.parametrize(
    "piece", ["a", "a ", "字", "é ", "a1B" * 22 + "\n", "(" * 1001 + "\n", "\n", "\t", "a" * 499 + " "]
)
def test_the_time_is_bounded(piece: str) -> None:
    started = time.process_time()
    shorten_long_lines(piece * (1_000_000 // len(piece)))
    assert time.process_time() - started < 1.5


ROW = "    0x2199, 0x21C4, 0xFFFFu, 21, -2.5e-3,   0,"


def test_a_table_of_numbers_keeps_its_first_rows() -> None:
    text = "\n".join(["static const short table[] = {", *[ROW] * 40, "};", "int after;"])
    short, places = shorten_long_lines(text)
    rows = short.split("\n")
    assert len(rows) == 43 and rows[:2] == ["static const short table[] = {", ROW]
    assert rows[2].startswith(ROW) and rows[2].endswith("characters left out]")
    assert rows[3:] == [*[""] * 38, "};", "int after;"]
    assert places == (LongLine(3, 38 * len(ROW)),)


@pytest.mark.parametrize("rows", [[ROW] * 7, ["    a1, b2,"] * 30, ["    f(1)"] * 30, ["    dead, beef"] * 30])
def test_what_is_no_table_of_numbers_stays(rows: list[str]) -> None:
    text = "\n".join(["x" * 40] * 30 + rows)
    assert shorten_long_lines(text) == (text, ())
