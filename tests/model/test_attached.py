"""`attached`: nested, with several decoders, and through caches, beams and pickles."""

from __future__ import annotations

import pickle

import pytest
import torch

from awareness.errors import UsageError
from awareness.model.adapter import build_adapter
from awareness.model.assemble import joined, stacked
from awareness.model.attention_record import AttentionRecord
from awareness.model.cross_attention import GatedCrossAttention
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached, fuse
from awareness.model.projected import ProjectedEncoder
from awareness.types import Memory
from tests.conftest import tiny_model
from tests.model.test_forms import PROMPT, READERS, config_of, learn, logits, memory_of


def adapted(architecture: str, form: str, bank: str, **settings):
    """A fused decoder, its adapter, which has learned something, and a memory of two rows."""
    torch.manual_seed(0)
    model = fuse(tiny_model(architecture)).requires_grad_(False)
    adapter = build_adapter(model, config_of(form, bank, **settings))
    memory = memory_of(model, adapter.config, 5, 3)
    learn(model, adapter, memory, steps=3)
    return model, adapter, memory


@pytest.mark.parametrize("form", ["joint", "tanh A"])
def test_nothing_attached_inside_is_the_base(form):
    model, adapter, memory = adapted("qwen3", form, "none")
    base = logits(model)
    with attached(model, memory, adapter=adapter):
        outer = logits(model)
        with attached(model, None):
            assert torch.equal(logits(model), base)
        assert torch.equal(logits(model), outer)
    assert not torch.equal(outer, base)


def test_encoders_do_not_read_what_is_attached(tokenizer):
    model, adapter, memory = adapted("qwen3", "joint", "none")
    text = ["def f(x):\n    return x\n"]

    def made():
        own = SelfEncoder(model, tokenizer, fingerprint="x")
        projected = ProjectedEncoder(model, tokenizer, fingerprint="x")
        return bytes(own.sink.data), *(bytes(next(encoder.encode(text)).data) for encoder in (own, projected))

    outside = made()
    with attached(model, memory, adapter=adapter):
        assert made() == outside


def test_two_decoders_each_read_their_own_memory():
    one, one_adapter, memory = adapted("qwen3", "tanh A", "standard")
    two, two_adapter, _ = adapted("llama", "joint", "standard")
    with attached(one, memory, adapter=one_adapter):
        want_one = logits(one)
    with attached(two, None, adapter=two_adapter):
        want_two = logits(two)
    with attached(one, memory, adapter=one_adapter), attached(two, None, adapter=two_adapter):
        assert torch.equal(logits(one), want_one)
        assert torch.equal(logits(two), want_two)


def test_an_adapter_with_too_many_layers_is_refused():
    model, adapter, memory = adapted("qwen3", "tanh A", "none")
    model.model.layers = model.model.layers[:3]
    with (
        pytest.raises(UsageError, match="layer 3 reads memory, but this decoder has 3"),
        attached(model, memory, adapter=adapter),
    ):
        pass


@pytest.mark.parametrize("bank", ["standard", "chapters"])
def test_bank_and_memory_are_one_softmax(bank):
    """With every value 1 what the block's attention gives is 1, wherever it comes from; and in a row whose mask is
    empty it is what the bank alone gives."""
    model, adapter, memory = adapted("qwen3", "tanh A", bank)
    values = {i: torch.ones_like(v) for i, v in memory.values.items()}
    mask = memory.mask.clone()
    mask[1] = False
    known = type(adapter.bank).keys_values
    seen = []

    adapter.bank.keys_values = lambda layer: (known(adapter.bank, layer)[0], torch.ones(1, 2, 10, 8))
    block = adapter.blocks["1"].attention
    attend = GatedCrossAttention._attend
    block._attend = lambda *a: seen.append(attend(block, *a)) or seen[-1]
    with attached(model, Memory(memory.keys, values, mask=mask), adapter=adapter):
        logits(model)
    with attached(model, None, adapter=adapter):
        logits(model)
    both, alone = seen
    assert torch.allclose(both[0], torch.ones_like(both[0]), atol=1e-5)
    assert torch.allclose(both[1], alone[1], atol=1e-5)
    if bank == "chapters":
        assert (alone < 0.99).all()  # the mass of the chosen chapters


def test_a_bank_gets_its_gradient_wherever_it_was_attached():
    model, adapter, _ = adapted("qwen3", "tanh A", "standard")
    adapter.zero_grad()
    with torch.no_grad(), attached(model, None, adapter=adapter), torch.enable_grad():
        model(PROMPT).logits.square().mean().backward()
    assert all(p.grad is not None for p in adapter.bank.parameters())


def test_weights_of_the_memory_count_the_bank():
    """Brute force: with V of the memory 1 and all other values 0 the output is the sum of the memory's weights."""
    model, adapter, memory = adapted("llama", "joint", "standard")
    record = AttentionRecord(range(6), keep=True, every_token=True)
    with torch.no_grad():
        adapter.blocks["1"].bank_gate.fill_(2.0)
    with attached(model, memory, adapter=adapter, record=record):
        logits(model)
    got = record.memory_attention_weights[1].sum(-1)  # [B, H, T]
    attention = model.model.layers[1].self_attn
    seen = []
    handle = attention.o_proj.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    attention.v_proj.weight.data.zero_()
    known = adapter.bank.keys_values
    adapter.bank.keys_values = lambda layer: (known(layer)[0], torch.zeros(1, 2, 10, 8))
    values = {i: torch.ones_like(v) for i, v in memory.values.items()}
    with attached(model, Memory(memory.keys, values, mask=memory.mask), adapter=adapter):
        logits(model)
    handle.remove()
    assert torch.allclose(seen[0].unflatten(-1, (6, 8))[..., 0].transpose(1, 2), got, atol=1e-5)


