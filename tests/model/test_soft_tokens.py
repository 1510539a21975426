"""Soft tokens: around each chunk, part of its latent and of its spec, and the only trained part."""

from __future__ import annotations

import pytest
import torch

from awareness.errors import UsageError
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached, fuse
from awareness.model.prompts import encode
from awareness.model.quantisation import to_tensor
from awareness.model.soft_tokens import HEADER_TEXT, TRAILER_TEXT, SoftTokens
from awareness.types import KVEncoder
from tests.conftest import GEOMETRY, tiny_model

SINK = [257, 10, 20, 258]
TEXTS = ["x = 1\n", "def login(self):\n    return 7\n"]
HIDDEN = GEOMETRY["hidden_size"]


def drawn(num_header: int = 3, num_trailer: int = 2) -> SoftTokens:
    torch.manual_seed(7)
    soft = SoftTokens(num_header, num_trailer, HIDDEN)
    for tensor in soft.parameters():
        torch.nn.init.normal_(tensor)
    return soft


def encoder_of(model, tokenizer, soft=None, **options) -> SelfEncoder:
    return SelfEncoder(fuse(model), tokenizer, fingerprint="test", sink=SINK, soft=soft, **options)


def latents(encoder) -> list[bytes]:
    return [bytes(latent.data) for latent in encoder.encode(TEXTS)]


def by_hand(model, encoder, soft, text):
    """K before RoPE and V of the rows that the decoder is given one by one, [2, L, H_kv, T, D]."""
    found = {}
    kinds = ("k_norm" if hasattr(model.model.layers[0].self_attn, "k_norm") else "k_proj", "v_proj")
    for layer in encoder.spec.layers:
        for side, name in enumerate(kinds):
            module = model.model.layers[layer].self_attn.get_submodule(name)
            module.register_forward_hook(lambda m, a, out, at=(side, layer): found.__setitem__(at, out.detach()))
    ids = torch.tensor(encode(encoder.tokenizer, text))
    with torch.no_grad(), attached(model, encoder._sink_memory):
        words = model.model.embed_tokens(ids)
        model.model(inputs_embeds=torch.cat([soft.header, words, soft.trailer])[None], use_cache=False)
    heads = (encoder.spec.num_kv_heads, encoder.spec.head_dim)
    rows = [[found[side, layer][0].view(-1, *heads) for layer in encoder.spec.layers] for side in (0, 1)]
    return torch.stack([torch.stack(row) for row in rows]).transpose(2, 3)


@pytest.mark.parametrize("soft", [None, SoftTokens(0, 0, HIDDEN)])
def test_without_soft_tokens_there_are_none(model, tokenizer, soft):
    plain = encoder_of(model, tokenizer)
    encoder = encoder_of(model, tokenizer, soft)
    assert encoder.spec == plain.spec
    assert encoder.spec.encoder == "self"
    assert latents(encoder) == latents(plain)


@pytest.mark.parametrize(("num_header", "num_trailer"), [(3, 2), (0, 2), (3, 0)])
def test_a_latent_is_header_text_and_trailer(model, tokenizer, num_header, num_trailer):
    soft = drawn(num_header, num_trailer)
    encoder = encoder_of(model, tokenizer, soft)
    checked: KVEncoder = encoder
    for text, latent, kv in zip(TEXTS, checked.encode(TEXTS), encoder.keys_values(TEXTS), strict=True):
        tokens = num_header + len(text) + num_trailer  # a byte is a token
        assert latent.tokens == tokens == soft.tokens + len(text)
        assert kv.shape == encoder.spec.shape(tokens)
        # without gradients, and with: other kernels, so that one may round a bfloat16 up and the other down
        torch.testing.assert_close(to_tensor(latent, encoder.spec), kv.bfloat16(), atol=1e-3, rtol=2**-7)
        assert torch.allclose(kv, by_hand(model, encoder, soft, text), atol=1e-5)


def test_the_sink_has_no_soft_tokens(model, tokenizer):
    encoder, plain = encoder_of(model, tokenizer, drawn()), encoder_of(model, tokenizer)
    assert encoder.sink.tokens == len(SINK)
    assert bytes(encoder.sink.data) == bytes(plain.sink.data)


def test_soft_tokens_count_for_the_size_of_a_batch(tokenizer):
    model = tiny_model("llama")
    widths = []
    model.model.layers[0].register_forward_pre_hook(lambda m, args: widths.append(tuple(args[0].shape[:2])))
    encoder = encoder_of(model, tokenizer, drawn(), batch_tokens=45)
    widths.clear()
    assert [latent.tokens for latent in encoder.encode(["a" * 15, "b" * 15, "c"])] == [20, 20, 6]
    assert widths == [(2, 20), (1, 6)]


