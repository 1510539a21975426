"""What is assumed of the inside of transformers, PEFT and torch holds on the version that is installed.

.ci/versions runs this on the oldest and on the newest version that is supported.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from transformers import BertConfig, BertModel, DynamicCache
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from awareness.errors import UsageError
from awareness.model import hf
from awareness.model.attention import fused_cpu
from awareness.model.fusion import fuse
from awareness.model.hf import cpu_multiplies_bf16  # conftest.py puts another in its place for what is loaded
from awareness.model.scratch import NoPositions
from tests.conftest import GEOMETRY, tiny_model

ROOT = Path(__file__).parents[2]
IDS = torch.tensor([[40, 41, 42, 43, 44, 45], [50, 51, 52, 53, 54, 55]])
STATES = torch.randn(2, 6, 48, generator=torch.Generator().manual_seed(0))
INSIDE = (
    r"past_key_values|self_attn|rotary_emb|_attn_implementation\b|modeling_llama|input_layernorm|embed_tokens"
    r"|post_attention_layernorm|get_seq_length|\.k_norm|\.q_norm|model\.layers|AttentionInterface"
    r"|_scaled_dot_product|set_attn_implementation|\bpeft\.|from peft|lora_A\b"
)


def called(model, *args, layer=3, **kwargs):
    """What a decoder layer is called with: (args, kwargs)."""
    seen = []
    handle = hf.decoder_layers(model)[layer].register_forward_pre_hook(
        lambda *call: seen.append(call), with_kwargs=True
    )
    with torch.no_grad():
        model(*args, **kwargs)
    handle.remove()
    return seen[0][1:]


class TestTheSeam:
    def test_only_hf_names_internals_of_transformers(self):
        found = [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
            for path in sorted((ROOT / "awareness").rglob("*.py"))
            if path.name not in ("hf.py", "gguf_import.py")  # the names of tensors in files are a format of their own
            for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
            # our own modules have projections and norms of the same names, reached through `self`
            if re.search(INSIDE, re.sub(r"self\.[kq]_norm", "", line))
        ]
        assert found == []

    def test_version_bounds_match_pyproject(self):
        bounds = re.findall(r'"transformers([<>=].*?)"', (ROOT / "pyproject.toml").read_text("utf-8"))
        assert bounds == [f">={hf.OLDEST},<6"]
        assert hf._release(hf.OLDEST) < hf._release(hf.NEWEST) < (6, 0)

    def test_an_untested_version_is_logged_once(self, caplog, monkeypatch):
        monkeypatch.setattr(hf, "NEWEST", "5.0")
        hf.warn_if_untested.cache_clear()
        model = tiny_model("qwen3")
        fuse(model)
        fuse(model)
        hf.warn_if_untested.cache_clear()
        (line,) = caplog.messages
        version = transformers.__version__
        assert line == f"transformers {version} is newer than 5.0, the newest version that awareness was tested with"

    @pytest.mark.parametrize("version", [hf.OLDEST, hf.NEWEST, f"{hf.NEWEST}.7", "5.19.0", "4.57.6"])
    def test_a_tested_version_is_not_logged(self, version, caplog):
        assert hf.warn_if_untested(version) is False and caplog.messages == []

    @pytest.mark.parametrize("version", ["5.100.0", "6.0.0rc1", "6.0.0.dev0", "10.1"])
    def test_versions_are_compared_as_numbers(self, version):
        assert hf.warn_if_untested(version) is True


class TestModules:
    def test_parts_of_a_layer_run_in_the_order_of_run_layer(self, model):
        """Each once, on hidden states [B, T, d]."""
        order = []
        layer = hf.decoder_layers(model)[2]
        for part in (hf.attention_norm, hf.self_attention, hf.mlp_norm, hf.mlp):
            part(layer).register_forward_hook(lambda m, args, out, name=part.__name__: order.append(name))
        hf.final_norm(model).register_forward_hook(lambda m, args, out: order.append(("final_norm", out.shape)))
        hf.body(model)(IDS, use_cache=False)
        assert order == ["attention_norm", "self_attention", "mlp_norm", "mlp", ("final_norm", (2, 6, 48))]
        assert len(hf.decoder_layers(model)) == 6

    def test_run_layer_is_the_layer_bitwise(self, model):
        layer = hf.decoder_layers(model)[1]
        table = hf.rotary(model)(STATES, torch.arange(6)[None])
        kwargs = {"position_embeddings": table, "attention_mask": None}
        seen = []

        def between(x):
            seen.append(x)
            return x

        assert torch.equal(hf.run_layer(layer, STATES, kwargs, between=between), layer(STATES, **kwargs))
        attended = hf.self_attention(layer)(hf.attention_norm(layer)(STATES), **kwargs)[0]
        assert torch.equal(seen[0], STATES + attended)

    def test_parts_of_attention(self, request, model):
        parts = hf.attention_parts(hf.decoder_layers(model)[0])
        shapes = [tuple(p.weight.shape) for p in (parts.query, parts.key, parts.value, parts.output)]
        assert shapes == [(48, 48), (16, 48), (16, 48), (48, 48)]
        assert (parts.head_dim, parts.scaling) == (8, 8**-0.5)
        has_norms = type(model).__name__ == "Qwen3ForCausalLM"
        assert [norm is not None for norm in (parts.query_norm, parts.key_norm)] == [has_norms] * 2
        assert hf.head_dim(model.config) == 8

    def test_keys_and_values_are_those_in_the_cache(self, model):
        """Keys before RoPE: turned by `rotated` they are the cache's."""
        found = []
        for source in hf.key_value_sources(hf.decoder_layers(model)[3]):
            source.register_forward_hook(lambda m, args, out: found.append(out))
        cache = DynamicCache(config=model.config)
        _, cache = hf.continued(model, IDS, cache)
        key, value = (out.reshape(2, 6, 2, 8).transpose(1, 2) for out in found)
        cos, sin = hf.rotary(model)(key, torch.arange(6)[None])
        torch.testing.assert_close(hf.rotated(key, cos[:, None], sin[:, None]), cache.layers[3].keys)
        torch.testing.assert_close(value, cache.layers[3].values)

    def test_the_mlp_by_its_parts(self, model):
        layer = hf.decoder_layers(model)[0]
        parts = hf.mlp_parts(layer)
        want = parts["down_proj"](nn.functional.silu(parts["gate_proj"](STATES)) * parts["up_proj"](STATES))
        torch.testing.assert_close(hf.mlp(layer)(STATES), want)

    def test_linear_layers(self, model):
        names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        assert hf.linear_names(model) == names

    def test_replacing_norms_and_positions(self, model):
        hf.replace_norms(model, lambda: nn.LayerNorm(48))
        hf.replace_rotary(model, NoPositions(8))
        norms = [norm for layer in hf.decoder_layers(model) for norm in (hf.attention_norm(layer), hf.mlp_norm(layer))]
        assert {type(norm) for norm in [*norms, hf.final_norm(model)]} == {nn.LayerNorm}
        assert len({id(norm) for norm in norms}) == 12
        near, far = (
            model(IDS, use_cache=False, position_ids=positions[None]).logits
            for positions in (torch.arange(6), torch.arange(6) + 90)
        )
        assert torch.equal(near, far)

    def test_which_models_are_causal(self, model):
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        assert hf.is_causal(model) and not hf.is_causal(BertModel(BertConfig(vocab_size=9, **sizes)))

    def test_tensors_by_name(self, model):
        state = model.state_dict()
        turned = {name: hf.rotated_heads(name, model.config) for name in state}
        assert {heads: sum(h == heads for h in turned.values()) for heads in set(turned.values()) - {None}} == {
            6: 12 if type(model).__name__ == "Qwen2ForCausalLM" else 6,
            2: 12 if type(model).__name__ == "Qwen2ForCausalLM" else 6,
        }
        assert [name for name in state if hf.is_output_weight(name)] == ["lm_head.weight"]
        assert state["lm_head.weight"].shape == (GEOMETRY["vocab_size"], 48)
        assert hf.rope_parameters(model.config)["rope_theta"] > 0
        assert hf.rope_parameters(model.config)["rope_type"] == "default"


