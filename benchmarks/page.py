"""Measure the page of `awareness serve` in a Chromium: first paint, heat map, search as you type.

    python benchmarks/page.py FOLDER [--question TEXT] [--top-k 12] [--rounds 20]

FOLDER is a repository. First paint is the browser's own first contentful paint, in a new context each time. The heat
map's time goes from the request to the frame in which it is painted: all tokens of the memory on the code, and all
layers that read it as an overview. The pass of the model before it, once for each answer, is told apart. A search goes
from the request to the painted hits, after each letter of some questions; the page waits 120 ms for the next letter
before it asks.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import table
from playwright.sync_api import Page, sync_playwright

WORDS = ("connection pool limits", "where are redirects followed", "timeout of a request", "parse the header")
WAIT_MS = 600_000
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--question", default="How are redirects followed, and what limits them?")
    parser.add_argument("--top-k", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with served(options.folder) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        paints = [first_paint(browser, url) for _ in range(options.rounds)]
        page = browser.new_page(viewport={"width": 1360, "height": 860})
        page.set_default_timeout(WAIT_MS)
        page.goto(url)
        size, first, draws, choices = heat(page, options.question, options.top_k, options.rounds)
        searches = search(page, url)
        browser.close()
    rows = [
        ("first paint", *figures(paints)),
        ("heat map, asked for and painted", *figures(draws)),
        ("another head or token", *figures(choices)),
        ("search as you type", *figures(searches)),
    ]
    table(("ms", "n", "median", "p95", "most"), rows)
    print(f"heat map of {size[0]:,} tokens x {size[1]} layers; the first time, with the model's pass: {first:,.0f} ms")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "awareness.cli.app", "serve", str(folder), "--no-open", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def first_paint(browser: Any, url: str) -> float:
    with browser.new_context(viewport={"width": 1360, "height": 860}) as context:
        page = context.new_page()
        page.goto(url)
        page.wait_for_function(PAINT)
        return float(page.evaluate(PAINT))


def heat(page: Page, question: str, top_k: int, rounds: int) -> tuple[tuple[int, int], float, list[float], list[float]]:
    page.wait_for_selector("#question:visible")
    page.fill("#ask-top-k", str(top_k))
    page.fill("#question", question)
    page.press("#question", "Enter")
    page.wait_for_selector(".strip")
    measured(page, "awareness-heat-all", 1)
    for number in range(2, rounds + 2):
        page.evaluate("document.activeElement.blur()")
        page.click("[aria-label='Close the code']")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("1")  # opens the answer's sources, and asks for their attention again
        measured(page, "awareness-heat-all", number)
    first, *draws = measured(page, "awareness-heat-all", rounds + 1)
    heads = page.locator(".heat-controls label:has-text('Head') select")
    for number in range(1, rounds + 1):
        heads.select_option(index=1 + number % 8)
        choices = measured(page, "awareness-heat-choice", number)
    size = page.evaluate("() => { const c = document.querySelector('.strip'); return [c.width, c.height]; }")
    return (size[0], size[1]), first, draws, choices


def search(page: Page, url: str) -> list[float]:
    page.goto(url.partition("#")[0] + "#search")
    count = 0
    for words in WORDS:
        page.fill("#query", "")
        for letter in words:
            page.locator("#query").press_sequentially(letter)
            if letter != " ":
                count += 1
                durations = measured(page, "awareness-search", count)
    return durations[1:]  # the first one opens the index


def measured(page: Page, name: str, count: int) -> list[float]:
    """Milliseconds, once there are this many."""
    entries = f"performance.getEntriesByName('{name}')"
    page.wait_for_function(f"() => {entries}.length >= {count}")
    return [float(value) for value in page.evaluate(f"{entries}.map(entry => entry.duration)")]


def figures(values: list[float]) -> tuple[int, str, str, str]:
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return len(ordered), f"{statistics.median(ordered):.0f}", f"{p95:.0f}", f"{ordered[-1]:.0f}"


if __name__ == "__main__":
    main()
