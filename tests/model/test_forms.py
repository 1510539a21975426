"""Every form × architecture × kind of bank: the identity at first, trainable, and gone after the block."""

from __future__ import annotations

import copy
import itertools
import threading

import pytest
import torch

from awareness.config.memory import MemoryConfig
from awareness.errors import UsageError
from awareness.model.adapter import build_adapter, memory_layers
from awareness.model.assemble import joined, stacked
from awareness.model.fusion import attached, fuse, unfuse
from awareness.types import SINK, Memory
from tests.conftest import GEOMETRY, tiny_model

PROMPT = torch.tensor([[40, 41, 42, 43, 44, 45], [50, 51, 52, 53, 54, 55]])
FORMS = {
    "joint": {"memory_form": "joint"},
    "tanh A": {"memory_form": "tanh"},
    "tanh B": {"memory_form": "tanh", "memory_block_variant": "B"},
    "tanh A, W_o zero": {"memory_form": "tanh", "memory_init": "zero"},
    "tanh B, W_o zero": {"memory_form": "tanh", "memory_block_variant": "B", "wo_init_zero": True},
    "tanh, low rank": {"memory_form": "tanh", "use_low_rank_projections": True, "projection_rank": 4},
}
BANKS = {
    "none": {"num_memory_tokens": 0},
    "standard": {"num_memory_tokens": 10},
    "factorized": {"num_memory_tokens": 10, "use_low_rank_memory": True, "memory_rank": 3},
    "reduced": {
        "num_memory_tokens": 10,
        "use_low_rank_memory": True,
        "memory_rank": 3,
        "low_rank_mode": "reduced_dim",
        "memory_sharing": "per_layer",
    },
    "chapters": {"num_memory_tokens": 10, "use_chapters": True, "num_chapters": 4, "top_k_chapters": 2},
    "chapters, token": {
        "num_memory_tokens": 10,
        "use_chapters": True,
        "num_chapters": 4,
        "top_k_chapters": 1,
        "routing_strategy_train": "token",
        "routing_strategy_inference": "token",
    },
}
KINDS = list(itertools.product(FORMS, BANKS))
READERS = ("joint", "tanh A", "tanh B")
"""The forms that read in ways of their own; the others begin with other weights."""
READ_KINDS = list(itertools.product(READERS, BANKS))


def config_of(form: str, bank: str, **settings) -> MemoryConfig:
    return MemoryConfig(**{**FORMS[form], **BANKS[bank], **settings})


def memory_of(model, config: MemoryConfig, *lengths: int, seed: int = 0) -> Memory:
    """Random latents, one chunk a row."""
    generator = torch.Generator().manual_seed(seed)
    layers = memory_layers(model.config.num_hidden_layers, config)
    geometry = (len(layers), model.config.num_key_value_heads)
    rows = []
    for length in lengths:
        part = torch.randn((2, *geometry, length, 8), generator=generator)
        rows.append(joined(model, layers, [part], ["chunk"]))
    return stacked(rows) if len(rows) > 1 else rows[0]


def logits(model, ids=PROMPT, **options):
    with torch.no_grad():
        return model(ids, **options).logits


def has_something_to_read(form, bank) -> bool:
    return form != "joint" or bank != "none"


def learn(model, adapter, memory, steps: int = 1, rate: float = 0.5):
    """Plain gradient descent on the logits; returns the gradients of the last step."""
    adapter.train()
    for _ in range(steps):
        adapter.zero_grad()
        with attached(model, memory, adapter=adapter):
            out = model(PROMPT).logits
        out.float().log_softmax(-1)[..., 7].mean().neg().backward()
        found = {name: p.grad for name, p in adapter.named_parameters()}
        with torch.no_grad():
            for p in adapter.parameters():
                if p.grad is not None:
                    p -= rate * p.grad
    adapter.eval()
    return found


@pytest.mark.parametrize(("form", "bank"), KINDS)
def test_a_new_adapter_is_the_base_bitwise_and_learns(model, form, bank):
    """atol 0: with a bank attached, and in the tanh form with a memory; a step changes it; disabled it is gone."""
    torch.manual_seed(0)
    base = logits(model)
    keys = list(model.state_dict())
    model.requires_grad_(False)
    adapter = build_adapter(fuse(model), config_of(form, bank)).eval()
    memory = memory_of(model, adapter.config, 5, 3) if form != "joint" or bank == "none" else None
    if form != "joint" or bank != "none":
        with attached(model, memory, adapter=adapter):
            assert torch.equal(logits(model), base)
        with torch.enable_grad(), attached(model, memory, adapter=adapter):
            assert torch.equal(model(PROMPT).logits.detach(), base)
    with attached(model, memory, adapter=adapter):
        before = logits(model)
    learn(model, adapter, memory)
    with attached(model, memory, adapter=adapter):
        assert not torch.allclose(logits(model), before, atol=1e-6)
    assert torch.equal(logits(model), base)
    assert torch.equal(logits(unfuse(model)), base)
    assert list(model.state_dict()) == keys
    assert all(type(layer).__module__.startswith("transformers.") for layer in model.model.layers)
    assert not any(hasattr(type(layer), "_base") for layer in model.model.layers)