class TestCalls:
    def test_a_layer_call_has_the_expected_arguments(self, model):
        _, cache = hf.continued(model, IDS[:, :4])
        layers = hf.decoder_layers(model)
        assert [hf.cached_tokens(cache), hf.cached_tokens(cache, layers[5]), hf.cached_tokens(None)] == [4, 4, 0]
        args, kwargs = called(model, IDS[:, 4:], **{hf._cache_name(model): cache})
        assert hf.cache_in(args, kwargs) is cache and len(args) == 1
        cos, sin = hf.position_embeddings_in(kwargs)
        want = hf.rotary(model)(STATES, torch.tensor([[4, 5]]))
        assert torch.equal(cos, want[0]) and torch.equal(sin, want[1])
        assert hf.mask_in(kwargs).shape == (1, 1, 2, 6) or hf.mask_in(kwargs).shape == (2, 1, 2, 6)

    def test_a_layer_call_without_a_cache_or_a_mask(self, model):
        args, kwargs = called(model, IDS, use_cache=False)
        assert hf.cache_in(args, kwargs) is None and hf.mask_in(kwargs) is None

    def test_padding_is_in_the_mask(self, model):
        mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
        seen = hf.mask_in(called(model, IDS, attention_mask=mask)[1])[:, 0, -1]
        assert seen.tolist() == mask.bool().tolist()

    @pytest.mark.parametrize("name", ["past_key_values", "cache", "any other name"])
    def test_the_cache_is_found_under_any_name(self, name):
        cache = DynamicCache()
        assert hf.cache_in((STATES,), {"use_cache": True, name: cache}) is cache
        assert hf.cache_in((STATES, cache), {}) is cache
        assert hf.cache_in((STATES,), {"mask": None, "position_embeddings": (STATES, STATES)}) is None

    def test_position_embeddings_are_found_under_any_name(self):
        pair = (STATES, STATES)
        assert hf.position_embeddings_in({"sizes": (1, 2), "triple": (STATES,) * 3, "rope": pair}) is pair
        with pytest.raises(UsageError, match="no position embeddings"):
            hf.position_embeddings_in({"attention_mask": STATES})

    def test_arguments_by_position_get_their_names(self, model):
        layer = hf.decoder_layers(model)[0]
        positions = torch.arange(6)[None]
        table = hf.rotary(model)(STATES, positions)
        named = hf.named_arguments(type(layer), (None, positions))
        assert named.keys() == {"attention_mask", "position_ids"} and named["position_ids"] is positions
        assert hf.named_arguments(type(layer), ()) == {}
        by_name = layer(STATES, **named, position_embeddings=table)
        assert torch.equal(by_name, layer(STATES, None, positions, position_embeddings=table))

    def test_length_of_a_text(self, model):
        _, cache = hf.continued(model, IDS[:, :4])
        assert hf.text_length((IDS,), {}) == hf.text_length((), {"input_ids": IDS}) == 6
        assert hf.text_length((), {"inputs_embeds": STATES, "input_ids": None, "cache": cache}) == 10

    def test_continued_is_the_text_in_one(self, model):
        with torch.no_grad():
            whole = model(IDS, use_cache=False).logits
            _, cache = hf.continued(model, IDS[:, :4])
            got, again = hf.continued(model, IDS[:, 4:], cache)
        assert again is cache and hf.cached_tokens(cache) == 6
        torch.testing.assert_close(got, whole[:, -1:], atol=1e-5, rtol=1e-5)

    def test_continued_with_padding_after_a_cut(self, model):
        """The first two tokens are padding; the cache is cut to the first three, and goes on."""
        mask = torch.tensor([[0, 0, 1, 1, 1, 1]] * 2)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        with torch.no_grad():
            whole = model(IDS[:, 2:], use_cache=False).logits
            _, cache = hf.continued(model, IDS[:, :5], attention_mask=mask[:, :5], position_ids=positions[:, :5])
            hf.cut_cache(cache, 9)
            assert hf.cached_tokens(cache) == 5
            hf.cut_cache(cache, 3)
            assert hf.cached_tokens(cache) == 3
            got, _ = hf.continued(model, IDS[:, 3:], cache, attention_mask=mask, position_ids=positions[:, 3:])
        torch.testing.assert_close(got, whole[:, -1:], atol=1e-5, rtol=1e-5)

    def test_keys_and_values_at_positions_with_a_gap(self, model):
        """A gap begins no other text: the second token sees the first."""
        ids, positions = IDS[:1, :4], torch.tensor([-9, -8, -2, -1])
        with torch.inference_mode():
            got = hf.rotated_keys_values(model, ids, positions)
            _, cache = hf.continued(model, ids[:, :2])
            _, cache = hf.continued(model, ids[:, 2:], cache, position_ids=torch.tensor([[7, 8]]))
        assert len(got) == model.config.num_hidden_layers
        for (_, value), layer in zip(got, cache.layers, strict=True):
            torch.testing.assert_close(value, layer.values)
        key, _ = got[0]  # RoPE depends on the distance alone
        want = cache.layers[0].keys
        torch.testing.assert_close(key @ key.mT, want @ want.mT, rtol=1e-4, atol=1e-4)

    def test_last_logits(self, model):
        with torch.no_grad():
            whole, last = model(IDS, use_cache=False).logits, hf.last_logits(model, IDS, 3)
        torch.testing.assert_close(last, whole[:, -3:], atol=1e-5, rtol=1e-5)

    def test_caches_can_be_keys_of_a_weak_dictionary(self):
        """model/reading.py keeps by the cache what a router has seen."""
        import gc
        import weakref

        cache, seen = DynamicCache(), weakref.WeakKeyDictionary()
        seen[cache] = 1
        assert seen[cache] == 1 and DynamicCache() not in seen
        del cache
        gc.collect()
        assert len(seen) == 0


