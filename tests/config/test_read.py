"""What is wrong in a training file is named: every setting, with its value, and a hint that works when it is typed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from awareness.cli.app import run
from awareness.config.read import read_config
from awareness.errors import UsageError

DATA = "training: {dataset_name: x.jsonl}\n"


@pytest.fixture
def refused(tmp_path, capfd, monkeypatch):
    """The lines of the error that the command prints for a file, and its hint."""
    monkeypatch.chdir(tmp_path)

    def refused(text: str, *settings: str, command: tuple[str, ...] = ("train",)) -> tuple[list[str], str]:
        Path("t.yaml").write_text(text)
        sets = [part for setting in settings for part in ("--set", setting)]
        assert run([*command, "--config", "t.yaml", *sets]) == 2
        out, err = capfd.readouterr()
        first, *lines, hint = err.splitlines()
        assert out == "" and first.startswith("error: t.yaml: ") and hint.startswith("  try: ")
        return [first.removeprefix("error: t.yaml: "), *(line.removeprefix("  ") for line in lines)], hint[
            len("  try: ") :
        ]

    return refused


def typed(hint: str) -> list[str]:
    """The settings of a hint, as a shell gives them to the command."""
    words = shlex.split(hint)
    assert words[::2] == ["--set"] * (len(words) // 2)
    return words[1::2]


ONE = [
    ("memory: {num_memory_tokens: -1}", "memory.num_memory_tokens: must be greater than or equal to 0 (got -1)"),
    ("memory: {lora_rank: 0}", "memory.lora_rank: must be greater than or equal to 1 (got 0)"),
    ("memory: {lora_rank: ten}", "memory.lora_rank: must be a valid integer (got 'ten')"),
    ("memory: {memory_dropout: 1.5}", "memory.memory_dropout: must be less than 1 (got 1.5)"),
    ("memory: {memory_init_std: .nan}", "memory.memory_init_std: must be"),
    ("memory: {memory_block_variant: C}", "memory.memory_block_variant: must be 'A' or 'B' (got 'C')"),
    ("memory: {memory_quant_bits: 3}", "memory.memory_quant_bits: must be 8 or 4 (got 3)"),
    ("memory: {routing_window_size: 0}", "memory.routing_window_size: must be greater than or equal to 1 (got 0)"),
    ("memory: {use_lora: maybe}", "memory.use_lora: must be a valid boolean"),
    ("memory: {lora_targets: q_proj}", "memory.lora_targets: must be a valid list (got 'q_proj')"),
    (
        "memory: {memory_layer_placement: custom, memory_layer_indices: [3, -1]}",
        "memory.memory_layer_indices[1]: must be greater than or equal to 0 (got -1)",
    ),
    (
        "memory: {memory_layer_placement: custom, memory_layer_indices: [3, 5, 3]}",
        "memory.memory_layer_indices: names 3 more than once (got [3, 5, 3])",
    ),
    (
        "memory: {use_chapters: true, num_memory_tokens: 64}",
        "memory.num_chapters: is more than memory.num_memory_tokens 64: a chapter has at least one token (got 100, the"
        " default)",
    ),
    (
        "memory: {use_chapters: true, num_chapters: 8, top_k_chapters: 9}",
        "memory.top_k_chapters: is more than memory.num_chapters 8 (got 9)",
    ),
    ("memory: {use_both_memory_and_lora: true, lora_targets: []}", "memory.lora_targets: names no projection (got [])"),
    (
        "memory: {use_lora: true}",
        "memory.use_lora: with memory.use_memory_adapter: set memory.use_both_memory_and_lora",
    ),
    ("memory: 5", "memory: is a section: its settings stand below it, as KEY: VALUE (got 5)"),
    ("model: {num_layers: 3}", "model.num_layers: is only for a decoder made from scratch"),
    ("losses: {kl_temperature: 0}", "losses.kl_temperature: must be greater than 0 (got 0)"),
    ("start_from: [a]", "start_from: "),
]
"""Above the section `training:`, which is right."""
OF_TRAINING = [
    ("seed: -1", "training.seed: must be greater than or equal to 0 (got -1)"),
    ("seed: 4294967296", "training.seed: must be less than or equal to 4294967295 (got 4294967296)"),
    ("warmup_steps: 301", "training.warmup_steps: is more than training.max_steps 300 (got 301)"),
    ("save_steps: 0", "training.save_steps: must be greater than or equal to 1 (got 0)"),
    ("memory_lr: fast", "training.memory_lr: must be a valid number (got 'fast')"),
    ("memory_lr: -1e-3", "training.memory_lr: must be greater than or equal to 0 (got '-1e-3')"),
    ("max_steps: 1e4", "training.max_steps: must be a valid integer (got '1e4')"),
    ("max_steps: 2.5", "training.max_steps: must be a valid integer, got a number with a fractional part (got 2.5)"),
    ("wandb_run_name: 2024", "training.wandb_run_name: must be a valid string (got 2024)"),
    ("mixed_precision: FP32", "training.mixed_precision: must be 'no', 'bf16' or 'fp16' (got 'FP32')"),
    ("optimizer: adamww", "training.optimizer: must be 'adamw', 'adafactor' or 'sgd' (got 'adamww')"),
    (
        "scheduler: off",
        "training.scheduler: must be 'cosine', 'linear' or 'constant'; YAML reads a bare yes, no, on or off as true or"
        " false (got false)",
    ),
]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        *((f"{text}\n{DATA}", says) for text, says in ONE),
        *((f"training:\n  dataset_name: x.jsonl\n  {text}\n", says) for text, says in OF_TRAINING),
    ],
    ids=[text for text, _ in (*ONE, *OF_TRAINING)],
)
def test_a_wrong_setting_is_named_and_the_hint_works(refused, text, says):
    (line,), hint = refused(text)
    assert line.startswith(says)
    if says.startswith("memory: is a section"):
        assert hint == "correct memory in t.yaml"
    else:
        read_config(Path("t.yaml"), typed(hint))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("memory: {lora_rank: 0}", "memory.lora_rank=1"),
        ("memory: {use_chapters: true, num_memory_tokens: 64}", "memory.num_memory_tokens=100"),
        (
            "memory: {memory_layer_placement: custom, memory_layer_indices: [3, -1]}",
            "memory.memory_layer_indices=[3, 0]",
        ),
        ("memory: {lora_targets: q_proj}", "memory.lora_targets=[q_proj]"),
        ("memory: {memory_sharing: per-layers}", "memory.memory_sharing=per_layer"),
    ],
)
def test_the_value_of_a_hint_is_near_the_given_one(refused, text, value):
    assert typed(refused(f"{text}\n{DATA}")[1]) == [value]


def test_a_value_of_training_near_the_given_one(refused):
    settings = ["max_steps=1e4", "wandb_run_name=2024", "mixed_precision=float32", "optimizer=AdamW_torch"]
    lines, hint = refused(DATA, *(f"training.{setting}" for setting in settings))
    assert lines[0] == "4 settings are wrong" and len(lines) == 5
    names = ["max_steps=10000", "wandb_run_name='2024'", "mixed_precision=no", "optimizer=adamw"]
    assert typed(hint) == [f"training.{name}" for name in names]
    read = read_config(Path("t.yaml"), typed(hint)).training
    assert (read.max_steps, read.wandb_run_name, read.mixed_precision) == (10_000, "2024", "no")


ALL = """\
losses: {answer_coefficient: -1}
training:
  warmup_steps: 400
  seed: -1
  optimizer: adamm
