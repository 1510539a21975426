"""From the sections of a configuration to a module that is trained, saved and loaded."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.errors import StorageFailed, UsageError
from awareness.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from awareness.model.encoder import SelfEncoder
from awareness.model.memory_decoder import build_memory_decoder
from awareness.model.model_files import find
from awareness.types import Memory
from tests.model.test_forms import FORMS, config_of, memory_of

IDS = torch.tensor([[40, 41, 42, 43, 44, 45], [50, 51, 52, 53, 54, 55]])
LABELS = torch.tensor([[-100, -100, -100, 43, 44, 45], [-100, -100, -100, -100, 54, 55]])
LORA = {"use_both_memory_and_lora": True, "lora_rank": 2, "lora_targets": ["q_proj", "k_proj", "down_proj"]}


@pytest.fixture
def build(model_folder):
    def build(config: MemoryConfig, **settings):
        model = ModelConfig(**{"base_model_name": str(model_folder), **settings})
        torch.manual_seed(0)
        module, base = build_memory_decoder(model, config, pull=find, dtype=torch.float32)
        return module, base, model

    return build


def step(module, memory, rate=0.3, times=2):
    """Plain gradient descent on the answer; the gradients of the last step, by name."""
    module.train()
    for _ in range(times):
        module.zero_grad()
        module(IDS, labels=LABELS, memory=memory).loss.backward()
        gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        with torch.no_grad():
            for p in module.trainable().values():
                p -= rate * p.grad
    module.eval()
    return gradients


def logits(module, memory=None):
    with torch.no_grad():
        return module(IDS, memory=memory).logits


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bank", ["none", "reduced", "chapters"])
def test_exactly_the_trained_tensors_are_saved_and_loaded(build, form, bank, tmp_path):
    module, base, model = build(config_of(form, bank, **LORA))
    memory = memory_of(module.decoder, module.config, 5, 3)
    before = logits(module, memory)
    gradients = step(module, memory)
    assert set(gradients) == set(module.trainable())
    assert {name.split(".")[0] for name in gradients if "lora_" not in name} == {"adapter"}
    save_checkpoint(tmp_path / "run", module, base.folder, model)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"config.json", "weights.safetensors"}
    assert set(load_file(tmp_path / "run" / "weights.safetensors")) == set(module.trainable())
    again, _ = load_checkpoint(tmp_path / "run", pull=find, dtype=torch.float32)
    assert torch.equal(logits(again, memory), logits(module, memory))
    assert not torch.allclose(logits(again, memory), before, atol=1e-5)


@pytest.mark.parametrize("form", ["joint", "tanh A"])
def test_lora_of_a_memory_adapter_is_off_without_memory(build, form):
    """No memory is the base model, bitwise; also while chunks are encoded for it."""
    module, base, _ = build(config_of(form, "none", **LORA))
    plain, plain_base, _ = build(MemoryConfig(vanilla_mode=True))
    chunk = ["def login(self):\n    return 7\n"]
    step(module, memory_of(module.decoder, module.config, 5, 3))
    assert torch.equal(logits(module), logits(plain))
    latents = [
        bytes(next(SelfEncoder(one.decoder, known.tokenizer, fingerprint="x").encode(chunk)).data)
        for one, known in ((module, base), (plain, plain_base))
    ]
    assert latents[0] == latents[1]


def test_lora_alone_is_always_on(build):
    module, _, _ = build(MemoryConfig(use_memory_adapter=False, use_lora=True, lora_rank=2))
    base = logits(module)
    assert module.adapter is None and all("lora_" in name for name in module.trainable())
    step(module, None)
    assert not torch.allclose(logits(module), base, atol=1e-5)
    with pytest.raises(UsageError, match="no memory adapter"):
        logits(module, memory_of(module.decoder, module.config, 5, 3))


def test_vanilla_mode_is_the_control(build):
    module, _, _ = build(MemoryConfig(vanilla_mode=True, use_both_memory_and_lora=True, use_lora=True))
    assert module.adapter is None and module.trainable() == {}
    module, _, _ = build(MemoryConfig(vanilla_mode=True), freeze_base_model=False)
    assert set(module.trainable()) == {f"decoder.{name}" for name, _ in module.decoder.named_parameters()}


def test_gradient_checkpointing_of_layers_keeps_lora_on(build):
    """The backward pass computes layers again, outside of `attached`: LoRA has to be on there as it was."""

    def run(checkpointing):
        module, _, _ = build(config_of("tanh A", "none", **LORA))
        memory = memory_of(module.decoder, module.config, 5, 3)
        if checkpointing:
            module.decoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            module.decoder.enable_input_require_grads()
        return step(module, memory)

    want, got = run(False), run(True)
    for name, grad in want.items():
        assert torch.allclose(got[name], grad, atol=1e-5), name


def test_a_decoder_from_scratch_is_saved_and_loaded(build, model_folder, tmp_path):
    settings = {"base_model_name": None, "tokenizer_name": str(model_folder), "hidden_dim": 32, "num_heads": 2}
    module, base, model = build(config_of("tanh A", "chapters"), **settings, num_layers=3, use_rope=False)
    memory = None
    assert {name.split(".")[0] for name in step(module, memory)} == {"adapter", "decoder"}
    save_checkpoint(tmp_path / "run", module, base.folder, model)
    again, _ = load_checkpoint(tmp_path / "run", pull=find)
    assert torch.equal(logits(again), logits(module))


def test_labels_are_shifted_and_masked(build):
    """Known faults: the mask off by one, unshifted tokens counted. The loss by hand."""
    module, _, _ = build(config_of("tanh A", "none"))
    out = module(IDS, labels=LABELS)
    first = IDS.shape[1] - out.logits.shape[1]
    assert first == 2  # what predicts the first label
    shown = out.logits.log_softmax(-1)
    by_hand = [shown[row, t - 1 - first, LABELS[row, t]] for row, t in ((0, 3), (0, 4), (0, 5), (1, 4), (1, 5))]
    assert torch.allclose(out.loss, -torch.stack(by_hand).mean())
    assert set(out.terms) == {"answer"}


def test_router_losses_are_terms_of_the_loss(build):
    config = config_of("joint", "chapters", use_auxiliary_loss=True, load_balance_coefficient=0.5)
    module, _, _ = build(config)
    out = module(IDS, labels=LABELS)
    assert set(out.terms) == {"answer", "load_balance_loss", "auxiliary_loss", "z_loss"}
    assert torch.allclose(out.loss, sum(out.terms.values()))
    assert out.terms["load_balance_loss"] > 0.5 * 5 * 0.9  # five layers, each at least about 1
    off, _, _ = build(config_of("joint", "chapters", use_load_balance_loss=False, use_z_loss=False))
    assert set(off(IDS, labels=LABELS).terms) == {"answer"}


def test_a_text_is_routed_by_its_prompt_alone(build):
    """The answer must not tell the router what the answer is."""
    module, _, _ = build(config_of("tanh A", "chapters"))
    step(module, None)
    other = IDS.clone()
    other[:, 5] = 99  # the last token, an answer
    with torch.no_grad():
        one, two = (module(ids, labels=LABELS).logits[:, :-1] for ids in (IDS, other))
        assert torch.equal(one, two)
        leaky = [module(ids, labels=ids).logits[:, :-1] for ids in (IDS, other)]  # plain text: no prompt
    assert not torch.equal(*leaky)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("bank", ["standard", "factorized", "chapters"])
def test_a_quantised_bank_is_saved_and_reads_nearly_the_same(build, bank, bits, tmp_path):
    module, base, model = build(config_of("tanh A", bank, num_memory_tokens=40))
    step(module, None)
    base_logits, whole = logits(build(MemoryConfig(vanilla_mode=True))[0]), logits(module)
    numbers = 2 * 5 * 2 * 40 * 8  # K and V, layers, heads, tokens, head_dim
    module.adapter.bank = module.adapter.bank.quantised(f"int{bits}")
    assert module.adapter.bank.codes.numel() < numbers * bits / 8 + 4 * 5 * 2 * (40 + 8) + 1
    few = logits(module)
    error, effect = (few - whole).norm(), (whole - base_logits).norm()
    assert 0 < error < {8: 0.1, 4: 0.6}[bits] * effect
    save_checkpoint(tmp_path / "run", module, base.folder, model)
    assert Checkpoint.read(tmp_path / "run").bank == f"int{bits}"
    again, _ = load_checkpoint(tmp_path / "run", pull=find, dtype=torch.float32)
    assert torch.equal(logits(again), few)


def test_errors_of_a_damaged_checkpoint(build, tmp_path, model_folder):
    module, base, model = build(config_of("tanh A", "standard"))
    run = tmp_path / "run"
    save_checkpoint(run, module, base.folder, model)
    # copies: what load_file gives is the file itself, mapped, which is written over below
    whole = {name: tensor.clone() for name, tensor in load_file(run / "weights.safetensors").items()}
    config = (run / "config.json").read_text()

    def refused(match):
        with pytest.raises(UsageError, match=match):
            load_checkpoint(run, pull=find)

    save_file({name: t for name, t in whole.items() if "bank.tokens" not in name}, run / "weights.safetensors")
    refused("bank.tokens.1.weight is missing")
    save_file({**whole, "adapter.more": torch.zeros(1)}, run / "weights.safetensors")
    refused("adapter.more belongs to no part")
    save_file({**whole, "adapter.blocks.1.attention.gate": torch.zeros(3)}, run / "weights.safetensors")
    refused(r"gate is \[3\], not \[6\]")
    (run / "weights.safetensors").write_bytes(b"no")
    refused("can't be read")
    save_file(whole, run / "weights.safetensors")
    (run / "config.json").write_text(config.replace(base.folder.fingerprint, "another"))
    refused("was trained on")
    (run / "config.json").write_text(json.dumps({**json.loads(config), "format_version": 9}))
    refused("has format 9; this program reads 1")
    (run / "config.json").write_text(json.dumps({**json.loads(config), "memory": {"memory_form": "sigmoid"}}))
    refused(r"damaged or of another program: memory\.memory_form: must be 'joint' or 'tanh' \(got 'sigmoid'\)$")
    deep: object = 1
    for _ in range(900):
        deep = [deep]
    for change, match in (
        ({"memory": {"lora_targets": deep, "lora_rank": {"a": deep}}}, r"memory\.lora_targets.*\(and 1 more\)$"),
        ({"base": 5}, "damaged or of another program"),
        ({"base": "another"}, "is not base_model_name"),
        ({"bank": "weird"}, "damaged or of another program"),
        ({"more": 1}, "damaged or of another program"),
        ({"format_version": True}, "has format True"),
        ({"memory": {"num_memory_tokens": 10**12}}, "damaged or of another program"),
        ({"memory": {"num_memory_tokens": 0}, "bank": "int8"}, "the settings have none"),
    ):
        (run / "config.json").write_text(json.dumps({**json.loads(config), **change}))
        refused(match)
    for text in ("[]", "[" * 100_000, "{}"):
        (run / "config.json").write_text(text)
        refused("is not a checkpoint")
    (run / "config.json").write_text(config)
    save_file({**whole, "adapter.blocks.1.attention.gate": torch.full((6,), torch.nan)}, run / "weights.safetensors")
    refused("no finite numbers")
    with pytest.raises(UsageError, match="is not a checkpoint"):
        load_checkpoint(tmp_path, pull=find)


def test_a_failed_save_leaves_nothing(build, tmp_path, monkeypatch):
    module, base, model = build(config_of("joint", "none"))

    def full(tensors, path):
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("awareness.model.checkpoint.save_file", full)
        with pytest.raises(StorageFailed, match="no space left"):
            save_checkpoint(tmp_path / "run", module, base.folder, model)
        assert list(tmp_path.iterdir()) == []
    save_checkpoint(tmp_path / "run", module, base.folder, model)
    whole = (tmp_path / "run" / "weights.safetensors").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(StorageFailed):
        patch.setattr("awareness.model.checkpoint.save_file", full)
        save_checkpoint(tmp_path / "run", module, base.folder, model)
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == whole


def test_a_trained_decoder_has_latents_of_its_own(build, model_folder):
    """Else those of another decoder would be read for its own, and it would poison the base's index."""

    def spec(module, base):
        return module.encoder(base).spec

    vanilla = spec(*build(MemoryConfig(vanilla_mode=True))[:2])
    frozen, frozen_base, _ = build(config_of("joint", "none", **LORA))
    step(frozen, memory_of(frozen.decoder, frozen.config, 5, 3))
    assert spec(frozen, frozen_base) == vanilla  # LoRA of an adapter is off while chunks are encoded
    scratch = {"base_model_name": None, "tokenizer_name": str(model_folder), "num_layers": 2, "hidden_dim": 16}
    for settings, others in (
        (config_of("joint", "none"), {"freeze_base_model": False}),
        (MemoryConfig(use_memory_adapter=False, use_lora=True, lora_rank=2), {}),
        (config_of("joint", "none"), scratch),
    ):
        module, base, _ = build(settings, **others)
        before = spec(module, base)
        assert before != vanilla
        module.eval()
        with torch.no_grad():
            for p in module.trainable().values():
                p += 0.1
        assert spec(module, base) != before


