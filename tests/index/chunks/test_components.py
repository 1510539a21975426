"""Vue, Svelte, Astro and HTML: scripts in their language under the component's name, rows with their own numbers."""

from __future__ import annotations

import re

import pytest

from awareness.index.chunks.chunking import chunk_file

VUE = """\
<template>
  <ul class="cart">
    <li v-for="item in items" :key="item.id">{{ item.name }} for {{ item.price }}</li>
  </ul>
</template>

<script setup lang="ts">
import { ref } from "vue";

export function useCart(owner: string): Cart {
  const items = ref<Item[]>([]);
  return { owner, items, total: () => items.value.length };
}
</script>

<style scoped>
.cart { color: red; margin: 0; padding: 0; border: none; }
.cart li { list-style: none; float: left; width: 12px; }
</style>
"""


def words(text):
    return [match.start() for match in re.finditer(r"\w+|[^\w\s]", text)]


def spans(path, text, max_tokens):
    chunks = chunk_file(path, text, words, max_tokens=max_tokens)
    lines = text.split("\n")
    assert all(chunk.text == "\n".join(lines[chunk.start_line - 1 : chunk.end_line]) for chunk in chunks)
    return [(chunk.start_line, chunk.end_line, chunk.symbol) for chunk in chunks]


@pytest.mark.parametrize("max_tokens", [80, 1000])
def test_blocks_of_a_component_are_chunks_however_small_it_is(max_tokens):
    assert spans("src/Cart.vue", VUE, max_tokens) == [
        (1, 5, "Cart > <template>"),
        (7, 14, "Cart.useCart"),
        (16, 19, "Cart > <style>"),
    ]


def test_svelte_and_astro():
    script = "function total(items) {\n  return items.reduce((sum, item) => sum + item.price, 0);\n}\n"
    markup = "<ul>\n  <li>one and two and three</li>\n  <li>four and five and six</li>\n</ul>\n"
    assert spans("Cart.svelte", f"<script>\n{script}</script>\n\n{markup}", 48) == [
        (1, 5, "Cart.total"),
        (7, 10, "Cart"),
    ]
    assert spans("Cart.astro", f"---\n{script}---\n\n{markup}", 48) == [(1, 5, "Cart.total"), (7, 10, "Cart")]


def test_a_page_has_no_name_but_its_scripts_have():
    script = "    function total(items) {\n      return items.reduce((a, b) => a + b.price, 0);\n    }\n"
    text = (
        f"<html>\n<body>\n  <p>one and two and three and four</p>\n  <script>\n{script}  </script>\n</body>\n</html>\n"
    )
    assert spans("cart.html", text, 54) == [(1, 3, ""), (4, 8, "total"), (9, 10, "")]


@pytest.mark.parametrize("tag", ["<script>\n", "<template>\n", "<style>\n", "<script\n", "---\n"])
@pytest.mark.parametrize("path", ["A.vue", "A.svelte", "A.astro", "a.html"])
def test_blocks_without_an_end(path, tag):
    text = tag * 2000
    assert sum(stop - start + 1 for start, stop, _ in spans(path, text, 256)) == 2000


def test_a_tag_over_several_lines():
    script = "function total(items: Item[]): number {\n  return items.length;\n}\n"
    text = f'<script\n  setup\n  lang="ts"\n>\n{script}</script>\n'
    assert spans("Cart.vue", text, 48) == [(1, 8, "Cart.total")]
