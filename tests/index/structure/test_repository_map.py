"""The map: what others use comes first, within the tokens, the same every time."""

from __future__ import annotations

from awareness.index.structure.repository_map import RepositoryMap, repository_map
from tests.index.structure.indexed import indexed

FILES = {
    "shop/cart.py": (
        "class ShoppingCart:\n    def add_item(\n        self,\n        item,\n    ):\n        return item\n\n"
        "    def _hidden(self):\n        pass\n\n\ndef unused_helper():\n    pass\n"
    ),
    "shop/orders.py": (
        "from shop.cart import ShoppingCart\n\n\ndef place_order():\n    return ShoppingCart().add_item(1)\n"
    ),
    "shop/views.py": "from shop.orders import place_order\n\n\ndef show_order():\n    return place_order()\n",
    "shop/mail.py": "from shop.cart import ShoppingCart\n\n\ndef send_mail():\n    return ShoppingCart()\n",
    "tests/test_mail.py": "def test_mail():\n    for i in range(9):\n        assert send_mail() and test_mail()\n",
    "lib/Pool.tcl": "proc open_pool {} {\n}\n",
    "README.md": "# Shop\n\nCall `unused_helper()` and `unused_helper()`.\n",
    "data.json": '{"ShoppingCart": 1}',
}


def made(tmp_path, tokens=10_000, in_scope=None) -> RepositoryMap:
    with indexed(tmp_path, FILES) as (store, snapshot):
        return repository_map(
            store, snapshot, tokens=tokens, count_tokens=lambda text: len(text.split()), in_scope=in_scope
        )


def test_everything_fits_into_many_tokens(tmp_path):
    everything = made(tmp_path)
    assert everything.render().split("\n")[:9] == [
        "lib/Pool.tcl",
        "    1 proc open_pool {} {",
        "shop/cart.py",
        "    1 class ShoppingCart:",
        "    2   def add_item(self, item):",
        "    8   def _hidden(self):",
        "   12 def unused_helper():",
        "shop/mail.py",
        "    4 def send_mail():",
    ]
    assert [file.path for file in everything.files] == sorted(path for path in FILES if path[-3:] in (".py", "tcl"))
    assert everything.total_files == 6
    assert everything.tokens == len(everything.render().split())


def test_the_most_used_come_first(tmp_path):
    small = made(tmp_path, tokens=7)
    assert small.render() == "shop/cart.py\n    1 class ShoppingCart:"
    ranks = {file.path: file.rank for file in made(tmp_path).files}
    assert ranks["shop/cart.py"] == max(ranks.values())
    assert ranks["tests/test_mail.py"] < ranks["shop/mail.py"] < ranks["shop/cart.py"]


def test_the_budget_holds_and_the_map_is_the_same_every_time(tmp_path):
    for tokens in range(1, 60, 7):
        one = made(tmp_path, tokens)
        assert one.tokens <= tokens
        assert one == made(tmp_path, tokens)


def test_scope_limits_what_is_shown_and_not_what_counts(tmp_path):
    scoped = made(tmp_path, in_scope=lambda path: path == "shop/cart.py")
    assert [file.path for file in scoped.files] == ["shop/cart.py"]
    assert scoped.files[0].rank == next(file.rank for file in made(tmp_path).files if file.path == "shop/cart.py")


def test_a_repository_without_code_has_an_empty_map(tmp_path):
    with indexed(tmp_path, {"README.md": "# Nothing\n"}) as (store, snapshot):
        assert repository_map(store, snapshot, tokens=99, count_tokens=len) == RepositoryMap((), 0, 0)