def test_lora_is_off_where_no_row_has_a_memory(build):
    module, _, _ = build(config_of("tanh A", "none", **LORA))
    base = logits(module)
    memory = memory_of(module.decoder, module.config, 5, 3)
    step(module, memory)
    nothing = Memory(memory.keys, memory.values, mask=torch.zeros_like(memory.mask))
    assert torch.equal(logits(module, nothing), base)


def test_tokens_after_the_answer_do_not_route(build):
    """Neither a later turn that is not learned nor padding that has no mask."""
    module, _, _ = build(config_of("tanh A", "chapters"))
    step(module, None)
    labels = torch.full_like(IDS, -100)
    labels[:, 2:4] = IDS[:, 2:4]
    other = IDS.clone()
    other[:, 4:] = 99
    with torch.no_grad():
        one, two = (module(ids, labels=labels).logits[:, :-2] for ids in (IDS, other))
    assert torch.equal(one, two)


def test_lora_is_trained_in_float32(model_folder):
    model = ModelConfig(base_model_name=str(model_folder))
    module, base = build_memory_decoder(model, config_of("tanh A", "none", **LORA), pull=find, dtype=torch.bfloat16)
    assert base.model.dtype == torch.bfloat16
    assert {p.dtype for p in module.trainable().values()} == {torch.float32}
    step(module, memory_of(module.decoder, module.config, 5, 3))


def test_a_checkpoint_is_replaced_completely(build, tmp_path):
    module, base, model = build(config_of("joint", "none"))
    for _ in range(2):
        save_checkpoint(tmp_path / "run", module, base.folder, model)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
