"""Bytes -> text, everywhere the same way."""

from __future__ import annotations


def decode(data: bytes) -> str:
    """Bytes -> text, everywhere: UTF-8 with U+FFFD for other bytes, without BOM, CRLF becomes LF."""
    return data.decode("utf-8", errors="replace").removeprefix("\ufeff").replace("\r\n", "\n")