@pytest.mark.parametrize("form", FORMS)
def test_a_decoder_whose_projections_have_biases_is_still_the_base(form):
    """Llama with attention_bias and mlp_bias: a bias of W_o would be there with the gate closed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**GEOMETRY, attention_bias=True, mlp_bias=True)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter)
    base = logits(model)
    adapter = build_adapter(fuse(model), config_of(form, "standard")).eval()
    memory = memory_of(model, adapter.config, 5, 3) if form != "joint" else None
    with attached(model, memory, adapter=adapter):
        assert torch.equal(logits(model), base)


@pytest.mark.parametrize(("form", "bank"), KINDS)
def test_exactly_the_trained_parameters_get_gradients(form, bank):
    """On Qwen2 and Qwen3: biases, and norms of heads."""
    torch.manual_seed(0)
    model = fuse(tiny_model("qwen3" if bank in ("standard", "chapters") else "qwen2")).requires_grad_(False)
    adapter = build_adapter(model, config_of(form, bank))
    memory = memory_of(model, adapter.config, 5, 3)
    found = learn(model, adapter, memory, steps=3, rate=0.05)
    without = {name for name, grad in found.items() if grad is None or not grad.abs().sum() > 0}
    assert without == set()
    assert all(p.grad is None for p in model.parameters())


def test_names_of_trained_parameters():
    model = fuse(tiny_model("qwen3"))

    def names(**settings):
        adapter = build_adapter(model, MemoryConfig(gca_start_layer=5, **settings))
        return {name for name, _ in adapter.named_parameters()}

    block = {
        f"blocks.5.attention.{name}" for name in ("norm.weight", "q_proj.weight", "o_proj.weight", "q_norm.weight")
    }
    block |= {"blocks.5.attention.gate"}
    heads = {f"bank.heads.5.{name}.weight" for name in ("norm", "k_proj", "v_proj", "k_norm")}
    mlp = {f"blocks.5.mlp.{name}.weight" for name in ("norm", "gate_proj", "up_proj", "down_proj")}
    low = {f"blocks.5.attention.{name}" for name in ("norm.weight", "q_norm.weight", "gate")}
    low |= {f"blocks.5.attention.{p}_proj.{side}" for p in "qo" for side in ("down", "up")}
    assert names(num_memory_tokens=0) == block
    assert names(num_memory_tokens=0, memory_block_variant="B") == block | mlp | {"blocks.5.mlp.gate"}
    assert names(num_memory_tokens=0, use_low_rank_projections=True, projection_rank=4) == low
    assert names(num_memory_tokens=0, memory_form="joint") == {"blocks.5.bias"}
    assert names(num_memory_tokens=8) == block | heads | {"bank.tokens.5.weight"}
    factors = {"bank.tokens.5.left", "bank.tokens.5.right"}
    assert names(num_memory_tokens=8, use_low_rank_memory=True, memory_rank=2) == block | heads | factors
    joint = {"blocks.5.bias", "blocks.5.bank_gate", "bank.tokens.5.weight", "bank.routers.5.classifier.weight"}
    chapters = {"use_chapters": True, "num_chapters": 4, "top_k_chapters": 1}
    assert names(num_memory_tokens=8, memory_form="joint", **chapters) == joint | heads


@pytest.mark.parametrize(("form", "bank"), READ_KINDS)
def test_with_nothing_to_read_it_is_the_base(model, form, bank):
    base = logits(model)
    adapter = build_adapter(fuse(model), config_of(form, bank))
    learn(model.requires_grad_(False), adapter, memory_of(model, adapter.config, 5, 3))
    adapter.bank = None
    with attached(model, None, adapter=adapter):
        assert torch.equal(logits(model), base)


@pytest.mark.parametrize(("form", "bank"), READ_KINDS)
@pytest.mark.parametrize("strategy", ["sequence", "rolling", "hybrid"])
def test_cached_generation_is_uncached_generation(form, bank, strategy):
    if strategy != "sequence" and bank != "chapters":
        pytest.skip("the strategy is of chapters")
    torch.manual_seed(0)
    model = fuse(tiny_model("qwen3")).requires_grad_(False)
    adapter = build_adapter(model, config_of(form, bank, routing_strategy_inference=strategy, routing_window_size=3))
    if bank == "chapters, token":
        for router in adapter.bank.routers.values():
            router.strategy_inference = "token"
    memory = memory_of(model, adapter.config, 5, 3)
    learn(model, adapter, memory, steps=3)
    ids, mask = PROMPT.clone(), torch.ones_like(PROMPT)
    mask[0, :2] = 0  # the first row is padded in front
    options = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False, "min_new_tokens": 8}
    results = []
    for use_cache in (True, False):
        with attached(model, memory, adapter=adapter, prompt=mask.bool()):
            results.append(
                model.generate(ids, use_cache=use_cache, output_logits=True, return_dict_in_generate=True, **options)
            )
    cached, uncached = results
    assert cached.sequences.tolist() == uncached.sequences.tolist()
    assert torch.allclose(torch.stack(cached.logits), torch.stack(uncached.logits), atol=1e-4)
    base = model.generate(ids, output_logits=True, return_dict_in_generate=True, **options)
    assert not torch.allclose(torch.stack(cached.logits), torch.stack(base.logits), atol=1e-3)


@pytest.mark.parametrize(("form", "bank"), READ_KINDS)
def test_rows_of_a_batch_read_their_own_memory(form, bank):
    torch.manual_seed(0)
    model = fuse(tiny_model("qwen3")).requires_grad_(False)
    adapter = build_adapter(model, config_of(form, bank))
    learn(model, adapter, memory_of(model, adapter.config, 5, 3), steps=2)
    rows = [memory_of(model, adapter.config, 5, seed=1), memory_of(model, adapter.config, 3, seed=2)]
    with attached(model, stacked(rows), adapter=adapter):
        together = logits(model)
    for row, memory in enumerate(rows):
        with attached(model, memory, adapter=adapter):
            assert torch.allclose(together[row], logits(model, PROMPT[row : row + 1])[0], atol=1e-5)


@pytest.mark.parametrize(("form", "bank"), READ_KINDS)
def test_a_row_whose_mask_is_empty_reads_nothing(form, bank):
    """A known fault: NaN. Row 0 has no memory at all; it is as if none were attached."""
    torch.manual_seed(0)
    model = fuse(tiny_model("qwen3")).requires_grad_(False)
    adapter = build_adapter(model, config_of(form, bank))
    memory = memory_of(model, adapter.config, 5, 3)
    learn(model, adapter, memory, steps=2)
    mask = memory.mask.clone()
    mask[0] = False
    emptied = Memory(memory.keys, memory.values, mask=mask)
    with attached(model, None, adapter=adapter):
        want = logits(model)
    for grad in (False, True):
        with torch.set_grad_enabled(grad), attached(model, emptied, adapter=adapter):
            got = model(PROMPT).logits.detach()
            assert not got.isnan().any()
        assert torch.allclose(got[0], want[0], atol=1e-5)
        assert not torch.allclose(got[1], want[1], atol=1e-4)


@pytest.mark.parametrize("form", READERS)
@pytest.mark.parametrize("bank", ["standard", "chapters"])
def test_bank_and_memory_are_read_together(form, bank):
    torch.manual_seed(0)
    model = fuse(tiny_model("llama")).requires_grad_(False)
    adapter = build_adapter(model, config_of(form, bank))
    memory = memory_of(model, adapter.config, 5, 3)
    learn(model, adapter, memory, steps=3)
    with attached(model, memory, adapter=adapter):
        both = logits(model)
    with attached(model, None, adapter=adapter):
        bank_alone = logits(model)
    adapter.bank = None
    with attached(model, memory, adapter=adapter):
        memory_alone = logits(model)
    for less in (bank_alone, memory_alone, logits(model)):
        assert not torch.allclose(both, less, atol=1e-4)


@pytest.mark.parametrize("form", READERS[:2])
@pytest.mark.parametrize("bank", ["none", "standard", "chapters"])
@pytest.mark.parametrize("padded", [False, True])
def test_every_kernel_gives_the_same_numbers(form, bank, padded):
    torch.manual_seed(0)
    model = fuse(tiny_model("qwen2")).requires_grad_(False)
    adapter = build_adapter(model, config_of(form, bank))
    memory = memory_of(model, adapter.config, 5, 3)
    learn(model, adapter, memory, steps=2)
    mask = torch.ones_like(PROMPT)
    if padded:
        mask[0, :2] = 0
    results = {}
    for kernel in ("auto", "plain"):
        fuse(model, kernel=kernel)
        for grad in (False, True):
            with torch.set_grad_enabled(grad), attached(model, memory, adapter=adapter):
                results[kernel, grad] = model(PROMPT, attention_mask=mask).logits.detach()[mask.bool()]
    for one in results.values():
        assert torch.allclose(one, results["auto", False], atol=1e-4)
    fuse(model, kernel="plain")
    assert torch.allclose(logits(model), logits(unfuse(model)), atol=1e-4)


def test_an_unknown_kernel_is_refused(model):
    for kernel, says in (("flush", "'flush': auto, plain"), ("flex", "flex was removed")):
        with pytest.raises(UsageError, match=says):
            fuse(model, kernel=kernel)


@pytest.mark.parametrize(("form", "bank"), READ_KINDS)
@pytest.mark.parametrize("whole_layers", [False, True])
def test_gradient_checkpointing_saves_memory_and_changes_no_gradient(form, bank, whole_layers):
    """Of the reading alone (memory_gradient_checkpointing), and of whole layers by transformers, where the backward
    pass runs in another thread and outside of the `attached` block."""
    if not has_something_to_read(form, bank):
        pytest.skip("nothing is kept by the joint form alone")

    def run(checkpointing: bool):
        torch.manual_seed(0)
        model = fuse(tiny_model("qwen3")).requires_grad_(False).train()
        config = config_of(form, bank, memory_gradient_checkpointing=checkpointing and not whole_layers)
        adapter = build_adapter(model, config).train()
        with torch.no_grad():
            for name, p in adapter.named_parameters():
                if "gate" in name:
                    p += 0.3
        if checkpointing and whole_layers:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        kept = [0]

        def note(tensor):
            kept[0] += tensor.numel()
            return tensor

        memory = memory_of(model, config, 50, 30)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t), attached(model, memory, adapter=adapter):
            loss = model(PROMPT, use_cache=False).logits.square().mean()
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()
        return kept[0], {name: p.grad for name, p in adapter.named_parameters()}

    plenty, want = run(False)
    less, got = run(True)
    assert less < plenty
    for name, grad in want.items():
        assert torch.allclose(got[name], grad, atol=1e-5), name


def test_memory_dropout_only_in_training(model):
    for form, bank in (("joint", "standard"), ("tanh A", "chapters")):
        torch.manual_seed(0)
        decoder = fuse(copy.deepcopy(model)).requires_grad_(False)
        adapter = build_adapter(decoder, config_of(form, bank, memory_dropout=0.5))
        memory = memory_of(decoder, adapter.config, 5, 3)
        learn(decoder, adapter, memory, steps=2)
        with attached(decoder, memory, adapter=adapter.eval()):
            assert torch.equal(logits(decoder), logits(decoder))
        with attached(decoder, memory, adapter=adapter.train()):
            assert not torch.allclose(logits(decoder), logits(decoder), atol=1e-5)


def test_a_memory_without_the_layers_of_the_adapter_is_refused(model):
    adapter = build_adapter(fuse(model), MemoryConfig(num_memory_tokens=0, gca_start_layer=2))
    memory = memory_of(model, MemoryConfig(num_memory_tokens=0, gca_start_layer=4), 5)
    with (
        pytest.raises(UsageError, match=r"has the layers 4, 5; the adapter also reads 2, 3"),
        attached(model, memory, adapter=adapter),
    ):
        pass


def test_latents_are_shared_by_layers():
    """latent_sharing: fewer stored sets; each layer reads its group's."""
    model = fuse(tiny_model("llama"))
    settings = {"num_memory_tokens": 0, "gca_start_layer": 1}
    for sharing, sets in (("per_layer", [1, 2, 3, 4, 5]), ("every_k_layers", [1, 1, 3, 3, 5]), ("shared", [1] * 5)):
        adapter = build_adapter(model, MemoryConfig(latent_sharing=sharing, latent_sharing_k=2, **settings))
        assert list(adapter.sets.values()) == sets
        stored = sorted(set(sets))
        memory = joined(model, stored, [torch.randn(2, len(stored), 2, 4, 8)], [SINK], reads=adapter.sets)
        assert set(memory.keys) == {1, 2, 3, 4, 5}
        assert len({tensor.data_ptr() for tensor in memory.keys.values()}) == len(stored)
        with attached(model, memory, adapter=adapter):
            logits(model)
