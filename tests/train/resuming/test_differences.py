"""Differences between two runs, key by key."""

from __future__ import annotations

import copy
import shlex

from awareness.config.read import read_config
from awareness.train.preparation import settings_about
from awareness.train.resuming.differences import changed_split, differences, is_same_batch, restored

SOURCE = {"name": "one", "split": "train", "size": 9, "digest": "a"}


def about(config_file, *settings, **groups):
    known = {"base": "f1", "memory": "m1", "data": "d1", "sources": [SOURCE, {**SOURCE, "name": "two"}]}
    return {**settings_about(read_config(config_file, list(settings))), **known, **groups}


def lines(saved, now):
    return [difference.line for difference in differences(saved, now)]


def test_equal_runs_have_none(config_file):
    assert differences(about(config_file), about(config_file)) == []


def test_every_key_is_named_with_its_full_path_and_the_hint_brings_it_back(config_file):
    saved = about(config_file)
    model = f"model={{base_model_name: {saved['settings']['model']['base_model_name']}, freeze_base_model: false}}"
    changed = [model, "training.lora_lr=0.5", "memory.lora_targets=[q_proj]", "losses.citation_coefficient=0.5"]
    changed += ["training.seed=3", "training.max_steps=9", "training.batch_size=1", "data.chunks=[2]"]
    changed += ["training.mixed_precision=bf16", "data.kinds.constant=2", "start_from=other"]
    found = differences(saved, about(config_file, *changed))
    assert [d.line for d in found] == [
        'start_from was null, now "other"',
        "model.freeze_base_model was true, now false",
        'memory.lora_targets was ["q_proj", "k_proj", "v_proj", "o_proj"], now ["q_proj"]',
        "losses.citation_coefficient was 0.0, now 0.5",
        "data.chunks was [1, 3], now [2]",
        "training.lora_lr was 0.0003, now 0.5",
        'training.mixed_precision was "no", now "bf16"',
        "training.max_steps was 8, now 9",
        "training.seed was 0, now 3",
        "data.kinds.constant was 1.0, now 2.0",
        "training.batch_size was 2, now 1",
    ]
    options = shlex.split(restored(found))
    assert options[::2] == ["--set"] * len(found)
    assert differences(saved, about(config_file, *changed, *options[1::2])) == []


def test_kinds_that_came_or_went_or_moved_are_brought_back_together(config_file):
    saved = about(config_file)
    now = about(config_file, "data.kinds={which: 1, url: 1}")
    assert lines(saved, now) == [
        "data.kinds.constant was 1.0, now absent",
        "data.kinds.multi_value was 1.0, now absent",
        "data.kinds.url was absent, now 1.0",
    ]
    (option,) = dict.fromkeys(d.setting for d in differences(saved, now))
    assert differences(saved, about(config_file, "data.kinds={which: 1, url: 1}", option)) == []
    moved = about(config_file, "data.kinds={which: 1, constant: 1, multi_value: 1}")
    assert lines(saved, moved) == [
        "data.kinds: the order was constant, multi_value, which, now which, constant, multi_value"
    ]


def test_a_setting_of_a_newer_version_is_no_difference_at_its_default(config_file):
    saved = about(config_file)
    old = copy.deepcopy(saved)
    del old["rates"]["gate_lr"], old["rates"]["warmup_steps"]
    del old["settings"]["memory"]["lora_rank"], old["samples"]["written"]
    for group in ("precision", "texts", "reading", "sources"):  # groups that older checkpoints do not have
        del old[group]
    defaults = ["training.gate_lr=0.02", "memory.lora_rank=16"]
    later = about(config_file, *defaults)
    later["rates"]["warmup_steps"] = 20  # the default, more than this short run has
    assert differences(old, later) == []
    later["samples"]["written"] = 3
    assert lines(old, later) == ["data.written was 0, now 3"]
    assert lines(old, saved) == ["memory.lora_rank was 16, now 4", "training.warmup_steps was 20, now 1"]


