"""A section of a Markdown file that is ours, between two marks: put in at the end, replaced, or taken out."""

from __future__ import annotations

BEGIN, END = "<!-- awareness:begin -->", "<!-- awareness:end -->"


def with_section(text: str, section: str) -> str:
    """Raises ValueError if the marks are incomplete."""
    marked = f"{BEGIN}\n{section.strip()}\n{END}\n"
    found = _found(text)
    if found is not None:
        start, end = found
        return text[:start] + marked + text[end:]
    if not text.strip():
        return marked
    gap = "\n" if text.endswith("\n") else "\n\n"
    return text + gap + marked


def without_section(text: str) -> str:
    """Raises ValueError if the marks are incomplete."""
    found = _found(text)
    if found is None:
        return text
    start, end = found
    before, after = text[:start], text[end:]
    if not after.strip() and before.endswith("\n\n"):
        before = before[:-1]
    return before + after


def _found(text: str) -> tuple[int, int] | None:
    """From the first mark to the end of the line of the last one."""
    if BEGIN not in text and END not in text:
        return None
    start, end = text.find(BEGIN), text.find(END)
    if text.count(BEGIN) != 1 or text.count(END) != 1 or end < start:
        raise ValueError(f"the marks {BEGIN} and {END} are not there once each")
    end += len(END)
    return start, end + (text[end : end + 1] == "\n")
