"""Encodings: text is decoded by its mark, a declaration, or its characters; no binary becomes text."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import random
import subprocess
import sys
import time
import zlib

import pytest

from awareness.index.files.encodings.decoding import decode, encoding_of
from awareness.index.files.safe_read import Skip

CODE = "def area(width, height):\n    return width * height\n\n\nLIMIT = 25\n"
COMMENTS = {  # of real programs: one line, and more
    "gb18030": ("# 默认模式", "# 检查商品的库存数量是否足够，不足时拒绝订单。\n# 返回一个列表，参数为文件的路径\n"),
    "cp950": ("# 使用者的設定檔", "# 檢查商品的數量是否足夠，不足時返回錯誤。\n# 取得資料並且顯示結果\n"),
    "cp932": ("# 入館証の有効期限を確認する", "# 期限切れなら警告する。\n# ユーザーの設定をファイルから読み込む\n"),
    "euc_jp": ("# 入館証の有効期限を確認する", "# 期限切れなら警告する。\n# ユーザーの設定をファイルから読み込む\n"),
    "iso2022_jp": (
        "# 入館証の有効期限を確認する",
        "# 期限切れなら警告する。\n# ユーザーの設定をファイルから読み込む\n",
    ),
    "cp949": ("# 종목 코드를 조회한다", "# 날짜를 입력하면 데이터를 반환합니다.\n# 파일이 없으면 오류를 출력\n"),
    "cp1251": ("# Проверяет остаток на складе", "# Возвращает список слов.\n# Если файла нет, то ошибка\n"),
    "koi8_r": ("# Проверяет остаток на складе", "# Возвращает список слов.\n# Если файла нет, то ошибка\n"),
    "cp1253": ("# Ελέγχει αν υπάρχει το αρχείο", "# Επιστρέφει τη λίστα με τις λέξεις\n# και το μέγεθος\n"),
    "cp1252": (
        "# Vérifie si le fichier existe déjà",
        "# Größe prüfen – „übrig“ für später\n# Año, tamaño y dirección\n",
    ),
    "latin_1": (
        "# Vérifie si le fichier existe déjà",
        "# Größe prüfen, übrig für später\n# Año, tamaño y dirección ½\n",
    ),
    "utf-16-le": ("# 默认模式", "# Größe prüfen\n"),
    "utf-16-be": ("# 入館証", "# Größe prüfen\n"),
    "utf-32-le": ("# Größe", "# 默认模式\n"),
    "utf-32-be": ("# Größe", "# 默认模式\n"),
    "utf-8": ("# é", "# 默认模式 入館証 Größe\n"),
}


@pytest.mark.parametrize("encoding", COMMENTS)
@pytest.mark.parametrize("lines", [0, 1])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_source_with_a_few_comments_is_decoded_in_its_encoding(encoding, lines, end):
    text = CODE + COMMENTS[encoding][lines] + "\n" + CODE
    assert decode(text.replace("\n", end).encode(encoding)) == text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_byte_order_mark_tells_the_encoding_and_is_no_part_of_the_text(encoding):
    for text in (CODE, "默认\n", "# é\r\n", "x"):
        assert decode(("\ufeff" + text).encode(encoding)) == text.replace("\r\n", "\n")
    assert decode(("\ufeff\ufeff" + CODE).encode(encoding)) == "\ufeff" + CODE


@pytest.mark.parametrize(
    ("encoding", "declaration"),
    [
        ("cp932", "# -*- coding: cp932 -*-\n"),
        ("cp932", "#!/usr/bin/env python\n# vim: set fileencoding=cp932 :\n"),
        ("euc_jp", "// -*- mode: c; coding: euc-jp-unix -*-\n"),
        ("gb18030", "#encoding=gbk\n"),
        ("gb18030", '<?xml version="1.0" encoding="GB2312"?>\n'),
        ("gb18030", "<html><head><meta http-equiv='Content-Type' content='text/html; charset=gb2312'>\n"),
        ("cp950", '<!doctype html>\n<meta charset="big5">\n'),
        ("cp949", '@charset "euc-kr";\n'),
        ("koi8_r", "# coding: koi8-r\n"),
        ("cp852", "# coding: cp852\n"),
        ("mac_roman", "# coding: macroman\n"),
    ],
)
def test_a_declared_encoding_is_used_where_the_characters_do_not_tell_it(encoding, declaration):
    word = {"koi8_r": "Г", "cp852": "ł", "mac_roman": "é"}.get(encoding, "中")
    text = f"{declaration}{word}\n"
    assert decode(text.encode(encoding)) == text


def test_a_declaration_at_the_end_is_read():
    text = CODE + "# Г\n# vim: fenc=koi8-r\n"
    assert decode(text.encode("koi8_r")) == text


def test_a_declaration_that_the_bytes_disprove_is_not_believed():
    latin = "# -*- coding: latin-1 -*-\n# déjà vu\n"
    assert decode(latin.encode()) == latin
    chinese = "<meta charset=gb2312>\n默认模式和参数\n"
    assert decode(chinese.encode()) == chinese
    wrong = "# coding: ascii\n# 检查商品的库存数量\n"
    assert decode(wrong.encode("gbk")) == wrong
    for name in ("no_such_encoding", "rot13", "idna", "unicode_escape", "../../os"):
        text = f"# coding: {name}\n# déjà vu\\x41\n"
        assert decode(text.encode("latin-1")) == text


def test_what_the_attributes_declare_comes_first():
    assert decode("中文".encode("utf-16-le"), "UTF-16LE") == "中文"
    assert decode("中".encode("big5"), "Big5") == "中"
    assert decode("é中".encode(), "latin-1") == "Ã©ä¸\xad"
    assert decode("# 默认\n".encode(), "UTF-16") == "# 默认\n", "bytes that it does not fit decide themselves"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfa\r\nb\n", "a\nb\n"),
        (b"a\rb\r\r\nc", "a\nb\n\nc"),
        ("a\x85b\u2028c\u2029d\x0be\x0cf\n".encode(), "a\x85b\u2028c\u2029d\x0be\x0cf\n"),
        (b"\xef\xbb\xbf\xef\xbb\xbf", "\ufeff"),
        (b"caf\xe9 au lait\n", "café au lait\n"),
        (b"price: 5 \x80, \x93quoted\x94\n", "price: 5 €, “quoted”\n"),
        ("# naïve → done\n".encode() + b"BAD = '\xff'\n", "# naïve → done\nBAD = '\ufffd'\n"),
        ("# déjà vu 🎉 fin 🎉".encode()[:-2], "# déjà vu 🎉 fin \ufffd"),
        ("# 默认模式 \ufffd\n".encode(), "# 默认模式 \ufffd\n"),
        (b"BAD = '\xff'\n" + CODE.encode(), "BAD = '\ufffd'\n" + CODE),
        (b"", ""),
    ],
)
def test_decode(data, text):
    assert decode(data) == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_with_a_mark_may_be_broken_or_cut(encoding):
    data = ("\ufeff" + CODE + "# fin 🎉").encode(encoding)
    assert decode(data[:-1]) == CODE + "# fin \ufffd" or decode(data[:-1]) == CODE + "# fin \ufffd\ufffd"
    assert decode(data[:-2]) == CODE + "# fin \ufffd"


def test_one_broken_byte_in_an_old_encoding_does_not_change_it():
    text = "# 检查商品的库存数量是否足够，不足时拒绝订单。\n" * 4
    assert encoding_of(text.encode("gbk") + b"\xff\n") == "gb18030"


def test_binaries_are_never_text():
    rng, text = random.Random(0), (CODE * 40).encode()
    packers = (gzip.compress, bz2.compress, lzma.compress, zlib.compress)
    parts = [text[rng.randrange(500) :][: rng.choice([200, 900, 2000])] for _ in range(10)]
    binaries = [pack(part) for part in parts for pack in packers]
    binaries += [rng.randbytes(size) for size in (24, 64, 256, 4096) for _ in range(20)]
    binaries += [b"%PDF-1.4\n% \xe2\xe3\xcf\xd3\n1 0 obj\n", b"\x7fELF\x02\x01\x01" + bytes(9), bytes(range(1, 256))]
    binaries += [b"\xff\xfe\x00\x00" + rng.randbytes(400), b"\xff\xfe" + rng.randbytes(401), b"SQLite format 3\0"]
    binaries += [b"".join(i.to_bytes(2, "little") for i in range(300)), b"a\0\0\0b\x01\0\0" * 40]
    for data in binaries:
        with pytest.raises(Skip, match=r"^(binary|in no encoding that is known)$"):
            encoding_of(data)


@pytest.mark.parametrize(
    "unit",
    [
        b"\xff",
        b"\x81",
        b"\xe9a",
        b"\xa4\xa4",
        b"\xc4\xe3\n",
        b"\xd0\xb0\xff",
        b"#!coding: -*- <meta ",
        b"\x1b$B",
        b"a\0",
    ],
)
def test_hostile_bytes_take_no_time(unit):
    data = (unit * ((1 << 20) // len(unit)))[: 1 << 20]
    for sample in (data, data[:-1] + b"\xe9"):
        before = time.process_time()
        with contextlib.suppress(Skip):
            decode(sample)
        assert time.process_time() - before < 2


def test_utf_8_needs_no_detector():
    code = (
        "import sys; from awareness.index.files.encodings.decoding import decode;"
        "decode('# 默认模式 and so on, déjà'.encode());"
        "print(sorted(n for n in sys.modules if 'charset' in n or 'legacy' in n or 'frequent' in n))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"
