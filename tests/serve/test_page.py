"""The page in a real Chromium: every flow, hostile names and code, keys, screen readers, themes, a phone's width.

Needs Playwright's Python package and a Chromium of the system; skipped without them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import SAMPLE, git, write_tree
from tests.serve.page_server import TOKEN, serving

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright's Python package")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt-get install chromium")

QUESTION = "How does HTTPConnectionPool acquire?"
WAIT_MS = 60_000
AXE = Path(os.environ.get("AXE_CORE", "axe.min.js"))
"""axe-core's script, which is not ours to ship: `npm pack axe-core`."""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Problems(list):
    """What a page must not do: errors of scripts, refused requests of ours to elsewhere, dialogs, blocked content."""

    def watch(self, page, port):
        page.on("pageerror", lambda error: self.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("console", lambda m: self.append(m.text) if "Content Security Policy" in m.text else None)
        page.on(
            "request",
            lambda r: self.append(f"request: {r.url}") if not r.url.startswith(f"http://127.0.0.1:{port}/") else None,
        )


@pytest.fixture
def open_page(browser):
    """A function that opens the page of a server; at the end it must have had no problems."""
    contexts, problems = [], Problems()

    def opened(server, *, token=TOKEN, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        problems.watch(page, server.port)
        page.goto(f"{server.url}/#token={token}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def server(sample, brief_model, tmp_path):
    runs = "".join(f'{{"step": {step}, "loss": {4 / step}, "lr": 0.001}}\n' for step in range(1, 41))
    folder = write_tree(tmp_path / "runs", {"first/log.jsonl": runs, "second/log.jsonl": '{"step": 1, "loss": 1.0}\n'})
    with serving(sample, model=brief_model, runs=folder) as running:
        yield running


def ask(page, question=QUESTION):
    page.wait_for_selector("#question:visible")
    page.fill("#question", question)
    page.keyboard.press("Enter")
    page.wait_for_selector("#ask-status:has-text('answered')")
    page.wait_for_selector(".strip")


def test_a_question_its_source_and_its_heat(server, open_page):
    page = open_page(server)
    ask(page)
    assert "token" not in page.url and page.evaluate("sessionStorage.getItem('awareness.token')") == TOKEN
    places = page.locator(".card .place").all_inner_texts()
    number = next(i for i, text in enumerate(places) if "src/pool.py" in text)
    page.locator(".card .place").nth(number).click()
    page.wait_for_selector(".source.open .rows")
    source = page.locator(".source.open")
    assert "src/pool.py:1-5" in source.locator("h3").inner_text()
    rows = [row.removesuffix("\n") for row in source.locator(".row-of-code").all_text_contents()]
    assert rows == SAMPLE["src/pool.py"].rstrip("\n").split("\n")
    assert source.evaluate("node => node === document.activeElement")
    assert source.locator("[class^=h]").count() > 0  # tokens with a colour
    size = page.evaluate("[document.querySelector('.strip').width, document.querySelector('.strip').height]")
    assert size[0] > 100 and size[1] == 5  # tokens of the memory by the layers of the tiny model that read it


def test_layer_head_and_token_change_the_heat(server, open_page):
    page = open_page(server)
    ask(page)
    seen = [shades(page)]
    layer, head = (page.locator(f".heat-controls label:has-text('{name}') select") for name in ("Layer", "Head"))
    layer.select_option(index=5)
    seen.append(shades(page))
    with page.expect_response("**/attention?*"):
        head.select_option("3")
    page.wait_for_function("before => JSON.stringify(shadesOf()) !== before", arg=seen[-1])
    seen.append(shades(page))
    page.locator("[role=listbox]").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("before => JSON.stringify(shadesOf()) !== before", arg=seen[-1])
    seen.append(shades(page))
    assert page.locator("[role=option][aria-selected=true]").count() == 1
    assert "most on source" in page.locator(".heat-controls [role=status]").inner_text()
    page.keyboard.press("Escape")
    page.wait_for_function("before => JSON.stringify(shadesOf()) === before", arg=seen[2])
    assert len(set(seen)) == 4
    assert page.locator("#reader").is_visible()  # Escape took the token away, not the code


def shades(page):
    of_tokens = "[...document.querySelectorAll('.row-of-code > span:not(.line-number)')].map(s => s.className)"
    page.evaluate(f"() => {{ window.shadesOf = () => {of_tokens}; }}")
    return page.evaluate("JSON.stringify(shadesOf())")


def test_search_as_you_type_and_by_keys_alone(server, open_page):
    page = open_page(server)
    page.wait_for_selector("#question:visible")
    page.keyboard.press("Escape")  # leaves the question
    page.keyboard.press("g")
    page.keyboard.press("s")
    page.wait_for_selector("#query:focus")
    page.keyboard.type("sign_cookie", delay=10)
    page.wait_for_selector("#hits .place")
    assert "hit" in page.inner_text("#search-status")
    page.keyboard.press("ArrowDown")
    first = page.evaluate("document.activeElement.innerText")
    assert "src/auth.py" in first
    page.keyboard.press("Enter")
    page.wait_for_selector("#reader .rows")
    assert "def sign_cookie" in page.inner_text("#reader .rows")
    page.keyboard.press("Escape")
    assert page.locator("#reader").is_hidden() and page.evaluate("document.activeElement.innerText") == first
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#help").is_hidden()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"


def test_the_map_is_reachable_by_keys_and_as_a_table(server, open_page):
    page = open_page(server)
    ask(page)
    page.keyboard.press("Escape")
    page.goto(f"{server.url}/#map")
    page.wait_for_selector("#map-status:has-text('chunk')")
    page.locator("#map").focus()
    seen = set()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp") * 3:
        page.keyboard.press(key)
        seen.add(page.inner_text("#map-file").partition(":")[0])
    assert len(seen) >= 3 and seen <= set(SAMPLE)
    page.keyboard.press("Enter")
    page.wait_for_selector("#reader .rows")
    page.click("#map-as-table summary")
    rows = page.locator("#map-table tbody tr").all_inner_texts()
    assert len(rows) == len(SAMPLE) and "%" in rows[0]  # what the answer read stands first
    lit = page.evaluate(
        "[...document.querySelector('#map').getContext('2d').getImageData(0, 0, 5000, 440).data]"
        ".filter((v, i, all) => i % 4 === 0 && all[i] > all[i + 2] + 60).length"
    )
    assert lit > 50  # pixels of the heat's colour


def test_indexing_a_needle_test_and_curves(server, open_page, sample):
    page = open_page(server)
    page.wait_for_selector("#question:visible")
    source = "".join(f"def function_{i}(value):\n    return [value + {i}, value - {i}, {i}]\n\n\n" for i in range(20))
    write_tree(sample, {"src/many.py": source})
    page.goto(f"{server.url}/#index")
    page.wait_for_selector("#index-facts dd")
    page.fill("#index-minutes", "1")
    page.click("text=Index now")
    page.wait_for_selector("#index-status:has-text('5 files')")
    assert "0 left" in page.inner_text("#index-status")
    page.goto(f"{server.url}/#needle")
    page.wait_for_selector("#needle-shapes option", state="attached")
    page.fill("#needle-samples", "2")
    page.fill("#needle-chunks", "1, 2")
    page.click("#needle-form .main")
    page.wait_for_selector("#needle-result table")
    assert page.locator("#needle-result td").count() == 4 and "found" in page.inner_text("#needle-status")
    page.goto(f"{server.url}/#runs")
    page.wait_for_selector("#chart svg path")
    assert "first: 40 values of loss" in page.inner_text("#runs-status")
    page.select_option("#run", "second")
    page.wait_for_selector("#runs-status:has-text('second: 1 value of loss')")


def test_an_answer_can_be_stopped(server, open_page):
    page = open_page(server)
    page.wait_for_selector("#question:visible")
    with server.shared.repositories.models.lock:  # nothing is generated meanwhile
        page.fill("#question", QUESTION)
        page.keyboard.press("Enter")
        page.wait_for_selector("#ask-stop:visible")
        page.keyboard.press("Escape")
        page.wait_for_selector("#ask-status:has-text('stopped')")
    assert page.locator("#ask-stop").is_hidden()
    ask(page)


def test_a_wrong_token_shows_nothing_but_a_place_to_type_it(server, open_page):
    page = open_page(server, token="wrong")
    page.wait_for_selector("#token:visible")
    assert page.locator("#repository option").count() == 0
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("#question:visible")
    assert page.locator("#repository option").all_inner_texts() == ["sample"]


HOSTILE = {
    "<img src=x onerror=document.title='owned'>.py": (
        "def hostile_markup():\n    return '</span></pre><script>document.title=\"owned\"</script>'\n"
        "# <img src=x onerror=\"document.title='owned'\"> [1](javascript:document.title='owned')\n"
    ),
    "new\nline \u202egnp.py": "def reversed_name():\n    x = 'user\u202e \u2066// admin\u2069'\n    return x\n",
    "astral.py": "def emoji_tokens():\n    # \U0001f600 größer \u200b zero width\n    return '\U0001f600'\n",
}


def test_hostile_names_and_code_are_text(tmp_path, brief_model, open_page):
    root = write_tree(tmp_path / "hostile", HOSTILE)
    not_utf8 = os.fsencode(root) + b"/bytes\xff.py"
    with open(not_utf8, "w", encoding="utf-8") as file:
        file.write("def bytes_name():\n    return 'no UTF-8'\n")
    git(root, "init", "-q")
    expected = {
        "hostile_markup": "</script>'",
        "reversed_name": r"\u2066// admin",
        "emoji_tokens": "\U0001f600",
        "bytes_name": "no UTF-8",
    }
    with serving(root, model=brief_model) as server:
        page = open_page(server)
        page.wait_for_selector("#question:visible")
        for name, text in expected.items():
            page.goto(f"{server.url}/#search")
            page.fill("#query", name)
            page.wait_for_selector(f"#hits li:first-child:has-text('{name}')")
            page.locator("#hits .place").first.click()
            page.wait_for_selector(f"#reader .rows:has-text('{name}')")
            assert text in page.inner_text("#reader .rows")
        assert "\u202e" not in page.inner_text("body") and "\u2066" not in page.inner_text("body")
        page.goto(f"{server.url}/#ask")
        ask(page, "What does hostile_markup return, <b>reversed_name</b> and emoji_tokens?")
        pieces = page.evaluate("[...document.querySelectorAll('.source .rows')].map(r => r.textContent).join('')")
        assert "<script>" in pieces and "\U0001f600" in pieces
        page.goto(f"{server.url}/#map")
        page.wait_for_selector("#map-status:has-text('4 files')")
        page.click("#map-as-table summary")
        names = page.locator("#map-table tbody th").all_inner_texts()
        assert set(names) == {r"new\nline \u202egnp.py", r"bytes\udcff.py", "astral.py", next(iter(HOSTILE))}
        assert page.title() == "Memory · awareness" and page.locator("main img, main script, aside img").count() == 0


@pytest.mark.parametrize("view", ["ask", "search", "map", "index", "needle", "runs"])
def test_a_phone_shows_all_of_it(server, open_page, view):
    page = open_page(server, viewport={"width": 360, "height": 740})
    page.wait_for_selector("#question:visible")
    if view == "ask":
        ask(page)
    page.goto(f"{server.url}/#{view}")
    page.wait_for_selector(f"#view-{view}:visible")
    page.wait_for_timeout(300)
    wide = page.evaluate(
        "[...document.querySelectorAll('body *')].filter(n => n.getBoundingClientRect().right > 361"
        " && !n.closest('.rows, .scroll, .strip-frame, .preview, .skip')).map(n => n.outerHTML.slice(0, 80))"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 360 and wide == []


def test_dark_and_light_follow_the_system_until_chosen(server, open_page):
    page = open_page(server, color_scheme="dark")
    page.wait_for_selector("#question:visible")
    back = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(back)
    page.click("#theme")
    light = page.evaluate(back)
    assert (dark, light) == ("rgb(16, 18, 22)", "rgb(255, 255, 255)")
    page.reload()
    page.wait_for_selector("#question:visible")
    assert page.evaluate(back) == light


@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: npm pack axe-core, and AXE_CORE=…/axe.min.js")
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_nothing(server, open_page, scheme):
    page = open_page(server, color_scheme=scheme)
    ask(page)
    page.evaluate(AXE.read_text("utf-8"))
    for view in ("ask", "search", "map", "index", "needle", "runs"):
        page.goto(f"{server.url}/#{view}")
        page.wait_for_selector(f"#view-{view}:visible")
        if view == "search":
            page.fill("#query", "sign_cookie")
            page.wait_for_selector("#hits .place")
        page.wait_for_timeout(300)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        assert [(view, each["impact"], each["id"], each["nodes"][0]["html"]) for each in found] == []