memory:
  top_k_chapters: 200
  num_memory_tokens: 50
  use_lora: true
  lora_rank: 0
  use_chapters: true
data:
  kinds: {constant: -2}
"""


def test_all_errors_at_once_in_the_order_of_the_file(refused):
    """Of fields and of what does not go together, in one section and in several."""
    lines, _ = refused(ALL)
    assert lines[0] == "10 settings are wrong"
    assert [line.partition(": ")[0] for line in lines[1:]] == [
        "losses.answer_coefficient",
        "training.warmup_steps",
        "training.seed",
        "training.optimizer",
        "memory.top_k_chapters",
        "memory.use_lora",
        "memory.lora_rank",
        "memory.num_chapters",
        "data.kinds.constant",
        "data.sources",
    ]


def test_what_hangs_on_a_wrong_setting_is_not_blamed(refused):
    lines, _ = refused(f"memory: {{use_chapters: true, num_chapters: 0, top_k_chapters: 5}}\n{DATA}")
    assert len(lines) == 1 and lines[0].startswith("memory.num_chapters: must be")


def test_several_errors_are_corrected_by_one_line(refused):
    lines, hint = refused(f"memory: {{use_chapters: true, num_memory_tokens: 64, use_lora: true}}\nseed: 3\n{DATA}")
    assert len(lines) == 4 and "seed: no such setting; seed belongs to training: (got 3)" in lines
    order, _, sets = hint.partition("; ")
    assert order == "in t.yaml, write seed under training:"
    text = Path("t.yaml").read_text()
    Path("t.yaml").write_text(text.replace("seed: 3\n", "").replace("jsonl}", "jsonl, seed: 3}"))
    assert read_config(Path("t.yaml"), typed(sets)).training.seed == 3


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        (
            "memory: {lora_rnk: 4}",
            "memory.lora_rnk: no such setting; did you mean lora_rank? (got 4)",
            "in t.yaml, write lora_rank instead of lora_rnk",
        ),
        (
            "losses: {lora_rank: 4}",
            "losses.lora_rank: no such setting; lora_rank belongs to memory: (got 4)",
            "in t.yaml, write lora_rank under memory:",
        ),
        (
            "losses: {lora-rnk: 4}",
            "losses.lora-rnk: no such setting; did you mean memory.lora_rank? (got 4)",
            "in t.yaml, write lora_rank under memory:",
        ),
        (
            "memory: {output_dir: a}",
            "memory.output_dir: no such setting; output_dir belongs to the top of the file (got 'a')",
            "in t.yaml, write output_dir at the top",
        ),
        (
            "memory.lora_rank: 4",
            "memory.lora_rank: no such setting, as names have no dots; lora_rank belongs to memory: (got 4)",
            "in t.yaml, write lora_rank under memory:",
        ),
        ("weather: fine", "weather: no such setting (got 'fine')", "remove weather from t.yaml"),
        (
            "memori: {}",
            "memori: no such setting; did you mean memory? (got {})",
            "in t.yaml, write memory instead of memori",
        ),
        ("3: a", "3: is not the name of a setting", "correct 3 in t.yaml"),
    ],
)
def test_an_unknown_setting_gets_the_nearest_known_one(refused, text, line, hint):
    assert refused(f"{text}\n{DATA}") == ([line], hint)


def test_an_unknown_setting_of_the_command_line_is_typed_anew(refused):
    (line,), hint = refused(DATA, "memory.lora_rnk=4")
    assert line == "memory.lora_rnk: no such setting; did you mean lora_rank? (got 4)"
    assert typed(hint) == ["memory.lora_rank=4"]


def test_an_unknown_setting_is_named_with_the_file_that_has_it(refused):
    Path("base.yaml").write_text(f"memory: {{lora_rnk: 4}}\n{DATA}")
    _, hint = refused("extends: base.yaml\nmemory: {lora_alpha: 8}\n")
    assert hint == "in base.yaml, write lora_rank instead of lora_rnk"


@pytest.mark.parametrize("command", [("train",), ("train", "find-lr"), ("eval", "compare")])
def test_every_command_that_reads_files_says_the_same(refused, command):
    (line,), hint = refused(f"memory: {{lora_rank: 0}}\n{DATA}", command=command)
    assert line == "memory.lora_rank: must be greater than or equal to 1 (got 0)" and typed(hint) == [
        "memory.lora_rank=1"
    ]


# The task


def test_a_missing_task_is_memory(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(DATA)
    assert read_config(path, []).task == "memory"
    path.write_text("task: Router\ndata: {folders: [a]}\n")
    assert read_config(path, []).task == "router"


def test_an_unknown_task_names_the_known_ones(refused):
    lines, hint = refused(f"task: memry\n{DATA}")
    assert lines == ["task: there is no such task (got 'memry'); known: router, memory"]
    assert read_config(Path("t.yaml"), typed(hint)).task == "memory"


def test_a_router_without_its_task(refused):
    lines, hint = refused("data: {folders: [a]}\n")
    assert len(lines) == 4 and read_config(Path("t.yaml"), typed(hint)).task == "router"


def test_a_router_has_hints_too(refused):
    assert typed(refused("task: router\n")[1]) == ["data.folders=[./*]"]
    lines, hint = refused("task: router\ndata: {folders: []}\noutput: x.bin\n")
    assert lines[1:] == [
        "data.folders: must have at least 1 item (got [])",
        "output: the file name of a router must end in .safetensors, not in .head.safetensors (got 'x.bin')",
    ]
    assert read_config(Path("t.yaml"), typed(hint)).data.folders == ["./*"]


# What YAML makes of a file


@pytest.mark.parametrize("empty", ["memory:", "memory: null", "memory: {}", "memory: ~", "losses:\nmodel:\nmemory:"])
def test_an_empty_section_is_its_defaults(tmp_path, empty):
    path = tmp_path / "t.yaml"
    path.write_text(DATA)
    plain = read_config(path, [])
    path.write_text(f"{empty}\n{DATA}")
    assert read_config(path, []) == plain
    assert read_config(path, ["memory.lora_rank=3"]).memory.lora_rank == 3


def test_no_data_is_an_error_with_an_example(refused):
    (line,), hint = refused("memory:\ntraining:\n")
    assert line == "data: set either data: (repositories) or training.dataset_name (a data set)"
    assert read_config(Path("t.yaml"), typed(hint)).data.sources == ["./my/repo"]
    (line,), hint = refused(f"data: {{sources: [a], kinds: {{constant: 1}}}}\n{DATA}")
    assert read_config(Path("t.yaml"), typed(hint)).data is None


def test_values_as_people_write_them(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(
        "memory: {lora_rank: '8', memory_quant_bits: '4', use_lora: 'no', memory_block_variant: b, lora_alpha: 2e1}\n"
        "training: {dataset_name: x, memory_lr: 1e-3, mixed_precision: no, max_steps: 1_000, scheduler: ' Cosine ',"
        " warmup_steps: 30.0, log_to_wandb: off}\n"
    )
    read = read_config(path, ["memory.memory_form=JOINT", "training.lora_lr=5E-5", "training.mixed_precision=off"])
    memory, training = read.memory, read.training
    assert (memory.lora_rank, memory.memory_quant_bits, memory.use_lora) == (8, 4, False)
    assert (memory.memory_block_variant, memory.lora_alpha, memory.memory_form) == ("B", 20.0, "joint")
    assert (training.memory_lr, training.lora_lr, training.max_steps) == (1e-3, 5e-5, 1000)
    assert (training.mixed_precision, training.scheduler, training.warmup_steps) == ("no", "cosine", 30)
    assert training.log_to_wandb is False


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("- a\n", "t.yaml has no settings: it is a list, not lines of KEY: VALUE", "awareness train --config"),
        ("a word\n", "t.yaml has no settings: it is the one value 'a word', not lines of", "awareness train --config"),
        ("# nothing\n", "t.yaml has no settings", "awareness train --config"),
        ("a: 1\n  b: [2\n", "t.yaml can't be read as YAML: line 2, column 4: mapping values are not", "correct t.yaml"),
        ("memory:\n\tlora_rank: 3\n", "line 2, column 1: a tab indents this line; YAML takes spaces", "correct t.yaml"),
        (
            "memory:\n  lora_rank: 1\n  lora_alpha: 2\n  lora_rank: 3\n",
            "can't be read as YAML: memory.lora_rank is given twice, in lines 2 and 4",
            "correct t.yaml",
        ),
        ("a: 1\n---\nb: 2\n", "can't be read as YAML: line 2, column 1: but found another document", "correct t.yaml"),
        ("a: 2001-99-99\n", "can't be read as YAML: month must be in 1..12", "correct t.yaml"),
        ("a: !!python/object:os.system x\n", "could not determine a constructor for the tag", "correct t.yaml"),
        ("a: " + "[" * 5000 + "\n", "can't be read as YAML: ", "correct t.yaml"),
        ("extends: [a]\n", "t.yaml: extends: must be the name of one file (got ['a'])", "correct t.yaml"),
        ("extends: none.yaml\n", "t.yaml: extends: none.yaml does not exist; awareness", "correct t.yaml"),
    ],
    ids=lambda value: value[:20],
)
def test_a_file_that_is_no_settings(tmp_path, monkeypatch, capfd, text, says, hint):
    monkeypatch.chdir(tmp_path)
    Path("t.yaml").write_text(text)
    assert run(["train", "--config", "t.yaml"]) == 2
    error, tried = capfd.readouterr().err.splitlines()
    assert says in error and tried.startswith(f"  try: {hint}")


def test_a_file_that_cannot_be_read(tmp_path, capfd):
    (tmp_path / "t.yaml").write_bytes(b"a: \xff\n")
    for path, says in ((tmp_path, "is a folder"), (tmp_path / "t.yaml", "can't be read: it is not UTF-8")):
        assert run(["train", "--config", str(path)]) == 2
        assert f"{path} {says}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("steps", "'steps' is not a setting"),
        ("=3", "'=3' is not a setting"),
        ("training..x=3", "'training..x=3' is not a setting"),
        ("data.sources=[a", "the value of 'data.sources=[a' can't be read as YAML: line 1, column 3"),
        ("memory={lora_rank: 1, lora_rank: 2}", "lora_rank is given twice"),
        ("output_dir.x=3", "'output_dir.x': output_dir is not a section but the value 'a'"),
    ],
)
def test_a_setting_of_the_command_line_that_is_none(tmp_path, setting, says):
    path = tmp_path / "t.yaml"
    path.write_text(f"output_dir: a\n{DATA}")
    with pytest.raises(UsageError) as refused:
        read_config(path, [setting])
    assert says in refused.value.message and read_config(path, ["training.max_steps=100"])
    assert str(refused.value.hint).startswith("--set ")


def test_a_setting_below_a_model_that_is_a_name(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(f"model: here\n{DATA}")
    read = read_config(path, ["model.freeze_base_model=false"]).model
    assert (read.base_model_name, read.freeze_base_model) == ("here", False)