class TestAttention:
    def test_a_registered_function_gets_what_is_documented(self, model):
        seen = []

        def function(module, query, key, value, attention_mask, **kwargs):
            seen.append((query.shape, key.shape, value.shape, attention_mask, kwargs["hint"], kwargs["scaling"]))
            return hf.stock_attention(module, query, key, value, attention_mask, scaling=kwargs["scaling"]), None

        base = copy.deepcopy(model)
        hf.register_attention("awareness_test", function)
        hf.use_attention(model, "awareness_test")
        assert {hf.attention_name(layer) for layer in hf.decoder_layers(model)} == {"awareness_test"}
        with torch.no_grad():
            got = model(IDS, use_cache=False, hint="passed on").logits
            want = base(IDS, use_cache=False).logits
        assert seen == [((2, 6, 6, 8), (2, 2, 6, 8), (2, 2, 6, 8), None, "passed on", 8**-0.5)] * 6
        assert torch.equal(got, want)

    def test_names_of_stock_attention(self, model):
        for name in (hf.STOCK_ATTENTION, hf.PLAIN_ATTENTION):
            hf.use_attention(model, name)
            assert hf.attention_name(hf.decoder_layers(model)[0]) == name
            assert torch.isfinite(model(IDS, use_cache=False).logits).all()

    @pytest.mark.parametrize("masked", [False, True])
    def test_the_cpu_kernel_returns_the_log_sum_exp(self, masked):
        torch.manual_seed(0)
        query, key, value = torch.randn(2, 6, 5, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 8)
        bias = torch.zeros(2, 1, 5, 7).masked_fill(torch.rand(2, 1, 5, 7) < 0.3, -torch.inf) if masked else None
        output, lse = hf.flash_cpu(query, key, value, bias=bias, causal=False, scale=0.3)
        scores = query @ key.repeat_interleave(3, dim=1).mT * 0.3 + (0.0 if bias is None else bias)
        torch.testing.assert_close(lse, scores.logsumexp(-1))
        torch.testing.assert_close(output, scores.softmax(-1) @ value.repeat_interleave(3, dim=1))

    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("mixed", [torch.float32, torch.bfloat16])
    def test_queries_of_another_dtype_than_values(self, causal, mixed):
        """Under autocast RoPE gives float32, and the projection bfloat16 (and where K is cached, the other way)."""
        torch.manual_seed(0)
        query, key, value = torch.randn(2, 6, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
        low = [side.bfloat16() for side in (query, key, value)]
        want, want_lse = fused_cpu(*low, None, causal=causal, scale=0.3)
        got, lse = fused_cpu(query, key.to(mixed), low[2], None, causal=causal, scale=0.3)
        assert (got.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
        assert torch.equal(got, want) and torch.equal(lse, want_lse)
        got, _ = fused_cpu(low[0], low[1], value, None, causal=causal, scale=0.3)
        assert got.dtype == torch.float32
        bias = torch.zeros(2, 1, 1, 5)  # float32 beside bfloat16
        torch.testing.assert_close(
            fused_cpu(query, key, low[2], bias, causal=False, scale=0.3)[0],
            fused_cpu(*low, None, causal=False, scale=0.3)[0],
        )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_rotation_is_that_of_transformers_bitwise(self, dtype):
        torch.manual_seed(0)
        x, cos, sin = (torch.randn(*shape).to(dtype) for shape in ((2, 6, 5, 8), (1, 5, 8), (1, 5, 8)))
        want, _ = apply_rotary_pos_emb(x, x, cos, sin)
        assert torch.equal(hf.rotated(x, cos[:, None], sin[:, None]), want)

    def test_whether_the_cpu_multiplies_bf16_is_a_yes_or_a_no(self):
        assert isinstance(cpu_multiplies_bf16(), bool)


class TestLoadingAndGeneration:
    def test_quiet_transformers_restores_the_settings(self):
        logging = transformers.utils.logging
        before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
        with hf.quiet_transformers():
            assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.ERROR, False)
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before

    def test_greedy_by_default(self, model, tokenizer):
        model.generation_config.update(do_sample=True, temperature=9.0, top_k=50, top_p=0.9, pad_token_id=None)
        hf.greedy_by_default(model, tokenizer)
        texts = {tuple(model.generate(IDS, max_new_tokens=6)[0].tolist()) for _ in range(4)}
        assert len(texts) == 1 and hf.pad_token(model) == tokenizer.pad_token_id
        model.generation_config.pad_token_id = 7
        hf.greedy_by_default(model, tokenizer)
        assert hf.pad_token(model) == 7

    @pytest.mark.parametrize(("ends", "want"), [(258, {258}), ([5, 258], {5, 258})])
    def test_end_tokens(self, model, ends, want):
        model.generation_config.eos_token_id = ends
        assert hf.end_tokens(model) == want


class TestLora:
    def test_put_and_take_lora(self, model):
        layers = hf.decoder_layers(model)
        before = {id(hf.attention_parts(layer).query) for layer in layers}
        hf.put_lora(model, ["q_proj"], rank=2, alpha=4.0, dropout=0.0)
        names = [f"model.layers.{i}.self_attn.q_proj" for i in range(6)]
        assert list(hf.lora_layers(model)) == names
        assert {id(layer.base_layer) for layer in hf.lora_layers(model).values()} == before
        assert set(hf.lora_parameters(model)) == {f"{name}.lora_{side}.weight" for name in names for side in "AB"}
        hf.take_lora(model)
        assert {id(hf.attention_parts(layer).query) for layer in layers} == before
        assert hf.lora_layers(model) == {} and "peft_config" not in vars(model)

    def test_merge_adds_the_product(self, model):
        hf.put_lora(model, ["v_proj"], rank=2, alpha=4.0, dropout=0.0)
        layer = hf.lora_layers(model)["model.layers.1.self_attn.v_proj"]
        torch.manual_seed(0)
        low = {side: hf.lora_parameters(model)[f"model.layers.1.self_attn.v_proj.lora_{side}.weight"] for side in "AB"}
        with torch.no_grad():
            low["B"].normal_()
        want = layer.base_layer.weight + 4.0 / 2 * low["B"] @ low["A"]
        layer.merge()
        torch.testing.assert_close(layer.base_layer.weight, want)