def test_a_setting_that_is_gone_is_named(config_file):
    saved = about(config_file)
    saved["settings"]["memory"]["number_of_wheels"] = 4
    assert lines(saved, about(config_file)) == [
        "memory.number_of_wheels was 4; this version of the program has no such setting"
    ]


def test_a_source_that_changed_on_disk_is_named(config_file):
    saved = about(config_file)
    two = {**SOURCE, "name": "two"}
    for sources, expected in {
        "edited": ([SOURCE, {**two, "digest": "b"}], ["two has changed"]),
        "grown": ([SOURCE, {**two, "digest": "b", "size": 12}], ["two has changed: 9 were read, now 12"]),
        "gone and new": ([two, {**SOURCE, "name": "six"}], ["one is gone", "six is new"]),
        "other side": ([SOURCE, {**two, "split": "validation"}], ["two was for train, now for validation"]),
        "moved": ([two, SOURCE], ["the order was one, two, now two, one"]),
    }.values():
        found = differences(saved, about(config_file, sources=sources))
        assert [d.line for d in found] == [f"data.sources: {line}" for line in expected]
        assert restored(found) == ""


def test_what_the_counts_of_the_sources_say_does_not_matter_if_their_text_is_the_same(config_file):
    assert differences(about(config_file), about(config_file, data="d2")) == []
    old = about(config_file)
    del old["sources"]
    assert lines(old, about(config_file, data="d2")) == ["data.sources: what is read from them is not what it was"]


def test_a_setting_that_changes_what_is_read_is_named_instead_of_the_sources(config_file):
    other = [{**SOURCE, "digest": "c"}, {**SOURCE, "name": "two", "digest": "d"}]
    for setting, line in {
        "data.chunk_tokens=64": "data.chunk_tokens was 100, now 64",
        "training.seed=7": "training.seed was 0, now 7",
    }.items():
        assert lines(about(config_file), about(config_file, setting, sources=other)) == [line]
    assert differences(about(config_file), about(config_file, "data.chunk_tokens=64")) == []  # reads the same


def test_a_base_model_is_compared_by_its_weights(config_file):
    saved = about(config_file)
    name = saved["settings"]["model"]["base_model_name"]
    assert differences(saved, about(config_file, "model=elsewhere")) == []
    found = differences(saved, about(config_file, "model=elsewhere", base="f2", memory="m2"))
    assert [d.line for d in found] == [f'model.base_model_name was "{name}", now "elsewhere"']
    options = shlex.split(restored(found))
    assert differences(saved, about(config_file, *options[1:])) == []
    assert lines(saved, about(config_file, base="f2")) == [
        f'model.base_model_name: the weights of "{name}" were f1, now they are f2'
    ]
    assert lines(saved, about(config_file, memory="m2")) == ["latents were m1, now they are m2"]


def test_a_part_is_compared_before_anything_is_read(config_file):
    part = settings_about(read_config(config_file, ["training.seed=3", "model=elsewhere"]))
    assert lines(about(config_file), part) == ["training.seed was 0, now 3"]


def test_a_step_of_as_many_samples_is_the_same(config_file):
    other = ["training.batch_size=1", "training.gradient_accumulation_steps=2"]
    assert differences(about(config_file), about(config_file, *other)) == []
    assert lines(about(config_file), about(config_file, *other, "training.num_gpus=3")) == [
        "training.batch_size was 2, now 1",
        "training.gradient_accumulation_steps was 1, now 2",
        "training.num_gpus was 1, now 3",
    ]


def test_what_counts_as_the_same_batch():
    assert is_same_batch([4, 1, 1], [2, 1, 2]) and is_same_batch([4, 1, 1], [1, 4, 1])
    assert not is_same_batch([4, 1, 1], [4, 1, 2]) and not is_same_batch(None, [4, 1, 2])
    saved = {"batch": [4, 1, 1]}
    assert changed_split(saved, {"batch": [4, 1, 1]}) is None
    assert "2 x 1 x 2, which were 4 x 1 x 1" in (changed_split(saved, {"batch": [2, 1, 2]}) or "")