def test_encoding_keeps_nothing_for_gradients_and_runs_no_layer_above_the_last(tokenizer):
    model = tiny_model("llama")
    encoder = encoder_of(model, tokenizer, drawn(), layers=[1, 3])
    seen = []
    model.model.layers[3].register_forward_pre_hook(lambda *_: seen.append(torch.is_inference_mode_enabled()))
    model.model.layers[4].register_forward_pre_hook(lambda *_: pytest.fail("layer 4 was run"))
    assert len(latents(encoder)) == 2
    encoder.keys_values(TEXTS)
    assert seen == [True, False]


def test_encoding_is_causal(model, tokenizer):
    encoder = encoder_of(model, tokenizer, drawn())

    def changed(one, other):
        return [bool(moved > 1e-3) for moved in (one - other).abs().amax(dim=(0, 1, 2, 4))]

    with torch.no_grad():
        one, other = encoder.keys_values(["abcdef", "abcdeX"])
        assert changed(one, other) == [False] * 8 + [True] * 3  # 3 of the header and 5 letters; then the trailer too
        encoder.soft.header[0] += 1
        assert changed(one, encoder.keys_values(["abcdef"])[0]) == [True] * 11


def test_only_soft_tokens_learn_and_then_latents_and_their_name_change(model, tokenizer):
    model.requires_grad_(False)
    soft = drawn()
    encoder = encoder_of(model, tokenizer, soft)
    assert [name for name, p in soft.named_parameters() if p.requires_grad] == ["header", "trailer"]
    spec, before = encoder.spec, latents(encoder)
    optimizer = torch.optim.AdamW(soft.parameters(), lr=0.1, fused=True)  # changes tensors without a trace
    sum(kv.square().mean() for kv in encoder.keys_values(TEXTS)).backward()
    for vectors in (soft.header, soft.trailer):
        assert (vectors.grad.abs().sum(-1) > 0).all()
    assert all(p.grad is None for p in model.parameters())
    optimizer.step()
    assert all(a != b for a, b in zip(before, latents(encoder), strict=True))
    assert encoder.spec.encoder != spec.encoder
    assert encoder.spec.latent_key("chunk") != spec.latent_key("chunk")


def test_the_name_is_of_both_tensors_and_their_border(tokenizer):
    model = tiny_model("llama")
    soft, vectors = drawn(3, 2), torch.cat([drawn(3, 2).header, drawn(3, 2).trailer]).detach()
    shifted = SoftTokens(2, 3, HIDDEN)
    shifted.load_state_dict({"header": vectors[:2], "trailer": vectors[2:]})
    changed = drawn(3, 2)
    with torch.no_grad():
        changed.trailer[-1, -1] += 1e-3
    names = {encoder_of(model, tokenizer, s).spec.encoder for s in (soft, shifted, changed)}
    assert len(names) == 3
    assert all(name.startswith("self+soft:") and len(name) == 26 for name in names)


def test_saved_and_loaded_they_give_the_same_bytes(tokenizer):
    model, soft = tiny_model("qwen3"), drawn()
    loaded = SoftTokens(3, 2, HIDDEN)
    loaded.load_state_dict(soft.state_dict())
    one, other = encoder_of(model, tokenizer, soft), encoder_of(model, tokenizer, loaded)
    assert one.spec == other.spec
    assert latents(one) == latents(other)


def test_soft_tokens_start_as_words(model, tokenizer):
    for num_header, num_trailer in ((8, 8), (0, 3), (len(HEADER_TEXT) + 2, 0)):
        soft = SoftTokens.from_text(model, tokenizer, num_header, num_trailer)
        embed = model.get_input_embeddings().weight
        for vectors, text, count in ((soft.header, HEADER_TEXT, num_header), (soft.trailer, TRAILER_TEXT, num_trailer)):
            ids = (encode(tokenizer, text) * 2)[:count]
            assert torch.equal(vectors, embed[ids])
            assert vectors.requires_grad


def test_soft_tokens_work_in_the_dtype_of_the_decoder(tokenizer):
    encoder = encoder_of(tiny_model("llama").bfloat16(), tokenizer, drawn())
    assert {kv.dtype for kv in encoder.keys_values(TEXTS)} == {torch.bfloat16}
    assert encoder.soft.header.dtype == torch.float32


def test_storing_as_keeps_the_spec_name(tokenizer):
    encoder = encoder_of(tiny_model("llama"), tokenizer, drawn())
    other = encoder.storing_as("int8")
    assert (other.spec.quant, encoder.spec.quant) == ("int8", "none")
    assert other.spec.raw == encoder.spec
    assert next(other.encode(TEXTS)).tokens == next(encoder.encode(TEXTS)).tokens


def test_soft_tokens_of_another_decoder_are_refused(tokenizer):
    with pytest.raises(UsageError, match="soft tokens of 12 numbers in a decoder of hidden size 48"):
        encoder_of(tiny_model("llama"), tokenizer, SoftTokens(1, 1, 12))