@pytest.mark.parametrize("form", READERS)
@pytest.mark.parametrize("bank", ["none", "standard", "chapters"])
def test_autocast(form, bank):
    model, adapter, memory = adapted("qwen3", form, bank)
    for grad in (False, True):
        with (
            torch.set_grad_enabled(grad),
            torch.autocast("cpu", torch.bfloat16),
            attached(model, memory, adapter=adapter),
        ):
            assert not model(PROMPT).logits.isnan().any()


@pytest.mark.parametrize("strategy", ["sequence", "rolling", "token", "hybrid"])
class TestCaches:
    """A session knows what its routers have seen of the text in each KV cache; a later block may continue it."""

    def adapted(self, strategy):
        return adapted("qwen3", "tanh A", "chapters", routing_strategy_inference=strategy, routing_window_size=3)

    def test_a_cache_continues_in_another_block(self, strategy):
        model, adapter, memory = self.adapted(strategy)
        prompt = torch.tensor([[True] * 4] * 2)
        with attached(model, memory, adapter=adapter, prompt=prompt):
            whole = logits(model)[:, 4:]
        options = {"adapter": adapter, "prompt": prompt}
        with torch.no_grad(), attached(model, memory, **options) as session:
            cache = model(PROMPT[:, :4], use_cache=True).past_key_values
        with torch.no_grad(), attached(model, memory, **options, continues=session):
            assert torch.allclose(model(PROMPT[:, 4:], past_key_values=cache).logits, whole, atol=1e-5)

    def test_a_cache_of_another_session_is_refused(self, strategy):
        model, adapter, memory = self.adapted(strategy)
        with torch.no_grad(), attached(model, memory, adapter=adapter):
            cache = model(PROMPT[:, :4], use_cache=True).past_key_values
        with torch.no_grad(), attached(model, memory, adapter=adapter):
            if strategy == "token":  # each token decides alone
                model(PROMPT[:, 4:], past_key_values=cache)
            else:
                with pytest.raises(UsageError, match="holds 4 tokens, and the router of chapters has seen 0"):
                    model(PROMPT[:, 4:], past_key_values=cache)

    def test_a_changed_cache_is_refused(self, strategy):
        model, adapter, memory = self.adapted(strategy)
        with torch.no_grad(), attached(model, memory, adapter=adapter):
            cache = model(PROMPT, use_cache=True).past_key_values
            cache.crop(-2)
            if strategy in ("token", "sequence"):  # a sequence has been decided on
                model(PROMPT[:, 4:], past_key_values=cache)
            else:
                with pytest.raises(UsageError, match="holds 4 tokens, and the router of chapters has seen 6"):
                    model(PROMPT[:, 4:], past_key_values=cache)

    def test_static_caches_and_beams(self, strategy):
        model, adapter, memory = self.adapted(strategy)
        options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
        with attached(model, memory, adapter=adapter, prompt=torch.ones(2, 6, dtype=torch.bool)):
            want = model.generate(PROMPT, **options)
            assert torch.equal(model.generate(PROMPT, cache_implementation="static", **options), want)
            if strategy == "sequence":  # the others would have to follow the beams
                assert model.generate(PROMPT, num_beams=2, **options).shape == want.shape


@pytest.mark.parametrize("bank", ["none", "chapters"])
def test_a_session_counts_the_tokens_of_its_own_decoder(bank):
    model, adapter, memory = adapted("qwen3", "tanh A", bank)
    other = fuse(tiny_model("llama"))
    with torch.no_grad(), attached(model, memory, adapter=adapter) as session:
        assert session.tokens == 0
        logits(model)
        with attached(other, None) as inner:
            logits(other)
            logits(model)
        assert (session.tokens, inner.tokens) == (12, 6)
        model.generate(PROMPT, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert session.tokens == 12 + 6 + 3  # the last token is not read
    logits(model)
    assert session.tokens == 21


def test_a_session_keeps_choices_only_on_request():
    model, adapter, memory = adapted("qwen3", "tanh A", "chapters")
    for keep in (False, True):
        with attached(model, memory, adapter=adapter, keep_choices=keep) as session:
            logits(model)
        assert len(session.choices) == (len(adapter.layers) if keep else 0)


def test_a_prompt_in_pieces_is_refused():
    model, adapter, memory = adapted("qwen3", "tanh A", "chapters")
    prompt = torch.ones(2, 6, dtype=torch.bool)
    with attached(model, memory, adapter=adapter, prompt=prompt), pytest.raises(UsageError, match="has 4 of its 6"):
        model(PROMPT[:, :4], use_cache=True)


def test_a_memory_with_another_number_of_rows_is_refused():
    model, adapter, memory = adapted("qwen3", "tanh A", "none")
    with attached(model, memory, adapter=adapter), pytest.raises(UsageError, match="2 rows is read by a batch of 3"):
        model(PROMPT[:1].repeat(3, 1))


def test_a_fused_decoder_is_pickled():
    model, adapter, memory = adapted("qwen3", "tanh A", "none")
    again = pickle.loads(pickle.dumps(model))
    with attached(again, memory, adapter=adapter):
        got = logits(again)
    with attached(model, memory, adapter=adapter):
        assert torch.equal(got, logits(model))


def test_memories_of_rows_keep_their_positions():
    """`stacked` pads in front, so a row's keys stay where they are before the prompt."""
    model = fuse(tiny_model("llama"))
    parts = [torch.randn(2, 5, 2, length, 8) for length in (4, 2)]
    rows = [joined(model, range(1, 6), [part], ["chunk"]) for part in parts]
    both = stacked(rows)
    assert both.mask.tolist() == [[True] * 4, [False, False, True, True]]
    assert torch.equal(both.keys[3][1:, :, 2:], rows[1].keys[3])
