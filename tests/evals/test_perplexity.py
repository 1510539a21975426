"""Lines that rest on another file: which ones are found, what is read for them, and what perplexity is made of."""

from __future__ import annotations

import math
import re

import pytest

from awareness.errors import UsageError
from awareness.evals.perplexity import perplexity, read_lines
from awareness.evals.readers import Reader
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import fuse
from awareness.model.load import Decoder
from awareness.model.model_files import ModelFolder
from awareness.train.samples.next_lines import make_cases
from tests.conftest import tiny_model, tiny_tokenizer

SHAPES = (
    "class Polygon:\n    def surface_area(self, unit):\n        return unit * 2\n\n\n"
    "def build_polygon(corners):\n    return Polygon(corners)\n"
)
COLORS = "def blend_colors(one, other):\n    mixed = one + other\n    return mixed // 2\n"
USES = (
    "import json\nfrom shop.shapes import Polygon, build_polygon\nfrom shop import colors\n\n\n"
    "def draw(figure, ink):\n    first = 1\n    figure.begin()\n    area = figure.surface_area(first)\n"
    "    return area\n\n\n"
    "def tint(ink):\n    paper = 2\n    paper += 1\n    return colors.blend_colors(ink, paper)\n"
)
FILES = {
    "shop/__init__.py": "",
    "shop/shapes.py": SHAPES,
    "shop/colors.py": COLORS,
    "shop/uses.py": USES,
    **{f"shop/fill{i}.py": f"def filler_{i}(value):\n    total = value + {i}\n    return total\n" for i in range(4)},
}


def starts(text: str) -> list[int]:
    return [found.start() for found in re.finditer(r"\w+|[^\w\s]", text)]


def cases_of(files: dict[str, str], chunks: int = 2, seed: int = 0) -> dict:
    cases = make_cases(files, starts, samples=99, chunks=chunks, chunk_tokens=40, seed=seed)
    return {case.name: case for case in cases}


def test_lines_that_rest_on_another_file_are_found():
    found = cases_of(FILES)
    assert set(found) == {"surface_area", "blend_colors"}  # build_polygon and Polygon are imported, and not used
    case = found["surface_area"]
    assert case.place == "shop/uses.py:9"
    assert case.sample.context.endswith("    figure.begin()\n    ")
    assert case.sample.answer == "area = figure.surface_area(first)\n" and case.sample.question == ""
    assert case.named.context + case.named.answer == case.sample.context + "area = figure.surface_area"
    returned = found["blend_colors"].sample
    assert returned.answer == "return colors.blend_colors(ink, paper)\n"
    assert found["blend_colors"].named.answer == "blend_colors"


def test_gold_defines_the_name_and_nothing_else_that_is_read_has_it():
    for case in cases_of(FILES, chunks=3).values():
        (gold,) = case.sample.gold
        assert [i for i, text in enumerate(case.sample.texts) if case.name in text] == [gold]
        assert f"def {case.name}(" in case.sample.texts[gold]
        assert len(case.shuffled) == len(case.sample.texts) == 3
        assert not any(case.name in text or "uses.py" in text for text in case.shuffled)
        assert not any("uses.py" in text for text in case.sample.texts)
        assert case.name not in case.sample.context


def test_the_control_never_shows_the_line_itself():
    more = "from shop import uses\n\n\ndef more(a):\n    b = a\n    b += 1\n    return uses.tint(b)\n"
    every = [cases_of(FILES | {"shop/more.py": more}, seed=seed) for seed in range(6)]
    both = [found["surface_area"] for found in every if {"surface_area", "tint"} <= set(found)]
    assert both  # tint is defined in the file of the other's line
    assert not any("uses.py" in text for case in both for text in case.shuffled)


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("shop/fill0.py", "filler_0", "surface_area"),  # two definitions
        ("shop/fill0.py", "total", "surface_area"),  # a variable of that name
        ("shop/uses.py", "first = 1", "first = figure.surface_area"),  # seen above already
        ("shop/uses.py", "    first = 1\n    figure.begin()\n", ""),  # no lines above
        ("shop/uses.py", "from shop.shapes import", "from elsewhere import"),  # somebody else's
        ("shop/shapes.py", "surface_area", "items"),  # what any dict has
    ],
)
def test_what_is_not_certain_is_no_case(path, old, new):
    files = FILES | {path: FILES[path].replace(old, new)}
    if new == "items":
        files["shop/uses.py"] = USES.replace("surface_area", "items")
    # another line to go on with, whose chunks are the control of the rest
    files["shop/more.py"] = "from shop import tail\n\n\ndef more(a):\n    b = a\n    b += 1\n    tail.last_one(b)\n"
    files["shop/tail.py"] = "def last_one(thing):\n    kept = thing\n    return kept\n"
    assert set(cases_of(files)) == {"blend_colors", "last_one"}


def test_a_space_belongs_to_the_name_behind_it():
    files = FILES | {"shop/uses.py": USES.replace("area = figure.surface_area(first)", "return build_polygon(first)")}
    named = cases_of(files)["build_polygon"].named
    assert named.answer == " build_polygon" and named.context.endswith("\n    return")


def test_cases_repeat_by_seed():
    assert cases_of(FILES, seed=1) == cases_of(FILES, seed=1)
    assert any(cases_of(FILES, seed=1) != cases_of(FILES, seed=i) for i in range(2, 6))


def test_without_cases_the_numbers_are_said():
    with pytest.raises(UsageError, match="2 uses of another file's definition, and no two of them make cases of 60"):
        cases_of(FILES, chunks=60)


def test_perplexity_weighs_cases_by_tokens():
    found = perplexity([(2.0, 1), (4.0, 5)], seed=0)
    assert found.mean == pytest.approx(math.exp(1.0))
    assert (found.low, found.high) == (pytest.approx(math.exp(0.8)), pytest.approx(math.exp(2.0)))
    assert perplexity([(3.0, 3)] * 4, seed=0).low == pytest.approx(math.e)


def test_every_reader_reads_under_its_conditions():
    decoder = Decoder(fuse(tiny_model("qwen3")), tiny_tokenizer(), ModelFolder("tiny", FILES, "tiny"))
    encoder = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint="tiny")
    joint = Reader("joint", "memory", decoder, encoder)
    readers = {"none": Reader("none", "none", decoder), "text": Reader("text", "text", decoder), "joint": joint}
    cases = list(cases_of(FILES).values())
    decoder.model.config.max_position_embeddings = 2048
    fitting, likelihoods = read_lines(list(readers.values()), cases)
    assert fitting == cases and len(cases) == 2
    conditions = ("gold", "shuffled", "none")
    both = [(name, condition) for name in ("text", "joint") for condition in conditions]
    assert list(likelihoods) == [("none", "none"), *both]
    assert likelihoods["none", "none"] == likelihoods["text", "none"] == likelihoods["joint", "none"]
    for name in ("text", "joint"):
        for place, case in enumerate(cases):
            found = [likelihoods[name, condition][place] for condition in conditions]
            assert len({likelihood.line for likelihood in found}) == 3
            texts = (case.sample.texts, case.shuffled, ())
            assert [likelihood.line for likelihood in found] == [
                readers[name].nll(case.sample, texts=own) for own in texts
            ]
            assert found[0].name == readers[name].nll(case.named, texts=case.sample.texts)
    with pytest.raises(UsageError, match="none of 2 cases fits"):
        decoder.model.config.max_position_embeddings = 16
        read_lines(list(readers.values()), cases)
