"""YAML as a person writes it: keys given twice are found everywhere, and what is no key twice is not."""

from __future__ import annotations

import pytest
import yaml

from awareness.config.yaml_text import BadYaml, read_yaml


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\na: 2\n", "a is given twice, in lines 1 and 2"),
        ("a: {b: 1, c: 2, b: 3}\n", "a.b is given twice, in lines 1 and 1"),
        ("a:\n- b: 1\n- c: 1\n  c: 2\n", "a.c is given twice, in lines 3 and 4"),
        ("a: 1\nb: {c: 1, 'c': 2}\na: 3\n", "a is given twice, in lines 1 and 3; b.c is given twice, in lines 2 and 2"),
    ],
)
def test_a_key_given_twice_is_named_with_its_lines(text, says):
    with pytest.raises(BadYaml) as refused:
        read_yaml(text)
    assert sorted(str(refused.value).split("; ")) == sorted(says.split("; "))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1\nb: {a: 1}\n",
        "a: &x {b: 1}\nc: *x\nd: *x\n",
        "a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}\n",  # a key of its own wins over a merged one
        "a: [1, 2e3, no, ~, 2020-01-01, 'x']\n",
        "{}\n",
    ],
)
def test_what_is_no_key_twice_is_read_as_yaml_reads_it(text):
    assert read_yaml(text) == yaml.safe_load(text)


def test_a_mapping_in_itself():
    read = read_yaml("a: &x\n  b: *x\n")
    assert read["a"]["b"] is read["a"]
