"""No setting that nothing reads, none that is not documented with the test of its effect, none out of range.

That a setting is read is found in the syntax trees of the package: which names hold which section is told by the
annotations of arguments and of fields, as `config: MemoryConfig`, and by what is assigned from those.
"""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from awareness.config import routers, training
from awareness.config.base import Section
from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.model.checkpoint import Checkpoint

ROOT = Path(__file__).parent.parent
DOCUMENTED = {
    "docs/model.md": (MemoryConfig, ModelConfig),
    "docs/training.md": (training.TrainConfig, training.DataConfig, training.LossConfig, training.TrainingConfig),
}
"""Document -> the sections whose settings its tables have."""
SECTIONS = {
    section.__name__: section
    for section in (MemoryConfig, ModelConfig, *vars(routers).values(), *vars(training).values())
    if isinstance(section, type) and issubclass(section, Section) and section is not Section
}


def without_none(kind: object) -> type | None:
    """`Section | None` -> Section; None for what is no one type."""
    kinds = [one for one in get_args(kind) or (kind,) if one is not type(None)]
    return kinds[0] if len(kinds) == 1 and isinstance(kinds[0], type) else None


KINDS = {
    name: {field: only.__name__ for field, kind in get_type_hints(kind).items() if (only := without_none(kind))}
    for name, kind in {**SECTIONS, "Checkpoint": Checkpoint}.items()
}
"""Section, or what holds some -> its fields and the names of their types."""
CHOOSES_THE_SECTION = {"task"}
"""Read by pydantic itself: the discriminator of config/read.py."""

# What code reads


def kind_of(annotation: ast.expr | None) -> str | None:
    """The section that an annotation names, `MemoryConfig` or `MemoryConfig | None`."""
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)} if annotation else set()
    return next(iter(names & KINDS.keys()), None)


class Reads(ast.NodeVisitor):
    """The (section, name) of every attribute of a section that a module loads."""

    def __init__(self) -> None:
        self.found: set[tuple[str, str]] = set()
        self.names: dict[str, str] = {}
        self.own: dict[str, str] = {}  # attributes of `self`

    def kind(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):  # Checkpoint.read(…)
            return kind_of(node.func.value) if isinstance(node.func.value, ast.Name) else None
        if not isinstance(node, ast.Attribute):
            return None
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return self.own.get(node.attr)
        inner = self.kind(node.value)
        return KINDS.get(inner, {}).get(node.attr) if inner else None

    def visit_arg(self, node: ast.arg) -> None:
        self._call(node.arg, kind_of(node.annotation))

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            both = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            pairs = zip(target.elts, node.value.elts, strict=True) if both else [(target, node.value)]
            for name, value in pairs:
                kind = self.kind(value)
                if isinstance(name, ast.Name):
                    self._call(name.id, kind)
                elif isinstance(name, ast.Attribute) and kind:
                    self.own[name.attr] = kind
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load) and (kind := self.kind(node.value)):
            self.found.add((kind, node.attr))
        self.generic_visit(node)

    def _call(self, name: str, kind: str | None) -> None:
        self.names.pop(name, None)
        if kind:
            self.names[name] = kind


@functools.cache
def reads() -> frozenset[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for path in (ROOT / "awareness").rglob("*.py"):
        if path.parent.name != "config":
            visitor = Reads()
            visitor.visit(ast.parse(path.read_text("utf-8")))
            found |= visitor.found
    return frozenset((kind, name) for kind, name in found if kind in SECTIONS)


@functools.cache
def properties() -> Mapping[tuple[str, str], frozenset[str]]:
    """(section, property) -> what it reads of the section."""
    found = {}
    for path in (ROOT / "awareness/config").glob("*.py"):
        classes = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.ClassDef)]
        for section in (n for n in classes if n.name in SECTIONS):
            for method in section.body:
                if isinstance(method, ast.FunctionDef) and "property" in map(ast.unparse, method.decorator_list):
                    own = [n for n in ast.walk(method) if isinstance(n, ast.Attribute)]
                    of_self = frozenset(n.attr for n in own if ast.unparse(n.value) == "self")
                    found[section.name, method.name] = of_self
    return found


def unread(section: str, names: set[str]) -> set[str]:
    """Those of `names` that no code reads, itself or by a property that it reads."""
    read = {name for kind, name in reads() if kind == section}
    by_properties = [own for (kind, name), own in properties().items() if kind == section and name in read]
    return names - read.union(*by_properties) - CHOOSES_THE_SECTION


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_is_read(section):
    """A known fault: flags that nothing reads."""
    assert unread(section, set(SECTIONS[section].model_fields)) == set()


@pytest.mark.parametrize("section", SECTIONS)
def test_a_setting_that_nothing_reads_would_be_found(section):
    assert unread(section, {"never_read", "hidden_size", "weight"}) == {"never_read", "hidden_size", "weight"}


def test_properties_are_read_and_what_is_read_by_them_alone_is_known():
    names = {"has_memory", "has_bank", "has_lora", "off_switch"}
    assert set(properties()) == {("MemoryConfig", name) for name in names} <= reads()
    by_properties = {"vanilla_mode", "use_memory_adapter", "use_lora", "use_both_memory_and_lora"}
    assert not {("MemoryConfig", name) for name in by_properties} & reads()


def test_code_reads_nothing_that_no_section_has():
    for section, name in reads():
        assert hasattr(SECTIONS[section], name) or name in SECTIONS[section].model_fields, f"{section}.{name}"


# What is documented


def rows(document: str) -> Iterator[tuple[str, str, str]]:
    """(setting, its default, the rest of its row) of the tables whose first column is settings."""
    tables = (ROOT / document).read_text("utf-8").split("| setting |")[1:]
    for table in tables:
        for line in table.splitlines()[2:]:
            if not line.startswith("|"):
                break
            _, name, default, rest = line.split("|", 3)
            yield name.strip(" `"), default.strip(), rest


def named_tests(text: str) -> list[tuple[str, str]]:
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)


@functools.cache
def functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)))


def shown(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.default
    return "{}" if isinstance(default, Section) else json.dumps(str(default) if isinstance(default, Path) else default)


@pytest.mark.parametrize("document", DOCUMENTED)
def test_every_setting_stands_in_a_table_once_with_its_default(document):
    fields = [item for section in DOCUMENTED[document] for item in section.model_fields.items()]
    found = [(name, default) for name, default, _ in rows(document)]
    assert sorted(found) == sorted((name, shown(field)) for name, field in fields)


@pytest.mark.parametrize("document", DOCUMENTED)
def test_every_row_names_the_test_of_its_effect(document):
    for name, _, rest in rows(document):
        assert named_tests(rest), name


@pytest.mark.parametrize("document", DOCUMENTED)
def test_every_test_that_is_named_is_there(document):
    named = named_tests((ROOT / document).read_text("utf-8"))
    assert len(named) > 50
    for path, function in named:
        assert function.startswith("test_") and function in functions(path), f"{path}::{function}"


# What is refused

LIMITS = [
    (MemoryConfig, {"memory_layer_n": 0}, "greater than or equal to 1"),  # a known fault: every_n: 0
    (MemoryConfig, {"memory_layer_k": 0}, "greater than or equal to 1"),
    (MemoryConfig, {"memory_block_variant": "C"}, "'A' or 'B'"),  # a known fault: an unknown variant
    (MemoryConfig, {"memory_form": "sigmoid"}, "'joint' or 'tanh'"),
    (MemoryConfig, {"memory_init": "random"}, "'copy' or 'zero'"),
    (MemoryConfig, {"memory_layer_placement": "middle"}, "'all', 'first_k', 'last_k', 'every_n' or 'custom'"),
    (MemoryConfig, {"memory_sharing": "some"}, "'shared', 'per_layer' or 'every_k_layers'"),
    (MemoryConfig, {"latent_sharing": "some"}, "'shared', 'per_layer' or 'every_k_layers'"),
    (MemoryConfig, {"low_rank_mode": "svd"}, "'factorized' or 'reduced_dim'"),
    (MemoryConfig, {"encoder": "bert"}, "'self' or 'projected'"),
    (MemoryConfig, {"memory_quant_bits": 3}, "8 or 4"),
    (MemoryConfig, {"routing_strategy_train": "word"}, "'sequence', 'rolling', 'token' or 'hybrid'"),
    (MemoryConfig, {"routing_strategy_inference": "word"}, "'sequence', 'rolling', 'token' or 'hybrid'"),
    (MemoryConfig, {"memory_dropout": 1.0}, "less than 1"),
    (MemoryConfig, {"lora_dropout": -0.1}, "greater than or equal to 0"),
    (MemoryConfig, {"memory_init_std": 0.0}, "greater than 0"),
    (MemoryConfig, {"z_loss_coefficient": float("nan")}, "finite number|greater than or equal to 0"),
    (MemoryConfig, {"load_balance_coefficient": -1}, "greater than or equal to 0"),
    (MemoryConfig, {"num_header_tokens": 257}, "less than or equal to 256"),
    (MemoryConfig, {"num_memory_tokens": -1}, "greater than or equal to 0"),
    (MemoryConfig, {"top_k_chapters": 0}, "greater than or equal to 1"),
    (MemoryConfig, {"memory_layers": 3}, "not permitted"),
    (training.TrainingConfig, {"seed": -1}, "greater than or equal to 0"),
    (training.TrainingConfig, {"seed": 2**32}, "less than or equal to 4294967295"),
    (routers.RouterTraining, {"seed": -1}, "greater than or equal to 0"),
    (ModelConfig, {"base_model_name": None, "num_heads": 0}, "greater than or equal to 1"),
    (ModelConfig, {"base_model_name": None, "dropout": 1.0}, "less than 1"),
    (ModelConfig, {"base_model_name": None, "norm_eps": 0}, "greater than 0"),
    (ModelConfig, {"base_model_name": None, "num_head": 8}, "not permitted"),
]

CHAPTERS = {"use_chapters": True}
TOGETHER = [
    (MemoryConfig, {"use_lora": True}, "use_lora: with memory.use_memory_adapter: set memory.use_both_memory_and_lora"),
    (
        MemoryConfig,
        {"use_both_memory_and_lora": True, "use_memory_adapter": False},
        "use_both_memory_and_lora: needs memory.use_memory_adapter: true; for LoRA alone, set memory.use_lora: true",
    ),
    (
        MemoryConfig,
        {"memory_layer_placement": "custom"},
        "memory_layer_placement: custom needs memory.memory_layer_indices",
    ),
    (
        MemoryConfig,
        {"memory_layer_indices": [3]},
        "memory_layer_indices: needs memory.memory_layer_placement: custom",
    ),
    (
        MemoryConfig,
        {"memory_layer_placement": "custom", "memory_layer_indices": [3, 5, 3]},
        "memory_layer_indices: names 3 more than once",
    ),
    (MemoryConfig, {"encoder": "projected", "num_header_tokens": 1}, "num_header_tokens: needs memory.encoder: self"),
    (MemoryConfig, {"encoder": "projected", "num_trailer_tokens": 1}, "num_trailer_tokens: needs memory.encoder: self"),
    (MemoryConfig, {"encoder_model": "minilm"}, "encoder_model: needs memory.encoder: projected"),
    (
        MemoryConfig,
        {**CHAPTERS, "num_memory_tokens": 99},
        "num_chapters: is more than memory.num_memory_tokens 99: a chapter has at least one token",
    ),
    (MemoryConfig, {**CHAPTERS, "num_chapters": 19}, "top_k_chapters: is more than memory.num_chapters 19"),
    (
        MemoryConfig,
        {"use_memory_adapter": False, "use_lora": True, "lora_targets": []},
        "lora_targets: names no projection",
    ),
    (ModelConfig, {"num_layers": 3}, "num_layers: is only for a decoder made from scratch"),
    (ModelConfig, {"base_model_name": None, "hidden_dim": 50}, "hidden_dim: is not divisible by model.num_heads 8"),
    (ModelConfig, {"base_model_name": None, "hidden_dim": 24}, "hidden_dim: divided by model.num_heads 8 is odd: RoPE"),
    (ModelConfig, {"base_model_name": None, "num_kv_heads": 3}, "num_kv_heads: does not divide model.num_heads 8"),
    (training.TrainingConfig, {"max_steps": 5, "warmup_steps": 6}, "warmup_steps: is more than training.max_steps 5"),
    (training.DataConfig, {"sources": ["a"], "kinds": {"constant": 0}}, "kinds: every weight is 0"),
    (training.TrainConfig, {}, "data: set either data: (repositories) or training.dataset_name (a data set)"),
]


def refused(section: type[Section], settings: dict) -> str:
    with pytest.raises(ValidationError) as error:
        section(**settings)
    (only,) = error.value.errors()
    return f"{'.'.join(map(str, only['loc']))}: {only['msg']}"


@pytest.mark.parametrize(("section", "settings", "says"), LIMITS, ids=lambda value: str(value))
def test_values_out_of_range_are_refused_with_key_and_limit(section, settings, says):
    message = refused(section, settings)
    assert message.startswith(f"{list(settings)[-1]}: ") and re.search(says, message)


@pytest.mark.parametrize(("section", "settings", "says"), TOGETHER, ids=lambda value: str(value))
def test_settings_that_do_not_go_together_are_refused(section, settings, says):
    assert says in refused(section, settings)


def test_every_conflict_has_a_case():
    """The longest text of each Conflict in the sections stands in what is said in a case."""
    reasons = []
    for name in ("memory.py", "decoder.py", "training.py"):
        tree = ast.parse((ROOT / "awareness/config" / name).read_text("utf-8"))
        for node in (n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "Conflict"):
            texts = [n.value for n in ast.walk(node.args[1]) if isinstance(n, ast.Constant)]
            reasons.append(max(texts, key=len))
    assert len(reasons) == 17
    said = [refused(section, settings) for section, settings, _ in TOGETHER]
    for reason in reasons:
        assert any(reason in one for one in said), reason


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        (MemoryConfig, {}),
        (MemoryConfig, {"use_memory_adapter": False, "use_lora": True}),
        (MemoryConfig, {"vanilla_mode": True, "use_lora": True}),
        (MemoryConfig, {"use_both_memory_and_lora": True, "use_lora": True}),
        (MemoryConfig, {"memory_layer_placement": "custom", "memory_layer_indices": [3]}),
        (MemoryConfig, {"encoder": "projected", "encoder_model": "all-minilm-l6-v2"}),
        (MemoryConfig, {**CHAPTERS, "num_memory_tokens": 100, "top_k_chapters": 100}),
        (MemoryConfig, {"num_memory_tokens": 0}),  # fewer than num_chapters, which nothing uses
        (training.TrainingConfig, {"max_steps": 5}),  # fewer than the default of warmup_steps
        (ModelConfig, {"freeze_base_model": False, "use_flash_attention": False}),
        (ModelConfig, {"base_model_name": None, "hidden_dim": 24, "use_rope": False}),
        (ModelConfig, {"base_model_name": None, "num_kv_heads": 2}),
    ],
)
def test_settings_that_go_together(section, settings):
    assert section(**settings).model_dump(exclude_unset=True) == {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
